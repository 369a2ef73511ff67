"""Pictures of where in an image a detector contradicts itself: its pixel scores as colors over the image."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from udfs.box_pictures import PICTURE_SCHEMA
from udfs.detect import worker_model
from udfs.image_files import ImageFault, decode_rgb, max_file_bytes, read_bytes

if TYPE_CHECKING:
    from detectors.detector import Detector

# Nine steps of matplotlib's "inferno", which rises evenly in lightness and stays apart in color blindness.
SCALE_RGB = (
    (0, 0, 4),
    (31, 12, 72),
    (85, 15, 109),
    (136, 34, 106),
    (186, 54, 85),
    (227, 89, 51),
    (249, 140, 10),
    (249, 201, 50),
    (252, 255, 164),
)
REGIONS_MARKED = 6
_JPEG_QUALITY = 85
_GREY_KEPT = 0.65
_STRONGEST = 0.9


def draw_heat_map(
    image: NDArray[np.uint8], scores: NDArray[np.float32], width_px: int, region_px: int
) -> Image.Image:
    """The image in grey under its pixel scores, from dark (0) to bright (the image's largest score).

    The regions with the largest maxima, which make most of the image's score, are outlined; a scale in the
    corner names the largest score.

    Args:
        image: (h, w, 3) uint8, RGB.
        scores: (h, w) float32, nats, >= 0.
        width_px: Largest width of the picture; a smaller image keeps its size.
        region_px: Side of the regions (px of the image).

    Returns:
        An RGB picture.
    """
    height, width = scores.shape
    scale = min(1.0, width_px / width)
    size = (round(width * scale), max(1, round(height * scale)))
    grey = Image.fromarray(image).convert("L").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    top = float(scores.max())
    shrunk = Image.fromarray(scores).resize(size, Image.Resampling.BOX)
    shares = np.asarray(shrunk, np.float32) / top if top > 0 else np.zeros(size[::-1], np.float32)
    weight = _STRONGEST * np.sqrt(shares.clip(0, 1))[..., None]
    dimmed = _GREY_KEPT * np.asarray(grey, np.float32)[..., None]
    blended = (1 - weight) * dimmed + weight * scale_colors(shares)
    picture = Image.fromarray(blended.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for left, upper, right, lower in largest_regions(scores, region_px):
        corners = (left * scale, upper * scale, right * scale - 1, lower * scale - 1)
        draw.rectangle(corners, outline=(255, 255, 255), width=1)
    _draw_scale(picture, draw, top)
    return picture


def scale_colors(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colors of values: (...) in [0, 1], others are taken as the nearest of them, to (..., 3) in 0..255."""
    steps = np.linspace(0.0, 1.0, len(SCALE_RGB))
    channels = [np.interp(shares, steps, channel) for channel in np.array(SCALE_RGB, np.float32).T]
    return np.stack(channels, axis=-1).astype(np.float32)


def largest_regions(scores: NDArray[np.float32], region_px: int) -> list[tuple[int, int, int, int]]:
    """The regions with the largest maxima, at most REGIONS_MARKED, those above 0 only, largest first.

    Args:
        scores: (h, w), >= 0.
        region_px: Side of the regions, which begin at the top left; at the far borders they are cut.

    Returns:
        Left, upper, right and lower px of each.
    """
    height, width = scores.shape
    rows, columns = np.arange(0, height, region_px), np.arange(0, width, region_px)
    maxima = np.maximum.reduceat(np.maximum.reduceat(scores, rows, axis=0), columns, axis=1)
    order = np.argsort(-maxima, axis=None, kind="stable")[:REGIONS_MARKED]
    places = [(int(i) // len(columns), int(i) % len(columns)) for i in order if maxima.flat[i] > 0]
    return [
        (
            column * region_px,
            row * region_px,
            min((column + 1) * region_px, width),
            min((row + 1) * region_px, height),
        )
        for row, column in places
    ]


def heat_map_batches(
    batches: Iterable[pa.RecordBatch],
    detector: DetectorSettings,
    model_id: str,
    name: str,
    width_px: int,
    max_pixels: int,
) -> Iterator[pa.RecordBatch]:
    """One JPEG heat map for each image; what fails gives a reason, never an exception. mapInArrow-shaped.

    The detector runs on the CPU, for a handful of images: no GPU has to be asked for.

    Args:
        batches: Columns image_id (string) and uri (string).
        detector: What runs; its pixel scores hold `name`.
        model_id: Identity of the detector whose scores were stored.
        name: A pixel score.
        width_px: Largest width of a picture.
        max_pixels: Larger images get a reason instead of a picture.

    Yields:
        A batch of `PICTURE_SCHEMA` for each batch that came, row by row: `jpeg` or `error` is null.
    """
    for batch in batches:
        rows = [
            _picture_row(row, detector, model_id, name, width_px, max_pixels) for row in batch.to_pylist()
        ]
        yield pa.RecordBatch.from_pylist(rows, schema=PICTURE_SCHEMA)


def _picture_row(
    row: dict[str, Any],
    settings: DetectorSettings,
    model_id: str,
    name: str,
    width_px: int,
    max_pixels: int,
) -> dict[str, Any]:
    try:
        detector = _same_detector(settings, model_id)
        image = decode_rgb(read_bytes(row["uri"], max_file_bytes(max_pixels)), max_pixels)
        scores = detector.pixel_score_map(image, name)
    except ImageFault as fault:
        return {"image_id": row["image_id"], "error": f"{fault.error_class}: {fault.message}"}
    except QuarryError as error:
        return {"image_id": row["image_id"], "error": str(error)}
    buffer = io.BytesIO()
    draw_heat_map(image, scores, width_px, settings.pixel_region).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True
    )
    return {"image_id": row["image_id"], "jpeg": buffer.getvalue()}


def _same_detector(settings: DetectorSettings, model_id: str) -> Detector:
    detector = worker_model(settings.model_dump_json(), "cpu", threads=1, compile=False).detector
    if detector.model_id != model_id:
        raise QuarryError(
            f"{settings.weights} is now model {detector.model_id}, the scores are of {model_id}"
        )
    return detector


def _draw_scale(picture: Image.Image, draw: ImageDraw.ImageDraw, top: float) -> None:
    """A bar from 0 to the largest score, in nats, in the lower left corner."""
    font = ImageFont.load_default(size=max(10, round(picture.width / 42)))
    words = ("0", f"{top:.2f}" if math.isfinite(top) else "")
    widths = [math.ceil(font.getlength(word)) for word in words]
    _, upper, _, lower = font.getbbox("0")
    bar_px, gap, height = max(24, picture.width // 6), 5, round(lower - upper) + 8
    width = sum(widths) + bar_px + 4 * gap
    if width > picture.width or height > picture.height:
        return
    y = picture.height - height
    draw.rectangle((0, y, width, picture.height), fill=(10, 14, 20))
    bar = scale_colors(np.linspace(0, 1, bar_px, dtype=np.float32)).round().astype(np.uint8)
    left = 2 * gap + widths[0]
    picture.paste(Image.fromarray(np.repeat(bar[None], height - 8, axis=0)), (left, y + 4))
    draw.text((gap, y + 4 - upper), words[0], font=font, fill=(255, 255, 255))
    draw.text((left + bar_px + gap, y + 4 - upper), words[1], font=font, fill=(255, 255, 255))
