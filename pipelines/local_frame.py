"""Frames of a few rows that the driver holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType


def local_frame(
    session: SparkSession, rows: Sequence[tuple[Any, ...] | dict[str, Any]], schema: StructType | str
) -> DataFrame:
    """The rows as a part of the plan.

    `createDataFrame` of a list makes tasks that Python workers serve, for each use of the frame; these rows
    are handed over once, and Spark plans with them: a join with no rows, say, is not done.

    Args:
        session: The session.
        rows: Tuples in the order of the schema, or dictionaries; a missing value is null. No times in lists.
        schema: Of the rows, as a type or as DDL.
    """
    spark_schema = cast(StructType, StructType.fromDDL(schema)) if isinstance(schema, str) else schema
    arrow_schema = to_arrow_schema(spark_schema)
    columns = {
        field.name: pa.array(
            [_moment(row.get(field.name) if isinstance(row, dict) else row[place]) for row in rows],
            type=field.type,
        )
        for place, field in enumerate(arrow_schema)
    }
    return session.createDataFrame(pa.table(columns, schema=arrow_schema), spark_schema)


def _moment(value: Any) -> Any:
    """A time as Spark hands it out, in this machine's zone and not saying so, as the moment it means."""
    return value.astimezone() if isinstance(value, datetime) and value.tzinfo is None else value
