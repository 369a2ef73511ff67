"""Manifests: whole or absent, split as told, the same bytes again, nothing lost between tables and files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from conf.load import load_settings
from pipelines import export
from pipelines.cycle_stages import STAGES, StillOut
from pipelines.export import export_manifests
from pipelines.models import Model
from pipelines.outstanding import Awaited
from pipelines.run import Run
from pipelines.status import cycle_status
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.tables import ACQUISITION, DETECTIONS, IMAGES, MANIFESTS, MODELS, SENT_TASKS
from tests.small_lake import detections_row, rows

MODEL = Model(model_id="m", name="street", classes={1: "car", 2: 'it\'s a "bus"'}, head="softmax")
PRICES = PriceList(money_per_hour=36.0)
N_IMAGES = 7


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """Seven images with two boxes each; `hard:a` picked all of them whole, `boxes` picked three boxes."""
    made = Run(store=TableStore(session, f"{tmp_path}/tables"))
    ids = [f"id-{k}" for k in range(N_IMAGES)]
    paths = ["day 1/x.jpg", "day 2/x.jpg", "ä/ö.png", *(f"plain/{k}.jpg" for k in range(3, N_IMAGES))]
    images = [(i, f"/lake/{path}", path, "d", {}, 100, 80) for i, path in zip(ids, paths, strict=True)]
    names = ("image_id", "uri", "path", "dataset", "partitions", "width", "height")
    frame = session.createDataFrame(images, ", ".join(f"{c.name} {c.ddl_type}" for c in IMAGES.columns[:7]))
    assert frame.columns == list(names)
    made.store.merge(IMAGES, in_schema(frame.withColumn("ingest_ts", F.current_timestamp()), IMAGES))
    found = [
        detections_row(image_id=i, model_id="m", detections=_boxes(k), n_detections=2)
        for k, i in enumerate(ids)
    ]
    seen = session.createDataFrame(found, spark_schema(DETECTIONS))
    made.store.merge(DETECTIONS, seen.withColumn("ts", F.current_timestamp()))
    model = ("m", "street", "weights.pt", MODEL.classes, "softmax", None, "{}", datetime.now(timezone.utc))
    made.store.merge(MODELS, session.createDataFrame([model], spark_schema(MODELS)))
    whole = [("hard:a", "image", k + 1, i, None, 360.0, 3.6) for k, i in enumerate(ids)]
    single = [
        ("boxes", "box", k + 1, "id-0" if k < 2 else "id-1", d, 73.0, 0.73) for k, d in enumerate(PICKED)
    ]
    picks = session.createDataFrame(
        whole + single,
        "strategy STRING, unit STRING, rank INT, image_id STRING, detection_id STRING, cost_s DOUBLE, "
        "cost_money DOUBLE",
    )
    constants = {"cycle_id": F.lit("c1"), "score": F.lit(0.5), "settings_hash": F.lit("s")}
    made.store.merge(ACQUISITION, in_schema(picks.withColumns(constants), ACQUISITION))
    return made


PICKED = ("d0-1", "d0-0", "d1-0")


def _boxes(k: int) -> list[tuple[Any, ...]]:
    """A sure car and a doubtful bus."""
    return [
        (f"d{k}-0", 1, "car", 0.9, 10.0, 10.0, 30.0, 40.0, None, None),
        (f"d{k}-1", 2, MODEL.classes[2], 0.2, 50.0, 20.0, 90.0, 80.0, None, None),
    ]


def _export(run: Run, folder: Path, **settings: Any) -> dict[str, int]:
    given = ExportSettings(folder=str(folder), **settings)
    return export_manifests(Run(store=run.store), "c1", MODEL, given, PRICES)


def _tasks(folder: Path) -> list[dict[str, Any]]:
    return [
        task for file in sorted(folder.glob("tasks-*.json")) for task in json.loads(file.read_text("utf-8"))
    ]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_manifest_is_split_and_every_task_is_in_one_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    counts = _export(run, out, formats=("label_studio", "coco"), strategies=("hard:a",), tasks_per_file=3)
    assert counts == {"manifests": 2, "files": 6, "tasks": 7, "boxes": 7}
    folder = out / "c1" / "hard-a.label_studio"
    tasks = _tasks(folder)
    assert [task["data"]["rank"] for task in tasks] == list(range(1, N_IMAGES + 1))
    assert [len(json.loads(p.read_text())) for p in sorted(folder.glob("tasks-*"))] == [3, 3, 1]
    assert len({task["data"]["task_id"] for task in tasks}) == N_IMAGES
    assert all(len(task["predictions"][0]["result"]) == 1 for task in tasks), "the doubtful box is not sent"
    recorded = [row for row in rows(run.store.root, "manifests") if row["vendor"] == "coco"]
    assert [(row["n_tasks"], row["n_images"], row["n_boxes"], row["cost_s"]) for row in recorded] == [
        (3, 3, 3, 1080.0),
        (3, 3, 3, 1080.0),
        (1, 1, 1, 360.0),
    ]
    assert all(Path(row["path"]).is_file() for row in recorded)
    assert sum(row["cost_money"] for row in recorded) == pytest.approx(25.2)
    assert not [path for path in (out / "c1").iterdir() if path.name.startswith(".")], (
        "nothing staged is left"
    )


def test_a_second_export_changes_nothing_and_a_new_split_replaces_the_old(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _export(run, out, strategies=("hard:a",), tasks_per_file=3)
    tables = ("manifests", "sent_tasks")
    before, recorded = _bytes(out), [rows(run.store.root, name, volatile=True) for name in tables]
    _export(run, out, strategies=("hard:a",), tasks_per_file=3)
    assert _bytes(out) == before
    assert [rows(run.store.root, name, volatile=True) for name in tables] == recorded
    _export(run, out, strategies=("hard:a",), tasks_per_file=100)
    assert rows(run.store.root, "sent_tasks", volatile=True) == recorded[1], "sent when they first were"
    names = {Path(row["path"]).name for row in rows(run.store.root, "manifests")}
    assert names == {"tasks-00001.json"} == {Path(p).name for p in _bytes(out) if "tasks" in p}


def test_boxes_that_another_model_found_are_not_sent_without_a_word(run: Run, tmp_path: Path) -> None:
    given = ExportSettings(folder=str(tmp_path / "out"), formats=("label_studio",))
    other = Model(model_id="newer", name="street", classes=MODEL.classes, head="softmax")
    with pytest.raises(QuarryError, match=r"strategy 'boxes' picked box .* model newer has not .*--model"):
        export_manifests(Run(store=run.store), "c1", other, given, PRICES)
    assert not (tmp_path / "out").exists() and not Path(run.store.root, "manifests").exists()


def test_a_price_that_became_known_reaches_the_files_that_are_there(run: Run, tmp_path: Path) -> None:
    given = ExportSettings(
        folder=str(tmp_path / "out"), formats=("label_studio",), strategies=("hard:a",), tasks="verify_box"
    )
    found = []
    for prices in (PriceList(), PRICES):
        export_manifests(Run(store=run.store), "c1", MODEL, given, prices)
        (row,) = rows(run.store.root, "manifests")
        found.append((row["sha256"], row["n_tasks"], row["cost_money"]))
    assert found[0][:2] == found[1][:2]
    assert [money for _, _, money in found] == [
        None,
        pytest.approx(N_IMAGES * PRICES.verify_box_s * 36.0 / 3600),
    ]


def test_an_export_that_knows_of_no_other_has_the_same_bytes(run: Run, tmp_path: Path) -> None:
    """Of two at a time, and after one that was killed before its rows were written."""
    given = {"formats": ("ground_truth",), "strategies": ("hard:a",), "uri_prefix": "s3://bucket"}
    _export(run, tmp_path / "out", **given)
    before = _bytes(tmp_path / "out")
    shutil.rmtree(Path(run.store.root, "manifests"))
    time.sleep(1.1)  # its dates are to the second
    _export(Run(store=TableStore(run.store.session, run.store.root)), tmp_path / "out", **given)
    assert _bytes(tmp_path / "out") == before


def test_picked_boxes_of_an_image_share_a_task(run: Run, tmp_path: Path) -> None:
    _export(run, tmp_path, formats=("label_studio",), strategies=("boxes",))
    tasks = _tasks(tmp_path / "c1" / "boxes.label_studio")
    shown = [[region["id"] for region in task["predictions"][0]["result"]] for task in tasks]
    assert [sorted(ids) for ids in shown] == [["d0-0", "d0-1"], ["d1-0"]]
    (row,) = rows(run.store.root, "manifests")
    assert (row["tasks"], row["n_tasks"], row["n_images"], row["cost_s"]) == ("boxes", 2, 2, 219.0)


def test_priorities_are_thirds_of_the_ranks_of_picks(run: Run, tmp_path: Path) -> None:
    web = {"formats": ("scale",), "uri_prefix": "https://x.example"}
    _export(run, tmp_path, strategies=("boxes",), **web)
    lines = (tmp_path / "c1" / "boxes.scale" / "tasks-00001.jsonl").read_text().splitlines()
    tasks = [json.loads(line) for line in lines]
    assert [(task["metadata"]["rank"], task["priority"]) for task in tasks] == [(1, 30), (3, 10)]


ASKING = ("label_studio", "cvat", "ground_truth", "labelbox", "scale")


def _with_unseen_boxes(run: Run) -> None:
    """Image id-2 has a line, a box outside and one a hundredth px inside its image; `odd` picked these."""
    unseen = [
        ("line", 1, "car", 0.9, 30.0, 10.0, 30.0, 40.0, None, None),
        ("outside", 1, "car", 0.9, 120.0, 10.0, 150.0, 40.0, None, None),
        ("sliver", 1, "car", 0.9, 99.99, 10.0, 150.0, 40.0, None, None),
    ]
    changed = detections_row(image_id="id-2", model_id="m", detections=_boxes(2) + unseen, n_detections=5)
    frame = run.store.session.createDataFrame([changed], spark_schema(DETECTIONS))
    run.store.merge(DETECTIONS, frame.withColumn("ts", F.current_timestamp()))
    picked = [("id-2", "line"), ("id-1", "d1-0"), ("id-2", "outside"), ("id-0", "d0-0"), ("id-2", "sliver")]
    picks = [("odd", "box", k + 1, i, d, 73.0, 0.73) for k, (i, d) in enumerate(picked)]
    frame = run.store.session.createDataFrame(
        picks,
        "strategy STRING, unit STRING, rank INT, image_id STRING, detection_id STRING, cost_s DOUBLE, "
        "cost_money DOUBLE",
    )
    constants = {"cycle_id": F.lit("c1"), "score": F.lit(0.5), "settings_hash": F.lit("s")}
    run.store.merge(ACQUISITION, in_schema(frame.withColumns(constants), ACQUISITION))


def test_nobody_is_asked_about_a_box_that_cannot_be_seen(run: Run, tmp_path: Path) -> None:
    _with_unseen_boxes(run)
    told: list[str] = []
    given = ExportSettings(
        folder=str(tmp_path),
        formats=ASKING,
        tasks="verify_box",
        strategies=("hard:a", "odd"),
        uri_prefixes={"/lake": "s3://lake"},
    )
    export_manifests(Run(store=run.store, tell=told.append), "c1", MODEL, given, PRICES)
    recorded = rows(run.store.root, "manifests")
    assert {(row["vendor"], row["strategy"]): (row["n_tasks"], row["n_boxes"]) for row in recorded} == {
        (vendor, strategy): (n, n) for vendor in ASKING for strategy, n in (("hard:a", N_IMAGES), ("odd", 2))
    }
    assert [line for line in told if "inside" in line and "left out" in line] == [
        "strategy 'hard:a': 3 boxes have no part inside their image and are left out",
        "strategy 'odd': 3 boxes have no part inside their image and are left out; "
        "nothing is sent of 1 images that have no other",
    ]


def test_picked_boxes_that_cannot_be_seen_make_no_task(run: Run, tmp_path: Path) -> None:
    _with_unseen_boxes(run)
    counts = _export(run, tmp_path, formats=("label_studio",), strategies=("odd", "hard:a"))
    assert (counts["tasks"], counts["boxes"]) == (2 + N_IMAGES, 2 + N_IMAGES)
    tasks = _tasks(tmp_path / "c1" / "odd.label_studio")
    assert [[box["id"] for box in task["predictions"][0]["result"]] for task in tasks] == [["d1-0"], ["d0-0"]]
    path = DeltaTable(f"{run.store.root}/{ACQUISITION.name}")
    path.delete("detection_id IN ('d1-0', 'd0-0', 'd0-1')")
    with pytest.raises(QuarryError, match="'odd': 3 boxes have no part inside .* no others to send"):
        _export(run, tmp_path, formats=("label_studio",), strategies=("odd",))


def test_a_strategy_never_takes_the_folder_of_another(run: Run, tmp_path: Path) -> None:
    _export(run, tmp_path / "out", formats=("coco",), strategies=("hard:a",))
    before = _bytes(tmp_path / "out")
    mine = run.store.read(ACQUISITION).where("strategy = 'hard:a'")
    run.store.merge(ACQUISITION, mine.withColumn("strategy", F.lit("hard/A")))
    with pytest.raises(QuarryError, match="'hard/A' and 'hard:a' would share the folder"):
        _export(run, tmp_path / "out", formats=("coco",), strategies=("hard/A",))
    assert _bytes(tmp_path / "out") == before
    _export(run, tmp_path / "other", formats=("coco",), strategies=("hard/A",))


def test_images_without_pre_annotations(run: Run, tmp_path: Path) -> None:
    counts = _export(run, tmp_path, formats=("coco",), strategies=("hard:a",), pre_annotate_above=None)
    assert (counts["tasks"], counts["boxes"]) == (N_IMAGES, 0)


def test_a_format_that_cannot_ask_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match=r"verify_box: coco has no way to ask that"):
        _export(run, tmp_path, formats=("coco",), tasks="verify_box")
    with pytest.raises(QuarryError, match=r"no strategy 'nothing'.*it has"):
        _export(run, tmp_path, strategies=("nothing", "boxes"))
    assert not (tmp_path / "c1").exists()


def test_a_failed_export_leaves_the_old_manifest_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _export(run, out, strategies=("hard:a",))
    before = _bytes(out)
    with pytest.raises(Exception, match="is not a class of this manifest"):
        export_manifests(
            Run(store=run.store),
            "c1",
            Model(model_id="m", name="street", classes={1: "tram"}, head="softmax"),
            ExportSettings(folder=str(out), strategies=("hard:a",)),
            PRICES,
        )
    assert _bytes(out) == before
    written = export._written
    monkeypatch.setattr(export, "_written", lambda *given: written(*given)[:1])
    with pytest.raises(QuarryError, match="0 tasks written, 7 acquired"):
        _export(run, out, strategies=("hard:a",))
    assert _bytes(out) == before


@pytest.mark.parametrize("point", ["replace_folder", "_record_tasks", "_record", "_remove_gone"])
def test_an_export_that_stops_anywhere_is_made_whole_by_the_next(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Between the folders and between the commits: whatever files are there are whole."""
    out, given = tmp_path / "out", {"formats": ("label_studio", "coco")}
    _export(run, out, **given, tasks_per_file=3)
    passes = iter([True, False])
    real = getattr(export, point)

    def stop(*args: Any) -> Any:
        if point == "replace_folder" and next(passes):
            return real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, point, stop)
        with pytest.raises(KeyboardInterrupt):
            _export(run, out, **given, tasks_per_file=4)
    for folder in (out / "c1").glob("hard-a.*"):
        documents = [json.loads(file.read_text("utf-8")) for file in folder.glob("tasks-*")]
        assert sum(len(d["images"] if isinstance(d, dict) else d) for d in documents) == N_IMAGES
    _export(run, out, **given, tasks_per_file=4)
    recorded = rows(run.store.root, "manifests")
    assert {row["path"] for row in recorded} == {str(path) for path in out.rglob("tasks-*")}
    for row in recorded:
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"]
    assert len(rows(run.store.root, "sent_tasks")) == N_IMAGES + 2


