"""Calculations on one table as Spark's `applyInArrow` takes them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa


def one_table(calculation: Callable[[pa.Table], pa.Table]) -> Callable[[pa.Table], pa.Table]:
    """The calculation as `applyInArrow` takes it."""

    # Spark counts the arguments and reads the annotations of the function it is given: a partial has others.
    def group(table: pa.Table) -> pa.Table:
        return calculation(table)

    return group
