"""Labelbox exports: labels of data rows, read line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from udfs.formats.json_values import is_side, is_text, json_items
from udfs.formats.labelbox import RIGHT_CLASS
from udfs.formats.labelbox_keys import ids_of_key
from udfs.formats.newest_returns import newest_returns, utc_time
from udfs.formats.px_boxes import answered_box, corners_of
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.shown_values import shown
from udfs.formats.task import QUESTIONS

_UNFINISHED = ("TOLABEL", "INREWORK", "SKIPPED")


def read_labelbox(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """The labels of a Labelbox export (NDJSON or a JSON array; one data row an item).

    A data row that was skipped, sent back to rework or not labeled yet is no answer and left out. Of several
    labels of a row, by several people or in several projects, the newest counts. Sizes come from the media
    attributes, except where EXIF turns the image by 90 degrees: labelers see it upright, the attributes need
    not say so, and boxes are px of the upright image. Polygons, masks, points and lines are rejected,
    and an image of which something was rejected is not complete.

    Args:
        stream: Seekable; it is read twice, and memory holds one data row of an NDJSON file.

    Raises:
        NotThisFormat: No item is a data row of an export; a file of pre-annotations is none.
    """
    return newest_returns(lambda: _answers(stream))


def _answers(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    is_export, first = False, "nothing"
    for item in json_items(stream):
        if isinstance(item, RejectedItem):
            first = item.reason if first == "nothing" else first
            yield item
            continue
        number, value = item
        row = value.get("data_row") if isinstance(value, Mapping) else None
        if isinstance(row, Mapping) and isinstance(value.get("projects"), Mapping):
            is_export = True
            yield from _labels(value, row, number)
        else:
            first = shown(value) if first == "nothing" else first
            yield RejectedItem(
                kind="image",
                item_id=f"item {number}",
                reason=f"expected an object with data_row and projects, got {shown(value)}",
            )
    if not is_export:
        raise NotThisFormat(
            f"not a Labelbox export: expected lines with data_row and projects, got {first}; export the "
            "project's data rows with labels and pass that file (a file to import has no labels)"
        )


def _labels(
    value: Mapping[str, Any], row: Mapping[str, Any], number: int
) -> Iterator[ReturnedImage | RejectedItem]:
    keys = ("external_id", "global_key", "id")
    names = {key: row[key] for key in keys if is_text(row.get(key)) and row[key]}
    if not names:
        yield RejectedItem(
            kind="image",
            item_id=f"item {number}",
            reason=f"expected a data row with external_id, global_key or id, got {shown(row)}",
        )
        return
    width, height = _frame(value.get("media_attributes"))
    key = names.get("global_key", names[next(reversed(names))])
    # Other people's rows may share an external_id; a global_key is unique.
    file_name = next(iter(names.values())) if any(ids_of_key(key)) else key
    for project in value["projects"].values():
        labels = project.get("labels") if isinstance(project, Mapping) else None
        for label in labels if isinstance(labels, list) else []:
            if _is_finished(project, label):
                yield from _answer(label, file_name=file_name, key=key, width=width, height=height)


def _answer(
    label: Any, *, file_name: str, key: str, width: int | None, height: int | None
) -> Iterator[ReturnedImage | RejectedItem]:
    annotations = label.get("annotations") if isinstance(label, Mapping) else None
    objects = annotations.get("objects") if isinstance(annotations, Mapping) else None
    if not isinstance(objects, list):
        yield _rejected("image", label, f"expected annotations.objects, got {shown(annotations)}", file_name)
        return
    image_id, task_id, detection_id = ids_of_key(key)
    is_asked = detection_id is not None
    if is_asked and len(objects) != 1:
        reason = f"expected the box that was asked about, got {len(objects)}; answer no to remove it"
        yield _rejected("image", label, reason, file_name)
        return
    boxes: list[ReturnedBox] = []
    for found in objects:
        box = _box(found, detection_id=detection_id, is_asked=is_asked, frame=(width, height))
        if isinstance(box, ReturnedBox):
            boxes.append(box)
        else:
            yield _rejected("annotation", found, box, file_name)
    if is_asked and not boxes:
        return
    details = label.get("label_details")
    details = details if isinstance(details, Mapping) else {}
    creator = details.get("created_by")
    yield ReturnedImage(
        file_name=file_name,
        width=width,
        height=height,
        boxes=tuple(boxes),
        quarry_image_id=image_id,
        task_id=task_id,
        is_image_task=image_id is not None,
        complete=not is_asked and len(boxes) == len(objects),
        annotator=creator if is_text(creator) else None,
        annotated_at=utc_time(details.get("updated_at")) or utc_time(details.get("created_at")),
    )


def _box(
    found: Any, *, detection_id: str | None, is_asked: bool, frame: tuple[int | None, int | None]
) -> ReturnedBox | str:
    if not isinstance(found, Mapping) or "bounding_box" not in found:
        kind = found.get("annotation_kind") if isinstance(found, Mapping) else found
        return f"expected a bounding box, got {shown(kind)}"
    name = found.get("name")
    if not is_text(name) or not name:
        return f"expected a name of a class, got {shown(name)}"
    corners = corners_of(found["bounding_box"], width=frame[0], height=frame[1])
    if isinstance(corners, str):
        return corners
    if is_asked:
        kinds = [kind for kind in QUESTIONS if _chosen(found, QUESTIONS[kind]) is not None]
        answer = _chosen(found, QUESTIONS[kinds[0]]) if kinds else None
        return answered_box(
            kinds[0] if kinds else "verify_box",
            _name(answer),
            _name(_chosen(answer, RIGHT_CLASS)),
            label_name=name,
            corners=corners,
            detection_id=detection_id,
        )
    x1, y1, x2, y2 = corners
    return ReturnedBox(label_name=name, x1=x1, y1=y1, x2=x2, y2=y2)


def _chosen(holder: Any, question: str) -> Any:
    """The option chosen for the question on a box or an option, or None."""
    classifications = holder.get("classifications") if isinstance(holder, Mapping) else None
    for classification in classifications if isinstance(classifications, list) else []:
        if isinstance(classification, Mapping) and classification.get("name") == question:
            return classification.get("radio_answer")
    return None


def _name(option: Any) -> Any:
    return option.get("name") if isinstance(option, Mapping) else None


def _frame(attributes: Any) -> tuple[int | None, int | None]:
    attributes = attributes if isinstance(attributes, Mapping) else {}
    width, height = attributes.get("width"), attributes.get("height")
    is_turned = shown(attributes.get("exif_rotation")).strip("'") in ("5", "6", "7", "8")
    if is_turned or not is_side(width) or not is_side(height):
        return None, None
    return width, height


def _is_finished(project: Mapping[str, Any], label: Any) -> bool:
    details = project.get("project_details")
    status = details.get("workflow_status") if isinstance(details, Mapping) else None
    performance = label.get("performance_details") if isinstance(label, Mapping) else None
    if isinstance(performance, Mapping) and performance.get("skipped") is True:
        return False
    return not is_text(status) or "".join(filter(str.isalpha, status)).upper() not in _UNFINISHED


def _rejected(kind: Any, item: Any, reason: str, file_name: str) -> RejectedItem:
    item_id = next(
        (item[key] for key in ("feature_id", "id") if isinstance(item, Mapping) and is_text(item.get(key))),
        "(none)",
    )
    return RejectedItem(kind=kind, item_id=item_id, reason=reason, file_name=file_name)
