"""Picked boxes out to labelers and back: what one strategy's task showed is known, the rest stays open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from pipelines.box_dataset import box_dataset
from pipelines.export import export_manifests
from pipelines.labels import import_labels
from pipelines.models import Model
from pipelines.outstanding import sent_and_back
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from pipelines.training_set import write_training_set
from schemas.tables import ACQUISITION, DETECTIONS, IMAGES, MODELS
from tests.small_lake import detections_row, rows
from tests.tool_returns import returned

MODEL = Model(model_id="m", name="street", classes={1: "car"}, head="softmax")
PRICES = PriceList()
CORNERS = ((10.0, 10.0, 30.0, 30.0), (40.0, 10.0, 60.0, 30.0), (70.0, 10.0, 90.0, 30.0))
SCORES = (0.9, 0.6, 0.2)


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """Four images: in a, b and c are three cars, in d nothing was found; who picked what is in PICKS."""
    made = Run(store=TableStore(session, str(tmp_path / "tables")))
    names = ", ".join(f"{column.name} {column.ddl_type}" for column in IMAGES.columns[:7])
    images = session.createDataFrame([(i, f"/lake/{i}", i, "d", {}, 100, 80) for i in IDS], names)
    made.store.merge(IMAGES, in_schema(images.withColumn("ingest_ts", F.current_timestamp()), IMAGES))
    found = {i: [] if i == D else _boxes(i) for i in IDS}
    seen = [
        detections_row(
            image_id=i, model_id="m", width=100, height=80, detections=boxes, n_detections=len(boxes)
        )
        for i, boxes in found.items()
    ]
    frame = session.createDataFrame(seen, spark_schema(DETECTIONS)).withColumn("ts", F.current_timestamp())
    made.store.merge(DETECTIONS, frame)
    names = ", ".join(f"{column.name} {column.ddl_type}" for column in MODELS.columns[:7])
    model = session.createDataFrame([("m", "street", "w", MODEL.classes, "softmax", None, "{}")], names)
    made.store.merge(MODELS, model.withColumn("created_ts", F.current_timestamp()))
    made.store.merge(ACQUISITION, _picks(made, PICKS))
    return made


IDS = A, B, C, D = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
PICKS = [
    ("sure", "box", 1, A, "a.jpg-0", 73.0),
    ("sure", "box", 2, A, "a.jpg-1", 73.0),
    ("sure", "box", 3, B, "b.jpg-0", 73.0),
    ("doubt", "box", 1, A, "a.jpg-2", 73.0),
    ("doubt", "box", 2, B, "b.jpg-0", 73.0),
    ("whole", "image", 1, C, None, 346.0),
    ("whole", "image", 2, D, None, 346.0),
]


def _boxes(image_id: str) -> list[tuple[Any, ...]]:
    return [
        (f"{image_id}-{n}", 1, "car", SCORES[n], *corners, None, None) for n, corners in enumerate(CORNERS)
    ]


def _export(run: Run, folder: Path, **settings: Any) -> list[str]:
    told: list[str] = []
    given = ExportSettings(folder=str(folder), uri_prefix="s3://bucket/lake", **settings)
    export_manifests(Run(store=run.store, tell=told.append), "c1", MODEL, given, PRICES)
    return told


def _import(run: Run, files: Path, form: str = "label_studio") -> dict[str, int]:
    return import_labels(Run(store=run.store), str(files), form, "train", "c1", MODEL)


def _edited(folder: Path, change: Any) -> Path:
    """The JSON files of a folder with `change` made to each document."""
    for file in folder.iterdir():
        document = json.loads(file.read_text("utf-8"))
        change(document)
        file.write_text(json.dumps(document))
    return folder


def _truth(run: Run) -> dict[str, tuple[bool, set[tuple[float, str]]]]:
    """Of each image whether it is complete, and left side and status of its boxes."""
    return {
        row["image_id"]: (row["complete"], {(round(b["x1"]), b["status"]) for b in row["boxes"]})
        for row in rows(run.store.root, "ground_truth")
    }


def _out(run: Run) -> dict[str, tuple[int, int, float, float]]:
    """Strategy to sent, back, cost and cost of what is out."""
    found = sent_and_back(Run(store=run.store), "c1").collect()
    return {r.strategy: (r.n_sent, r.n_back, r.cost_s, r.cost_s_out) for r in found}


def test_each_box_strategy_asks_and_hears_of_its_own_boxes(run: Run, tmp_path: Path) -> None:
    _export(run, tmp_path / "out", formats=("label_studio", "coco"))
    manifests = tmp_path / "out" / "c1"
    kinds = {row["strategy"]: row["tasks"] for row in rows(run.store.root, "manifests")}
    assert kinds == {"sure": "boxes", "doubt": "boxes", "whole": "image"}
    assert "Add none." in (manifests / "sure.coco" / "README.txt").read_text()
    assert _out(run) == {
        "sure": (2, 0, 219.0, 219.0),
        "doubt": (2, 0, 146.0, 146.0),
        "whole": (2, 0, 692.0, 692.0),
    }
    counts = _import(run, returned("label_studio", manifests, "sure", tmp_path / "sure"))
    assert counts == {"images": 2, "boxes": 3, "not_in_lake": 0, "rejected": 0}
    assert _truth(run) == {
        A: (False, {(10, "labeled"), (40, "labeled")}),
        B: (False, {(10, "labeled")}),
    }
    asked = {row["task_id"] for row in rows(run.store.root, "ground_truth_history")}
    assert asked == {f"c1/{image}/boxes/sure" for image in (A, B)}
    assert _out(run)["sure"] == (2, 2, 219.0, 0.0) and _out(run)["doubt"][:2] == (2, 0)

    def without_boxes(tasks: Any) -> None:
        for task in tasks:
            task["annotations"][0]["result"] = []

    # The labeler of the other strategy deletes both of its boxes: one was kept by the first.
    _import(run, _edited(returned("label_studio", manifests, "doubt", tmp_path / "doubt"), without_boxes))
    assert _truth(run)[A] == (False, {(10, "labeled"), (40, "labeled"), (70, "background")})
    assert _truth(run)[B] == (False, {(10, "background")}), "the newest answer counts"
    assert _out(run)["doubt"] == (2, 2, 146.0, 0.0) and _out(run)["whole"][:2] == (2, 0)
    _import(run, returned("coco", manifests, "whole", tmp_path / "whole"), "coco")
    assert _truth(run)[D] == (True, set()) and _truth(run)[C][0], "whole images are complete"
    assert _out(run)["whole"] == (2, 2, 692.0, 0.0)

    counts = write_training_set(run, str(tmp_path / "labels"), MODEL, threshold=0.5)
    assert counts == {"images": 4, "partly_labeled": 2}
    content = json.loads((tmp_path / "labels" / "labels-00001.json").read_text())
    name_of = {image["id"]: image["file_name"].removeprefix("/lake/") for image in content["images"]}
    assert {name_of[i["id"]]: i["complete"] for i in content["images"]} == {
        A: False,
        B: False,
        C: True,
        D: True,
    }
    boxes = {(name_of[b["image_id"]], round(b["bbox"][0]), b["noisy"]) for b in content["annotations"]}
    # Of b one box is background, one is below the threshold, and one nobody has looked at.
    assert boxes == {(A, 10, 0), (A, 40, 0), (B, 40, 1), (C, 10, 0), (C, 40, 0)}


def test_a_tool_that_loses_our_ids_makes_no_box_background_that_it_did_not_show(
    run: Run, tmp_path: Path
) -> None:
    _export(run, tmp_path / "out", formats=("coco",))

    def without_ids_and_boxes(document: Any) -> None:
        document["annotations"] = []
        for image in document["images"]:
            image.pop("quarry_task_id")

    manifests = tmp_path / "out" / "c1"
    _import(run, _edited(returned("coco", manifests, "sure", tmp_path / "s"), without_ids_and_boxes), "coco")
    assert _truth(run) == {A: (False, set()), B: (False, set())}, "of two strategies nobody knows which"
    _export(run, tmp_path / "one", formats=("coco",), strategies=("doubt",))
    run.store.delete(
        ACQUISITION, run.store.read(ACQUISITION).where("strategy = 'sure'").select(*ACQUISITION.key)
    )
    files = _edited(returned("coco", tmp_path / "one" / "c1", "doubt", tmp_path / "d"), without_ids_and_boxes)
    _import(run, files, "coco")
    assert _truth(run) == {A: (False, {(70, "background")}), B: (False, {(10, "background")})}
    assert _out(run)["doubt"][:2] == (2, 2)


def test_questions_are_counted_priced_and_answered_one_by_one(run: Run, tmp_path: Path) -> None:
    given: dict[str, Any] = {"formats": ("label_studio",), "tasks": "verify_box"}
    with pytest.raises(QuarryError, match=r"strategy 'whole'.*pre_annotate_above \(0\.95\); lower it"):
        _export(run, tmp_path / "none", **given, pre_annotate_above=0.95)
    assert not (tmp_path / "none").exists()
    told = _export(run, tmp_path / "out", **given, pre_annotate_above=0.1)
    assert any(line.startswith("whole: nothing to ask about 1 of 2 images") for line in told)
    price = PRICES.verify_box_s
    assert _out(run) == {
        "sure": (3, 0, pytest.approx(3 * price), pytest.approx(3 * price)),
        "doubt": (2, 0, pytest.approx(2 * price), pytest.approx(2 * price)),
        "whole": (3, 0, pytest.approx(3 * price), pytest.approx(3 * price)),
    }

    def answered(tasks: Any) -> None:
        for task in tasks:
            answer = "no" if task["data"]["detection_id"] == "c.jpg-1" else "yes"
            said = {"id": "q", "type": "choices", "from_name": "answer", "to_name": "image"}
            result = task["annotations"][0]["result"]
            task["annotations"][0]["result"] = [*result, said | {"value": {"choices": [answer]}}]

    def first_answered(tasks: Any) -> None:
        del tasks[1:]
        answered(tasks)

    manifests = tmp_path / "out" / "c1"
    _import(run, _edited(returned("label_studio", manifests, "whole", tmp_path / "1"), first_answered))
    assert _truth(run) == {C: (False, {(10, "labeled")})}
    assert _out(run)["whole"] == (3, 1, pytest.approx(3 * price), pytest.approx(2 * price))
    for strategy in ("whole", "sure"):
        _edited(returned("label_studio", manifests, strategy, tmp_path / "all" / strategy), answered)
    _import(run, tmp_path / "all")
    assert _truth(run)[C] == (False, {(10, "labeled"), (40, "background"), (70, "labeled")})
    assert _out(run)["whole"][:2] == (3, 3), "an image without a box keeps no cycle waiting"
    assert _truth(run)[A] == (False, {(10, "labeled"), (40, "labeled")}), "what was not asked is open"
    assert _out(run)["sure"] == (3, 3, pytest.approx(3 * price), 0.0)
    assert _out(run)["doubt"][:2] == (2, 1), "a box that both strategies asked about is answered once"


def test_answers_to_other_cycles_and_held_out_boxes_are_refused(run: Run, tmp_path: Path) -> None:
    """Taken for labels of another cycle, answers about boxes would make their images whole and complete."""
    _export(run, tmp_path / "out", formats=("label_studio",))
    files = returned("label_studio", tmp_path / "out" / "c1", "sure", tmp_path / "sure")
    refused = r"all 2 items were rejected: answers a task of cycle c1: import it with --cycle c1"
    with pytest.raises(QuarryError, match=refused):
        import_labels(run, str(files), "label_studio", "train", "manual", MODEL)
    with pytest.raises(QuarryError, match=r"rejected: answers for boxes of the image.*--split train"):
        import_labels(run, str(files), "label_studio", "eval", "c1", MODEL)
    assert not (Path(run.store.root) / "ground_truth").exists()
    whole = returned("label_studio", tmp_path / "out" / "c1", "whole", tmp_path / "whole")
    import_labels(run, str(whole), "label_studio", "eval", "c1", MODEL)
    assert _out(run)["whole"][:2] == (2, 2), "whole images can be labeled to be held out"


def test_labelbox_rows_of_images_and_of_boxes_are_told_apart(run: Run, tmp_path: Path) -> None:
    """The row of an image is shared by all cycles and carries no task id."""
    run.store.merge(ACQUISITION, _picks(run, [("whole", "image", 3, A, None, 346.0)]))
    _export(run, tmp_path / "out", formats=("labelbox", "labelbox_data_rows"))
    manifests = tmp_path / "out" / "c1"

    def without_boxes(text: str) -> str:
        rows_ = [json.loads(line) for line in text.splitlines()]
        for row in rows_:
            row["projects"]["p"]["labels"][0]["annotations"]["objects"] = []
        return "".join(json.dumps(row) + "\n" for row in rows_)

    files = returned("labelbox", manifests, "whole", tmp_path / "whole")
    for file in files.iterdir():
        file.write_text(without_boxes(file.read_text()))
    _import(run, files, "labelbox")
    assert _truth(run) == {image: (True, set()) for image in (A, C, D)}, "images found empty"
    assert _out(run)["whole"][:2] == (3, 3) and _out(run)["sure"][:2] == (2, 1), "a's boxes are known too"
    _import(run, returned("labelbox", manifests, "doubt", tmp_path / "doubt"), "labelbox")
    assert _truth(run)[A] == (True, {(70, "labeled")}) and _truth(run)[B] == (False, {(10, "labeled")})


def test_a_box_over_the_border_is_the_box_that_was_sent(run: Run, tmp_path: Path) -> None:
    """It is sent cut to its image; what then comes back as it was must not be background too."""
    far = [("a.jpg-2", 1, "car", 0.2, 90.0, 10.0, 120.0, 30.0, None, None)]
    rows_ = [detections_row(image_id=A, model_id="m", width=100, height=80, detections=far, n_detections=1)]
    frame = run.store.session.createDataFrame(rows_, spark_schema(DETECTIONS))
    run.store.merge(DETECTIONS, frame.withColumn("ts", F.current_timestamp()))
    run.store.delete(
        ACQUISITION, run.store.read(ACQUISITION).where("strategy = 'sure'").select(*ACQUISITION.key)
    )
    _export(run, tmp_path / "out", formats=("label_studio",), strategies=("doubt",))
    _import(run, returned("label_studio", tmp_path / "out" / "c1", "doubt", tmp_path / "doubt"))
    assert _truth(run)[A] == (False, {(90, "labeled")})


def test_imports_side_by_side_lose_no_answer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels an import made are out of date once another one has written: they must not replace them."""
    _export(run, tmp_path / "out", formats=("label_studio",))
    files = {
        name: returned("label_studio", tmp_path / "out" / "c1", name, tmp_path / name)
        for name in ("sure", "doubt")
    }
    merge, met = TableStore.merge, []

    def merge_after_the_other(store: TableStore, table: Any, rows_: Any, **given: Any) -> None:
        if table.name == "ground_truth" and not met:
            rows_.count()  # what this import made of the answers it knows of
            met.append(table)
            _import(run, files["doubt"])
        merge(store, table, rows_, **given)

    monkeypatch.setattr(TableStore, "merge", merge_after_the_other)
    _import(run, files["sure"])
    assert met and _truth(run)[A] == (False, {(10, "labeled"), (40, "labeled"), (70, "labeled")})


