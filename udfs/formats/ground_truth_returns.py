"""What comes back from SageMaker Ground Truth: output manifests of labeling and verification jobs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from udfs.formats.ground_truth import LABEL_VERIFICATION, METADATA, OBJECT_DETECTION, OURS, SENT
from udfs.formats.json_values import is_px, is_side, is_text, is_whole, json_lines
from udfs.formats.newest_returns import newest_returns, utc_time
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage, box_fault
from udfs.formats.shown_values import shown
from udfs.formats.task import NO, YES, is_question

_SIDES = ("left", "top", "width", "height")


def read_ground_truth(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """The labels of each line of an output manifest, and what had to be left out.

    Of the label attributes of a line, whatever their names, the newest made by humans counts; a line with
    none (not labeled yet, or by a model only) is left out. There is no annotator: the file names the job,
    not the people. A box that comes back exactly as it was sent keeps its detection_id. Of a verification
    (see `write_ground_truth`) the answer, or the one box of an adjustment, stands for the sent box, and the
    image is not complete; an adjustment that removed the box says that no object is there.

    Args:
        stream: JSON Lines that can be searched; it is read twice, and memory holds one line.

    Returns:
        A `ReturnedImage` for each labeled line, under our file name or its S3 URI; a `RejectedItem` for a
        line that is no JSON or names no image, that failed in the job, with labels of another type, with two
        newest labels of the same time, and for a box with a class outside its class map, without area, or
        fully outside its image.

    Raises:
        NotThisFormat: No line of the file names an image.
    """
    return newest_returns(lambda: _returns(stream))


@dataclass(frozen=True, kw_only=True)
class _Label:
    value: Any
    metadata: Mapping[str, Any]
    time: str


@dataclass(frozen=True, kw_only=True)
class _Detections:
    """Boxes of a label attribute, each as itself or as the reason why it is none."""

    width: int | None
    height: int | None
    boxes: Sequence[ReturnedBox | str]


def _returns(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    stream.seek(0)
    n_lines = n_images = 0
    for item in json_lines(stream):
        n_lines += 1
        if isinstance(item, RejectedItem):
            yield item
            continue
        number, line = item
        uri = line.get("source-ref") if isinstance(line, Mapping) else None
        if not is_text(uri) or not uri:
            yield RejectedItem(
                kind="image",
                item_id=f"line {number}",
                reason=f"expected an object with a source-ref, got {shown(line)}",
            )
            continue
        n_images += 1
        yield from _line(line, number, uri)
    if n_lines and not n_images:
        raise NotThisFormat(
            "not a manifest of Ground Truth: no line is an object with a source-ref; pass the "
            "output.manifest of a labeling job"
        )


def _line(line: Mapping[str, Any], number: int, uri: str) -> Iterator[ReturnedImage | RejectedItem]:
    ours = line[OURS] if isinstance(line.get(OURS), Mapping) else {}
    is_verification = is_question(ours.get("kind"))
    name = _text(ours, "file_name") or uri
    label = _newest_label(line, is_verification=is_verification)
    if label is None:
        return
    sent = _sent(line, ours)
    found = label if isinstance(label, str) else _found(label, sent, ours)
    if isinstance(label, str) or isinstance(found, str):
        yield RejectedItem(kind="image", item_id=f"line {number}", reason=str(found), file_name=name)
        return
    if is_verification and len(sent.boxes) == 1 and len(found.boxes) < 2:
        found = replace(found, boxes=[_for_sent(found.boxes, sent.boxes[0])])
    else:
        found = replace(found, boxes=_with_ids(found.boxes, sent.boxes))
    for box_number, reason in enumerate(found.boxes, start=1):
        if isinstance(reason, str):
            item_id = f"line {number}, box {box_number}"
            yield RejectedItem(kind="annotation", item_id=item_id, reason=reason, file_name=name)
    boxes = tuple(box for box in found.boxes if isinstance(box, ReturnedBox))
    yield ReturnedImage(
        file_name=name,
        width=found.width,
        height=found.height,
        boxes=boxes,
        quarry_image_id=_text(ours, "image_id"),
        task_id=_text(ours, "task_id"),
        complete=not is_verification and len(boxes) == len(found.boxes),
        annotated_at=label.time or None,
    )


def _newest_label(line: Mapping[str, Any], *, is_verification: bool) -> _Label | str | None:
    """The label made by humans last, why there is none to use, or None where no human labeled."""
    types = [OBJECT_DETECTION, LABEL_VERIFICATION] if is_verification else [OBJECT_DETECTION]
    labels, reasons = [], []
    for key, metadata in line.items():
        if not key.endswith(METADATA) or not isinstance(metadata, Mapping):
            continue
        if "failure-reason" in metadata:
            reasons.append(f"the labeling job failed: {shown(metadata['failure-reason'])}")
        elif metadata.get("human-annotated") == "yes" and metadata.get("type") in types:
            value = line.get(key.removesuffix(METADATA))
            time = utc_time(metadata.get("creation-date")) or ""
            labels.append(_Label(value=value, metadata=metadata, time=time))
        elif metadata.get("human-annotated") == "yes":
            reasons.append(f"labels of type {shown(metadata.get('type'))}; expected {' or '.join(types)}")
    if not labels:
        return reasons[0] if reasons else None
    newest = max(label.time for label in labels)
    of_newest = [label for label in labels if label.time == newest]
    if len(of_newest) > 1:
        return (
            f"{len(of_newest)} labels with the creation-date {newest or '(none)'}: which hold cannot be told"
        )
    return of_newest[0]


def _found(label: _Label, sent: _Detections, ours: Mapping[str, Any]) -> _Detections | str:
    if label.metadata.get("type") != LABEL_VERIFICATION:
        return _detections(label.value, label.metadata)
    if len(sent.boxes) != 1:
        return f"expected one sent box in {SENT!r} that the verification answers for, got {len(sent.boxes)}"
    answer = label.metadata.get("class-name")
    if answer == YES:
        return sent
    if answer == NO and ours["kind"] == "verify_box":
        return replace(sent, boxes=[])
    if answer == NO:
        return "the class is wrong, but a verification names no other one; start an adjustment job"
    return f"expected the verification's class-name {YES} or {NO}, got {shown(answer)}"


def _detections(value: Any, metadata: Mapping[str, Any]) -> _Detections | str:
    class_map = metadata.get("class-map", {})
    annotations = value.get("annotations") if isinstance(value, Mapping) else None
    if not isinstance(annotations, list) or not isinstance(class_map, Mapping):
        return f"expected an object with the array annotations, and a class-map, got {shown(value)}"
    sizes = value.get("image_size", [{}])
    size = sizes[0] if isinstance(sizes, list) and sizes else None
    sides = [size.get(side) for side in ("width", "height")] if isinstance(size, Mapping) else [0]
    if not all(is_side(side) or (side is None and not size) for side in sides):
        return f"expected image_size with width and height in whole px, got {shown(sizes)}"
    width, height = sides
    boxes = [_box(annotation, class_map, width, height) for annotation in annotations]
    return _Detections(width=width, height=height, boxes=boxes)


def _box(
    annotation: Any, class_map: Mapping[str, Any], width: int | None, height: int | None
) -> ReturnedBox | str:
    class_id = annotation.get("class_id") if isinstance(annotation, Mapping) else None
    sides: list[Any] = [annotation.get(side) for side in _SIDES] if class_id is not None else []
    name = class_map.get(str(int(class_id))) if is_whole(class_id) else None
    if not is_text(name) or not name:
        return f"class_id {shown(class_id)} is not in the class-map of the line"
    if not all(is_px(side) for side in sides):
        return f"expected left, top, width and height in finite px, got {shown(sides)}"
    left, top = float(sides[0]), float(sides[1])
    right, bottom = left + sides[2], top + sides[3]
    fault = box_fault(left, top, right, bottom, width=width or math.inf, height=height or math.inf)
    return fault or ReturnedBox(label_name=name, x1=left, y1=top, x2=right, y2=bottom)


def _sent(line: Mapping[str, Any], ours: Mapping[str, Any]) -> _Detections:
    """The boxes we sent, with their ids; none when a job has written over them."""
    metadata, ids = line.get(SENT + METADATA), ours.get("detection_ids")
    nothing = _Detections(width=None, height=None, boxes=[])
    if not isinstance(metadata, Mapping) or metadata.get("human-annotated") != "no":
        return nothing
    sent = _detections(line.get(SENT), metadata)
    if isinstance(sent, str) or not isinstance(ids, list) or len(ids) != len(sent.boxes):
        return nothing
    boxes = [
        replace(box, detection_id=detection_id)
        for box, detection_id in zip(sent.boxes, ids, strict=True)
        if isinstance(box, ReturnedBox) and is_text(detection_id)
    ]
    return replace(sent, boxes=boxes)


def _for_sent(found: Sequence[ReturnedBox | str], sent: ReturnedBox | str) -> ReturnedBox | str:
    """The one box that is left as the answer for the one sent; none left: there is no object."""
    assert isinstance(sent, ReturnedBox)
    if not found:
        return replace(sent, status="background")
    (box,) = found
    return replace(box, detection_id=sent.detection_id) if isinstance(box, ReturnedBox) else box


def _with_ids(
    found: Sequence[ReturnedBox | str], sent: Sequence[ReturnedBox | str]
) -> list[ReturnedBox | str]:
    ids: dict[ReturnedBox, list[str | None]] = defaultdict(list)
    for box in sent:
        if isinstance(box, ReturnedBox):
            ids[replace(box, detection_id=None)].append(box.detection_id)
    return [
        replace(box, detection_id=ids[box].pop(0)) if isinstance(box, ReturnedBox) and ids.get(box) else box
        for box in found
    ]


def _text(item: Mapping[str, Any], key: str) -> str | None:
    value = item.get(key)
    return value if is_text(value) and value else None
