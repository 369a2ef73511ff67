"""What every label file is read into: images with the boxes people drew, and items that were left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.errors import QuarryError


@dataclass(frozen=True, kw_only=True)
class ReturnedBox:
    """One box as it was drawn, in px of the frame its image states.

    Attributes:
        label_name: As the file spells it.
        x1: Left.
        y1: Top.
        x2: Right, above x1.
        y2: Bottom, above y1.
        iscrowd: One box for a group of objects.
        status: ``labeled``, or ``background``: a labeler said that no object is there.
        detection_id: The sent box it answers for, where the tool carries our ids back.
    """

    label_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    iscrowd: bool = False
    status: Literal["labeled", "background"] = "labeled"
    detection_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReturnedImage:
    """The labels of one image of a file.

    Attributes:
        file_name: Name, path or URI by which the file knows the image.
        width: px of the frame the boxes are in; None when the file does not say.
        height: px of that frame; None when the file does not say.
        boxes: What was drawn; none: looked at and found empty.
        quarry_image_id: Set when the file carries our id back.
        task_id: Set when the file carries our task's id back.
        is_image_task: The tool does not carry the task's id, but its row is one of images to label as a
            whole.
        complete: Whether all that the task showed is answered; not of a question, nor where something of the
            image was rejected.
        annotator: Who labeled it, as the file says.
        annotated_at: When, ISO 8601 with an offset or UTC, as the file says.
    """

    file_name: str
    width: int | None
    height: int | None
    boxes: tuple[ReturnedBox, ...]
    quarry_image_id: str | None = None
    task_id: str | None = None
    is_image_task: bool = False
    complete: bool = True
    annotator: str | None = None
    annotated_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class RejectedItem:
    """One image or box of an imported file that was left out, and why.

    `kind` is ``image`` or ``annotation``, `item_id` the id the file gives it, `file_name` is set when known.
    """

    kind: Literal["image", "annotation"]
    item_id: str
    reason: str
    file_name: str | None = None


class NotThisFormat(QuarryError):
    """The file as a whole is not of the format it was said to be; no row of it can be used."""


def box_fault(x1: float, y1: float, x2: float, y2: float, *, width: float, height: float) -> str | None:
    """Why a box cannot be a label, or None.

    Args:
        x1: Left, px; finite.
        y1: Top, px; finite.
        x2: Right, px; finite.
        y2: Bottom, px; finite.
        width: Of the frame, px.
        height: Of the frame, px.

    Returns:
        A reason for a box without area, or one that lies outside the frame or reaches further beyond it
        than it is wide or high. One that crosses the border is sound: it stays as it was drawn.
    """
    if x2 <= x1 or y2 <= y1:
        return f"expected a box of positive size, got width {x2 - x1:g} and height {y2 - y1:g} px"
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} lies outside the image of {width:g} x {height:g} px"
    if x1 < -width or y1 < -height or x2 > 2 * width or y2 > 2 * height:
        return f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} reaches far beyond the image of {width:g} x {height:g} px"
    return None
