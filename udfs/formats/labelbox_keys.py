"""Global keys of Labelbox data rows, which carry our ids through the tool and back."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from conf.errors import QuarryError
from udfs.formats.json_values import is_text
from udfs.formats.task import LabelingTask

LONGEST_KEY = 200
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._/-")
_IMAGE_KEY = re.compile(r"quarry:image:([a-z0-9._/=-]+)")
_BOXES_KEY = re.compile(r"quarry:boxes:([a-z0-9._/=-]+)")
_BOX_KEY = re.compile(r"quarry:box:([a-z0-9._/=-]+):([a-z0-9._/=-]+)")


def global_key(task: LabelingTask) -> str:
    """The key of the task's data row: unique in a workspace, whatever the ids hold.

    An image has one data row, ``quarry:image:<image_id>``, however many cycles send it: they share the row
    and differ by project. Boxes to correct have their own, ``quarry:boxes:<task_id>``, and so has a question
    about a box, ``quarry:box:<task_id>:<detection_id>``.
    Labelbox ignores case, allows few signs and turns others into underscores; other bytes of an id are
    therefore written as ``=`` and two hexadecimal digits.

    Raises:
        QuarryError: The key would be longer than Labelbox takes.
    """
    if task.kind == "image":
        key = f"quarry:image:{_quoted(task.image_id)}"
    elif task.kind == "boxes":
        key = f"quarry:boxes:{_quoted(task.task_id)}"
    else:
        (box,) = task.boxes
        key = f"quarry:box:{_quoted(task.task_id)}:{_quoted(box.detection_id)}"
    if len(key) > LONGEST_KEY:
        raise QuarryError(
            f"image {task.image_id!r}: expected an id that fits a Labelbox global key of at most "
            f"{LONGEST_KEY} characters, got {len(key)}; use shorter image ids or another format"
        )
    return key


def ids_of_key(key: Any) -> tuple[str | None, str | None, str | None]:
    """Image id, task id and detection id that `global_key` wrote; None for those the key does not hold."""
    if is_text(key):
        if match := _IMAGE_KEY.fullmatch(key):
            return _unquoted(match[1]), None, None
        if match := _BOXES_KEY.fullmatch(key):
            return None, _unquoted(match[1]), None
        if match := _BOX_KEY.fullmatch(key):
            task_id, detection_id = _unquoted(match[1]), _unquoted(match[2])
            if task_id is not None and detection_id is not None:
                return None, task_id, detection_id
    return None, None, None


def _quoted(text: str) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in text.encode("utf-8"))


def _unquoted(text: str) -> str | None:
    try:
        return unquote_to_bytes(text.replace("=", "%")).decode("utf-8")
    except UnicodeDecodeError:
        return None
