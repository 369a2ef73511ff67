"""Labels from a Label Studio project's JSON export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from udfs.formats.json_values import is_integer, is_px, is_text, json_document
from udfs.formats.label_studio import REGION
from udfs.formats.label_studio_boxes import answered_boxes, drawn_box, sent_ids, stated_frame
from udfs.formats.newest_returns import IS_OLDER, utc_time
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.shown_values import shown
from udfs.formats.task import is_question

_WANTED = "export the project as JSON (not JSON-MIN, it lacks our ids)"
# Controls that say something without drawing anything.
_NO_SHAPES = frozenset(
    {"choices", "textarea", "rating", "number", "taxonomy", "datetime", "pairwise", "ranker", "relation"}
)


@dataclass(frozen=True, kw_only=True)
class _Submitted:
    """One annotation that somebody submitted, with its task's data."""

    item_id: str
    file_name: str
    data: Mapping[str, Any]
    annotation: Mapping[str, Any]
    annotated_at: str | None

    @property
    def is_question(self) -> bool:
        return is_question(self.data.get("kind"))

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
    try:
        tasks = json_document(stream)
    except NotThisFormat as error:
        raise NotThisFormat(f"{error}; {_WANTED}") from None
    is_export = isinstance(tasks, list) and all(isinstance(task, Mapping) for task in tasks)
    if not is_export or (tasks and not any("annotations" in task and "data" in task for task in tasks)):
        raise NotThisFormat(
            "not a JSON export of Label Studio: expected an array of tasks with `data` and `annotations`, "
            f"got {shown(tasks)}; {_WANTED}"
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
        times = [item.annotated_at or "" for item in submitted]
        newest = max(times)
        if len(times) > 1 and ("" in times or times.count(newest) > 1):
            yield submitted[0].rejected(
                f"annotated {len(times)} times, at the same or an unknown time: which labels hold cannot be "
                "told; keep one annotation in Label Studio"
            )
            continue
        for item, time in zip(submitted, times, strict=True):
            if time == newest:
                yield from _labels(item)
            else:
                yield item.rejected(IS_OLDER)


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
            yield _Submitted(
                item_id=item_id,
                file_name=name,
                data=data,
                annotation=annotation,
                annotated_at=utc_time(annotation.get("updated_at")) or utc_time(annotation.get("created_at")),
            )


def _labels(item: _Submitted) -> Iterator[ReturnedImage | RejectedItem]:
    result = item.annotation.get("result")
    if not isinstance(result, list) or not all(isinstance(part, Mapping) for part in result):
        yield item.rejected(f"expected `result` as an array of objects, got {shown(result)}")
        return
    shapes = [part for part in result if _is_shape(part, item)]
    frame = stated_frame(shapes, item.data)
    if shapes and frame is None:
        yield item.rejected("expected original_width and original_height in whole px, got none in any region")
        return
    sent = sent_ids(shapes, item.annotation) if "task_id" in item.data else frozenset()
    boxes: list[ReturnedBox] = []
    for shape in shapes:
        assert frame is not None
        box = drawn_box(shape, frame, sent)
        if isinstance(box, ReturnedBox):
            boxes.append(box)
            continue
        region_id = shown(shape.get("id")).strip("'")
        yield RejectedItem(kind="annotation", item_id=region_id, reason=box, file_name=item.file_name)
    answered = answered_boxes(item.data, result, boxes, frame) if item.is_question else boxes
    if isinstance(answered, str):
        yield item.rejected(answered)
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


def _file_name(data: Mapping[str, Any]) -> str | None:
    """The name we sent, else the image's URI: of a project that is not ours, `image` or the only text."""
    texts = {key: value for key, value in data.items() if is_text(value) and value}
    for key in ("file_name", "image", *(texts if len(texts) == 1 else ())):
        if key in texts:
            return texts[key]
    return None


def _annotator(completed_by: Any) -> str | None:
    """The email address, else the number in Label Studio."""
    names = [completed_by.get("email"), completed_by.get("id")] if isinstance(completed_by, Mapping) else []
    for name in names or [completed_by]:
        if is_text(name) and name:
            return name
        if is_integer(name) and is_px(name):
            return str(name)
    return None


def _text_or_none(value: Any) -> str | None:
    return value if is_text(value) else None