@pytest.mark.parametrize("tasks", ["image", "verify_box"])
def test_nothing_is_published_when_a_task_was_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str
) -> None:
    name = "tasks_to_send" if tasks == "image" else "_written"
    made = getattr(export, name)
    lossy = (lambda *given: made(*given).where("rank <> 3")) if tasks == "image" else lambda *_: []
    monkeypatch.setattr(export, name, lossy)
    wanted = f"{N_IMAGES - 1 if tasks == 'image' else 0} tasks written, {N_IMAGES} acquired; nothing was pub"
    with pytest.raises(QuarryError, match=wanted):
        _export(run, tmp_path, strategies=("hard:a",), formats=("label_studio",), tasks=tasks)
    assert not list(tmp_path.rglob("tasks-*")) and not Path(run.store.root, "manifests").exists()


def test_where_folders_cannot_be_renamed_files_of_an_earlier_export_go_away(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "renames", lambda _: False)
    given = {"strategies": ("hard:a",), "formats": ("label_studio",)}
    _export(run, tmp_path, **given, tasks_per_file=3)
    folder = tmp_path / "c1" / "hard-a.label_studio"
    (folder / "tasks-00003-1.json").write_text("of an earlier version")
    (folder / "labels.json").write_text("what somebody put there")
    written = export._written
    with monkeypatch.context() as patch:
        patch.setattr(export, "_written", lambda *given: written(*given)[:0])
        with pytest.raises(QuarryError, match="are there: do not import them, run the export again"):
            _export(run, tmp_path, **given)
    assert len(list(folder.glob("tasks-*"))) == 4, "only an export that is whole clears up"
    _export(run, tmp_path, **given)
    assert [path.name for path in folder.glob("tasks-*")] == ["tasks-00001.json"]
    assert [task["data"]["rank"] for task in _tasks(folder)] == list(range(1, N_IMAGES + 1))
    assert (folder / "labels.json").is_file()
    assert [row["path"] for row in rows(run.store.root, "manifests")] == [str(folder / "tasks-00001.json")]


