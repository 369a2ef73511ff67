"""What enters quarantine, what leaves it, and which findings go with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.quarantine import IMPORT_STAGE, quarantined, record_outcomes, settle, unreached
from pipelines.run import Run
from pipelines.tables import TableStore, spark_schema
from schemas.tables import DETECTIONS
from tests.small_lake import detections_row, rows

OUTCOME = "image_id STRING, uri STRING, model_id STRING, error_class STRING, message STRING"


@pytest.fixture
def store(session: SparkSession, tmp_path: Path) -> TableStore:
    """An empty root."""
    return TableStore(session, str(tmp_path))


def outcomes(store: TableStore, model: str | None, **faults: str | None) -> DataFrame:
    """One row an image: its fault, or none."""
    values = [(image, f"/{image}", model, fault, fault and "why") for image, fault in faults.items()]
    return store.session.createDataFrame(values, OUTCOME)


def at(store: TableStore, second: int) -> Run:
    """A run that started then."""
    return Run(store=store, started_s=1.7e9 + second)


def detect(store: TableStore, second: int, model: str, *images: str) -> None:
    """Rows of `detections` without boxes."""
    values = [detections_row(image_id=i, model_id=model) for i in images]
    frame = store.session.createDataFrame(values, spark_schema(DETECTIONS))
    store.merge(DETECTIONS, frame.withColumn("ts", F.timestamp_seconds(F.lit(1.7e9 + second))))


def detected(store: TableStore) -> set[tuple[str, str]]:
    """Images and models of `detections`."""
    return {(row["image_id"], row["model_id"]) for row in rows(store.root, "detections")}


def inside(store: TableStore) -> set[tuple[str, str | None, str]]:
    """Image, model and fault of what is in quarantine now."""
    table = rows(store.root, "quarantine")
    return {(r["image_id"], r["model_id"], r["error_class"]) for r in table if not r["resolved"]}


def test_a_broken_file_takes_all_findings_with_it_and_a_store_that_is_away_takes_none(
    store: TableStore,
) -> None:
    detect(store, 1, "a", "torn", "away", "fine")
    detect(store, 1, "b", "torn", "away")
    record_outcomes(
        outcomes(store, "b", torn="truncated", away="unreachable", fine=None), "detect", at(store, 2)
    )
    settle(at(store, 3))
    assert detected(store) == {("away", "a"), ("away", "b"), ("fine", "a")}
    assert inside(store) == {("torn", None, "truncated"), ("away", None, "unreachable")}
    assert {row.image_id for row in unreached(at(store, 3)).collect()} == {"away"}


def test_what_one_model_cannot_use_is_nothing_to_another(store: TableStore) -> None:
    detect(store, 1, "a", "thin")
    detect(store, 1, "b", "thin")
    record_outcomes(outcomes(store, "b", thin="undetectable"), "detect", at(store, 2))
    settle(at(store, 3))
    assert detected(store) == {("thin", "a")}
    assert quarantined(at(store, 3), "a").isEmpty()
    assert not quarantined(at(store, 3), "b").isEmpty()
    # Success of a does not clear b of its fault, its own success does.
    record_outcomes(outcomes(store, "a", thin=None), "detect", at(store, 4))
    assert inside(store) == {("thin", "b", "undetectable")}
    record_outcomes(outcomes(store, "b", thin=None), "detect", at(store, 5))
    assert inside(store) == set()


def test_one_bad_view_is_a_fault_of_the_image(store: TableStore) -> None:
    detect(store, 2, "a", "odd")
    both = outcomes(store, "a", odd=None).unionByName(outcomes(store, "a", odd="undetectable"))
    record_outcomes(both, "detect", at(store, 2))
    settle(at(store, 2))
    assert inside(store) == {("odd", "a", "undetectable")} and detected(store) == set()


def test_a_run_that_died_between_its_commits_is_made_up_for(store: TableStore) -> None:
    """Detections were committed, and the rows that say that the images are cured were not."""
    faults = outcomes(store, "a", torn="truncated", away="missing", worse="unreadable")
    record_outcomes(faults, "detect", at(store, 1))
    detect(store, 2, "a", "torn", "away")
    settle(at(store, 3), "b")
    assert len(inside(store)) == 3
    settle(at(store, 4), "a")
    assert inside(store) == {("worse", None, "unreadable")}
    assert detected(store) == {("torn", "a"), ("away", "a")}


def test_an_import_and_a_file_do_not_answer_for_each_other(store: TableStore) -> None:
    record_outcomes(outcomes(store, "mine", x="bad_detections"), IMPORT_STAGE, at(store, 1))
    record_outcomes(outcomes(store, None, x="not_an_image"), "ingest", at(store, 1))
    assert inside(store) == {("x", "mine", "bad_detections"), ("x", None, "not_an_image")}
    record_outcomes(outcomes(store, "other", x=None), IMPORT_STAGE, at(store, 2))
    assert len(inside(store)) == 2
    record_outcomes(outcomes(store, "mine", x=None), IMPORT_STAGE, at(store, 3))
    assert inside(store) == {("x", None, "not_an_image")}
    record_outcomes(outcomes(store, None, x=None), "ingest", at(store, 4))
    assert inside(store) == set()


def test_tries_are_counted(store: TableStore) -> None:
    for second in (1, 2, 3):
        record_outcomes(outcomes(store, "a", x="missing"), "detect", at(store, second))
    (row,) = rows(store.root, "quarantine", volatile=True)
    assert row["attempts"] == 3 and (row["last_ts"] - row["first_ts"]).total_seconds() == 2
