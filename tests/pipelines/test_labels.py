"""Labels land on the right image, the rest is counted with its reason, and a repeat changes nothing."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import LakeSettings
from pipelines.ingest import ingest
from pipelines.labels import import_labels
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.tables import ACQUISITION, DETECTIONS
from tests.small_lake import detections_row, rows


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """Three ingested images, two of them of the same stem in different folders."""
    for name in ("a/x.jpg", "b/x.jpg", "b/y z.jpg"):
        (tmp_path / "lake" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80)).save(tmp_path / "lake" / name)
    made = Run(store=TableStore(session, str(tmp_path / "tables")))
    ingest(made, LakeSettings(uri=str(tmp_path / "lake")))
    return made


def coco(names: list[str], boxes: list[tuple[int, list[float]]]) -> dict[str, Any]:
    """A COCO document; a box is (index of its image, xywh)."""
    return {
        "images": [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": i, "category_id": 3, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for k, (i, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 3, "name": "cell"}],
    }


def test_labels_find_their_images_by_path(run: Run, tmp_path: Path) -> None:
    document = coco(
        ["b/x.jpg", "b/y z.jpg", "c/x.jpg"], [(0, [10, 20, 30, 40]), (2, [1, 1, 5, 5]), (0, [0, 0, -4, 5])]
    )
    (tmp_path / "labels.json").write_text(json.dumps(document))
    told: list[str] = []
    teller = Run(store=run.store, tell=told.append)
    counts = import_labels(teller, str(tmp_path / "labels.json"), "coco", "eval", "c1", None)
    assert counts == {"images": 2, "boxes": 1, "not_in_lake": 1, "rejected": 1}
    assert any("rejected 1 x annotation" in line for line in told)
    path_of = {row["image_id"]: row["path"] for row in rows(run.store.root, "images")}
    found = {path_of[row["image_id"]]: row for row in rows(run.store.root, "ground_truth")}
    assert set(found) == {"b/x.jpg", "b/y z.jpg"} and found["b/y z.jpg"]["boxes"] == []
    (box,) = found["b/x.jpg"]["boxes"]
    assert (box["x1"], box["y1"], box["x2"], box["y2"], box["label_name"]) == (10.0, 20.0, 40.0, 60.0, "cell")
    before = rows(run.store.root, "ground_truth", volatile=True)
    later = Run(store=run.store)
    import_labels(later, str(tmp_path / "labels.json"), "coco", "eval", "c2", None)
    assert rows(run.store.root, "ground_truth", volatile=True) == before


def test_a_file_that_was_moved_is_the_same_import(run: Run, tmp_path: Path) -> None:
    document = coco(["b/x.jpg", "c/x.jpg"], [(0, [10, 20, 30, 40]), (0, [0, 0, -4, 5])])
    for name in ("labels.json", "moved.json"):
        (tmp_path / name).write_text(json.dumps(document))
        import_labels(run, str(tmp_path / name), "coco", "eval", "c1", None)
    tables = ("ground_truth_history", "label_imports", "label_rejects")
    assert [len(rows(run.store.root, table)) for table in tables] == [1, 1, 2]


def test_a_model_that_knows_the_class_takes_what_one_before_did_not(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(coco(["a/x.jpg"], [(0, [10, 20, 30, 40])])))
    document = json.loads((tmp_path / "labels.json").read_text())
    document["categories"].append({"id": 4, "name": "nucleus"})
    document["annotations"].append({**document["annotations"][0], "id": 9, "category_id": 4})
    (tmp_path / "labels.json").write_text(json.dumps(document))
    models = [
        Model(model_id="m", name="m", head="softmax", classes=dict(enumerate(names, 1)))
        for names in (["cell"], ["cell", "nucleus"])
    ]
    counts = []
    for model in (*models, models[1], models[0]):
        again = Run(store=run.store)
        counts.append(import_labels(again, str(tmp_path / "labels.json"), "coco", "eval", "c1", model))
    assert [(c["boxes"], c["rejected"]) for c in counts] == [(1, 1), (2, 0), (2, 0), (1, 1)]
    (truth,) = rows(run.store.root, "ground_truth")
    assert len(truth["boxes"]) == 2 and truth["complete"]
    assert len(rows(run.store.root, "label_imports")) == 2


def test_an_import_s_id_is_of_all_its_files(run: Run, tmp_path: Path) -> None:
    """It is what earlier versions made of the same files; two that are alike are two."""
    (tmp_path / "labels").mkdir()
    texts = [json.dumps(coco([name], [])) for name in ("a/x.jpg", "b/x.jpg", "b/x.jpg")]
    for number, text in enumerate(texts):
        (tmp_path / "labels" / f"{number}.json").write_text(text)
    import_labels(run, str(tmp_path / "labels"), "coco", "eval", "c1", None)
    digests = sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
    whole = repr([digests, "coco", "eval", "c1", []])
    (row,) = rows(run.store.root, "label_imports")
    assert row["import_id"] == hashlib.sha256(whole.encode()).hexdigest()[:16]
    assert row["n_files"] == 3
    with pytest.raises(QuarryError, match=r"no \.xml or \.zip file in it"):
        import_labels(run, str(tmp_path / "labels"), "cvat", "eval", "c1", None)


def test_a_folder_of_files_is_imported_and_corrections_supersede(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "labels" / "day=1"
    folder.mkdir(parents=True)
    (folder / "one.json").write_text(json.dumps(coco(["a/x.jpg"], [(0, [1, 2, 3, 4])])))
    (folder / "two.json").write_text(json.dumps(coco(["b/x.jpg"], [])))
    assert import_labels(run, str(tmp_path / "labels"), "coco", "eval", "c1", None)["images"] == 2
    (folder / "one.json").write_text(json.dumps(coco(["a/x.jpg"], [(0, [5, 6, 7, 8])])))
    import_labels(Run(store=run.store), str(folder / "one.json"), "coco", "eval", "c2", None)
    boxes = [row["boxes"] for row in rows(run.store.root, "ground_truth") if row["boxes"]]
    assert len(boxes) == 1 and boxes[0][0]["x1"] == 5.0


def test_labels_of_another_lake_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(coco(["elsewhere.jpg"], [])))
    with pytest.raises(QuarryError, match=r"none of its images is in the lake.*elsewhere\.jpg"):
        import_labels(run, str(tmp_path / "labels.json"), "coco", "eval", "c1", None)
    with pytest.raises(QuarryError, match="no such file or folder"):
        import_labels(run, str(tmp_path / "nothing.json"), "coco", "eval", "c1", None)
    with pytest.raises(QuarryError, match="no such file or folder"):
        import_labels(run, "/dev/null", "coco", "eval", "c1", None)
    assert not (tmp_path / "tables" / "ground_truth").exists()


def test_a_stray_box_keeps_no_empty_image_out(run: Run, tmp_path: Path) -> None:
    """Nor are boxes that a tool numbers alike in every image one reject."""
    shape = '<box label="cell" xtl="1" ytl="1" xbr="1" ybr="9"/>'
    images = "".join(
        f'<image id="{n}" name="{name}" width="100" height="80">{inside}</image>'
        for n, (name, inside) in enumerate([("a/x.jpg", shape), ("b/x.jpg", shape), ("b/y z.jpg", "")])
    )
    (tmp_path / "labels.xml").write_text(f"<annotations><meta/>{images}</annotations>")
    counts = import_labels(run, str(tmp_path / "labels.xml"), "cvat", "train", "c1", None)
    assert counts == {"images": 3, "boxes": 0, "not_in_lake": 0, "rejected": 2}
    complete = [row["complete"] for row in rows(run.store.root, "ground_truth")]
    assert sorted(complete) == [False, False, True]
    names = {row["file_name"] for row in rows(run.store.root, "label_rejects")}
    assert names == {"a/x.jpg", "b/x.jpg"}


def test_a_time_that_has_not_come_keeps_no_correction_out(run: Run, tmp_path: Path) -> None:
    def answer(left: int, time: str) -> list[dict[str, Any]]:
        box = {"type": "box", "label": "cell", "left": left, "top": 2, "width": 3, "height": 4}
        return [
            {"completed_at": time, "metadata": {"file_name": "a/x.jpg"}, "response": {"annotations": [box]}}
        ]

    soon = datetime.now(timezone.utc) + timedelta(days=1)
    for left, time in ((1, "9999-01-01T00:00:00Z"), (2, soon.isoformat()), (3, "2020-01-01T00:00:00Z")):
        (tmp_path / "labels.json").write_text(json.dumps(answer(left, time)))
        import_labels(Run(store=run.store), str(tmp_path / "labels.json"), "scale", "train", "c1", None)
    (row,) = rows(run.store.root, "ground_truth")
    assert [box["x1"] for box in row["boxes"]] == [2.0], "the last file is older than what is there"


def test_files_that_share_an_image_are_put_together(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name, boxes in (
        ("one", [[1, 1, 5, 5], [2, 2, 5, 5]]),
        ("two", [[2, 2, 5, 5], [9, 9, 5, 5]]),
        ("no", []),
    ):
        content = json.dumps(coco(["b/x.jpg"], [(0, [float(v) for v in box]) for box in boxes]))
        (tmp_path / "labels" / f"{name}.json").write_text(content)
    counts = import_labels(run, str(tmp_path / "labels"), "coco", "eval", "c1", None)
    assert counts == {"images": 1, "boxes": 3, "not_in_lake": 0, "rejected": 0}
    (row,) = rows(run.store.root, "ground_truth")
    assert [box["x1"] for box in row["boxes"]] == [1.0, 2.0, 9.0]


def test_answers_about_picked_boxes_leave_the_rest_of_the_image_open(run: Run, tmp_path: Path) -> None:
    """Three boxes of a/x.jpg were picked: one is corrected, one comes back as it is, one not at all."""
    ids = {row["path"]: row["image_id"] for row in rows(run.store.root, "images")}
    corners = {
        "moved": (10, 10, 30, 30),
        "kept": (40, 10, 60, 30),
        "gone": (70, 10, 90, 30),
        "open": (5, 50, 25, 70),
    }
    boxes = [("d-" + name, 1, "cell", 0.5, *map(float, c), None, None) for name, c in corners.items()]
    session, a, b = run.store.session, ids["a/x.jpg"], ids["b/x.jpg"]
    of_model = {"model_id": "m", "width": 100, "height": 80, "detections": boxes, "n_detections": 4}
    seen = [detections_row(image_id=i, **of_model) for i in (a, b)]
    frame = session.createDataFrame(seen, spark_schema(DETECTIONS))
    run.store.merge(DETECTIONS, frame.withColumn("ts", F.current_timestamp()))
    picks = [(a, "box", "d-moved"), (a, "box", "d-kept"), (a, "box", "d-gone"), (b, "image", None)]
    frame = session.createDataFrame(picks, "image_id STRING, unit STRING, detection_id STRING")
    places = {"rank": F.row_number().over(Window.orderBy("detection_id")), "cycle_id": F.lit("c1")}
    texts = {name: F.lit("s") for name in ("strategy", "settings_hash")}
    picked = frame.withColumns(places | texts | {"score": F.lit(1.0)})
    run.store.merge(ACQUISITION, in_schema(picked, ACQUISITION))

    answers = coco(["a/x.jpg", "b/x.jpg"], [(0, [12, 12, 20, 20]), (0, [40, 10, 20, 20]), (1, [1, 1, 9, 9])])
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    states = []
    for _ in range(2):
        import_labels(run, str(tmp_path / "answers.json"), "coco", "train", "c1", None)
        truth = {row["image_id"]: row for row in rows(run.store.root, "ground_truth", volatile=True)}
        assert truth[b]["complete"] and len(truth[b]["boxes"]) == 1
        assert not truth[a]["complete"]
        found = {(box["x1"], box["status"], box["detection_id"]) for box in truth[a]["boxes"]}
        assert found == {(12.0, "labeled", None), (40.0, "labeled", None), (70.0, "background", "d-gone")}
        states.append(truth)
    assert states[0] == states[1], "a repeat changes nothing"

    more = coco(["a/x.jpg"], [(0, [70, 10, 20, 20])])
    (tmp_path / "more.json").write_text(json.dumps(more))
    import_labels(Run(store=run.store), str(tmp_path / "more.json"), "coco", "eval", "c1", None)
    (row,) = [row for row in rows(run.store.root, "ground_truth") if row["image_id"] == a]
    assert row["complete"] and len(row["boxes"]) == 1, "held-out labels are whole images"
