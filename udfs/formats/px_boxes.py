"""Boxes spelled left, top, width and height in px, and answers to a question about one box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from udfs.formats.json_values import is_px, is_text, shown
from udfs.formats.returned import ReturnedBox, box_fault
from udfs.formats.task import NO, YES, Corners

_KEYS = ("left", "top", "width", "height")
_SMALLEST_PX = 0.001


def spelled_box(corners: Corners) -> dict[str, float]:
    """Left, top, width and height with 3 decimals; no side is rounded to nothing."""
    x1, y1, x2, y2 = corners
    return {
        "left": round(x1, 3),
        "top": round(y1, 3),
        "width": max(round(x2 - x1, 3), _SMALLEST_PX),
        "height": max(round(y2 - y1, 3), _SMALLEST_PX),
    }


def corners_of(value: Any, *, width: int | None, height: int | None) -> Corners | str:
    """The corners of a spelled box, or why it cannot be a label.

    Args:
        value: A mapping with left, top, width and height, and anything else.
        width: Of the frame, px; None: unknown, so that no box lies outside.
        height: Of the frame, px, or None.
    """
    sides = [value.get(key) if isinstance(value, Mapping) else None for key in _KEYS]
    if not all(is_px(side) for side in sides):
        return f"expected a box of 4 finite numbers left, top, width, height in px, got {shown(value)}"
    x1, y1, box_width, box_height = (float(side) for side in sides if side is not None)
    corners = (x1, y1, x1 + box_width, y1 + box_height)
    fault = box_fault(
        *corners,
        width=math.inf if width is None else width,
        height=math.inf if height is None else height,
    )
    return corners if fault is None else fault


def answered_box(
    answer: Any, right_class: Any, *, label_name: str, corners: Corners, detection_id: str | None
) -> ReturnedBox | str:
    """The box an answer stands for, or why it answers nothing.

    Args:
        answer: ``yes``: the box is right as it stands now; ``no``: it is not.
        right_class: Of the object after a ``no`` to its class; None when the labeler named none.
        label_name: Class of the box as it stands.
        corners: Of the box as it stands, px.
        detection_id: Of the box that was asked about.

    Returns:
        A labeled box for ``yes`` and for a ``no`` with the right class; background for a plain ``no``.
    """
    if answer not in (YES, NO):
        return f"expected the answer {YES} or {NO}, got {shown(answer)}"
    is_object = answer == YES
    if answer == NO and right_class is not None:
        if not is_text(right_class) or not right_class:
            return f"expected a class after the answer {NO}, got {shown(right_class)}"
        is_object, label_name = True, right_class
    x1, y1, x2, y2 = corners
    return ReturnedBox(
        label_name=label_name,
        x1=x1,
        y1=y1,
        x2=x2,
        y2=y2,
        status="labeled" if is_object else "background",
        detection_id=detection_id,
    )
