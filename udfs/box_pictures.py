"""Pictures with their boxes drawn: confirmed, likely false, likely missed, and ground truth."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from udfs.image_files import ImageFault, decode_rgb, max_file_bytes, read_bytes
from udfs.image_pixels import rgb_image

BoxRole = Literal["confirmed", "likely_false", "likely_missed"]
Corners = tuple[float, float, float, float]

# Green, orange and blue of similar lightness that stay apart for all common kinds of colour blindness.
ROLE_COLOURS: dict[BoxRole, tuple[int, int, int]] = {
    "confirmed": (38, 208, 138),
    "likely_false": (255, 122, 26),
    "likely_missed": (92, 184, 255),
}
PICTURE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("jpeg", pa.binary()),
        pa.field("error", pa.string()),
    ]
)

_OUTLINE = (10, 14, 20)
_JPEG_QUALITY = 80
_SMALL_BOX_PX = 40
_MOST_HIDDEN = 0.6


@dataclass(frozen=True, kw_only=True)
class PictureBox:
    """A box to draw, absolute px of the image; `score` is None for ground truth."""

    label_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    score: float | None = None


def box_role(score: float, eta: float) -> BoxRole | None:
    """What a detection of this score is drawn as, or None when it is left out.

    Args:
        score: Detection score, 0..1.
        eta: Confirmation threshold, 0..1.

    Returns:
        ``likely_false`` for eta <= score < (1 + eta) / 2, ``confirmed`` above, ``likely_missed`` for
        eta / 2 <= score < eta, and None below (too many of them to read, and each is unlikely to be an
        object).
    """
    if score >= (1.0 + eta) / 2.0:
        return "confirmed"
    if score >= eta:
        return "likely_false"
    return "likely_missed" if score >= eta / 2.0 else None


def draw_boxes(
    image: Image.Image,
    boxes: Sequence[PictureBox],
    width_px: int,
    *,
    eta: float = 0.5,
    truths: Sequence[PictureBox] = (),
) -> Image.Image:
    """The image, at most `width_px` wide, with its boxes and labels drawn.

    Confirmed boxes are solid green, likely false ones solid orange with heavy corners, likely missed ones
    dashed blue, ground truth thin dotted white; each line has a dark rim to show on night and on snow.
    Labels stand outside their box where there is room, away from small boxes and from each other; one that
    would hide more than it tells is left out, and errors are labeled before confirmed boxes.

    Args:
        image: The image after EXIF orientation, any mode.
        boxes: Detections, px of `image`.
        width_px: Largest width of the picture; a smaller image keeps its size.
        eta: Confirmation threshold, 0..1.
        truths: Ground-truth boxes, px of `image`.

    Returns:
        An RGB picture; `image` is unchanged.
    """
    scale = min(1.0, width_px / image.width)
    size = (round(image.width * scale), max(1, round(image.height * scale)))
    picture = rgb_image(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    draw = ImageDraw.Draw(picture)
    line_px = max(2, round(size[0] / 480))
    for truth in truths:
        _dotted(draw, _scaled(truth, scale, size))
    drawn: list[tuple[PictureBox, BoxRole, Corners]] = []
    for box in sorted(boxes, key=lambda one: one.score or 0.0):
        role = box_role(box.score or 0.0, eta)
        if role is not None:
            drawn.append((box, role, _scaled(box, scale, size)))
            _outline(draw, drawn[-1][2], role, line_px)
    _draw_labels(draw, drawn, size, line_px)
    return picture


def picture_batches(
    batches: Iterable[pa.RecordBatch], width_px: int, eta: float, max_pixels: int
) -> Iterator[pa.RecordBatch]:
    """One JPEG with boxes for each image; a failed image gives a reason, never an exception.

    Args:
        batches: Columns image_id (string), uri (string, a path or URI) and detections (list of structs with
            label_name, score, x1, y1, x2, y2); a column `truths` (list of structs with label_name, x1, y1,
            x2, y2), if there is one, is drawn over them. Null lists count as empty.
        width_px: Largest width of a picture.
        eta: Confirmation threshold, 0..1.
        max_pixels: Larger images get a reason instead of a picture.

    Returns:
        A batch of `PICTURE_SCHEMA` for each batch that came, row by row: `jpeg` or `error` is null.
    """
    for batch in batches:
        rows = batch.to_pylist()
        pictures = [_picture_row(row, width_px, eta, max_pixels) for row in rows]
        yield pa.RecordBatch.from_pylist(pictures, schema=PICTURE_SCHEMA)


def _picture_row(row: Mapping[str, Any], width_px: int, eta: float, max_pixels: int) -> dict[str, Any]:
    try:
        image = Image.fromarray(decode_rgb(read_bytes(row["uri"], max_file_bytes(max_pixels)), max_pixels))
    except ImageFault as fault:
        return {"image_id": row["image_id"], "error": f"{fault.error_class}: {fault.message}"}
    return {"image_id": row["image_id"], "jpeg": _picture_jpeg(image, row, width_px, eta)}


def _picture_jpeg(image: Image.Image, row: Mapping[str, Any], width_px: int, eta: float) -> bytes:
    boxes = [_picture_box(item) for item in row["detections"] or ()]
    truths = [_picture_box(item) for item in row.get("truths") or ()]
    buffer = io.BytesIO()
    draw_boxes(image, boxes, width_px, eta=eta, truths=truths).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True, progressive=True
    )
    return buffer.getvalue()


def _picture_box(item: Mapping[str, Any]) -> PictureBox:
    names = ("label_name", "x1", "y1", "x2", "y2", "score")
    return PictureBox(**{name: item[name] for name in names if name in item})


def _scaled(box: PictureBox, scale: float, size: tuple[int, int]) -> Corners:
    x1, x2 = (min(max(value * scale, 0.0), size[0] - 1.0) for value in (box.x1, box.x2))
    y1, y2 = (min(max(value * scale, 0.0), size[1] - 1.0) for value in (box.y1, box.y2))
    return x1, y1, x2, y2


def _outline(draw: ImageDraw.ImageDraw, corners: Corners, role: BoxRole, line_px: int) -> None:
    x1, y1, x2, y2 = corners
    colour = ROLE_COLOURS[role]
    sides = [((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))]
    if role == "likely_missed":
        pieces = [
            piece for side in sides for piece in _dashes(*side, dash_px=4 * line_px, gap_px=3 * line_px)
        ]
    else:
        pieces = sides
    for start, end in pieces:
        _bar(draw, start, end, line_px + 2, _OUTLINE)
    for start, end in pieces:
        _bar(draw, start, end, line_px, colour)
    if role == "likely_false":
        for start, end in sides:
            reach = min(0.25, 7 * line_px / max(abs(end[0] - start[0]) + abs(end[1] - start[1]), 1.0))
            for a, b in ((start, end), (end, start)):
                corner = (a[0] + (b[0] - a[0]) * reach, a[1] + (b[1] - a[1]) * reach)
                _bar(draw, a, corner, 2 * line_px, colour)


def _bar(
    draw: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    thick_px: int,
    colour: tuple[int, int, int],
) -> None:
    """A horizontal or vertical bar with square ends, so that the corners of a box close."""
    half = (thick_px - 1) / 2.0
    left, right = sorted((start[0], end[0]))
    top, bottom = sorted((start[1], end[1]))
    draw.rectangle((left - half, top - half, right + half, bottom + half), fill=colour)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], *, dash_px: int, gap_px: int
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])
    # A whole number of periods plus one dash, so that both ends of the side, the corners, are drawn.
    n_periods = max(round((length - dash_px) / (dash_px + gap_px)), 0)
    period = length / (n_periods + dash_px / (dash_px + gap_px))
    dash = period * dash_px / (dash_px + gap_px)

    def at(distance: float) -> tuple[float, float]:
        part = min(distance / length, 1.0) if length else 0.0
        return start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part

    return [(at(i * period), at(i * period + dash)) for i in range(n_periods + 1)]


def _dotted(draw: ImageDraw.ImageDraw, corners: Corners) -> None:
    x1, y1, x2, y2 = corners
    sides = [((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x1, y2), (x2, y2)), ((x1, y1), (x1, y2))]
    for side in sides:
        for start, end in _dashes(*side, dash_px=2, gap_px=4):
            _bar(draw, start, end, 3, _OUTLINE)
            _bar(draw, start, end, 1, (255, 255, 255))


def _draw_labels(
    draw: ImageDraw.ImageDraw,
    drawn: Sequence[tuple[PictureBox, BoxRole, Corners]],
    size: tuple[int, int],
    line_px: int,
) -> None:
    font = ImageFont.load_default(size=max(11, round(size[0] / 46)))
    _, top, _, bottom = font.getbbox("Ágjp0")
    height = bottom - top + 6
    placed: list[Corners] = []
    for box, role, corners in sorted(drawn, key=lambda one: (one[1] == "confirmed", -(one[0].score or 0.0))):
        text = f"{box.label_name} {box.score or 0.0:.2f}"
        width = font.getlength(text) + 12
        spot = _label_spot(corners, (width, height), size, line_px, placed, [one[2] for one in drawn])
        if spot is None:
            continue
        placed.append(spot)
        draw.rectangle(spot, fill=_OUTLINE)
        draw.rectangle((spot[0], spot[1], spot[0] + 3, spot[3]), fill=ROLE_COLOURS[role])
        draw.text((spot[0] + 7, spot[1] + 3 - top), text, font=font, fill=(255, 255, 255))


def _label_spot(
    corners: Corners,
    label_wh: tuple[float, float],
    size: tuple[int, int],
    line_px: int,
    placed: Sequence[Corners],
    boxes: Sequence[Corners],
) -> Corners | None:
    """The place round the box that hides least: labels, then small boxes, then anything; none if too much."""
    x1, y1, x2, y2 = corners
    width, height = label_wh
    gap = line_px + 1
    spots = [
        (x1 - gap, y1 - gap - height),
        (x2 + gap - width, y1 - gap - height),
        (x1 - gap, y2 + gap),
        (x2 + gap - width, y2 + gap),
        (x2 + gap, y1 - gap),
        (x1 - gap - width, y1 - gap),
        (x1 + gap, y1 + gap),
        (x1 + gap, y2 - gap - height),
    ]

    def hidden_px(spot: Corners) -> float:
        cost = 8.0 * sum(_overlap_px(spot, other) for other in placed)
        for box in boxes:
            small = min(box[2] - box[0], box[3] - box[1]) < _SMALL_BOX_PX
            cost += (4.0 if small else 0.5) * _overlap_px(spot, box)
        return cost

    def inside(left: float, top: float) -> Corners:
        left = min(max(left, 0.0), max(size[0] - 1 - width, 0.0))
        top = min(max(top, 0.0), max(size[1] - 1 - height, 0.0))
        return left, top, left + width, top + height

    best = min((inside(*spot) for spot in spots), key=hidden_px)
    return best if hidden_px(best) <= _MOST_HIDDEN * width * height else None


def _overlap_px(one: Corners, other: Corners) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
