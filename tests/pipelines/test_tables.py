"""Tables keep their contract: constraints fire, merges are idempotent, newer versions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines.tables import VERSION_PROPERTY, TableStore, spark_schema
from schemas.tables import DETECTIONS, METRICS, TABLES
from tests.small_lake import rows


def metric(session: SparkSession, value: float, name: str = "ndcg") -> DataFrame:
    """One row of `metrics`."""
    return session.createDataFrame([("c", "m", name, "q", "x", value, None, None, 1)], spark_schema(METRICS))


def detection(session: SparkSession, score: float, x2: float, n: int) -> DataFrame:
    """One row of `detections` with one box."""
    box = ("d", 1, "car", score, 0.0, 0.0, x2, 1.0, None)
    frame = session.createDataFrame(
        [("i", "m", "original", 9, 9, [box], n, None, "r", None)], spark_schema(DETECTIONS)
    )
    return frame.withColumn("ts", F.current_timestamp())


def test_every_table_is_made_with_comments_version_and_constraints(
    session: SparkSession, tmp_path: Path
) -> None:
    store = TableStore(session, str(tmp_path / "a root's `tables`"))
    for table in TABLES:
        store.create(table)
        store.create(table)
        made = DeltaTable(store.path(table))
        assert tuple(made.to_pyarrow_table().column_names) == table.column_names
        properties = made.metadata().configuration
        assert properties[VERSION_PROPERTY] == str(table.version)
        assert {f"delta.constraints.{name}" for name, _ in table.checks} <= set(properties)
        comments = {f.name: f.metadata.get("comment") for f in store.read(table).schema.fields}
        assert comments == {column.name: column.comment for column in table.columns}
    store.require_versions()


@pytest.mark.parametrize(
    ("score", "x2", "n", "constraint"),
    [
        (1.5, 1.0, 1, "scores_in_range"),
        (0.5, -1.0, 1, "corners_in_order"),
        (0.5, 1.0, 3, "n_detections_is_size"),
    ],
)
def test_constraints_refuse_what_no_detector_may_write(
    session: SparkSession, tmp_path: Path, score: float, x2: float, n: int, constraint: str
) -> None:
    store = TableStore(session, str(tmp_path))
    with pytest.raises(Exception, match=constraint):
        store.merge(DETECTIONS, detection(session, score, x2, n))
    assert rows(str(tmp_path), "detections") == []
    store.merge(DETECTIONS, detection(session, 0.5, 1.0, 1))
    assert len(rows(str(tmp_path), "detections")) == 1


def test_merge_updates_keeps_and_heeds_what_changed(session: SparkSession, tmp_path: Path) -> None:
    store = TableStore(session, str(tmp_path))
    store.merge(METRICS, metric(session, 0.1))
    store.merge(METRICS, metric(session, 0.2), on_match="keep")
    assert [row["value"] for row in rows(str(tmp_path), "metrics")] == [0.1]
    store.merge(METRICS, metric(session, 0.2), changed="t.value > s.value")
    assert [row["value"] for row in rows(str(tmp_path), "metrics")] == [0.1]
    store.merge(METRICS, metric(session, 0.2).unionByName(metric(session, 0.3, "mauc")))
    assert sorted(row["value"] for row in rows(str(tmp_path), "metrics")) == [0.2, 0.3]


def test_replace_touches_only_the_rows_it_names(session: SparkSession, tmp_path: Path) -> None:
    store = TableStore(session, str(tmp_path))
    store.merge(METRICS, metric(session, 0.1).unionByName(metric(session, 0.3, "mauc")))
    for _ in range(2):
        store.replace(METRICS, metric(session, 0.9), where="metric = 'ndcg'")
        assert sorted(row["value"] for row in rows(str(tmp_path), "metrics")) == [0.3, 0.9]


def test_a_missing_table_names_the_job_that_makes_it(session: SparkSession, tmp_path: Path) -> None:
    store = TableStore(session, str(tmp_path))
    assert store.read(METRICS).columns == list(METRICS.column_names)
    with pytest.raises(QuarryError, match="run `quarry evaluate --root"):
        store.require(METRICS, made_by="evaluate")


def test_a_newer_table_is_refused(session: SparkSession, tmp_path: Path) -> None:
    store = TableStore(session, str(tmp_path))
    store.create(METRICS)
    session.sql(f"ALTER TABLE delta.`{store.path(METRICS)}` SET TBLPROPERTIES ('{VERSION_PROPERTY}' = '2')")
    with pytest.raises(QuarryError, match="schema version 2, this Quarry reads up to 1"):
        store.require_versions()
