"""Imported detections land on the right image, bad ones in quarantine, and a repeat changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from PIL import Image
from pyspark.sql import SparkSession

from conf.errors import QuarryError
from conf.label_map import LabelMap
from conf.settings import LakeSettings
from pipelines.import_detections import ImportRequest, import_detections
from pipelines.ingest import ingest
from pipelines.labels import import_labels
from pipelines.run import Run
from pipelines.tables import TableStore
from schemas.tables import MODELS
from tests.small_lake import rows
from udfs.detection_rows import detection_id

IMAGES = [
    {"id": 10, "file_name": "known.jpg", "width": 100, "height": 80},
    {"id": 20, "file_name": "new/b.jpg", "width": 100, "height": 80},
    {"id": 30, "file_name": "c.jpg", "width": 100, "height": 80, "quarry_image_id": "q-3"},
]
CATEGORIES = [{"id": 3, "name": "car"}, {"id": 90, "name": "van"}, {"id": 7, "name": "cone"}]
RESULTS = [
    {"image_id": 10, "category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.4},
    {"image_id": 10, "category_id": 3, "bbox": [5, 6, 7, 8], "score": 0.9},
    {"image_id": 10, "category_id": 3, "bbox": [5, 6, 7, 8], "score": 0.01},
    {"image_id": 30, "category_id": 7, "bbox": [0.5, 0, 0, 0], "score": 1},
    {"image_id": 99, "category_id": 1234, "bbox": [0, 0, -1, 0], "score": 7},
]


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """A root with one ingested image."""
    (tmp_path / "lake").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "lake" / "known.jpg")
    made = Run(store=TableStore(session, str(tmp_path / "tables")))
    ingest(made, LakeSettings(uri=str(tmp_path / "lake")))
    return made


def request(folder: Path, results: list[dict[str, Any]], **changes: Any) -> ImportRequest:
    """A request for COCO results that are written to the folder first."""
    (folder / "images.json").write_text(json.dumps({"images": IMAGES, "categories": CATEGORIES}))
    (folder / "results.json").write_text(json.dumps(results))
    made = ImportRequest(
        detections_uri=str(folder / "results.json"),
        images_uri=str(folder / "images.json"),
        image_root="s3://bucket/",
        dataset="mine",
        model_name="theirs",
        head="sigmoid",
        classes=None,
        label_map=None,
        eta0=0.05,
    )
    return replace(made, **changes)


def test_coco_results_become_rows_and_a_repeat_changes_nothing(run: Run, tmp_path: Path) -> None:
    told: list[str] = []
    teller = Run(store=run.store, tell=told.append)
    before = rows(run.store.root, "images", volatile=True)
    counts = import_detections(teller, request(tmp_path, RESULTS))
    assert counts == {"images": 3, "boxes": 3, "below": 1, "dropped": 0, "quarantined": 0}
    assert any("1 detections of 1 images that are not in" in line and "99" in line for line in told)
    images = {row["path"]: row for row in rows(run.store.root, "images", volatile=True)}
    assert [images["known.jpg"]] == before
    assert (images["new/b.jpg"]["image_id"], images["c.jpg"]["image_id"]) == ("new/b.jpg", "q-3")
    new = images["new/b.jpg"]
    assert (new["uri"], new["dataset"], new["width"]) == ("s3://bucket/new/b.jpg", "mine", 100)
    assert new["mtime"] is None and new["size_bytes"] is None
    (model,) = rows(run.store.root, "models")
    assert dict(model["classes"]) == {1: "car", 2: "van", 3: "cone"} and model["head"] == "sigmoid"
    found = {row["image_id"]: row for row in rows(run.store.root, "detections")}
    known = images["known.jpg"]["image_id"]
    assert [(box["label"], box["score"]) for box in found[known]["detections"]] == [(1, 0.9), (2, 0.4)]
    assert found[known]["detections"][1]["detection_id"] == detection_id(
        known, model["model_id"], "original", 1
    )
    assert found["new/b.jpg"]["detections"] == [] and found["q-3"]["detections"][0]["x2"] == 0.5
    kept = [rows(run.store.root, table, volatile=True) for table in ("images", "models", "detections")]
    import_detections(Run(store=run.store), request(tmp_path, RESULTS))
    assert [
        rows(run.store.root, table, volatile=True) for table in ("images", "models", "detections")
    ] == kept
    assert rows(run.store.root, "quarantine") == []
    (tmp_path / "lake" / "new").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "lake" / "new" / "b.jpg")
    for _ in range(2):
        ingest(run, LakeSettings(uri=str(tmp_path / "lake")))
        ingested = [row for row in rows(run.store.root, "images") if row["path"] == "new/b.jpg"]
        assert [(row["image_id"], row["width"]) for row in ingested] == [("new/b.jpg", 64)]
        assert ingested[0]["mtime"] is not None
    sized = [image | ({"width": 64, "height": 48} if image["id"] == 20 else {}) for image in IMAGES]
    (tmp_path / "labels.json").write_text(
        json.dumps({"images": sized, "annotations": [], "categories": CATEGORIES})
    )
    assert import_labels(run, str(tmp_path / "labels.json"), "coco", "eval", "c", None)["images"] == 3


def test_bad_detections_leave_their_model_only_and_come_back(run: Run, tmp_path: Path) -> None:
    import_detections(run, request(tmp_path, RESULTS))
    import_detections(run, request(tmp_path, RESULTS, model_name="other"))
    bad = [*RESULTS, {"image_id": 30, "category_id": 3, "bbox": [1, 2, 3, 4], "score": float("nan")}]
    told: list[str] = []
    counts = import_detections(Run(store=run.store, tell=told.append), request(tmp_path, bad))
    assert (counts["images"], counts["quarantined"]) == (2, 1)
    assert any("1 images with bad detections (score), for example q-3: score nan" in line for line in told)
    names = {row["model_id"]: row["name"] for row in rows(run.store.root, "models")}
    left = sorted((names[row["model_id"]], row["image_id"]) for row in rows(run.store.root, "detections"))
    assert [name for name, image_id in left if image_id == "q-3"] == ["other"] and len(left) == 5
    (row,) = rows(run.store.root, "quarantine")
    assert (row["image_id"], row["error_class"], row["resolved"]) == ("q-3", "bad_detections", False)
    import_detections(run, request(tmp_path, RESULTS))
    assert len(rows(run.store.root, "detections")) == 6
    assert [row["resolved"] for row in rows(run.store.root, "quarantine")] == [True]


def test_tables_of_detections_are_imported_too(run: Run, tmp_path: Path) -> None:
    two = LabelMap("two.yaml", {"car": "vehicle", "van": "vehicle", "cone": None})
    coco = request(tmp_path, RESULTS, label_map=two)
    assert import_detections(run, coco)["dropped"] == 1
    (model,) = rows(run.store.root, "models")
    assert dict(model["classes"]) == {1: "vehicle"}
    delta = replace(coco, detections_uri=f"{run.store.root}/detections", label_map=None, images_uri=None)
    again = Run(store=TableStore(run.store.session, str(tmp_path / "again")))
    assert import_detections(again, delta)["boxes"] == 2
    assert rows(again.store.root, "detections") == rows(run.store.root, "detections")
    table = DeltaTable(f"{run.store.root}/detections").to_pyarrow_table()
    named = table.select(["image_id", "detections"]).append_column("image_name", table["image_id"])
    by_number = named.set_column(0, "image_id", pa.array([30, 20, 10]))
    pq.write_table(by_number, tmp_path / "part.parquet")
    parquet = replace(delta, detections_uri=str(tmp_path / "part.parquet"), images_uri=coco.images_uri)
    third = Run(store=TableStore(run.store.session, str(tmp_path / "third")))
    counts = import_detections(third, parquet)
    assert (counts["images"], counts["boxes"], counts["quarantined"]) == (2, 0, 1)
    assert "label_name 'vehicle'" in rows(third.store.root, "quarantine")[0]["message"]
    corrected = replace(parquet, classes=("vehicle",))
    with pytest.raises(
        QuarryError, match="--model-name theirs: .*other classes.*car, van, cone; now vehicle"
    ):
        import_detections(third, corrected)
    assert import_detections(third, replace(corrected, model_name="corrected"))["boxes"] == 2
    assert {row["image_id"] for row in rows(third.store.root, "detections")} == {
        "known.jpg",
        "new/b.jpg",
        "q-3",
    }
    both = replace(delta, detections_uri=f"{third.store.root}/detections")
    with pytest.raises(QuarryError, match="is there 2 times.*several models"):
        import_detections(run, both)


def test_detection_ids_that_repeat_from_image_to_image_are_refused(run: Run, tmp_path: Path) -> None:
    at = {"x1": 1.0, "y1": 1.0, "x2": 5.0, "y2": 5.0}
    box = {"detection_id": "0", "label_name": "car", "score": 0.9, **at}
    table = pa.table(
        {"image_id": ["a", "b"], "width": [9, 9], "height": [9, 9], "detections": [[box], [box]]}
    )
    pq.write_table(table, tmp_path / "ids.parquet")
    own_ids = replace(request(tmp_path, []), detections_uri=str(tmp_path / "ids.parquet"), images_uri=None)
    with pytest.raises(QuarryError, match="2 detections have the detection_id '0'; ids must be unique"):
        import_detections(run, own_ids)
    assert not run.store.exists(MODELS)
