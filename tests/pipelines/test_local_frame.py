"""Rows of the driver become a frame as `createDataFrame` makes it, without tasks of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
from pyspark.sql import SparkSession

from pipelines.local_frame import local_frame
from pipelines.tables import spark_schema
from schemas.tables import MODELS, TABLES


@pytest.fixture
def _clock_of_paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_rows_of_any_table_are_known_to_be_none(session: SparkSession, table: object) -> None:
    schema = spark_schema(table)  # type: ignore[arg-type]
    frame = local_frame(session, [], schema)
    assert frame.schema == schema and frame.collect() == []
    joined = frame.select(frame.columns[0]).join(session.range(3))
    assert "LocalRelation <empty>" in joined._jdf.queryExecution().optimizedPlan().toString()


@pytest.mark.usefixtures("_clock_of_paris")
def test_rows_are_those_of_create_data_frame(session: SparkSession) -> None:
    noon = datetime(2026, 7, 1, 12)
    rows = [
        {"model_id": "a", "classes": {1: "cat", 2: "dog"}, "created_ts": noon},
        {"model_id": "b", "name": "ü", "created_ts": noon.replace(tzinfo=timezone.utc)},
    ]
    schema = spark_schema(MODELS)
    found = local_frame(session, rows, schema).collect()
    assert found == session.createDataFrame(rows, schema).collect()
    assert found[0].created_ts == noon != found[1].created_ts


def test_rows_in_the_order_of_the_schema(session: SparkSession) -> None:
    found = local_frame(session, [("a", None), ("b", 2)], "name STRING, n BIGINT").collect()
    assert [(row.name, row.n) for row in found] == [("a", None), ("b", 2)]
    again = local_frame(session, found, "name STRING, n BIGINT")
    assert again.collect() == found
