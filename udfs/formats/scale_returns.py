"""Answers of Scale's image annotation tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from udfs.formats.json_values import is_px, is_side, is_text, json_items
from udfs.formats.newest_returns import newest_returns, utc_time
from udfs.formats.px_boxes import answered_box, corners_of
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.scale import ANSWER, RIGHT_CLASS
from udfs.formats.shown_values import shown
from udfs.formats.task import is_question


def read_scale(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """The answers of Scale's completed tasks.

    Args:
        stream: Seekable, it is read twice: a JSON array of tasks or callbacks, one a line, or a page of the
            task list (an object with `docs`). A rotated box becomes the upright box round it; other shapes
            are rejected.

    Returns:
        Images in px of the original: tasks that are pending, canceled or failed are left out; an image of
        which something was rejected is not complete. Scale does not say who labeled.

    Raises:
        NotThisFormat: No item is a task.
    """
    return newest_returns(lambda: _answers(stream))


def _answers(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    has_task, first = False, "nothing"
    for item in _tasks(stream):
        if isinstance(item, RejectedItem):
            first = item.reason if first == "nothing" else first
            yield item
            continue
        number, value = item
        if isinstance(value, Mapping) and ("task_id" in value or "response" in value):
            has_task = True
            yield from _answer(value, f"item {number}")
        else:
            first = shown(value) if first == "nothing" else first
            reason = f"expected a task with task_id and response, got {shown(value)}"
            yield RejectedItem(kind="image", item_id=f"item {number}", reason=reason)
    if not has_task:
        raise NotThisFormat(
            f"not answers of Scale: expected tasks with task_id and response, got {first}; pass what the API "
            "lists for the batch's completed tasks"
        )


def _tasks(stream: IO[bytes]) -> Iterator[tuple[int, Any] | RejectedItem]:
    for item in json_items(stream):
        page = None if isinstance(item, RejectedItem) else item[1]
        if isinstance(page, Mapping) and isinstance(page.get("docs"), list):
            yield from enumerate(page["docs"], start=1)
        else:
            yield item


def _answer(value: Mapping[str, Any], place: str) -> Iterator[ReturnedImage | RejectedItem]:
    task = {**value["task"], **value} if isinstance(value.get("task"), Mapping) else value
    if task.get("status", "completed") != "completed":
        return
    metadata = task["metadata"] if isinstance(task.get("metadata"), Mapping) else {}
    parameters = task["params"] if isinstance(task.get("params"), Mapping) else {}
    texts = (metadata.get("file_name"), parameters.get("attachment"), task.get("unique_id"))
    file_name = next((text for text in texts if is_text(text) and text), None)
    item_id = task["task_id"] if is_text(task.get("task_id")) else place
    response = task.get("response")
    annotations = response.get("annotations") if isinstance(response, Mapping) else None
    is_asked = is_question(metadata.get("kind"))
    if file_name is None or not isinstance(annotations, list):
        reason = f"expected a completed task with a file name and response.annotations, got {shown(task)}"
        yield RejectedItem(kind="image", item_id=item_id, reason=reason, file_name=file_name)
        return
    if is_asked and len(annotations) != 1:
        reason = f"expected the box that was asked about, got {len(annotations)}; answer no to remove it"
        yield RejectedItem(kind="image", item_id=item_id, reason=reason, file_name=file_name)
        return
    boxes: list[ReturnedBox] = []
    for annotation in annotations:
        box = _box(annotation, metadata, is_asked=is_asked)
        if isinstance(box, ReturnedBox):
            boxes.append(box)
        else:
            yield _rejected_annotation(annotation, box, file_name)
    if is_asked and not boxes:
        return
    task_id, image_id = metadata.get("quarry_task_id"), metadata.get("quarry_image_id")
    width, height = _frame(metadata)
    yield ReturnedImage(
        file_name=file_name,
        width=width,
        height=height,
        boxes=tuple(boxes),
        quarry_image_id=image_id if is_text(image_id) else None,
        task_id=task_id if is_text(task_id) else None,
        complete=not is_asked and len(boxes) == len(annotations),
        annotated_at=utc_time(task.get("completed_at")),
    )


def _rejected_annotation(annotation: Any, reason: str, file_name: str) -> RejectedItem:
    name = annotation.get("uuid") if isinstance(annotation, Mapping) else None
    item_id = name if is_text(name) else "(none)"
    return RejectedItem(kind="annotation", item_id=item_id, reason=reason, file_name=file_name)


def _box(annotation: Any, metadata: Mapping[str, Any], *, is_asked: bool) -> ReturnedBox | str:
    if not isinstance(annotation, Mapping) or annotation.get("type", "box") != "box":
        return f"expected an annotation of the type box, got {shown(annotation)}"
    label = annotation.get("label")
    if not is_text(label) or not label:
        return f"expected a label, got {shown(label)}"
    width, height = _frame(metadata)
    corners = corners_of(_upright(annotation), width=width, height=height)
    if isinstance(corners, str):
        return corners
    sent, annotation_id = metadata.get("detection_ids"), annotation.get("uuid")
    detection_id = sent.get(annotation_id) if isinstance(sent, Mapping) and is_text(annotation_id) else None
    detection_id = detection_id if is_text(detection_id) else None
    if is_asked:
        given = annotation.get("attributes")
        given = given if isinstance(given, Mapping) else {}
        return answered_box(
            metadata["kind"],
            given.get(ANSWER),
            given.get(RIGHT_CLASS),
            label_name=label,
            corners=corners,
            detection_id=detection_id,
        )
    x1, y1, x2, y2 = corners
    return ReturnedBox(label_name=label, x1=x1, y1=y1, x2=x2, y2=y2, detection_id=detection_id)


def _upright(annotation: Mapping[str, Any]) -> Any:
    """The annotation itself, or the box round the vertices of a rotated one."""
    vertices = annotation.get("vertices")
    if not isinstance(vertices, list) or not vertices:
        return annotation
    points = [(point.get("x"), point.get("y")) for point in vertices if isinstance(point, Mapping)]
    if len(points) != len(vertices) or not all(is_px(value) for point in points for value in point):
        return vertices
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*points, strict=True))
    return {"left": left, "top": top, "width": right - left, "height": bottom - top}


def _frame(metadata: Mapping[str, Any]) -> tuple[int | None, int | None]:
    width, height = metadata.get("width"), metadata.get("height")
    return (width, height) if is_side(width) and is_side(height) else (None, None)
