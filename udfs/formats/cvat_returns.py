"""What comes back from CVAT: "CVAT for images 1.1" XML, bare or in the zip archive of an export."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from udfs.formats.cvat import (
    DETECTION_ID,
    IMAGE_ID,
    REGION_LABEL,
    SENT_CLASS,
    TASK_ID,
    TASK_TAG,
    UNANSWERED,
    VERDICTS,
)
from udfs.formats.json_values import LARGEST_SIDE_PX, is_side
from udfs.formats.newest_returns import newest_returns, utc_time
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage, box_fault
from udfs.formats.shown_values import shown, without_query
from udfs.formats.task import NO, YES
from udfs.formats.xml_values import LARGEST_FILE_BYTES, top_elements, xml_number

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MEMBER = "annotations.xml"
# Real exports shrink to a tenth; a bomb to a thousandth.
_LARGEST_GROWTH, _ALWAYS_READ_BYTES = 100, 2**26
_HOW_TO_EXPORT = 'export the task or its completed jobs as "CVAT for images 1.1"'


def read_cvat(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """The labels of each image of a CVAT export, and each shape that had to be left out.

    An export holds every frame that was not deleted, and does not say which were looked at: each image of
    an export counts as looked at, one without boxes as empty. Jobs still open should not be exported. The
    annotator is the assignee of the task or job, and the time its last update, if the export says so; of
    several images of the same name, as tasks of a project can have, the last updated counts.

    Names stay as CVAT says them. A turned box becomes the box around it, parallel to the axes. Boxes
    `outside` are not in their frame and tags are no boxes: both are passed over. In answers to
    verifications (see `write_cvat`) each answered task comes as an image of its own that is not complete,
    boxes drawn besides in another; tasks without an answer are left out.

    Args:
        stream: XML, or a zip archive of which only annotations.xml is read and nothing is unpacked to disk;
            it can be searched. It is read twice; memory holds one image.

    Returns:
        A `ReturnedImage` for each sound image; a `RejectedItem` for an image without a name or a size, a
        shape that is no box, a box without a label or area, or fully outside its image.

    Raises:
        NotThisFormat: Not an export of images from CVAT: other XML, tracks of a video, the manifest itself.
    """
    return newest_returns(lambda: _returns(stream))


@dataclass(frozen=True, kw_only=True)
class _Origin:
    annotator: str | None = None
    annotated_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Meta:
    is_verification: bool
    origin: _Origin
    by_task: Mapping[str, _Origin]


def _returns(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    meta: _Meta | None = None
    with _xml(stream) as (xml, largest_bytes):
        for element in top_elements(xml, "annotations", "CVAT", largest_bytes):
            if element.tag == "meta":
                meta = _meta(element)
            elif element.tag == "track":
                raise NotThisFormat(f"tracks of a video, not images of CVAT; {_HOW_TO_EXPORT}")
            elif element.tag == "image":
                if meta is None:
                    raise _no_meta()
                yield from _image(element, meta)
    if meta is None:
        raise _no_meta()


def _no_meta() -> NotThisFormat:
    return NotThisFormat(f"not a file of CVAT: expected <meta> ahead of the images; {_HOW_TO_EXPORT}")


@contextmanager
def _xml(stream: IO[bytes]) -> Iterator[tuple[IO[bytes], int]]:
    """The XML of a file or archive, and how many bytes of it may be read."""
    n_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    is_zip = stream.read(2) == b"PK"
    stream.seek(0)
    if not is_zip:
        yield stream, LARGEST_FILE_BYTES
        return
    largest_bytes = min(max(n_bytes * _LARGEST_GROWTH, _ALWAYS_READ_BYTES), LARGEST_FILE_BYTES)
    with _member(stream) as member:
        try:
            yield member, largest_bytes
        except (BadZipFile, zlib.error, EOFError) as error:
            raise NotThisFormat(f"a damaged zip archive ({error}); export it again") from None


def _member(stream: IO[bytes]) -> IO[bytes]:
    try:
        archive = ZipFile(stream)
        info = archive.NameToInfo.get(_MEMBER)
        if info is None or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or info.flag_bits & 1:
            raise NotThisFormat(
                f"not an export of CVAT: expected an unencrypted {_MEMBER} in the archive; {_HOW_TO_EXPORT}"
            )
        return archive.open(info)
    except (BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, OSError) as error:
        raise NotThisFormat(
            f"a damaged zip archive ({without_query(str(error))[:200]}); export it again"
        ) from None


def _meta(meta: Element) -> _Meta:
    label_names = {label.findtext("name") for label in meta.iter("label")}
    if TASK_TAG in label_names and meta.find("dumped") is None:
        raise NotThisFormat(
            f"the manifest sent to CVAT, which nobody labeled; once it is labeled there, {_HOW_TO_EXPORT}"
        )
    of_all = meta.find("job")
    if of_all is None:
        of_all = meta.find("task")
    attribute_names = {attribute.findtext("name") for attribute in meta.iter("attribute")}
    return _Meta(
        is_verification=not attribute_names.isdisjoint(VERDICTS.values()),
        origin=_Origin() if of_all is None else _origin(of_all),
        by_task={task.findtext("id") or "": _origin(task) for task in meta.iterfind("project/tasks/task")},
    )


def _origin(task: Element) -> _Origin:
    return _Origin(
        annotator=(task.findtext("assignee/username") or "").strip() or None,
        annotated_at=utc_time(task.findtext("updated")),
    )


def _image(image: Element, meta: _Meta) -> Iterator[ReturnedImage | RejectedItem]:
    name, sides = image.get("name"), [_side(image.get(side)) for side in ("width", "height")]
    if not name or None in sides:
        got = ", ".join(shown(image.get(key)) for key in ("name", "width", "height"))
        yield RejectedItem(
            kind="image",
            item_id=shown(image.get("id", "(none)")).strip("'"),
            reason=f"expected a name, and width and height in px from 1 to {LARGEST_SIDE_PX}, got {got}",
            file_name=name or None,
        )
        return
    width, height = sides
    origin = meta.by_task.get(image.get("task_id", ""), meta.origin)
    tags = [_attributes(tag) for tag in image.iterfind("tag") if tag.get("label") == TASK_TAG]
    # A labeler can copy our tag to other frames; then it cannot be told which is whose.
    ids = tags[0] if len(tags) == 1 else {}
    blank = ReturnedImage(
        file_name=name,
        width=width,
        height=height,
        boxes=(),
        quarry_image_id=ids.get(IMAGE_ID) or None,
        task_id=ids.get(TASK_ID) or None,
        annotator=origin.annotator,
        annotated_at=origin.annotated_at,
    )
    shapes = _Shapes(image, blank)
    yield from shapes.rejected
    if meta.is_verification:
        yield from _answers(shapes.boxes, blank)
    else:
        boxes = _told_apart([box for box, _ in shapes.boxes])
        yield replace(blank, boxes=boxes, complete=not shapes.rejected)


class _Shapes:
    def __init__(self, image: Element, blank: ReturnedImage) -> None:
        """Sorts the shapes of an image into boxes with their attributes, and rejected ones."""
        self.boxes: list[tuple[ReturnedBox, dict[str, str]]] = []
        self.rejected: list[RejectedItem] = []
        for number, shape in enumerate(image, start=1):
            is_passed_over = shape.tag == "tag" or shape.get("outside") == "1"
            if is_passed_over or shape.get("label") == REGION_LABEL:
                continue
            box = _box(shape, blank)
            if isinstance(box, ReturnedBox):
                self.boxes.append((box, _attributes(shape)))
            else:
                self.rejected.append(_rejected(number, box, blank))


def _box(shape: Element, image: ReturnedImage) -> ReturnedBox | str:
    label, numbers = shape.get("label"), [xml_number(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")]
    degrees = xml_number(shape.get("rotation", "0"))
    if shape.tag != "box":
        return f"a {shown(shape.tag)} is no box; draw a rectangle"
    if not label:
        return "expected a label"
    if degrees is None or None in numbers:
        got = shown([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr", "rotation")])
        return f"expected xtl, ytl, xbr, ybr as finite px and rotation in degrees, got {got}"
    x1, y1, x2, y2 = (number for number in numbers if number is not None)
    if degrees % 360 and x2 > x1 and y2 > y1:
        x1, y1, x2, y2 = _enclosing(x1, y1, x2, y2, math.radians(degrees))
    assert image.width is not None and image.height is not None
    fault = box_fault(x1, y1, x2, y2, width=image.width, height=image.height)
    if fault is not None:
        return fault
    detection_id = _attributes(shape).get(DETECTION_ID) or None
    return ReturnedBox(label_name=label, x1=x1, y1=y1, x2=x2, y2=y2, detection_id=detection_id)


def _enclosing(
    x1: float, y1: float, x2: float, y2: float, radians: float
) -> tuple[float, float, float, float]:
    # CVAT turns a box about its centre.
    cos, sin = abs(math.cos(radians)), abs(math.sin(radians))
    half_width = ((x2 - x1) * cos + (y2 - y1) * sin) / 2.0
    half_height = ((x2 - x1) * sin + (y2 - y1) * cos) / 2.0
    x, y = (x1 + x2) / 2.0, (y1 + y2) / 2.0
    return (x - half_width, y - half_height, x + half_width, y + half_height)


def _told_apart(boxes: list[ReturnedBox]) -> tuple[ReturnedBox, ...]:
    # CVAT copies the attributes of a box with it; the first one is the one that was sent.
    seen: set[str] = set()
    result = []
    for box in boxes:
        is_copy = box.detection_id in seen
        seen.update([box.detection_id] if box.detection_id else [])
        result.append(replace(box, detection_id=None) if is_copy else box)
    return tuple(result)


def _answers(
    boxes: list[tuple[ReturnedBox, dict[str, str]]], blank: ReturnedImage
) -> Iterator[ReturnedImage | RejectedItem]:
    drawn: list[ReturnedBox] = []
    for number, (box, attributes) in enumerate(boxes, start=1):
        if box.detection_id is None:
            drawn.append(box)
            continue
        answer = _answer(box, attributes)
        if isinstance(answer, ReturnedBox):
            task_id = attributes.get(TASK_ID) or None
            yield replace(blank, boxes=(answer,), task_id=task_id, complete=False)
        elif answer is not None:
            yield _rejected(number, answer, blank)
    if drawn:
        yield replace(blank, boxes=tuple(drawn), complete=False)


def _answer(box: ReturnedBox, attributes: Mapping[str, str]) -> ReturnedBox | str | None:
    """The answered box, why there is none, or None without an answer."""
    kind = next((kind for kind, name in VERDICTS.items() if name in attributes), None)
    verdict = UNANSWERED if kind is None else attributes[VERDICTS[kind]]
    is_other_class = kind == "verify_class" and box.label_name != attributes.get(SENT_CLASS)
    if verdict == YES or is_other_class:
        return box
    if verdict == UNANSWERED:
        return None
    if verdict != NO:
        return f"expected the answer {YES} or {NO}, got {shown(verdict)}"
    if kind == "verify_class":
        return (
            f"the class is not {shown(box.label_name)}, but no other one was chosen; change the box's label"
        )
    return replace(box, status="background")


def _rejected(number: int, reason: str, image: ReturnedImage) -> RejectedItem:
    return RejectedItem(
        kind="annotation", item_id=f"shape {number}", reason=reason, file_name=image.file_name
    )


def _attributes(shape: Element) -> dict[str, str]:
    return {part.get("name", ""): part.text or "" for part in shape.iterfind("attribute")}


def _side(value: str | None) -> int | None:
    number = xml_number(value)
    whole = int(number) if number is not None and number.is_integer() else None
    return whole if is_side(whole) else None
