"""The selection pass on one Arrow table of candidates: picks and near misses, each with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from udfs.near_duplicates import Looks
from udfs.selection_pass import ROUNDING, selection
from udfs.selection_rules import Candidates, Selection, SelectionRules

# A row of this part is no candidate but a labeled or sent picture.
KNOWN = -1
BUDGET_SPENT = "the budget was spent before its turn"
PICKED_ELSEWHERE = "another part of the mixture picked it"
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
        ("ran_dry", pa.bool_()),
    ]
)


def selection_rows(table: pa.Table, rules: SelectionRules, near_misses: int) -> pa.Table:
    """Rows of SELECTION_SCHEMA: the picks by rank, then as many near misses as asked for, best placed first.

    Args:
        table: Columns part (KNOWN for pictures not to be duplicated), merit (larger first), tie (of equal
            merits the smallest first), image_id, detection_id, score, group, image_hash, feature, cost,
            cost_s, cost_money; in any order.
        rules: Budget, components, quotas, near-duplicates.
        near_misses: Rows of candidates that were passed over, and of the next ones in line.
    """
    rows = table.filter(pc.not_equal(table["part"], KNOWN))
    rows = rows.sort_by([("part", "ascending"), ("merit", "descending"), ("tie", "ascending")])
    known = _looks(table.filter(pc.equal(table["part"], KNOWN)))
    candidates = _candidates(rows)
    result = selection(candidates, rules, known)
    missed = _missed(result, candidates, rules, near_misses)
    chosen = pa.array([*result.rows.tolist(), *(row for row, _ in missed)], pa.int64())
    taken = rows.take(chosen)
    n_picked, n_missed = len(result.rows), len(missed)
    columns: dict[str, Any] = {
        "picked": [True] * n_picked + [False] * n_missed,
        "rank": [*range(1, n_picked + 1), *range(1, n_missed + 1)],
        "part": [rules.components[part].name for part in taken["part"].to_pylist()],
        "reason": [*result.reasons, *(reason for _, reason in missed)],
        "ran_dry": [_ran_dry(result, candidates, rules)] * len(chosen),
    }
    arrays = [
        pa.array(columns[f.name], f.type)
        if f.name in columns
        else taken[f.name].combine_chunks().cast(f.type)
        for f in SELECTION_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SELECTION_SCHEMA)


def _ran_dry(result: Selection, candidates: Candidates, rules: SelectionRules) -> bool:
    """Whether a component got less than its share because it had no more candidates."""
    cheapest = candidates.costs.min(initial=np.inf)
    due = rules.budget / sum(component.share for component in rules.components)
    return any(
        candidates.costs[result.rows[result.component == index]].sum() + cheapest
        <= component.share * due * (1.0 - ROUNDING)
        for index, component in enumerate(rules.components)
    )


def _missed(
    result: Selection, candidates: Candidates, rules: SelectionRules, most: int
) -> list[tuple[int, str]]:
    """Who was passed over and who came next, the best placed first, with the reason."""
    if not most:
        return []
    place = np.arange(len(candidates)) - np.searchsorted(candidates.component, candidates.component) + 1
    reasons = {rejection.row: rejection.reason for rejection in result.rejected}
    picked = set(result.rows.tolist())
    units = set(candidates.looks.image_ids[result.rows].tolist())
    for row in range(len(candidates)):
        if row not in picked and row not in reasons:
            is_elsewhere = candidates.looks.image_ids[row] in units
            reasons[row] = PICKED_ELSEWHERE if is_elsewhere else BUDGET_SPENT
    order = sorted(reasons, key=lambda row: (int(place[row]), row))[:most]
    names = [component.ranked_by for component in rules.components]
    return [
        (
            row,
            f"rank {place[row]} of {names[candidates.component[row]]}, {candidates.values[row]:.6g}: "
            f"{reasons[row]}",
        )
        for row in order
    ]


def _candidates(rows: pa.Table) -> Candidates:
    return Candidates(
        looks=_looks(rows),
        component=rows["part"].to_numpy().astype(np.int64),
        values=rows["score"].to_numpy().astype(np.float64),
        costs=rows["cost"].to_numpy().astype(np.float64),
        groups=np.array(rows["group"].to_pylist(), object),
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
