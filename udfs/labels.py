"""Ground truth out of label files, one Arrow row an image; mapInArrow-shaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from conf.errors import QuarryError
from conf.label_map import LabelMap
from udfs.formats.coco import category_names, coco_truths
from udfs.formats.returned import RejectedItem, ReturnedImage
from udfs.image_files import ImageFault, read_bytes

TRUTH_BOX_TYPE = pa.struct(
    [
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("x1", pa.float64()),
        ("y1", pa.float64()),
        ("x2", pa.float64()),
        ("y2", pa.float64()),
        ("iscrowd", pa.bool_()),
        ("status", pa.string()),
        ("source", pa.string()),
        ("detection_id", pa.string()),
    ]
)
LABEL_SCHEMA = pa.schema(
    [
        ("file_name", pa.string()),
        ("quarry_image_id", pa.string()),
        ("boxes", pa.list_(TRUTH_BOX_TYPE)),
        ("reject_kind", pa.string()),
        ("reject_reason", pa.string()),
    ]
)
ROWS_PER_BATCH = 1_000


def coco_label_batches(
    batches: Iterator[pa.RecordBatch], label_ids: dict[str, int], label_map: LabelMap | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of COCO annotation files: truths of images, and what was rejected with its reason.

    Args:
        batches: Column `uri`: a COCO JSON file each.
        label_ids: Class name to the model's label id; empty when no model is known yet, then `label` stays
            null.
        label_map: Renames classes and drops the boxes of some; applied before `label_ids`.

    Yields:
        Batches of LABEL_SCHEMA; a row has either boxes (perhaps none), or reject_kind and reject_reason.

    Raises:
        QuarryError: A file is not COCO, or names a class that the map or the model does not know.
    """
    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            rows: list[dict[str, Any]] = []
            items, targets = _items(uri, label_map)
            for item in items:
                rows.append(
                    _rejected(item)
                    if isinstance(item, RejectedItem)
                    else _truth(item, uri, label_ids, targets)
                )
                if len(rows) >= ROWS_PER_BATCH:
                    yield pa.RecordBatch.from_pylist(rows, schema=LABEL_SCHEMA)
                    rows = []
            if rows:
                yield pa.RecordBatch.from_pylist(rows, schema=LABEL_SCHEMA)


def json_document(uri: str, what: str) -> dict[str, Any]:
    """The object a JSON file holds.

    Args:
        uri: Path or URI.
        what: What the user calls the file, for messages.

    Raises:
        QuarryError: No such file, not JSON, or no object.
    """
    try:
        document = json.loads(read_bytes(uri))
    except ImageFault as fault:
        raise QuarryError(f"{what} {uri}: {fault.message}") from None
    except (ValueError, RecursionError) as error:
        raise QuarryError(f"{what} {uri}: not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise QuarryError(
            f"{what} {uri}: expected a COCO object with images, annotations and categories, "
            f"got {type(document).__name__}"
        )
    return document


def _items(
    uri: str, label_map: LabelMap | None
) -> tuple[Iterator[ReturnedImage | RejectedItem], dict[str, str | None]]:
    """What a file holds, and what each of its classes is called here; None drops its boxes."""
    document = json_document(uri, "label file")
    try:
        items = coco_truths(document)
        classes = category_names(document["categories"]).values()
        names: dict[str, str | None] = {name: name for name in classes}
        return items, label_map.of(names, all_classes=True) if label_map else names
    except QuarryError as error:
        raise QuarryError(f"label file {uri}: {error}") from None


def _truth(
    image: ReturnedImage, uri: str, label_ids: dict[str, int], targets: dict[str, str | None]
) -> dict[str, Any]:
    boxes = []
    for box in image.boxes:
        name = targets[box.label_name]
        if name is None:
            continue
        if label_ids and name not in label_ids:
            raise QuarryError(
                f"label file {uri}: class {name!r} is unknown to the model; known: {', '.join(label_ids)}; "
                "--label-map renames classes"
            )
        corners = {"x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2}
        boxes.append(
            {"label": label_ids.get(name), "label_name": name, **corners}
            | {"iscrowd": box.iscrowd, "status": "labeled", "source": "coco"}
        )
    return {"file_name": image.file_name, "quarry_image_id": image.quarry_image_id, "boxes": boxes}


def _rejected(item: RejectedItem) -> dict[str, Any]:
    return {"file_name": item.file_name, "reject_kind": item.kind, "reject_reason": item.reason}
