"""Boxes in the regions of a Label Studio annotation, and the answers to questions about one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from udfs.formats.json_values import is_px, is_side, is_text
from udfs.formats.label_studio_interface import ANSWER, NO_OBJECT, RIGHT_CLASS
from udfs.formats.returned import ReturnedBox, box_fault
from udfs.formats.shown_values import shown
from udfs.formats.task import NO, YES, Corners

Frame = tuple[int, int]


def stated_frame(regions: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> Frame | None:
    """Width and height in px as the tool saw the image, else as it was sent."""
    sizes = [(region.get("original_width"), region.get("original_height")) for region in regions]
    for width, height in (*sizes, (data.get("width"), data.get("height"))):
        if is_side(width) and is_side(height):
            return width, height
    return None


def sent_ids(regions: Sequence[Mapping[str, Any]], annotation: Mapping[str, Any]) -> frozenset[str]:
    """Ids of those regions of a task of ours that were made from detections we sent.

    A copy of such a region has an id of its own and the origin of the one it was made from, so that what the
    prediction holds counts, where the export tells it.
    """
    prediction = annotation.get("prediction")
    predicted = prediction.get("result") if isinstance(prediction, Mapping) else None
    drawn = {part["id"] for part in regions if is_text(part.get("id")) and part.get("origin") != "manual"}
    if not isinstance(predicted, list) or not predicted:
        return frozenset(drawn)
    ids = (part.get("id") for part in predicted if isinstance(part, Mapping))
    return frozenset(drawn.intersection(filter(is_text, ids)))


def drawn_box(region: Mapping[str, Any], frame: Frame, sent: frozenset[str]) -> ReturnedBox | str:
    """The box of a region in px, or why it is none.

    An image that was turned in the tool (`image_rotation`) only looks so: its boxes are those of the image as
    it is.

    Args:
        region: One item of an annotation's `result`.
        frame: Width and height that all regions of the image state, px.
        sent: Ids of the regions that were made from detections, see `sent_ids`.
    """
    value, size = region.get("value"), (region.get("original_width"), region.get("original_height"))
    if region.get("type") != "rectanglelabels" or not isinstance(value, Mapping):
        return f"expected a rectangle with a label, got the type {shown(region.get('type'))}"
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or len(labels) != 1 or not is_text(labels[0]) or not labels[0]:
        return f"expected one label, got {shown(labels)}"
    if size not in ((None, None), frame):
        return f"image of {shown(size)} px, but another region of it says {frame} px"
    numbers: list[Any] = [
        *(value.get(key) for key in ("x", "y", "width", "height")),
        value.get("rotation") or 0,
    ]
    if not all(is_px(number) for number in numbers) or numbers[2] <= 0 or numbers[3] <= 0:
        return (
            "expected x, y, width and height in percent and a rotation in degrees, finite, width and height "
            f"above 0, got {shown(numbers)}"
        )
    x1, y1, x2, y2 = _enclosing(numbers, frame)
    fault = box_fault(x1, y1, x2, y2, width=frame[0], height=frame[1])
    if fault is not None:
        return fault
    detection_id = region["id"] if is_text(region.get("id")) and region["id"] in sent else None
    return ReturnedBox(label_name=labels[0], x1=x1, y1=y1, x2=x2, y2=y2, detection_id=detection_id)


def _enclosing(numbers: list[float], frame: Frame) -> Corners:
    """Corners in px of the box round a rectangle: x, y, width, height in percent, turned round x, y."""
    x, width = (numbers[k] * frame[0] / 100.0 for k in (0, 2))
    y, height = (numbers[k] * frame[1] / 100.0 for k in (1, 3))
    cos, sin = math.cos(math.radians(numbers[4])), math.sin(math.radians(numbers[4]))
    xs = [x, x + width * cos, x - height * sin, x + width * cos - height * sin]
    ys = [y, y + width * sin, y + height * cos, y + width * sin + height * cos]
    return min(xs), min(ys), max(xs), max(ys)


def answered_boxes(
    data: Mapping[str, Any],
    result: Sequence[Mapping[str, Any]],
    boxes: Sequence[ReturnedBox],
    frame: Frame | None,
) -> list[ReturnedBox] | str:
    """The box that was asked about as it was answered and any others that were drawn, or why there is none.

    Args:
        data: Of the task, with the `kind` of the question.
        result: The annotation's.
        boxes: Those drawn in it.
        frame: They are in, px.
    """
    answer, right_class = _choice(result, ANSWER), _choice(result, RIGHT_CLASS)
    asked_id = data.get("detection_id")
    others = [box for box in boxes if box.detection_id != asked_id]
    if answer == NO_OBJECT or (data["kind"] == "verify_box" and answer == NO):
        sent = _sent_box(data, frame)
        return "expected the box that was asked about in `data`" if sent is None else [sent, *others]
    asked = next((box for box in boxes if box.detection_id == asked_id), None)
    if answer not in (YES, NO):
        return f"expected an answer to the question, got {shown(answer)}"
    if asked is None:
        return f"answered {answer}, but its box is not there any more"
    if answer == YES:
        return [asked, *others]
    if right_class is None:
        return "answered no, but the right class was not chosen"
    return [replace(asked, label_name=right_class), *others]


def _sent_box(data: Mapping[str, Any], frame: Frame | None) -> ReturnedBox | None:
    detection_id, label, box = (data.get(key) for key in ("detection_id", "label_name", "box"))
    sent_frame = stated_frame((), data)
    if frame is None or sent_frame is None or not is_text(detection_id) or not is_text(label):
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(is_px(value) for value in box):
        return None
    x1, x2 = (box[k] * frame[0] / sent_frame[0] for k in (0, 2))
    y1, y2 = (box[k] * frame[1] / sent_frame[1] for k in (1, 3))
    if box_fault(x1, y1, x2, y2, width=frame[0], height=frame[1]) is not None:
        return None
    return ReturnedBox(
        label_name=label, x1=x1, y1=y1, x2=x2, y2=y2, status="background", detection_id=detection_id
    )


def _choice(result: Sequence[Mapping[str, Any]], control: str) -> str | None:
    """What was chosen in a control, when it is one thing."""
    values = [part.get("value") for part in result if part.get("from_name") == control]
    chosen = [value.get("choices") for value in values if isinstance(value, Mapping)]
    if len(chosen) != 1 or not isinstance(chosen[0], list) or len(chosen[0]) != 1:
        return None
    return chosen[0][0] if is_text(chosen[0][0]) else None
