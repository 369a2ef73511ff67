"""Out to every labeling tool and back: each box, class and image of hard names lands where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.export_settings import ExportSettings
from conf.settings import LakeSettings
from pipelines.export import export_manifests
from pipelines.ingest import ingest
from pipelines.labels import import_labels
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.tables import ACQUISITION, DETECTIONS, MODELS
from tests.small_lake import detections_row, rows
from tests.tool_returns import FORMATS, returned

CLASSES = {1: "car", 2: 'say "hi" & <b>; DROP TABLE images', 3: "Fußgänger 行人"}
MODEL = Model(model_id="m", name="street", classes=CLASSES, head="softmax")
NAMES = (
    "day/front/0001.jpg",
    "day/rear/0001.jpg",
    "with space/a 'b' (1) & c=d+e%20.jpg",
    "日本/straße ö.jpg",
    "turned/exif 6.jpg",
    "nothing/empty.jpg",
)
# On the border, over it, of one px, between px.
CORNERS = (
    (0.0, 0.0, 200.0, 100.0),
    (-5.0, 90.0, 30.0, 120.0),
    (199.0, 99.0, 200.0, 100.0),
    (10.3, 20.6, 33.7, 44.4),
)


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    """Images of hard names in a lake, each but one with boxes, all picked by a strategy of a hard name."""
    for name in NAMES:
        path = tmp_path / "lake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "exif" in name:
            exif = Image.Exif()
            exif[274] = 6
            Image.new("RGB", (100, 200)).save(path, exif=exif)
        else:
            Image.new("RGB", (200, 100)).save(path)
    made = Run(store=TableStore(session, str(tmp_path / "tables")))
    ingest(made, LakeSettings(uri=str(tmp_path / "lake")))
    found = [
        (row["image_id"], row["path"], row["width"], row["height"]) for row in rows(made.store.root, "images")
    ]
    assert {(width, height) for _, _, width, height in found} == {(200, 100)}, "sizes are those people see"
    seen = [
        detections_row(
            image_id=image_id,
            model_id="m",
            detections=[] if "nothing" in path else _boxes(image_id),
            n_detections=0 if "nothing" in path else len(CORNERS),
        )
        for image_id, path, _, _ in found
    ]
    frame = session.createDataFrame(seen, spark_schema(DETECTIONS)).withColumn("ts", F.current_timestamp())
    made.store.merge(DETECTIONS, frame)
    model = [("m", "street", "w", CLASSES, "softmax", None, "{}")]
    names = ", ".join(f"{column.name} {column.ddl_type}" for column in MODELS.columns[:7])
    made.store.merge(
        MODELS, session.createDataFrame(model, names).withColumn("created_ts", F.current_timestamp())
    )
    picks = [("c1", "it's", "image", n, image_id, 0.5) for n, (image_id, *_) in enumerate(found, start=1)]
    names = "cycle_id STRING, strategy STRING, unit STRING, rank INT, image_id STRING, score DOUBLE"
    picked = session.createDataFrame(picks, names).withColumn("settings_hash", F.lit("s"))
    made.store.merge(ACQUISITION, in_schema(picked, ACQUISITION))
    return made


def _boxes(image_id: str) -> list[tuple[object, ...]]:
    return [
        (f"{image_id}-{n}", 1 + n % 3, CLASSES[1 + n % 3], 0.9 - n / 10, *corners, None, None)
        for n, corners in enumerate(CORNERS)
    ]


def test_every_box_class_and_image_comes_back_through_every_tool(run: Run, tmp_path: Path) -> None:
    settings = ExportSettings(
        formats=(*FORMATS, "labelbox_data_rows"),
        folder=str(tmp_path / "out"),
        uri_prefix="s3://bucket/lake",
        tasks_per_file=4,
    )
    export_manifests(Run(store=run.store), "c1", MODEL, settings, PriceList())
    path_of = {row["image_id"]: row["path"] for row in rows(run.store.root, "images")}
    clipped = [
        (CLASSES[1 + n % 3], max(x1, 0.0), max(y1, 0.0), min(x2, 200.0), min(y2, 100.0))
        for n, (x1, y1, x2, y2) in enumerate(CORNERS)
    ]
    for form in FORMATS:
        files = returned(form, tmp_path / "out" / "c1", "it-s", tmp_path / "back")
        counts = import_labels(Run(store=run.store), str(files), form, "train", "c1", MODEL)
        assert counts == {"images": len(NAMES), "boxes": 20, "not_in_lake": 0, "rejected": 0}, form
        for row in rows(run.store.root, "ground_truth"):
            wanted = [] if "nothing" in path_of[row["image_id"]] else sorted(clipped)
            boxes = sorted((b["label_name"], b["x1"], b["y1"], b["x2"], b["y2"]) for b in row["boxes"])
            assert [box[0] for box in boxes] == [box[0] for box in wanted] and row["complete"], form
            for box, expected in zip(boxes, wanted, strict=True):
                assert box[1:] == pytest.approx(expected[1:], abs=0.5), form
            assert {box["source"] for box in row["boxes"]} <= {form}
    history = rows(run.store.root, "ground_truth_history")
    assert len(history) == len(FORMATS) * len(NAMES) and not (Path(run.store.root) / "label_rejects").exists()
