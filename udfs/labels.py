"""Ground truth out of label files, one Arrow row an image; mapInArrow-shaped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from conf.errors import QuarryError
from conf.label_map import LabelMap
from udfs.formats.registry import FORMATS
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.shown_values import shown
from udfs.image_files import filesystem_and_path

BUFFER_BYTES = 1 << 20
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
        ("source", pa.string()),
        ("item_kind", pa.string()),
        ("item_id", pa.string()),
        ("file_name", pa.string()),
        ("quarry_image_id", pa.string()),
        ("task_id", pa.string()),
        ("is_image_task", pa.bool_()),
        ("said_width", pa.int32()),
        ("said_height", pa.int32()),
        ("boxes", pa.list_(TRUTH_BOX_TYPE)),
        ("complete", pa.bool_()),
        ("annotator", pa.string()),
        ("annotated_ts", pa.timestamp("us", "UTC")),
        ("reason", pa.string()),
    ]
)
ROWS_PER_BATCH = 1_000


def label_batches(
    batches: Iterable[pa.RecordBatch],
    form: str,
    label_ids: Mapping[str, int],
    label_map: LabelMap | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of label files: images with what was drawn, and what was left out with its reason.

    Args:
        batches: Column `uri`: a label file each.
        form: Format of the files, a name of `FORMATS`.
        label_ids: Class name to the model's label id; empty when no model is known yet, then `label` stays
            null.
        label_map: Renames classes and drops the boxes of some; applied before `label_ids`.

    Yields:
        Batches of LABEL_SCHEMA. A row of an image has boxes (perhaps none) in px of the frame the file
        states; any other row has a reason. An image is `complete` where nothing of it was rejected and all
        that was asked is answered.

    Raises:
        QuarryError: A file cannot be read, or is not of this format.
    """
    rows: list[dict[str, Any]] = []
    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            for item in _items(uri, form):
                rows += _rows(item, uri, form, label_ids, label_map)
                if len(rows) >= ROWS_PER_BATCH:
                    yield pa.RecordBatch.from_pylist(rows, schema=LABEL_SCHEMA)
                    rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=LABEL_SCHEMA)


def _items(uri: str, form: str) -> Iterator[ReturnedImage | RejectedItem]:
    read = FORMATS[form].read
    assert read is not None
    try:
        filesystem, path = filesystem_and_path(uri)
        # Arrow's files cannot be read by lines.
        with io.BufferedReader(filesystem.open_input_file(path), BUFFER_BYTES) as stream:
            yield from read(stream)
    except NotThisFormat as error:
        raise QuarryError(f"label file {uri}: {error}") from None
    except OSError as error:
        raise QuarryError(f"label file {uri}: {str(error).splitlines()[0]}") from None


def _rows(
    item: ReturnedImage | RejectedItem,
    uri: str,
    form: str,
    label_ids: Mapping[str, int],
    label_map: LabelMap | None,
) -> Iterator[dict[str, Any]]:
    if isinstance(item, RejectedItem):
        yield _rejected(item, uri)
        return
    boxes: dict[tuple[Any, ...], dict[str, Any]] = {}
    complete = item.complete
    for box in item.boxes:
        row = _box_row(box, form, label_ids, label_map)
        if isinstance(row, str):
            complete = False
            yield _rejected_box(item, box, uri, row)
        elif row:
            # A box that was copied and pasted onto itself differs in nothing but its id.
            drawn = tuple(value for name, value in row.items() if name != "detection_id")
            if boxes.setdefault(drawn, row) is not row:
                yield _rejected_box(item, box, uri, "the same box is there twice")
    yield {
        "source": uri,
        "item_kind": "image",
        "item_id": item.task_id or item.file_name,
        "file_name": item.file_name,
        "quarry_image_id": item.quarry_image_id,
        "task_id": item.task_id,
        "is_image_task": item.is_image_task,
        "said_width": item.width,
        "said_height": item.height,
        "boxes": list(boxes.values()),
        "complete": complete,
        "annotator": item.annotator,
        "annotated_ts": None if item.annotated_at is None else _utc(item.annotated_at),
    }


def _box_row(
    box: ReturnedBox, form: str, label_ids: Mapping[str, int], label_map: LabelMap | None
) -> dict[str, Any] | str:
    """The box as a row, empty where the map drops its class, or why it cannot be used."""
    name: str | None = box.label_name
    if label_map is not None:
        try:
            name = label_map.target(box.label_name)
        except QuarryError as error:
            return str(error).replace(repr(box.label_name), shown(box.label_name))
    if name is None:
        return {}
    if label_ids and name not in label_ids:
        known = ", ".join(label_ids)
        return f"class {shown(name)} is unknown to the model; known: {known}; --label-map renames classes"
    return {
        "label": label_ids.get(name),
        "label_name": name,
        "x1": box.x1,
        "y1": box.y1,
        "x2": box.x2,
        "y2": box.y2,
        "iscrowd": box.iscrowd,
        "status": box.status,
        "source": form,
        "detection_id": box.detection_id,
    }


def _rejected(item: RejectedItem, uri: str) -> dict[str, Any]:
    return {
        "source": uri,
        "item_kind": item.kind,
        "item_id": item.item_id,
        "file_name": item.file_name,
        "reason": item.reason,
    }


def _rejected_box(image: ReturnedImage, box: ReturnedBox, uri: str, reason: str) -> dict[str, Any]:
    place = ", ".join(f"{value:g}" for value in (box.x1, box.y1, box.x2, box.y2))
    item_id = box.detection_id or f"{box.label_name} {place}"
    return _rejected(
        RejectedItem(kind="annotation", item_id=item_id, reason=reason, file_name=image.file_name), uri
    )


def _utc(text: str) -> datetime | None:
    """The moment, or None where the text is none that a table can hold."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