def test_what_nobody_acquires_by_any_more_goes_away(run: Run, tmp_path: Path) -> None:
    _export(run, tmp_path, formats=("label_studio", "scale"), uri_prefix="https://x.example")
    picks = DeltaTable(f"{run.store.root}/{ACQUISITION.name}")
    picks.delete("strategy = 'boxes'")
    _export(run, tmp_path, strategies=("hard:a",), formats=("label_studio",))
    assert {row["strategy"] for row in rows(run.store.root, "manifests")} == {"boxes", "hard:a"}
    _export(run, tmp_path, formats=("label_studio",))
    recorded = rows(run.store.root, "manifests")
    assert {(row["strategy"], row["vendor"]) for row in recorded} == {
        ("hard:a", "label_studio"),
        ("hard:a", "scale"),
    }
    assert {path.name for path in (tmp_path / "c1").iterdir()} == {"hard-a.label_studio", "hard-a.scale"}


def test_what_a_killed_export_staged_is_removed_a_day_later(run: Run, tmp_path: Path) -> None:
    abandoned, recent, other = (tmp_path / "c1" / name for name in (f".{'a' * 12}", f".{'b' * 12}", ".git"))
    for folder in (abandoned, recent, other):
        (folder / "hard-a.label_studio").mkdir(parents=True)
        (folder / "hard-a.label_studio" / "tasks-00001.json").write_text("https://x.example/a.jpg?s=hush")
    for path in (*abandoned.rglob("*"), abandoned, *other.rglob("*"), other):
        os.utime(path, (time.time() - 90_000,) * 2)
    _export(run, tmp_path, strategies=("hard:a",), formats=("label_studio",))
    left = {path.name for path in (tmp_path / "c1").iterdir()}
    assert left == {recent.name, other.name, "hard-a.label_studio"}


