"""COCO files of labels to train on, one a Spark task; mapInArrow-shaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import pyarrow as pa

from udfs.formats.json_values import compact_json
from udfs.published_file import published


def training_file_batches(
    batches: Iterable[pa.RecordBatch], folder: str, classes: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Writes the images of a task to one COCO file.

    Args:
        batches: Columns file (the task's number), uri, width, height, sequence_id, complete, boxes (structs
            of `ground_truth`) and noisy (boxes nobody has checked: label_name, x1, y1, x2, y2; or null).
        folder: Where the file goes.
        classes: Class names in label order; boxes of other classes, and labels of any status but labeled, are
            left out.

    Yields:
        One row with column `file_name`, or none when the task has no image.
    """
    rows = [row for batch in batches for row in batch.to_pylist()]
    if not rows:
        return
    file_name = f"labels-{rows[0]['file'] + 1:05d}.json"
    with published(f"{folder}/{file_name}") as stream:
        stream.write(compact_json(_coco(rows, classes)))
    yield pa.RecordBatch.from_pydict({"file_name": pa.array([file_name], pa.string())})


def _coco(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    category_ids = {name: number for number, name in enumerate(classes, start=1)}
    numbers = count(1)
    return {
        "images": [_image(row, number) for number, row in enumerate(rows, start=1)],
        "annotations": [
            _annotation(box, next(numbers), number, category_ids[box["label_name"]])
            for number, row in enumerate(rows, start=1)
            for box in _boxes(row)
            if box["label_name"] in category_ids
        ],
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
    }


def _image(row: dict[str, Any], number: int) -> dict[str, Any]:
    names = ("width", "height", "sequence_id", "complete")
    return {"id": number, "file_name": row["uri"], **{name: row[name] for name in names}}


def _boxes(row: dict[str, Any]) -> list[dict[str, Any]]:
    labeled = [box | {"noisy": 0} for box in row["boxes"] if box["status"] == "labeled"]
    return labeled + [box | {"noisy": 1, "iscrowd": False} for box in row["noisy"] or ()]


def _annotation(box: dict[str, Any], number: int, image_number: int, category_id: int) -> dict[str, Any]:
    width, height = box["x2"] - box["x1"], box["y2"] - box["y1"]
    return {
        "id": number,
        "image_id": image_number,
        "category_id": category_id,
        "bbox": [box["x1"], box["y1"], width, height],
        "area": width * height,
        "iscrowd": int(box["iscrowd"]),
        "noisy": box["noisy"],
    }
