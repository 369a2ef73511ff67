"""The whole cycle: what its tables hold, and that repeating any part changes nothing."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
from argparse import Namespace
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable
from pycocotools.coco import COCO
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.load import load_settings
from conf.settings import NOT_KEPT, SampleLakeSettings, Settings
from jobs.import_labels import JOB as IMPORT_LABELS
from jobs.quarry import main
from jobs.run_cycle import _settings_of_cycle
from pipelines.cycle import branch_cycle, model_of_cycle, run_cycle
from pipelines.cycle_stages import STAGES, StillOut
from pipelines.detect import detect, detect_job, known_detector
from pipelines.ingest import ingest
from pipelines.labels import import_labels
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.sample_lake import is_made, make_sample_lake
from pipelines.score import score
from pipelines.status import cycle_status
from pipelines.tables import TableStore
from schemas.tables import (
    ACQUISITION,
    CYCLES,
    DETECTIONS,
    HARDNESS,
    IMAGES,
    MANIFESTS,
    MODELS,
    QUARANTINE,
    TABLES,
)
from tests.small_lake import CYCLE, SMALL_LAKE, STOPPED_BEFORE_SCORE, lake_settings, rows


def test_every_image_is_in_exactly_one_of_detections_and_quarantine(finished: tuple[Run, Settings]) -> None:
    root = finished[0].store.root
    images = [row["image_id"] for row in rows(root, "images")]
    detected = [row["image_id"] for row in rows(root, "detections")]
    quarantined = [row["image_id"] for row in rows(root, "quarantine") if not row["resolved"]]
    assert len(images) == len(set(images)) == SMALL_LAKE.images
    assert Counter(detected + quarantined) == Counter(images)


def test_damaged_files_are_in_quarantine_with_their_reason(
    finished: tuple[Run, Settings], small_lake: Path
) -> None:
    root = finished[0].store.root
    labeled = {
        image["file_name"]
        for file in (small_lake / "labels").rglob("*.json")
        for image in json.loads(file.read_text())["images"]
    }
    path_of = {row["image_id"]: row["path"] for row in rows(root, "images")}
    found = {path_of[row["image_id"]]: row for row in rows(root, "quarantine")}
    damaged = set(path_of.values()) - labeled
    assert damaged and set(found) == damaged
    assert {row["error_class"] for row in found.values()} == {"empty", "not_an_image", "truncated"}
    for path, row in found.items():
        size = (small_lake / "images" / path).stat().st_size
        assert (row["error_class"] == "empty") == (size == 0)
        assert row["stage"] == ("detect" if row["error_class"] == "truncated" else "ingest")


def test_detections_reach_down_to_eta0_and_keep_the_logits_of_their_score(
    finished: tuple[Run, Settings],
) -> None:
    run, settings = finished
    boxes = [box for row in rows(run.store.root, "detections") for box in row["detections"]]
    assert len({box["detection_id"] for box in boxes}) == len(boxes) > 200
    scores = [box["score"] for box in boxes]
    assert settings.detector.eta0 <= min(scores) < 0.1 < 0.9 < max(scores) <= 1.0
    model = model_named(run, None)
    for box in boxes[:200]:
        assert len(box["logits"]) == len(model.classes) + 1
        assert model.classes[box["label"]] == box["label_name"]


def test_hardness_has_a_row_per_image_and_name(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    detected = {row["image_id"] for row in rows(run.store.root, "detections")}
    hardness = rows(run.store.root, "hardness")
    by_name: dict[tuple[str, str], set[str]] = {}
    for row in hardness:
        by_name.setdefault((row["query"], row["method"]), set()).add(row["image_id"])
    assert len(hardness) == sum(map(len, by_name.values()))
    for query in settings.score.queries:
        assert by_name[query, "exact"] == by_name[query, "ground_truth"] == detected
    for baseline in settings.score.baselines:
        assert by_name[baseline, "baseline"] == detected


def written_rows(root: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of every table that a job has written; a table comes with its first rows."""
    written = [table.name for table in TABLES if DeltaTable.is_deltatable(f"{root}/{table.name}")]
    return {name: rows(root, name, volatile=True) for name in written}


