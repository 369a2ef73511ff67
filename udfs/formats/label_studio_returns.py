"""Labels from a Label Studio project's JSON export."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import IO, Any

from udfs.formats.json_values import is_integer, is_px, is_side, is_text, json_document, shown
from udfs.formats.label_studio import REGION
from udfs.formats.label_studio_interface import ANSWER, NO_OBJECT, RIGHT_CLASS
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage, box_fault
from udfs.formats.task import NO, YES

# Controls that say something without drawing anything.
_NO_SHAPES = frozenset(
    {"choices", "textarea", "rating", "number", "taxonomy", "datetime", "pairwise", "ranker", "relation"}
)
_NO_TIME = datetime.min.replace(tzinfo=timezone.utc)
_Frame = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Submitted:
    """One annotation that somebody submitted, with its task's data."""

    item_id: str
    file_name: str
    data: Mapping[str, Any]
    annotation: Mapping[str, Any]
    annotated_at: str | None
    time: datetime | None

    @property
    def is_question(self) -> bool:
        return self.data.get("kind") in ("verify_box", "verify_class")

    def rejected(self, reason: str) -> RejectedItem:
        return RejectedItem(kind="image", item_id=self.item_id, reason=reason, file_name=self.file_name)


def read_label_studio(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """The labels of each task of a project's JSON export, and each item that had to be left out.

    Percents become px of the frame the tool states. Tasks that nobody submitted, drafts, skipped annotations
    and predictions are no labels and left out; a submitted annotation without boxes is an image found empty.
    Of several annotations of a task, and of a task that was imported again, the newest counts. A rotated box
    becomes the axis-aligned one around it. An answer becomes the box it was asked about: ``labeled`` as it
    stands now, of the class that was chosen; or ``background``, as it was sent. An image of which a box was
    rejected is not complete.

    Args:
        stream: The file; all of it is held, it is one JSON array.

    Returns:
        A `ReturnedImage` for each task with labels, in order of the tasks, and a `RejectedItem` for: a task
        without an image or with annotations whose order in time is not known; labels of an image whose size
        the file does not say; a shape other than a rectangle, one without its one label, outside the image or
        without area; a question that was not answered.

    Raises:
        NotThisFormat: The file is no JSON export of Label Studio.
    """
    tasks = json_document(stream)
    is_export = isinstance(tasks, list) and all(isinstance(task, Mapping) for task in tasks)
    if not is_export or (tasks and not any("annotations" in task and "data" in task for task in tasks)):
        raise NotThisFormat(
            "not a JSON export of Label Studio: expected an array of tasks with `data` and `annotations`, "
            f"got {shown(tasks)}; export the project as JSON (not JSON-MIN, it lacks our ids)"
        )
    return _returns(tasks)


def _returns(tasks: list[Mapping[str, Any]]) -> Iterator[ReturnedImage | RejectedItem]:
    by_task: dict[Any, list[_Submitted]] = defaultdict(list)
    for number, task in enumerate(tasks, start=1):
        for item in _submitted(task, number):
            if isinstance(item, RejectedItem):
                yield item
                continue
            task_id = item.data.get("task_id")
            by_task[(task_id, item.file_name) if is_text(task_id) else number].append(item)
    for submitted in by_task.values():
        if len(submitted) > 1 and any(item.time is None for item in submitted):
            yield submitted[0].rejected(
                f"{len(submitted)} annotations and not all say when they were made: which one holds cannot "
                "be told; keep one of them in Label Studio"
            )
        else:
            # Of the same time the last in the file.
            yield from _labels(sorted(submitted, key=lambda item: item.time or _NO_TIME)[-1])


def _submitted(task: Mapping[str, Any], number: int) -> Iterator[_Submitted | RejectedItem]:
    data, annotations = task.get("data"), task.get("annotations")
    task_id = task.get("id")
    item_id = f"task {task_id}" if is_integer(task_id) and is_px(task_id) else f"item {number} of the file"
    name = _file_name(data) if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(annotations, list) or name is None:
        reason = f"expected `annotations` as an array and `data` with the image, got {shown(task)}"
        yield RejectedItem(kind="image", item_id=item_id, reason=reason, file_name=name)
        return
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            reason = f"expected an annotation as an object, got {shown(annotation)}"
            yield RejectedItem(kind="image", item_id=item_id, reason=reason, file_name=name)
        elif not annotation.get("was_cancelled"):
            annotated_at, time = _time(annotation)
            yield _Submitted(
                item_id=item_id,
                file_name=name,
                data=data,
                annotation=annotation,
                annotated_at=annotated_at,
                time=time,
            )


def _labels(item: _Submitted) -> Iterator[ReturnedImage | RejectedItem]:
    result = item.annotation.get("result")
    if not isinstance(result, list) or not all(isinstance(part, Mapping) for part in result):
        yield item.rejected(f"expected `result` as an array of objects, got {shown(result)}")
        return
    shapes = [part for part in result if _is_shape(part, item)]
    frame = _frame(shapes, item.data)
    if shapes and frame is None:
        yield item.rejected("expected original_width and original_height in whole px, got none in any region")
        return
    boxes: list[ReturnedBox] = []
    for shape in shapes:
        assert frame is not None
        box = _box(shape, frame, item)
        if isinstance(box, ReturnedBox):
            boxes.append(box)
        else:
            yield box
    answered = _answered(item, result, boxes, frame) if item.is_question else boxes
    if isinstance(answered, RejectedItem):
        yield answered
        return
    width, height = frame or (None, None)
    yield ReturnedImage(
        file_name=item.file_name,
        width=width,
        height=height,
        boxes=tuple(answered),
        quarry_image_id=_text_or_none(item.data.get("image_id")),
        task_id=_text_or_none(item.data.get("task_id")),
        complete=not item.is_question and len(boxes) == len(shapes),
        annotator=_annotator(item.annotation.get("completed_by")),
        annotated_at=item.annotated_at,
    )


def _is_shape(part: Mapping[str, Any], item: _Submitted) -> bool:
    is_region = item.is_question and part.get("from_name") == REGION
    return not is_region and not (is_text(part.get("type")) and part["type"] in _NO_SHAPES)


def _frame(shapes: list[Mapping[str, Any]], data: Mapping[str, Any]) -> _Frame | None:
    """Width and height in px as the tool saw the image, else as it was sent."""
    sizes = [(shape.get("original_width"), shape.get("original_height")) for shape in shapes]
    for width, height in (*sizes, (data.get("width"), data.get("height"))):
        if is_side(width) and is_side(height):
            return width, height
    return None


def _box(shape: Mapping[str, Any], frame: _Frame, item: _Submitted) -> ReturnedBox | RejectedItem:
    def rejected(reason: str) -> RejectedItem:
        region_id = shown(shape.get("id")).strip("'")
        return RejectedItem(kind="annotation", item_id=region_id, reason=reason, file_name=item.file_name)

    value, size = shape.get("value"), (shape.get("original_width"), shape.get("original_height"))
    if shape.get("type") != "rectanglelabels" or not isinstance(value, Mapping):
        return rejected(f"expected a rectangle with a label, got the type {shown(shape.get('type'))}")
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or len(labels) != 1 or not is_text(labels[0]) or not labels[0]:
        return rejected(f"expected one label, got {shown(labels)}")
    if size not in ((None, None), frame):
        return rejected(f"image of {shown(size)} px, but another region of it says {frame} px")
    if shape.get("image_rotation") not in (None, 0):
        return rejected(f"the image was turned by {shown(shape['image_rotation'])} degrees; turn it back")
    numbers = [*(value.get(key) for key in ("x", "y", "width", "height")), value.get("rotation") or 0]
    if not all(is_px(number) for number in numbers) or numbers[2] <= 0 or numbers[3] <= 0:
        return rejected(
            "expected x, y, width and height in percent and a rotation in degrees, finite, width and height "
            f"above 0, got {shown(numbers)}"
        )
    x1, y1, x2, y2 = _enclosing(numbers, frame)
    fault = box_fault(x1, y1, x2, y2, width=frame[0], height=frame[1])
    if fault is not None:
        return rejected(fault)
    is_sent = "task_id" in item.data and shape.get("origin") != "manual"
    detection_id = _text_or_none(shape.get("id")) if is_sent else None
    return ReturnedBox(label_name=labels[0], x1=x1, y1=y1, x2=x2, y2=y2, detection_id=detection_id)


def _enclosing(numbers: list[float], frame: _Frame) -> tuple[float, float, float, float]:
    """Corners in px of the box round a rectangle: x, y, width, height in percent, turned round x, y."""
    x, width = (numbers[k] * frame[0] / 100.0 for k in (0, 2))
    y, height = (numbers[k] * frame[1] / 100.0 for k in (1, 3))
    cos, sin = math.cos(math.radians(numbers[4])), math.sin(math.radians(numbers[4]))
    xs = [x, x + width * cos, x - height * sin, x + width * cos - height * sin]
    ys = [y, y + width * sin, y + height * cos, y + width * sin + height * cos]
    return min(xs), min(ys), max(xs), max(ys)


def _answered(
    item: _Submitted, result: list[Mapping[str, Any]], boxes: list[ReturnedBox], frame: _Frame | None
) -> list[ReturnedBox] | RejectedItem:
    """The box that was asked about as it was answered, and any others that were drawn."""
    answer, right_class = _choice(result, ANSWER), _choice(result, RIGHT_CLASS)
    asked_id, kind = item.data.get("detection_id"), item.data["kind"]
    others = [box for box in boxes if box.detection_id != asked_id]
    if answer == NO_OBJECT or (kind == "verify_box" and answer == NO):
        sent = _sent_box(item.data, frame)
        if sent is None:
            return item.rejected("expected the box that was asked about in `data`, got another or none")
        return [sent, *others]
    asked = next((box for box in boxes if box.detection_id == asked_id), None)
    if answer not in (YES, NO):
        return item.rejected(f"expected an answer to the question, got {shown(answer)}")
    if asked is None:
        return item.rejected(f"answered {answer}, but its box is not there any more")
    if answer == NO and right_class is None:
        return item.rejected("answered no, but the right class was not chosen")
    return [replace(asked, label_name=right_class) if answer == NO and right_class else asked, *others]


def _sent_box(data: Mapping[str, Any], frame: _Frame | None) -> ReturnedBox | None:
    detection_id, label, box = (data.get(key) for key in ("detection_id", "label_name", "box"))
    sound = is_text(detection_id) and is_text(label) and isinstance(box, list) and len(box) == 4
    sent_frame = _frame([], data)
    if not sound or not all(is_px(value) for value in box) or frame is None or sent_frame is None:
        return None
    x1, x2 = (box[k] * frame[0] / sent_frame[0] for k in (0, 2))
    y1, y2 = (box[k] * frame[1] / sent_frame[1] for k in (1, 3))
    if box_fault(x1, y1, x2, y2, width=frame[0], height=frame[1]) is not None:
        return None
    return ReturnedBox(
        label_name=label, x1=x1, y1=y1, x2=x2, y2=y2, status="background", detection_id=detection_id
    )


def _choice(result: list[Mapping[str, Any]], control: str) -> str | None:
    """What was chosen in a control, when it is one thing."""
    values = [part.get("value") for part in result if part.get("from_name") == control]
    chosen = [value.get("choices") for value in values if isinstance(value, Mapping)]
    if len(chosen) != 1 or not isinstance(chosen[0], list) or len(chosen[0]) != 1:
        return None
    return _text_or_none(chosen[0][0])


def _file_name(data: Mapping[str, Any]) -> str | None:
    """The name we sent, else the image's URI: of a project that is not ours, `image` or the only text."""
    texts = {key: value for key, value in data.items() if is_text(value) and value}
    for key in ("file_name", "image", *(texts if len(texts) == 1 else ())):
        if key in texts:
            return texts[key]
    return None


def _time(annotation: Mapping[str, Any]) -> tuple[str | None, datetime | None]:
    """When it was last changed, as the file says and in UTC."""
    for key in ("updated_at", "created_at"):
        text = annotation.get(key)
        if not is_text(text):
            continue
        try:
            # Python 3.10 reads no Z.
            time = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
            return text, time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc)
        except (ValueError, OverflowError):
            continue
    return None, None


def _annotator(completed_by: Any) -> str | None:
    """The email address, else the number in Label Studio."""
    if isinstance(completed_by, Mapping):
        return _annotator(completed_by.get("email")) or _annotator(completed_by.get("id"))
    if is_integer(completed_by) and is_px(completed_by):
        return str(completed_by)
    return _text_or_none(completed_by) or None


def _text_or_none(value: Any) -> str | None:
    return value if is_text(value) else None
