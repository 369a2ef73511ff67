"""The selection pass on one Arrow table of candidates: picks, near misses, and a summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.near_duplicates import Looks, NearDuplicateRule, nearest_likenesses
from udfs.selection_pass import selection
from udfs.selection_rules import Candidates, SelectionRules

SELECTION_SCHEMA = pa.schema(
    [
        ("picked", pa.bool_()),
        ("rank", pa.int32()),
        ("image_id", pa.string()),
        ("detection_id", pa.string()),
        ("score", pa.float64()),
        ("cost_s", pa.float64()),
        ("cost_money", pa.float64()),
        ("part", pa.string()),
        ("reason", pa.string()),
        ("dry_parts", pa.list_(pa.int32())),
        ("dry_groups", pa.list_(pa.string())),
        ("missing", pa.map_(pa.string(), pa.int32())),
    ]
)
LIKENESS_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("distance", pa.float64()), ("known_id", pa.string()), ("text", pa.string())]
)
_SORT_KEYS = [
    ("part", "ascending"),
    ("extra", "ascending"),
    ("merit", "descending"),
    ("score", "descending"),
    ("tie", "ascending"),
]


def selection_rows(table: pa.Table, rules: SelectionRules, near_misses: int) -> pa.Table:
    """Rows of SELECTION_SCHEMA: the picks by rank, then as many near misses as asked for, then the summary.

    Args:
        table: Columns part (index into `rules.components`), merit (larger first), score, tie (of equal merits
            and scores the smallest first), image_id, detection_id, group, image_hash, feature, cost, cost_s,
            cost_money, barred (why an earlier rule keeps it out, else null) and extra (for the minimum of its
            group only); in any order.
        rules: Budget, components, quotas, near-duplicates.
        near_misses: Rows of candidates that were passed over, and of the next ones in line.

    Returns:
        Picks and near misses, with nulls in the last three columns; and one row where only these are set:
        parts and groups that ran out of candidates, and how many picks groups are short of their minimum.
    """
    rows = table.sort_by(_SORT_KEYS)
    result = selection(_candidates(rows), rules, near_misses)
    chosen = pa.array([*result.rows.tolist(), *(miss.row for miss in result.near_misses)], pa.int64())
    taken = rows.take(chosen)
    n_picked, n_missed = len(result.rows), len(result.near_misses)
    columns: dict[str, Any] = {
        "picked": [True] * n_picked + [False] * n_missed,
        "rank": [*range(1, n_picked + 1), *range(1, n_missed + 1)],
        "part": [rules.components[part].name for part in taken["part"].to_pylist()],
        "reason": [*result.reasons, *(miss.reason for miss in result.near_misses)],
    }
    arrays = [
        pa.array(columns[f.name], f.type)
        if f.name in columns
        else taken[f.name].combine_chunks().cast(f.type)
        if f.name in taken.column_names
        else pa.nulls(len(chosen), f.type)
        for f in SELECTION_SCHEMA
    ]
    summary = {
        "dry_parts": list(result.dry_components),
        "dry_groups": list(result.dry_groups),
        "missing": list(result.missing.items()),
    }
    last = pa.Table.from_pylist([summary], schema=SELECTION_SCHEMA)
    return pa.concat_tables([pa.Table.from_arrays(arrays, schema=SELECTION_SCHEMA), last])


def likeness_rows(candidates: pa.Table, known: pa.Table, rule: NearDuplicateRule) -> pa.Table:
    """Rows of LIKENESS_SCHEMA: each candidate that is a near-duplicate of a known picture, with the nearest.

    Args:
        candidates: Columns image_id, detection_id (null), image_hash, feature.
        known: The same of pictures labeled or sent.
        rule: When pictures are near-duplicates.
    """
    known = known.sort_by("image_id")
    found = list(nearest_likenesses(_looks(candidates), _looks(known), rule))
    image_ids = candidates["image_id"].to_pylist()
    rows = [
        {"image_id": image_ids[row], "distance": distance, "known_id": like.image_id, "text": like.reason}
        for row, distance, like in found
    ]
    return pa.Table.from_pylist(rows, schema=LIKENESS_SCHEMA)


def _candidates(rows: pa.Table) -> Candidates:
    return Candidates(
        looks=_looks(rows),
        component=rows["part"].to_numpy().astype(np.int64),
        values=rows["score"].to_numpy().astype(np.float64),
        costs=rows["cost"].to_numpy().astype(np.float64),
        groups=np.array(rows["group"].to_pylist(), object),
        barred=np.array(rows["barred"].to_pylist(), object),
        extra=rows["extra"].to_numpy().astype(bool),
    )


def _looks(rows: pa.Table) -> Looks:
    hashes = rows["image_hash"]
    units = pc.coalesce(rows["detection_id"], rows["image_id"])
    return Looks(
        image_ids=np.array(units.to_pylist(), object),
        hashes=pc.fill_null(hashes, 0).to_numpy().astype(np.int64).view(np.uint64),
        has_hash=pc.is_valid(hashes).to_numpy(),
        features=_features(rows["feature"]),
    )


def _features(column: pa.ChunkedArray) -> NDArray[np.float32] | None:
    """(n, d), NaN where a row has none; none where no row has any."""
    vectors = column.combine_chunks()
    width = pc.max(pc.list_value_length(vectors)).as_py()
    if not width:
        return None
    features = np.full((len(vectors), width), np.nan, np.float32)
    present = pc.is_valid(vectors).to_numpy(zero_copy_only=False)
    features[present] = pc.list_flatten(vectors).to_numpy().reshape(-1, width)
    return features