def test_running_everything_again_changes_no_row(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    before = written_rows(run.store.root)
    assert {"manifests", "quality", "label_imports"} < before.keys()
    again = Run(store=run.store)
    counts = {}
    for stage in STAGES:
        with contextlib.suppress(StillOut):
            counts[stage.name] = stage.work(again, CYCLE, settings)
    assert counts["ingest"]["new_or_changed"] == counts["detect"]["pending"] == counts["score"]["rows"] == 0
    run_cycle(again, CYCLE, settings)
    assert written_rows(run.store.root) == before


def test_a_stopped_cycle_goes_on_after_its_last_stage(
    finished: tuple[Run, Settings], small_lake: Path, tmp_path: Path
) -> None:
    run, _ = finished
    settings = lake_settings(small_lake, tmp_path)
    shutil.copytree(Path(run.store.root).with_name(STOPPED_BEFORE_SCORE), tmp_path / "tables")
    store = TableStore(run.store.session, f"{tmp_path}/tables")
    row = store.read(CYCLES).first()
    assert row is not None and row.state == "labels_imported"
    assert not any(store.exists(table) for table in (HARDNESS, ACQUISITION, MANIFESTS))
    told: list[str] = []
    run_cycle(Run(store=store, tell=told.append), CYCLE, settings)
    assert not any("ingest" in line or "to detect" in line for line in told)
    for table in ("images", "detections", "quarantine", "hardness", "acquisition", "metrics", "ground_truth"):
        mine, theirs = rows(store.root, table), rows(run.store.root, table)
        assert len(mine) == len(theirs) and mine == theirs, table


def test_a_sample_lake_is_made_only_when_whole_and_of_these_settings(
    finished: tuple[Run, Settings], small_lake: Path, tmp_path: Path
) -> None:
    few = SampleLakeSettings(images=8, seed=1, corrupt_fraction=0.0)
    (tmp_path / "images").mkdir()
    assert not is_made(str(tmp_path), few)
    counts = make_sample_lake(finished[0], str(tmp_path), few)
    assert counts["files"] == 8 == len(list(tmp_path.rglob("*.jpg")))
    assert is_made(str(tmp_path), few) and is_made(str(small_lake), SMALL_LAKE)
    assert not is_made(str(tmp_path), SMALL_LAKE)


def test_a_cycle_refuses_other_settings_under_its_name(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    other = settings.model_copy(update={"seed": settings.seed + 1})
    with pytest.raises(QuarryError, match="started with other settings"):
        run_cycle(run, CYCLE, other)


def test_acquisition_is_the_top_of_hardness_and_a_random_control(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    query, budget = settings.acquire.query, int(settings.acquire.budget)
    hardness = {
        row["image_id"]: row["hardness"]
        for row in rows(run.store.root, "hardness")
        if row["query"] == query and row["method"] == "exact"
    }
    picked = rows(run.store.root, "acquisition")
    hardest = sorted((r for r in picked if r["strategy"] == f"hardest:{query}"), key=lambda r: r["rank"])
    assert [r["rank"] for r in hardest] == list(range(1, budget + 1))
    assert [r["score"] for r in hardest] == sorted(hardness.values(), reverse=True)[:budget]
    control = [r["image_id"] for r in picked if r["strategy"] == "random"]
    assert len(set(control)) == budget and set(control) != {r["image_id"] for r in hardest}


def test_a_file_that_breaks_moves_from_detections_to_quarantine(
    finished: tuple[Run, Settings], small_lake: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(small_lake / "images" / "dataset=harbor", lake / "images" / "dataset=harbor")
    settings = lake_settings(lake, tmp_path)
    store = TableStore(finished[0].store.session, f"{tmp_path}/tables")
    scoring = settings.score.model_copy(update={"queries": ("total_fp",), "baselines": ()})

    def cycle_once() -> dict[str, int]:
        mine = Run(store=store)
        ingest(mine, settings.lake)
        detect(mine, CYCLE, detect_job(settings))
        score(mine, model_named(mine, None), scoring, settings.calibration, settings.seed)
        return {table.name: len(rows(store.root, table.name)) for table in (DETECTIONS, HARDNESS, QUARANTINE)}

    before = cycle_once()
    detected = {row["image_id"] for row in rows(store.root, "detections")}
    victims = [row for row in rows(store.root, "images") if row["image_id"] in detected][:2]
    for row, keep in zip(victims, (20, 3000), strict=True):
        file = Path(row["uri"])
        file.write_bytes(file.read_bytes()[:keep])
    after = cycle_once()
    assert after == {
        "detections": before["detections"] - 2,
        "hardness": before["hardness"] - 2,
        "quarantine": before["quarantine"] + 2,
    }
    assert cycle_once() == after


def test_a_model_that_comes_later_tries_quarantined_images_once(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    for table in (IMAGES, QUARANTINE):
        mine.store.merge(table, run.store.read(table))
    other = settings.detector.model_copy(update={"eta0": 0.3})
    job = detect_job(settings.model_copy(update={"detector": other}))
    counts = detect(mine, CYCLE, job)
    assert counts["pending"] == len(rows(run.store.root, "images"))
    assert detect(mine, CYCLE, job)["pending"] == 0


def test_typos_in_queries_are_told_before_the_first_stage(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    for update in ({"queries": ("total_fb",)}, {"baselines": ("entrpoy",)}, {"queries": ("total_fp",)}):
        wrong = settings.model_copy(update={"score": settings.score.model_copy(update=update)})
        with pytest.raises(QuarryError, match=r"total_fp|entropy|pixel_adj_false"):
            run_cycle(mine, "typo", wrong)
    assert list(tmp_path.iterdir()) == []


def test_manifests_hold_what_was_acquired(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    manifests = rows(run.store.root, "manifests")
    assert len(manifests) == 4
    budget = int(settings.acquire.budget)
    for row in manifests:
        if row["vendor"] == "coco":
            coco = COCO(row["path"])
            assert len(coco.imgs) == row["n_images"] == budget and len(coco.anns) == row["n_boxes"]
        else:
            tasks = json.loads(Path(row["path"]).read_text())
            shown = [task["predictions"][0]["result"] for task in tasks if task["predictions"]]
            assert len(tasks) == row["n_tasks"] == budget
            assert sum(region["type"] == "rectanglelabels" for r in shown for region in r) == row["n_boxes"]


def test_a_cycle_waits_for_its_labels_and_closes_once_they_are_back(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    root = str(tmp_path / "tables")
    shutil.copytree(run.store.root, root)
    told: list[str] = []
    mine = Run(store=TableStore(run.store.session, root), tell=told.append)
    run_cycle(mine, CYCLE, settings)
    sent = 2 * int(settings.acquire.budget)
    assert any("random: 0 of 10 back" in line and "import_labels" in line for line in told)
    assert (cycle_status(mine)[0].row.state, cycle_status(mine)[0].sent[0].n_back) == ("reported", 0)
    import_labels(mine, str(settings.lake.labels), "coco", "train", CYCLE, model_named(mine, None))
    (status,) = cycle_status(mine)
    assert [(r.strategy, r.n_sent, r.n_back, r.cost_s_out) for r in status.sent] == [
        (f"hardest:{settings.acquire.query}", sent // 2, sent // 2, 0.0),
        ("random", sent // 2, sent // 2, 0.0),
    ]
    training = settings.train.model_copy(update={"epochs": 1, "min_size": 96, "max_size": 160})
    wanted = settings.cycle.model_copy(update={"retrain": True})
    run_cycle(mine, CYCLE, settings.model_copy(update={"train": training, "cycle": wanted}))
    (status,) = cycle_status(mine)
    assert (status.row.state, status.next_step) == ("closed", "none, it is closed")
    assert status.row.ended is not None and status.row.counts["train.images"] > sent
    checkpoint = Path(root, "checkpoints", f"{CYCLE}.pt")
    retrained = known_detector(settings.detector.model_copy(update={"weights": str(checkpoint)}))
    assert retrained.classes == known_detector(settings.detector).classes


def test_a_cycle_branches_with_other_settings_and_keeps_the_work_before(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    root = str(tmp_path / "tables")
    shutil.copytree(run.store.root, root)
    mine = Run(store=TableStore(run.store.session, root))
    fewer = settings.model_copy(
        update={
            "acquire": settings.acquire.model_copy(update={"budget": 3, "strategies": ("random",)}),
            "export": settings.export.model_copy(update={"folder": str(tmp_path / "out")}),
            "report": settings.report.model_copy(update={"path": str(tmp_path / "report.html")}),
        }
    )
    with pytest.raises(QuarryError, match="stage acquire with other settings"):
        branch_cycle(mine, "late", fewer, CYCLE, "export_manifest")
    with pytest.raises(QuarryError, match="no such cycle"):
        branch_cycle(mine, "late", fewer, "nothing", "acquire")
    with pytest.raises(QuarryError, match="no such stage; did you mean 'acquire'"):
        branch_cycle(mine, "late", fewer, CYCLE, "aquire")
    branch_cycle(mine, "few", fewer, CYCLE, "acquire")
    told: list[str] = []
    run_cycle(Run(store=mine.store, tell=told.append), "few", fewer)
    assert not any("[2/11] detect" in line for line in told)
    by_cycle = Counter(row["cycle_id"] for row in rows(root, "acquisition"))
    assert by_cycle == {CYCLE: 2 * int(settings.acquire.budget), "few": 3}
    figures = Counter(row["cycle_id"] for row in rows(root, "metrics"))
    assert figures["few"] == figures[CYCLE] > 0
    assert {row["cycle_id"]: row["parent"] for row in rows(root, "cycles")} == {CYCLE: None, "few": CYCLE}


def test_two_cycles_run_side_by_side(
    finished: tuple[Run, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = finished
    root = str(tmp_path / "tables")
    shutil.copytree(run.store.root, root)
    teams = {
        "hard": {"strategies": ("hardest",), "query": "total_fn", "budget": 4},
        "chance": {"strategies": ("random",), "budget": 3},
    }

    def of_team(name: str) -> Settings:
        return settings.model_copy(
            update={
                "acquire": settings.acquire.model_copy(update=teams[name]),
                "export": settings.export.model_copy(update={"folder": str(tmp_path / "out")}),
                "report": settings.report.model_copy(update={"path": str(tmp_path / f"{name}.html")}),
            }
        )

    told: list[str] = []
    store = TableStore(run.store.session, root)
    # A third team has scored under the same name with other thresholds meanwhile.
    theirs = store.read(HARDNESS).where("query = 'total_fn'").localCheckpoint()
    store.merge(HARDNESS, theirs.withColumn("query_hash", F.lit("theirs")))

    def cycle(name: str) -> None:
        mine = Run(store=store, tell=told.append)
        branch_cycle(mine, name, of_team(name), CYCLE, "acquire")
        run_cycle(mine, name, of_team(name))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cycle, teams))
    states = {row["cycle_id"]: row["state"] for row in rows(root, "cycles")}
    assert states["hard"] == states["chance"] == "reported"
    sent = Counter((row["cycle_id"], row["strategy"]) for row in rows(root, "acquisition"))
    assert (sent["hard", "hardest:total_fn"], sent["chance", "random"]) == (4, 3)
    written = dict.fromkeys(teams, 0)
    for row in rows(root, "manifests"):
        if row["cycle_id"] in teams and row["vendor"] == "coco":
            written[row["cycle_id"]] += len(json.loads(Path(row["path"]).read_text())["images"])
    assert written == {"hard": 4, "chance": 3}
    assert (tmp_path / "hard.html").exists() and (tmp_path / "chance.html").exists()

    assert sum(line.endswith("; scoring again") for line in told) == 1, "chance needs no score"

    mine, own = Run(store=store, tell=told.append), of_team("hard")
    branch_cycle(mine, "trained", own, "hard", "labels")
    run_cycle(mine, "trained", own)
    waits = "hardest:total_fn: 0 of 4 back" in told[-1] and "--cycle hard " in told[-1]
    assert waits, "for what the cycle has sent that it goes on from"
    with pytest.raises(QuarryError, match="'trained' is there already and goes on from cycle 'hard'"):
        branch_cycle(mine, "trained", own, "chance", "acquire")
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.cycle.known_detector", lambda _: SimpleNamespace(model_id="other"))
        with pytest.raises(QuarryError, match="weights names now is model other: put the old weights back"):
            run_cycle(mine, "trained", own)


def test_a_started_cycle_goes_on_with_its_own_settings(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    """Months later nobody knows the flags; keys of object stores are not among what is kept."""
    run, settings = finished
    secret = settings.spark.model_copy(update={"conf": {"spark.hadoop.fs.s3a.secret.key": "hush-hush"}})
    kept = settings.model_copy(update={"spark": secret}).model_dump_json(exclude=NOT_KEPT)
    assert "hush-hush" not in kept and Settings.model_validate_json(kept).spark.conf == {}
    root = str(tmp_path / "tables")
    shutil.copytree(run.store.root, root)
    told = io.StringIO()
    with redirect_stdout(told):
        assert main(["run_cycle", "--root", root, "--cycle", CYCLE]) == 0
    command = re.search(r"`(quarry import_labels [^`]*)`", told.getvalue())
    assert "goes on after stage report" in told.getvalue() and command is not None
    flags = shlex.split(command[1])[1:]
    flags[flags.index("FILE")] = str(settings.lake.labels)
    with redirect_stdout(told):
        assert main(flags) == 0
    with redirect_stdout(told):
        assert main(["status", "--root", root]) == 0
    step = re.search(r"next: quarry (run_cycle .*?)  #", told.getvalue())
    assert step is not None
    with redirect_stdout(told):
        assert main(shlex.split(step[1])) == 0
    (row,) = rows(root, "cycles")
    assert row["state"] == "closed"


def test_a_program_that_a_cycle_s_record_names_runs_when_it_is_named_again(
    finished: tuple[Run, Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, settings = finished
    root = str(tmp_path / "tables")
    shutil.copytree(run.store.root, root)
    mine = Run(store=TableStore(run.store.session, root))
    export = settings.export.model_copy(update={"uri_command": "sign.py --days 30"})
    text = settings.model_copy(update={"export": export}).model_dump_json(exclude=NOT_KEPT)
    before_training = {"settings": F.lit(text), "state": F.lit("labeled")}
    mine.store.merge(CYCLES, run.store.read(CYCLES).withColumns(before_training))
    assert main(["run_cycle", "--root", root, "--cycle", CYCLE]) == 2
    assert "--set 'export.uri_command=sign.py --days 30'" in capsys.readouterr().err
    branch = ["--cycle", "another", "--from-cycle", CYCLE, "--from-stage", "report"]
    assert main(["run_cycle", "--root", root, *branch]) == 2
    assert "export.uri_command" in capsys.readouterr().err
    (status,) = cycle_status(mine)
    command, _, why = status.next_step.partition("  # ")
    assert why == "stage train, export.uri_command runs a program"
    assert main(shlex.split(command)[1:]) == 0
    assert [row["state"] for row in rows(root, "cycles")] == ["closed"]


def test_a_branch_keeps_settings_but_writes_its_own_report(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    flags = {"config": None, "root": run.store.root, "set": ["acquire.budget=7"], "from_cycle": CYCLE}
    given = load_settings(overrides=["acquire.budget=7"])
    branch = _settings_of_cycle(run, given, Namespace(cycle="another", **flags))
    assert (branch.lake, branch.acquire.budget, branch.report.path) == (settings.lake, 7, None)
    same = _settings_of_cycle(run, given, Namespace(cycle=CYCLE, **flags))
    assert same.report.path == settings.report.path is not None


def test_a_cycle_made_job_by_job_has_a_status_too(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    root = tmp_path / "tables"
    shutil.copytree(finished[0].store.root, root)
    shutil.rmtree(root / "cycles")
    (status,) = cycle_status(Run(store=TableStore(finished[0].store.session, str(root))))
    assert (status.cycle_id, status.row, len(status.sent)) == (CYCLE, None, 2)
    assert status.next_step.startswith(f"quarry import_labels --root {root} --cycle {CYCLE}")


def test_a_cycle_keeps_its_model_when_a_newer_one_comes(
    finished: tuple[Run, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = finished
    judges: list[str | None] = []

    def judged_by(*given: Any) -> dict[str, int]:
        judges.append(given[5] and given[5].model_id)
        return dict.fromkeys(("images", "boxes", "not_in_lake", "rejected"), 0)

    monkeypatch.setattr("jobs.import_labels.import_labels", judged_by)
    of_cycle = Namespace(cycle=CYCLE, model=None, label_map=None, labels="", format="coco", split="train")
    nothing = Run(store=TableStore(run.store.session, str(tmp_path / "before any detector")))
    IMPORT_LABELS.work(nothing, settings, of_cycle)
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    mine.store.merge(CYCLES, run.store.read(CYCLES))
    models = run.store.read(MODELS)
    mine.store.merge(MODELS, models)
    newer = {"model_id": F.lit("newer"), "created_ts": F.expr("created_ts + INTERVAL 1 DAY")}
    mine.store.merge(MODELS, models.withColumns(newer))
    own = known_detector(settings.detector).model_id
    assert model_of_cycle(mine, CYCLE, None).model_id == own
    assert model_of_cycle(mine, CYCLE, "newer").model_id == "newer"
    assert model_of_cycle(mine, "job-by-job", None).model_id == "newer"
    IMPORT_LABELS.work(mine, settings, of_cycle)
    assert judges == [None, own]


def test_settings_of_another_quarry_are_told(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    run, settings = finished
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    older = run.store.read(CYCLES).withColumn("settings", F.lit('{"seed": 1, "no_such": {}}'))
    mine.store.merge(CYCLES, older)
    with pytest.raises(QuarryError, match=r"was run by a Quarry with other settings \(no_such\)"):
        run_cycle(mine, CYCLE, settings)


def test_the_report_shows_every_query_and_needs_no_network(finished: tuple[Run, Settings]) -> None:
    _, settings = finished
    page = Path(str(settings.report.path)).read_text()
    for query in settings.score.queries:
        assert query in page
    assert "data:image/jpeg;base64," in page and "truncated" in page
    assert 'src="http' not in page and "<script" not in page