def test_secrets_reach_the_files_and_no_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDN_TOKEN", "hush-hush")
    template = "https://cdn.example/{path}?token=${CDN_TOKEN}"
    _export(run, tmp_path / "out", formats=("label_studio",), strategies=("hard:a",), uri_template=template)
    sent = [task["data"]["image"] for task in _tasks(tmp_path / "out" / "c1" / "hard-a.label_studio")]
    assert sent[0] == "https://cdn.example/day%201/x.jpg?token=hush-hush"
    tables = [p for p in Path(run.store.root).rglob("*") if p.is_file()]
    assert tables and not any(b"hush-hush" in p.read_bytes() for p in tables)


def test_tasks_change_for_all_formats_of_a_cycle_at_once_or_for_none(run: Run, tmp_path: Path) -> None:
    _export(run, tmp_path / "out", formats=("label_studio", "coco"), strategies=("hard:a",))
    before, sent = _bytes(tmp_path / "out"), rows(run.store.root, "sent_tasks", volatile=True)
    asked = {"tasks": "verify_box", "pre_annotate_above": 0.5}
    with pytest.raises(QuarryError, match=r"'hard:a' .* for coco too, .* export in another cycle"):
        _export(run, tmp_path / "out", formats=("label_studio",), **asked)
    assert _bytes(tmp_path / "out") == before
    assert rows(run.store.root, "sent_tasks", volatile=True) == sent
    _export(run, tmp_path / "out", formats=("label_studio", "cvat"), strategies=("hard:a",))
    assert _export(run, tmp_path / "out", formats=("coco",))["tasks"] == N_IMAGES + 2, "no others of hard:a"
    DeltaTable(f"{run.store.root}/{ACQUISITION.name}").delete("strategy = 'hard:a' AND rank = 7")
    with pytest.raises(
        QuarryError, match=r"one, c1/id-6.* \(--formats coco,cvat,label_studio\), or in another"
    ):
        _export(run, tmp_path / "out", formats=("coco",))


