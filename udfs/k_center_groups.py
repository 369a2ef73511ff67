"""Greedy k-center on one group of points in an Arrow table: what Spark's applyInArrow runs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import QuarryError
from udfs.boxes import IntArray
from udfs.center_screen import Features
from udfs.k_center import LARGEST_FEATURE, greedy_k_center, unusable_row

PICKS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("feature", pa.list_(pa.float32())),
        pa.field("tie", pa.int64()),
        pa.field("rank", pa.int32()),
        pa.field("distance", pa.float64()),
        pa.field("group_radius", pa.float64()),
    ]
)
RADIUS_SCHEMA = pa.schema([pa.field("radius", pa.float64())])


def group_picks(points: pa.Table, seeds: pa.Table, k: int, *, device: str = "cpu") -> pa.Table:
    """The picks of one group, the rows sorted by tie and id first.

    Memory beside the tables: one copy of the features, see `greedy_k_center`.

    Args:
        points: Columns id STRING, feature (lists of d floats), tie BIGINT (a hash); none null.
        seeds: Columns id, feature: centers there already; may be empty.
        k: Picks; a smaller group is taken whole.
        device: As for `greedy_k_center`.

    Returns:
        `PICKS_SCHEMA`: ranks from 1, distance to the nearest center before (null for the first where there
        was none), and the group's radius in every row. No rows for an empty group.

    Raises:
        QuarryError: A feature holds NaN or a value too large; the message has its id.
    """
    if points.num_rows == 0:
        return PICKS_SCHEMA.empty_table()
    order = pc.sort_indices(points, [("tie", "ascending"), ("id", "ascending")]).to_numpy()
    found = greedy_k_center(
        feature_matrix(points, order),
        min(k, points.num_rows),
        feature_matrix(seeds) if len(seeds) else None,
        device=device,
    )
    picked = points.select(["id", "feature", "tie"]).take(pa.array(order[found.order]))
    n = len(found.order)
    return (
        picked.append_column("rank", pa.array(np.arange(1, n + 1, dtype=np.int32)))
        .append_column("distance", pa.array(found.distances, mask=np.isinf(found.distances)))
        .append_column("group_radius", pa.array(np.full(n, found.radius)))
        .cast(PICKS_SCHEMA)
    )


def group_radius(points: pa.Table, centers: pa.Table, *, device: str = "cpu") -> pa.Table:
    """The largest distance of a group's points to their nearest center: one row, none for an empty group.

    Args:
        points: Columns id, feature.
        centers: Columns id, feature; at least one row.
        device: As for `greedy_k_center`.

    Raises:
        QuarryError: As for `group_picks`.
    """
    if points.num_rows == 0:
        return RADIUS_SCHEMA.empty_table()
    found = greedy_k_center(feature_matrix(points), 0, feature_matrix(centers), device=device)
    return pa.table({"radius": [found.radius]}, schema=RADIUS_SCHEMA)


def feature_matrix(table: pa.Table, order: IntArray | None = None) -> Features:
    """The column feature as (n, d) float32, filled chunk by chunk so that it is copied once.

    Args:
        table: Columns id, feature; n >= 1.
        order: (n,) rows in the order wanted; none: as they are.

    Raises:
        QuarryError: A feature holds NaN or a value too large, or is not as wide as the first.
    """
    column, n = table.column("feature"), table.num_rows
    place = np.arange(n)
    if order is not None:
        place[order] = np.arange(n)
    widths = pc.list_value_length(column)
    d = widths[0].as_py()
    if pc.min(widths).as_py() != pc.max(widths).as_py():
        odd = pc.index(pc.not_equal(widths, d), True).as_py()
        raise QuarryError(
            f"k-center: the feature of {table.column('id')[odd]} has {widths[odd]} values, others {d}: all "
            "must come from one model"
        )
    features = np.empty((n, d), np.float32)
    start = 0
    for chunk in column.chunks:
        values = chunk.flatten().to_numpy(zero_copy_only=False)
        features[place[start : start + len(chunk)]] = values.reshape(len(chunk), d)
        start += len(chunk)
    row = unusable_row(features)
    if row is not None:
        at = int(np.flatnonzero(place == row)[0])
        raise QuarryError(
            f"k-center: the feature of {table.column('id')[at]} has a value that is null, NaN or not below "
            f"{LARGEST_FEATURE:g} in magnitude: leave it out or detect its image again"
        )
    return features
