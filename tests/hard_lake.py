"""A lake of names, pictures and boxes that break labeling tools, as a detector of hard classes saw it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw
from pyspark.sql import functions as F

from conf.settings import LakeSettings
from pipelines.ingest import ingest
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import in_schema, spark_schema
from schemas.tables import ACQUISITION, DETECTIONS, MODELS
from tests.small_lake import detections_row, rows

WIDTH, HEIGHT = 640, 360
CLASSES = {1: "car", 2: 'say "hi" & <b>; DROP TABLE images', 3: "Fußgänger 行人"}
MODEL = Model(model_id="m", name="street", classes=CLASSES, head="softmax")
EMPTY, TURNED = "nothing/empty.jpg", "turned/exif 6.jpg"
NAMES = (
    "day/front/0001.jpg",
    "day/rear/0001.jpg",
    "with space/a 'b' (1) & c=d+e%20.jpg",
    "日本/straße ö.jpg",
    TURNED,
    EMPTY,
)
# On the border, over it, of one px, between px.
CORNERS = (
    (0.0, 0.0, 640.0, 360.0),
    (-15.0, 300.0, 90.0, 380.0),
    (639.0, 359.0, 640.0, 360.0),
    (50.3, 60.6, 153.7, 164.4),
)
# What of them lies inside, which is what labelers see.
SEEN = ((0.0, 0.0, 640.0, 360.0), (0.0, 300.0, 90.0, 360.0), *CORNERS[2:])
LABELS = tuple(CLASSES[1 + n % 3] for n in range(len(CORNERS)))
_COLOURS = ("silver", "seagreen", "black", "royalblue")
_ORIENTATION_TAG, _TURNED_RIGHT = 0x0112, 6


def hard_lake(run: Run, lake: Path, names: Iterable[str] = NAMES) -> dict[str, str]:
    """Writes pictures with something in each box, ingests them, and records what the model found in each.

    Args:
        run: Gets rows of images, detections and models.
        lake: Folder of the pictures; made when absent.
        names: Of the pictures; in `EMPTY` nothing was found, `TURNED` is stored on its side.

    Returns:
        Path below the lake's root to image_id; box n of an image is `<image_id>-n`.
    """
    for name in names:
        path = lake / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        for corners, colour in zip(CORNERS, _COLOURS, strict=True) if name != EMPTY else ():
            x2, y2 = (round(value) - 1 for value in corners[2:])  # Pillow paints the last px too
            ImageDraw.Draw(picture).rectangle((round(corners[0]), round(corners[1]), x2, y2), fill=colour)
        exif = Image.Exif()
        if name == TURNED:
            exif[_ORIENTATION_TAG] = _TURNED_RIGHT
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        picture.save(path, exif=exif)
    ingest(run, LakeSettings(uri=str(lake)))
    session, found = run.store.session, rows(run.store.root, "images")
    assert {(row["width"], row["height"]) for row in found} == {(WIDTH, HEIGHT)}, "sizes are those people see"
    ids = {row["path"]: row["image_id"] for row in found}
    size = {"width": WIDTH, "height": HEIGHT}
    seen = [
        detections_row(image_id=image_id, model_id="m", detections=boxes, n_detections=len(boxes), **size)
        for path, image_id in ids.items()
        for boxes in [[] if path == EMPTY else _boxes(image_id)]
    ]
    frame = session.createDataFrame(seen, spark_schema(DETECTIONS)).withColumn("ts", F.current_timestamp())
    run.store.merge(DETECTIONS, frame)
    columns = ", ".join(f"{column.name} {column.ddl_type}" for column in MODELS.columns[:7])
    model = session.createDataFrame([("m", "street", "w", CLASSES, "softmax", None, "{}")], columns)
    run.store.merge(MODELS, model.withColumn("created_ts", F.current_timestamp()))
    return ids


def _boxes(image_id: str) -> list[tuple[object, ...]]:
    return [
        (f"{image_id}-{n}", 1 + n % 3, LABELS[n], 0.9 - n / 10, *corners, None, None)
        for n, corners in enumerate(CORNERS)
    ]


def pick(run: Run, cycle_id: str, strategy: str, picked: Iterable[tuple[str, str | None]]) -> None:
    """Records that a strategy picked images, or boxes of them (image_id, detection_id), best first."""
    picks = [
        (cycle_id, strategy, "image" if box is None else "box", rank, image_id, box, 0.5, "s")
        for rank, (image_id, box) in enumerate(picked, start=1)
    ]
    columns = "cycle_id STRING, strategy STRING, unit STRING, rank INT, image_id STRING, detection_id STRING"
    columns += ", score DOUBLE, settings_hash STRING"
    run.store.merge(ACQUISITION, in_schema(run.store.session.createDataFrame(picks, columns), ACQUISITION))
