"""Writes the sample lake: JPEG frames in dataset/date/vehicle partitions, one COCO JSON of labels a drive.

A frame is ``<lake>/images/<partition>/seq-0003-frame-0012.jpg``; its sequence (unique over the
lake) and frame index are read back by `FRAME_NAME`. The labels of a drive are
``<lake>/labels/<partition>/instances.json`` and are written last.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from PIL import Image

from conf.errors import QuarryError
from udfs.street.layout import drive_plan
from udfs.street.scene import StreetFrame, sequence_frames
from udfs.street.world import (
    CLASS_NAMES,
    IMAGE_SIZE_HW,
    Damage,
    DrivePlan,
    SequencePlan,
    StreetSettings,
    frame_damage,
    frame_is_rotated,
)

FRAME_NAME = re.compile(r"(?P<sequence>seq-\d+)-frame-(?P<frame>\d+)\.jpg$")
ANNOTATIONS_PER_IMAGE = 1000
EXIF_ORIENTATION = 0x0112
OBJECT_STORES = ("s3", "gcs", "abfs")

WRITTEN_FILES = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("date", pa.string(), nullable=False),
        pa.field("vehicle", pa.string(), nullable=False),
        pa.field("sequence_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("n_boxes", pa.int32(), nullable=False),
        pa.field("corrupt", pa.string()),
    ]
)


def frame_bytes(image: Image.Image, damage: Damage | None, *, rotated: bool, quality: int) -> bytes:
    """The file content of a frame.

    Args:
        image: RGB picture as it is to be displayed.
        damage: ``truncated`` keeps the header and half of the data, ``empty`` is zero bytes, ``text`` is
            no picture.
        rotated: Whether to store the pixels turned, with EXIF orientation 6 to turn them back.
        quality: JPEG quality, 1 to 95.

    Returns:
        The bytes, the same for the same arguments.
    """
    if damage == "empty":
        return b""
    if damage == "text":
        return b"upload failed: 503 service unavailable\n"
    buffer = io.BytesIO()
    if rotated:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=quality, exif=exif)
    else:
        image.save(buffer, "JPEG", quality=quality)
    data = buffer.getvalue()
    return data[: len(data) // 2] if damage == "truncated" else data


def coco_annotations(frame: StreetFrame, image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of one frame: box as x, y, width, height (px), area (px²), visibility (0 to 1)."""
    rows: list[dict[str, Any]] = []
    for k, (box, label) in enumerate(zip(frame.boxes_xyxy.tolist(), frame.labels.tolist(), strict=True)):
        x, y = round(box[0], 2), round(box[1], 2)
        width, height = round(box[2] - x, 2), round(box[3] - y, 2)
        rows.append(
            {
                "id": image_id * ANNOTATIONS_PER_IMAGE + k,
                "image_id": image_id,
                "category_id": label,
                "bbox": [x, y, width, height],
                "area": round(width * height, 2),
                "iscrowd": 0,
                "visibility": round(float(frame.visibility[k]), 3),
                "track_id": int(frame.actor_ids[k]),
            }
        )
    return rows


class _Lake:
    """Writes whole files below the lake's root on any Arrow file system."""

    def __init__(self, lake_uri: str) -> None:
        try:
            self._fs, root = pafs.FileSystem.from_uri(lake_uri)
        except (pa.ArrowInvalid, ValueError):
            self._fs, root = pafs.LocalFileSystem(), lake_uri
        self._root = root.rstrip("/")

    def create_folder(self, folder: str) -> None:
        if self._fs.type_name not in OBJECT_STORES:
            self._fs.create_dir(f"{self._root}/{folder}", recursive=True)

    def write(self, path: str, data: bytes) -> None:
        target = f"{self._root}/{path}"
        # An object store shows a file only when it is complete; elsewhere a rename gives the same.
        local = self._fs.type_name not in OBJECT_STORES
        folder, name = target.rsplit("/", 1)
        draft = f"{folder}/.{name}.part" if local else target
        with self._fs.open_output_stream(draft) as stream:
            stream.write(data)
        if local:
            self._fs.move(draft, target)


