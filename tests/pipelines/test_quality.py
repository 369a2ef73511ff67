"""Every expectation fires on rows that break it, none on sound ones, and a failure stops a cycle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.settings import QualitySettings, Settings
from jobs.check import JOB as CHECK
from pipelines.cycle import STAGES, run_cycle
from pipelines.quality import Finding, found, judge, judged_rows, judged_stages
from pipelines.quality_drift import drift_rows
from pipelines.quality_rows import Gate
from pipelines.run import Run
from pipelines.tables import TableStore, spark_schema
from schemas.expectation import KEYS_UNIQUE, Expectation, Suite
from schemas.expectations import SUITES
from schemas.tables import CYCLES, DETECTIONS, LABEL_REJECTS, MODELS, QUARANTINE
from tests.pipelines.quality_samples import EARLIER, NOW, SAMPLES, mark_of
from tests.small_lake import CYCLE, SMALL_LAKE, detections_row, rows

EXPECTATIONS = [(suite, expectation) for suite in SUITES for expectation in suite.expectations]


@pytest.fixture(scope="module")
def findings(session: SparkSession) -> dict[tuple[str, str], Finding]:
    """What all suites come to on their samples, in one gate."""
    # Compiling hundreds of columns for a few rows each takes longer than to interpret them.
    interpreted = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
    before = {name: session.conf.get(name) for name in interpreted}
    for name, value in interpreted.items():
        session.conf.set(name, value)
    judged = {}
    for suite in SUITES:
        sample = SAMPLES[suite.name]
        frame = session.createDataFrame(list(sample.rows()), sample.schema)
        judged[suite] = judged_rows(frame, suite).localCheckpoint()
    listed = found(judged, QualitySettings())
    # Not `unset`, which would forget what the session was started with.
    for name, value in before.items():
        session.conf.set(name, value)
    return {(s.name, e.name): finding for (s, e), finding in zip(EXPECTATIONS, listed, strict=True)}


@pytest.mark.parametrize(
    ("suite", "expectation"), EXPECTATIONS, ids=[f"{s.name}-{e.name}" for s, e in EXPECTATIONS]
)
def test_an_expectation_fires_on_rows_that_break_it_and_on_no_other(
    findings: Mapping[tuple[str, str], Finding], suite: Suite, expectation: Expectation
) -> None:
    finding, sample = findings[suite.name, expectation.name], SAMPLES[suite.name]
    assert not finding.passed
    assert (finding.stage, finding.table_name) == (suite.stage, suite.table)
    assert finding.severity == ("warning" if expectation.drift else "critical")
    if expectation is KEYS_UNIQUE:
        assert finding.n_unexpected == 1 and "copies=2" in finding.examples[0]
        assert f"{sample.mark}=twice" in finding.examples[0]
        return
    ways = sample.broken[expectation.name]
    named = [way.get(sample.mark, mark_of(expectation.name, n)) for n, way in enumerate(ways)]
    marks = {f"{sample.mark}={'null' if name is None else name}" for name in named}
    assert finding.n_unexpected == len(ways) == len(finding.examples)
    assert {next(p for p in e.split(", ") if p in marks) for e in finding.examples} == marks


def test_suites_and_samples_belong_together() -> None:
    assert [suite.name for suite in SUITES] == list(SAMPLES)
    assert {suite.stage for suite in SUITES} <= {stage.name for stage in STAGES}
    keys = [(suite.stage, suite.table, e.name) for suite, e in EXPECTATIONS]
    assert len(set(keys)) == len(keys)
    for suite in SUITES:
        assert {e.name for e in suite.expectations} == set(SAMPLES[suite.name].broken)


def test_no_more_than_twenty_failing_rows_are_named(session: SparkSession) -> None:
    suite = next(suite for suite in SUITES if suite.name == "tasks")
    frame = session.range(30).selectExpr(
        "cast(id AS STRING) strategy", "'v' vendor", "1 n_tasks", "2 n_wanted", "0 n_other"
    )
    (finding,) = found({suite: judged_rows(frame, suite)}, QualitySettings())
    assert (finding.n_unexpected, len(finding.examples)) == (30, 20)
    assert finding.observed == "30 of 30 rows"


def test_a_sound_cycle_passes_every_gate(finished: tuple[Run, Settings]) -> None:
    kept = rows(finished[0].store.root, "quality")
    assert [row for row in kept if not row["passed"]] == []
    names = {(row["stage"], row["table_name"], row["expectation"]) for row in kept}
    without_drift = [(s, e) for s, e in EXPECTATIONS if not e.drift]
    assert names == {(s.stage, s.table, e.name) for s, e in without_drift}
    observed = {(row["table_name"], row["expectation"]): row["observed"] for row in kept}
    assert observed["images", "detected_or_quarantined"] == f"0 of {SMALL_LAKE.images} rows"
    assert observed["acquisition", "within_budget"] == "10"


@pytest.fixture
def mine(finished: tuple[Run, Settings], tmp_path: Path) -> Gate:
    """The finished cycle under a root of its own."""
    run, settings = finished
    shutil.copytree(run.store.root, tmp_path / "tables")
    own = Run(store=TableStore(run.store.session, str(tmp_path / "tables")))
    model_id = rows(run.store.root, "models")[0]["model_id"]
    return Gate(run=own, cycle_id=CYCLE, model_id=model_id, settings=settings)


def _table(gate: Gate, name: str) -> DeltaTable:
    return DeltaTable(f"{gate.run.store.root}/{name}")


def _failing(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.expectation: finding for finding in findings if not finding.passed}


def test_rows_that_go_missing_are_named(mine: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    root = mine.run.store.root
    lost, unscored = sorted(row["image_id"] for row in rows(root, "detections"))[:2]
    _table(mine, "detections").delete(f"image_id = '{lost}'")
    _table(mine, "hardness").delete(f"image_id = '{unscored}' AND query = 'total_fn' AND method = 'exact'")
    _table(mine, "acquisition").delete("strategy = 'random' AND rank = 3")
    detect = _failing(judge(mine, "detect"))
    assert detect.keys() == {"detected_or_quarantined"}
    assert detect["detected_or_quarantined"].examples == (
        f"image_id={lost}, n_views=0, is_quarantined=false",
    )
    (scored,) = _failing(judge(mine, "score")).values()
    assert scored.examples == (f"image_id={unscored}, missing=[total_fn]",)
    dear = mine.settings.acquire.model_copy(update={"budget": 9.0})
    poorer = Gate(
        run=mine.run,
        cycle_id=CYCLE,
        model_id=mine.model_id,
        settings=mine.settings.model_copy(update={"acquire": dear}),
    )
    acquired = _failing(judge(poorer, "acquire"))
    assert acquired.keys() <= {"ranks_contiguous", "within_budget", "picks_detected"}
    assert acquired["ranks_contiguous"].examples == (
        "strategy=random, unit=image, first_rank=1, last_rank=10, n_ranks=9, spent=9, budget=9.0",
    )
    assert [e.split(", ")[0] for e in acquired["within_budget"].examples] == [
        "strategy=hardest:pixel_adj_false"
    ]
    exported = _failing(judge(mine, "export_manifest"))
    assert exported["tasks_match_acquisition"].examples == tuple(
        f"strategy=random, vendor={vendor}, n_tasks=10, n_wanted=9, n_other=1"
        for vendor in ("coco", "label_studio")
    )

    images = _table(mine, "images").to_pyarrow_table()
    newcomer = images.slice(0, 1).to_pylist()[0]
    newcomer |= {"image_id": "new.jpg", "ingest_ts": newcomer["ingest_ts"] + timedelta(seconds=1)}
    newcomers = type(images).from_pylist([newcomer], schema=images.schema)
    write_deltalake(f"{root}/images", newcomers, mode="append")
    missed = _failing(judge(mine, "detect")).values()
    assert "image_id=new.jpg" in str([finding.examples for finding in missed])
    capsys.readouterr()
    assert CHECK.main(["--root", root, "--cycle", CYCLE]) == 2
    told = capsys.readouterr()
    assert "new.jpg" not in told.out, "it came after the cycle began"
    assert f"image_id={lost}" in told.out and "tasks_match_acquisition" in told.out
    assert "quality expectations failed" in told.err


def test_a_failing_gate_stops_the_cycle_before_the_next_stage(mine: Gate) -> None:
    root = mine.run.store.root
    files = _table(mine, "manifests").to_pyarrow_table()
    stray = files.slice(0, 1).to_pylist()[0] | {"vendor": "scale", "n_tasks": 3}
    write_deltalake(f"{root}/manifests", type(files).from_pylist([stray], schema=files.schema), mode="append")
    _table(mine, "cycles").update({"state": "'ranked'"})
    before = [row for row in rows(root, "quality") if row["stage"] != "export_manifest"]
    report = Path(str(mine.settings.report.path))
    written = report.stat().st_mtime_ns
    with pytest.raises(QuarryError, match=r"vendor=scale, n_tasks=3, n_wanted=\d+, n_other=0") as stopped:
        run_cycle(mine.run, CYCLE, mine.settings)
    assert "tasks_match_acquisition" in str(stopped.value)
    assert [row["state"] for row in rows(root, "cycles")] == ["ranked"]
    assert report.stat().st_mtime_ns == written
    after = rows(root, "quality")
    assert [row for row in after if row["stage"] != "export_manifest"] == before
    assert [row["expectation"] for row in after if not row["passed"]] == ["tasks_match_acquisition"]
    _table(mine, "manifests").delete("vendor = 'scale'")
    assert [finding for finding in judge(mine, "export_manifest") if not finding.passed] == []
    assert all(row["passed"] for row in rows(root, "quality"))


def test_labels_that_came_back_are_judged_before_they_are_trained_on(mine: Gate) -> None:
    root = mine.run.store.root
    goes_on = mine.settings.cycle.model_copy(update={"labels_wanted": 0.0})
    settings = mine.settings.model_copy(update={"cycle": goes_on})
    truth = _table(mine, "ground_truth").to_pyarrow_table()
    stray = truth.slice(0, 1).to_pylist()[0] | {"image_id": "gone.jpg"}
    write_deltalake(
        f"{root}/ground_truth", type(truth).from_pylist([stray], schema=truth.schema), mode="append"
    )
    with pytest.raises(QuarryError, match=r"stage import_labels .*\n.*image_id=gone\.jpg"):
        run_cycle(mine.run, CYCLE, settings)
    assert [row["state"] for row in rows(root, "cycles")] == ["reported"]
    _table(mine, "ground_truth").delete("image_id = 'gone.jpg'")
    run_cycle(mine.run, CYCLE, settings)
    assert [row["state"] for row in rows(root, "cycles")] == ["closed"]


def _cycle(name: str, model_id: str, started: Any, state: str = "closed") -> dict[str, Any]:
    return dict.fromkeys(CYCLES.column_names) | {
        "cycle_id": name,
        "model_id": model_id,
        "state": state,
        "settings": "{}",
        "settings_hash": "",
        "started": started,
        "counts": {},
    }


def _model(name: str, classes: dict[int, str]) -> dict[str, Any]:
    named = dict.fromkeys(("model_id", "name", "uri"), name)
    return {**named, "classes": classes, "head": "softmax", "settings": "{}", "created_ts": NOW}


def _bad_fault(model_id: str) -> dict[str, Any]:
    return dict.fromkeys(QUARANTINE.column_names, "x") | {
        "model_id": model_id,
        "attempts": 0,
        "first_ts": NOW,
        "last_ts": EARLIER,
        "resolved": True,
    }


def _bad_reject(import_id: str) -> dict[str, Any]:
    return dict.fromkeys(LABEL_REJECTS.column_names, "x") | {"import_id": import_id, "reason": "", "ts": NOW}


def test_drift_is_measured_against_the_last_cycle(session: SparkSession, tmp_path: Path) -> None:
    run = Run(store=TableStore(session, str(tmp_path)))

    def image(name: str, model_id: str, ts: Any, *classes: str, score: float = 0.9) -> dict[str, Any]:
        boxes = [{"label_name": c, "score": score} for c in classes]
        return detections_row(
            image_id=name, model_id=model_id, ts=ts, detections=boxes, n_detections=len(boxes)
        )

    seen = [
        image("a", "old", EARLIER, "car", "car", "car"),
        image("b", "old", EARLIER, "bus"),
        image("a", "new", NOW, "car"),
        image("b", "new", NOW, "bus"),
        image("c", "new", NOW),
        image("d", "new", NOW, "bus", "bus", score=0.1),
        image("e", "old", NOW, "bus", "bus"),
    ]
    cycles = [_cycle("1", "old", EARLIER), _cycle("2", "new", NOW), _cycle("3", "x", NOW, state="planned")]
    cycles.append(_cycle("4", "signs", EARLIER + timedelta(hours=1)))  # another team's, of other classes
    vehicles = {1: "car", 2: "bus"}
    models = [_model("old", vehicles), _model("new", vehicles), _model("signs", {1: "stop"})]
    for table, values in ((DETECTIONS, seen), (CYCLES, cycles), (MODELS, models)):
        session.createDataFrame(values, spark_schema(table)).write.format("delta").save(run.store.path(table))
    frame = drift_rows(run, "2", "new", Settings())
    assert frame is not None
    (row,) = frame.collect()
    assert (row.cycle_before, row.model_before, row.n_images, row.n_images_before) == ("1", "old", 4, 3)
    # car 1/2 against 3/6, bus 1/2 against 3/6; 2 boxes in 4 images against 6 in 3.
    assert (row.class_drift, row.per_image, row.per_image_before, row.count_ratio) == (0.0, 0.5, 2.0, 4.0)
    assert drift_rows(run, "1", "old", Settings()) is None

    DeltaTable(run.store.path(CYCLES)).update({"model_id": "'old'"}, predicate="cycle_id = '2'")
    frame = drift_rows(run, "2", "old", Settings())
    assert frame is not None
    (row,) = frame.collect()
    # The same detector: what it found since, 2 buses in 1 image, against 3 cars and 1 bus in 2.
    assert (row.n_images, row.n_images_before, row.class_drift, row.count_ratio) == (1, 2, 0.75, 1.0)


def test_rows_of_others_stop_no_cycle(mine: Gate) -> None:
    session = mine.run.store.session
    theirs = [
        (MODELS, _model("theirs", {1: ""})),
        (QUARANTINE, _bad_fault("theirs")),
        (LABEL_REJECTS, _bad_reject("theirs")),
    ]
    for table, row in theirs:
        frame = session.createDataFrame([row], spark_schema(table))
        frame.write.format("delta").mode("append").save(mine.run.store.path(table))
    assert not _failing([*judge(mine, "detect"), *judge(mine, "import_labels")])
    _table(mine, "quarantine").update({"model_id": f"'{mine.model_id}'"}, predicate="model_id = 'theirs'")
    assert _failing(judge(mine, "detect")).keys() == {"faults_dated"}


def test_only_stages_that_left_rows_are_judged(mine: Gate) -> None:
    for name in ("manifests", "ground_truth"):
        shutil.rmtree(f"{mine.run.store.root}/{name}")
    assert judged_stages(mine) == ["ingest", "detect", "score", "evaluate", "acquire"]
