"""Boxes spelled left, top, width and height in px, and answers to a question about one box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from udfs.formats.json_values import is_px, is_text
from udfs.formats.returned import ReturnedBox, box_fault
from udfs.formats.shown_values import shown
from udfs.formats.task import NO, YES, Corners, TaskKind

NO_OBJECT = "no object"

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


def choices(kind: TaskKind) -> tuple[str, ...]:
    """What a labeler may answer to a question of this kind."""
    return (YES, NO, NO_OBJECT) if kind == "verify_class" else (YES, NO)


def answered_box(
    kind: TaskKind,
    answer: Any,
    right_class: Any,
    *,
    label_name: str,
    corners: Corners,
    detection_id: str | None,
) -> ReturnedBox | str:
    """The box an answer stands for, or why it answers nothing.

    Args:
        kind: Of the question.
        answer: One of `choices`.
        right_class: Of the object, after a ``no`` to its class.
        label_name: Class of the box as it stands.
        corners: Of the box as it stands, px.
        detection_id: Of the box that was asked about.

    Returns:
        A labeled box for ``yes`` and for the right class after a ``no`` to the class; else background.
    """
    if answer not in choices(kind):
        return f"expected the answer {' or '.join(choices(kind))}, got {shown(answer)}"
    is_wrong_class = kind == "verify_class" and answer == NO
    if is_wrong_class:
        if not is_text(right_class) or not right_class:
            return f"expected the right class after the answer {NO}, got {shown(right_class)}"
        label_name = right_class
    x1, y1, x2, y2 = corners
    return ReturnedBox(
        label_name=label_name,
        x1=x1,
        y1=y1,
        x2=x2,
        y2=y2,
        status="labeled" if is_wrong_class or answer == YES else "background",
        detection_id=detection_id,
    )