def _write_sequence(
    lake: _Lake, plan: DrivePlan, sequence: SequencePlan, first_id: int, seed: int, settings: StreetSettings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    height, width = IMAGE_SIZE_HW
    for index, frame in enumerate(sequence_frames(sequence, settings)):
        image_id = first_id + index
        damage = frame_damage(seed, image_id - 1, settings)
        rotated = frame_is_rotated(seed, image_id - 1, settings)
        name = f"{plan.partition}/{sequence.sequence_id}-frame-{index:04d}.jpg"
        lake.write(
            f"images/{name}", frame_bytes(frame.image, damage, rotated=rotated, quality=settings.jpeg_quality)
        )
        if damage is None:
            images.append(
                {
                    "id": image_id,
                    "file_name": name,
                    "width": width,
                    "height": height,
                    "sequence_id": sequence.sequence_id,
                    "frame_index": index,
                }
            )
            annotations.extend(coco_annotations(frame, image_id))
        rows.append(
            {
                "path": f"images/{name}",
                "dataset": plan.dataset,
                "date": plan.date,
                "vehicle": plan.vehicle,
                "sequence_id": sequence.sequence_id,
                "frame_index": index,
                "n_boxes": len(frame.labels) if damage is None else 0,
                "corrupt": damage,
            }
        )
    return images, annotations, rows


def write_drive(lake_uri: str, drive_index: int, seed: int, settings: StreetSettings) -> list[dict[str, Any]]:
    """Writes the frames and then the labels of one drive; writing it again gives the same bytes.

    Args:
        lake_uri: Root of the lake: a local path or any URI that Arrow's file systems know.
        drive_index: Position of the drive in the lake, from 0.
        seed: Seed of the lake.
        settings: Shape of the lake.

    Returns:
        One row for each image file, in the columns of `WRITTEN_FILES`.

    Raises:
        QuarryError: When the lake has no such drive.
    """
    plan = drive_plan(seed, drive_index, settings)
    lake = _Lake(lake_uri)
    lake.create_folder(f"images/{plan.partition}")
    lake.create_folder(f"labels/{plan.partition}")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for k, sequence in enumerate(plan.sequences):
        first_id = plan.first_image_id + k * settings.frames_per_sequence
        more = _write_sequence(lake, plan, sequence, first_id, seed, settings)
        for kept, new in zip((images, annotations, rows), more, strict=True):
            kept.extend(new)
    coco = {
        "info": {"description": f"procedural street scenes, seed {seed}, drive {drive_index}"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASS_NAMES)],
    }
    lake.write(f"labels/{plan.partition}/instances.json", json.dumps(coco, separators=(",", ":")).encode())
    return rows


def write_drives(
    batches: Iterator[pa.RecordBatch], lake_uri: str, seed: int, settings: StreetSettings
) -> Iterator[pa.RecordBatch]:
    """Writes the drives named in Arrow batches, for `mapInArrow`.

    Args:
        batches: Batches with the int64 column ``drive_index``; may be empty.
        lake_uri: Root of the lake: a local path or any URI that Arrow's file systems know.
        seed: Seed of the lake, 0 or more.
        settings: Shape of the lake.

    Yields:
        One batch for each drive, in the schema `WRITTEN_FILES`; ``path`` is relative to the lake's root.

    Raises:
        QuarryError: When the column is missing or holds nulls, or the lake has no such drive.
    """
    for batch in batches:
        if "drive_index" not in batch.schema.names:
            raise QuarryError(
                f"drives: expected the column 'drive_index', got {batch.schema.names}; rename the column"
            )
        for drive_index in batch.column("drive_index").to_pylist():
            if drive_index is None:
                raise QuarryError("drive_index: expected integers, got a null; drop rows without a drive")
            yield pa.RecordBatch.from_pylist(
                write_drive(lake_uri, drive_index, seed, settings), schema=WRITTEN_FILES
            )
