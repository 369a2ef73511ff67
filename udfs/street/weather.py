"""What light, weather and optics do to a drawn frame: darkness, glow, wet road, rain, blur, sensor noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from udfs.street.canvas import Canvas
from udfs.street.world import IMAGE_SIZE_HW, SequencePlan

HEIGHT, WIDTH = IMAGE_SIZE_HW


def light_map(plan: SequencePlan) -> Image.Image | None:
    """The light of the hour as an RGB factor (255 is full light) for each pixel, None by day.

    Args:
        plan: The sequence; by night the camera car's headlights light a cone ahead.

    Returns:
        A picture of the frame's size, or None when nothing darkens.
    """
    time = plan.conditions.time
    if time == "day":
        return (
            None if plan.conditions.weather == "clear" else Image.new("RGB", (WIDTH, HEIGHT), (226, 230, 236))
        )
    if time == "dusk":
        return Image.new("RGB", (WIDTH, HEIGHT), (222, 188, 178))
    rows, columns = np.mgrid[0:HEIGHT:8, 0:WIDTH:8].astype(np.float32)
    down = (rows - plan.camera.horizon_y_px) / HEIGHT
    across = (columns - plan.camera.center_x_px) / WIDTH
    cone = np.exp(-((across / (0.2 + 0.75 * np.clip(down, 0, 1))) ** 2) * 1.4) * np.exp(
        -(((down - 0.13) / 0.26) ** 2)
    )
    light = np.asarray([70, 80, 116]) * (1 - cone[..., None]) + np.asarray([255, 244, 214]) * cone[..., None]
    return Image.fromarray(light.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def add_glow(frame: Image.Image, canvas: Canvas) -> Image.Image:
    """Adds lit windows and the lamps that nothing hides, each with a halo."""
    if canvas.windows is None:
        return frame
    canvas.windows.paste((0, 0, 0), mask=canvas.mask.point([0] + [255] * 255))
    pen = ImageDraw.Draw(canvas.windows)
    owners = canvas.mask.load()
    assert owners is not None
    for lamp in canvas.lights:
        x, y, r = lamp.x, lamp.y, lamp.radius_px
        if 0 <= x < WIDTH and 0 <= y < HEIGHT and owners[int(x), int(y)] == lamp.owner:
            pen.ellipse([x - r, y - r, x + r, y + r], fill=lamp.color)
    small = canvas.windows.reduce(4)
    halo = ImageChops.add(
        small.filter(ImageFilter.GaussianBlur(2)), small.filter(ImageFilter.GaussianBlur(6))
    )
    halo = halo.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return ImageChops.screen(ImageChops.screen(frame, canvas.windows), halo)


def add_wet_road(frame: Image.Image, horizon_y_px: float) -> Image.Image:
    """Mirrors the street softly in the ground below the horizon."""
    top = int(horizon_y_px)
    depth = min(HEIGHT - top, top)
    mirror = frame.crop((0, top - depth, WIDTH, top)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirror = mirror.resize((WIDTH // 4, max(depth // 4, 1)), Image.Resampling.BOX).filter(
        ImageFilter.BoxBlur((1, 5))
    )
    mirror = mirror.resize((WIDTH, HEIGHT - top), Image.Resampling.BILINEAR)
    frame.paste(mirror, (0, top), Image.new("L", mirror.size, 62))
    return frame


@lru_cache(maxsize=4)
def _rain_sheet(seed: int, sequence: int) -> Image.Image:
    rng = np.random.default_rng([seed, sequence, 21])
    sheet = Image.new("L", (WIDTH + 320, HEIGHT + 320), 0)
    pen = ImageDraw.Draw(sheet)
    slant = float(rng.uniform(-0.35, 0.35))
    for x, y, long, tone in rng.random((900, 4)).tolist():
        length = 8 + 34 * long
        left, top = x * sheet.width, y * sheet.height
        pen.line(
            [left, top, left + slant * length, top + length],
            fill=int(24 + 60 * tone),
            width=1 if tone < 0.85 else 2,
        )
    return sheet.filter(ImageFilter.BoxBlur(0.4))


@lru_cache(maxsize=4)
def _noise_sheet(seed: int, sequence: int, sigma: float) -> NDArray[np.int16]:
    rng = np.random.default_rng([seed, sequence, 22])
    grey = rng.normal(0, sigma, (HEIGHT + 64, WIDTH + 64, 1))
    return np.asarray(
        np.rint(grey + rng.normal(0, sigma * 0.6, (HEIGHT + 64, WIDTH + 64, 3))), dtype=np.int16
    )


def add_optics(frame: Image.Image, plan: SequencePlan, frame_index: int) -> Image.Image:
    """Adds rain streaks, the sequence's blur and sensor noise.

    Args:
        frame: RGB picture of the frame's size.
        plan: The sequence.
        frame_index: Position in the sequence, from 0; places rain and noise.

    Returns:
        The finished RGB picture.
    """
    cond = plan.conditions
    dx, dy = (
        np.random.default_rng([plan.seed, plan.sequence_number, 23, frame_index]).integers(0, 64, 2).tolist()
    )
    if cond.weather == "rain":
        x, y = dx * 5, dy * 5
        streaks = _rain_sheet(plan.seed, plan.sequence_number).crop((x, y, x + WIDTH, y + HEIGHT))
        frame = ImageChops.screen(frame, Image.merge("RGB", (streaks, streaks, streaks)))
    if cond.blur == "motion":
        frame = frame.filter(ImageFilter.BoxBlur((cond.blur_px, 0.3)))
    elif cond.blur == "defocus":
        frame = frame.filter(ImageFilter.GaussianBlur(cond.blur_px))
    noise = _noise_sheet(plan.seed, plan.sequence_number, cond.noise_sigma)[dy : dy + HEIGHT, dx : dx + WIDTH]
    return Image.fromarray(np.clip(np.asarray(frame) + noise, 0, 255).astype(np.uint8))