def test_the_tasks_of_an_export_take_the_place_of_the_last_ones_in_one_commit(
    run: Run, tmp_path: Path
) -> None:
    for asked in ({}, {"tasks": "verify_box", "pre_annotate_above": 0.5}):
        _export(run, tmp_path / "out", formats=("label_studio",), strategies=("hard:a",), **asked)
    for table in (SENT_TASKS, MANIFESTS):
        assert run.store.version(table) == 2, "made, written, replaced"
    assert {row["kind"] for row in rows(run.store.root, "sent_tasks")} == {"verify_box"}


def test_a_cycle_exported_when_tasks_were_not_recorded_waits_and_says_how_to_record_them(
    run: Run, tmp_path: Path
) -> None:
    _export(run, tmp_path / "out", formats=("label_studio", "coco"))
    shutil.rmtree(run.store.path(SENT_TASKS))
    wait = next(stage.work for stage in STAGES if stage.name == "labels")
    command = f"quarry export_manifest --root {run.store.root} --cycle c1 --formats coco,label_studio"
    with pytest.raises(QuarryError, match=re.escape(f"run `{command}`")):
        wait(run, "c1", load_settings("demo"))
    (status,) = cycle_status(run)
    assert [(sent.kind, sent.n_sent) for sent in status.sent] == [("boxes", 0), ("image", 0)]
    assert status.next_step.startswith(command)
    _export(run, tmp_path / "out", formats=("coco", "label_studio"))
    with pytest.raises(StillOut, match=f"hard:a: 0 of {N_IMAGES} back"):
        wait(run, "c1", load_settings("demo"))


def test_the_share_of_labels_that_a_cycle_waits_for_is_exact() -> None:
    sent = [Row(n_sent=60, n_back=15), Row(n_sent=40, n_back=40)]
    assert 0.55 * 100 > 55 and Awaited("c", sent).is_enough(0.55)
    assert not Awaited("c", sent).is_enough(0.551) and not Awaited("c", sent).is_enough(1.0)
    assert Awaited("c", []).is_enough(1.0), "nothing was sent"


def test_status_shows_what_was_exported_without_run_cycle(run: Run, tmp_path: Path) -> None:
    assert cycle_status(run) == []
    _export(run, tmp_path)
    (status,) = cycle_status(run)
    assert (status.cycle_id, status.row) == ("c1", None)
    assert [(sent.strategy, sent.n_sent, sent.n_back) for sent in status.sent] == [
        ("boxes", 2, 0),
        ("hard:a", N_IMAGES, 0),
    ]
    assert status.next_step.startswith(f"quarry import_labels --root {run.store.root} --cycle c1 ")
