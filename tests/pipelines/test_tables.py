"""Tables keep their contract: constraints fire, merges are idempotent, newer versions are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from delta.exceptions import ConcurrentAppendException
from deltalake import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines.tables import BEING_MADE, VERSION_PROPERTY, RowsChanged, TableStore, spark_schema
from schemas.tables import DETECTIONS, METRICS, TABLES
from tests.small_lake import detections_row, rows


def metric(session: SparkSession, value: float, name: str = "ndcg") -> DataFrame:
    """One row of `metrics`."""
    return session.createDataFrame([("c", "m", name, "q", "x", value, None, None, 1)], spark_schema(METRICS))


def detection(session: SparkSession, score: float, x2: float, n: int) -> DataFrame:
    """One row of `detections` with one box."""
    box = ("d", 1, "car", score, 0.0, 0.0, x2, 1.0, None, None)
    row = detections_row(image_id="i", model_id="m", detections=[box], n_detections=n)
    frame = session.createDataFrame([row], spark_schema(DETECTIONS))
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


def test_an_append_of_new_keys_changes_nothing_when_it_is_repeated(
    session: SparkSession, tmp_path: Path
) -> None:
    store = TableStore(session, str(tmp_path))
    two = metric(session, 0.5, "a").unionByName(metric(session, 0.6, "b"))
    for frame in (metric(session, 0.5, "a"), two, two):
        store.append_new(METRICS, frame, only="cycle_id = 'c'", order=("metric",))
    assert [(row["metric"], row["value"]) for row in rows(store.root, "metrics")] == [("a", 0.5), ("b", 0.6)]


def test_appends_at_once_write_each_key_once(session: SparkSession, tmp_path: Path) -> None:
    """Every writer starts from the same version and takes its time, so that all but one meet a conflict."""
    store = TableStore(session, str(tmp_path))
    store.create(METRICS)
    names = [f"m{i}" for i in range(40)]
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            values = [("c", "m", name, "q", "x", float(seed), None, None, 1) for name in names]
            frame = session.createDataFrame(values, spark_schema(METRICS)).mapInArrow(
                slowly, spark_schema(METRICS)
            )
            store.append_new(METRICS, frame, only="cycle_id = 'c'", order=("metric",))
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert sorted(row["metric"] for row in rows(store.root, "metrics")) == sorted(names)


def test_what_was_made_from_rows_that_changed_since_is_not_written(
    session: SparkSession, tmp_path: Path
) -> None:
    store = TableStore(session, str(tmp_path))
    where = "metric = 'mine'"
    seen = store.seen(METRICS, f"NOT {where}")  # no table yet
    store.replace(METRICS, metric(session, 0.1, "mine"), where=where, seen=seen)
    store.replace(METRICS, metric(session, 0.2, "mine"), where=where, seen=seen)
    store.merge(METRICS, metric(session, 0.3, "theirs"))
    with pytest.raises(RowsChanged):
        store.replace(METRICS, metric(session, 0.4, "mine"), where=where, seen=seen)
    assert sorted(row["value"] for row in rows(store.root, "metrics")) == [0.2, 0.3]


def test_of_replacements_at_once_that_depend_on_each_other_one_is_made(
    session: SparkSession, tmp_path: Path
) -> None:
    """All have looked at the same rows, and all commits are under way before the first ends."""
    store = TableStore(session, str(tmp_path))
    store.create(METRICS)
    names = ["a", "b", "c"]
    seen = {name: store.seen(METRICS, f"metric <> '{name}'") for name in names}
    made: list[str] = []
    failures: list[BaseException] = []

    def write(name: str) -> None:
        row = metric(session, 0.5, name).mapInArrow(slowly, spark_schema(METRICS))
        try:
            store.replace(METRICS, row, where=f"metric = '{name}'", seen=seen[name])
            made.append(name)
        except RowsChanged:
            pass
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert len(made) == 1 and [row["metric"] for row in rows(store.root, "metrics")] == made


def slowly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows, a while later."""
    for batch in batches:
        time.sleep(0.3)
        yield batch


def test_a_conflict_is_tried_again_and_other_errors_are_not(session: SparkSession, tmp_path: Path) -> None:
    tries: list[int] = []

    def write() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConcurrentAppendException("somebody else was faster")

    TableStore._commit(write)
    assert len(tries) == 3

    def fail() -> None:
        tries.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        TableStore._commit(fail)
    assert len(tries) == 4


def test_a_table_that_another_job_is_making_is_waited_for(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta answers so now and then when two jobs make a table at once: a folder, and no log yet."""
    answers = iter([BEING_MADE, BEING_MADE])
    ask = session.sql

    def sql(query: str) -> DataFrame:
        for condition in answers:
            raise AnalysisException("not empty and also not a Delta table", errorClass=condition)
        return ask(query)

    store = TableStore(session, str(tmp_path))
    monkeypatch.setattr(session, "sql", sql)
    store.create(METRICS)
    assert store.exists(METRICS)

    answers = iter(["TABLE_OR_VIEW_NOT_FOUND", "this one would not be asked for"])
    with pytest.raises(AnalysisException, match="not a Delta table"):
        TableStore(session, str(tmp_path / "other")).create(METRICS)
    assert next(answers).startswith("this one")


def test_a_table_of_an_earlier_quarry_gains_the_new_columns(session: SparkSession, tmp_path: Path) -> None:
    store = TableStore(session, str(tmp_path))
    later = ("sequence_id", "frame_index", "image_feature", "image_ts", "image_hash", "pixel_scores")
    old = detection(session, 0.5, 1.0, 1).drop(*later)
    old = old.withColumn("detections", F.transform("detections", lambda box: box.dropFields("feature")))
    old.write.format("delta").partitionBy("model_id").save(store.path(DETECTIONS))
    new = detection(session, 0.75, 1.0, 1).withColumn("image_id", F.lit("j"))
    store.append_new(DETECTIONS, new, only="model_id = 'm'", order=("image_id",))
    found = {row["image_id"]: row for row in rows(store.root, "detections")}
    assert sorted(found) == ["i", "j"]
    assert found["i"]["detections"][0]["score"] == 0.5
    assert found["i"]["detections"][0]["feature"] is None and found["i"]["sequence_id"] is None