def _picks(run: Run, picks: list[Any]) -> Any:
    names = "strategy STRING, unit STRING, rank INT, image_id STRING, detection_id STRING, cost_s DOUBLE"
    constants = {"cycle_id": F.lit("c1"), "score": F.lit(0.5), "settings_hash": F.lit("s")}
    return in_schema(run.store.session.createDataFrame(picks, names).withColumns(constants), ACQUISITION)


def test_a_box_of_which_nothing_can_be_seen_is_never_picked(run: Run) -> None:
    """Nobody could be asked about it, and the cycle would wait for an answer."""
    corners = {"seen": (90.0, 10.0, 120.0, 60.0), "outside": (100.0, 10.0, 120.0, 60.0)}
    corners["flat"] = (50.0, 30.0, 50.0, 60.0)
    boxes = [(name, 1, "car", 0.5, *sides, None, None) for name, sides in corners.items()]
    of_model = {"model_id": "m", "width": 100, "height": 80, "detections": boxes, "n_detections": 3}
    frame = run.store.session.createDataFrame(
        [detections_row(image_id=D, **of_model)], spark_schema(DETECTIONS)
    )
    run.store.merge(DETECTIONS, frame.withColumn("ts", F.current_timestamp()))
    found = box_dataset(run, MODEL, threshold=0.1).where(F.col("image_id") == D).collect()
    assert [row.detection_id for row in found] == ["seen"]
