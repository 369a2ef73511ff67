"""Whether every row has what a comparison needs, in one pass over the rows."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F


def feature_width() -> Column:
    """Values of the column feature, 0 where there is none."""
    return F.coalesce(F.size("feature"), F.lit(0))


def presence(rows: DataFrame, key: str, *, missing: Column, width: Column) -> Row:
    """What is there, as one row: n, n_missing, example (the least key of those), least and most width.

    Args:
        rows: Any rows.
        key: Column that names a row.
        missing: Whether a row lacks what is compared.
        width: Values it has.
    """
    without = F.when(missing, F.col(key))
    found = rows.agg(
        F.count("*").alias("n"),
        F.count(without).alias("n_missing"),
        F.min(without).alias("example"),
        F.min(width).alias("least"),
        F.max(width).alias("most"),
    ).first()
    assert found is not None
    return found
