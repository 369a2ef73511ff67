"""Returned boxes in px of the original image: tools show previews, and some ignore the EXIF orientation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from udfs.formats.returned import box_fault
from udfs.formats.shown_values import shown
from udfs.image_files import ImageFault, header_orientation

Corners = tuple[float, float, float, float]
_NO_FRAME = (
    "the file says {} x {} px, the image has {} x {}: neither scaling nor EXIF orientation explains it"
)


def original_px_batches(batches: Iterable[pa.RecordBatch], max_pixels: int) -> Iterator[pa.RecordBatch]:
    """Batches with their boxes moved from the frame the label file states to the original image.

    Args:
        batches: Columns uri, width, height (of the image, after EXIF orientation; null when nobody knows),
            said_width, said_height (null: the file does not say, so boxes count as of the image), boxes,
            complete, reason, outside, and any others.
        max_pixels: Of images whose header is looked at.

    Yields:
        The same columns. Where no frame fits, or a box lies outside, `boxes` is null and `reason` is set, or
        the box is left out, named in `outside`, a list of strings, and the image is not complete.
    """
    for batch in batches:
        rows = batch.to_pylist()
        for row in rows:
            _place(row, max_pixels)
        yield pa.RecordBatch.from_pylist(rows, schema=batch.schema)


def moved_corners(
    corners: Corners, said_wh: tuple[int, int], image_wh: tuple[int, int], orientation: int
) -> Corners | None:
    """A box of the stated frame in px of the image, or None when the frame does not fit the image.

    Args:
        corners: x1, y1, x2, y2 in px of the stated frame.
        said_wh: Size of that frame, px.
        image_wh: Size of the image after EXIF orientation, px.
        orientation: EXIF orientation of the file, 1 to 8; only looked at when the sides are swapped.

    Returns:
        Corners in order: as they are, scaled (same shape, another size), or turned (the tool showed the
        file's pixels as they are stored).
    """
    (said_width, said_height), (width, height) = said_wh, image_wh
    if _same_shape(said_wh, image_wh):
        x, y = width / said_width, height / said_height
        return (corners[0] * x, corners[1] * y, corners[2] * x, corners[3] * y)
    if orientation in _TURNED and _same_shape((said_height, said_width), image_wh):
        turned = _TURNED[orientation](corners, said_width, said_height)
        return moved_corners(turned, (said_height, said_width), image_wh, 1)
    return None


# EXIF orientations that swap the sides: a stored x, y to where it is displayed (EXIF 2.32, tag 274).
_TURNED = {
    5: lambda c, w, h: (c[1], c[0], c[3], c[2]),
    6: lambda c, w, h: (h - c[3], c[0], h - c[1], c[2]),
    7: lambda c, w, h: (h - c[3], w - c[2], h - c[1], w - c[0]),
    8: lambda c, w, h: (c[1], w - c[2], c[3], w - c[0]),
}


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one is the other scaled; a preview's sides are rounded to whole px."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(*a, *b)


def _place(row: dict[str, Any], max_pixels: int) -> None:
    size = (row["width"], row["height"])
    said = (row["said_width"], row["said_height"])
    if row["boxes"] is None or None in size:
        return
    said = size if None in said else said
    orientation = 1
    if not _same_shape(said, size) and _same_shape(said[::-1], size):
        orientation = _orientation(row["uri"], max_pixels)
    if moved_corners((0, 0, 1, 1), said, size, orientation) is None:
        row["reason"], row["boxes"] = _NO_FRAME.format(*said, *size), None
        return
    kept, outside = [], []
    for box in row["boxes"]:
        corners = moved_corners((box["x1"], box["y1"], box["x2"], box["y2"]), said, size, orientation)
        assert corners is not None
        fault = box_fault(*corners, width=size[0], height=size[1])
        if fault is None:
            kept.append({**box, **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))})
        else:
            outside.append(f"{shown(box['label_name'])}: {fault}")
    row["boxes"], row["outside"] = kept, outside
    row["complete"] = row["complete"] and not outside


def _orientation(uri: str, max_pixels: int) -> int:
    try:
        return header_orientation(uri, max_pixels)
    except ImageFault:
        return 1
