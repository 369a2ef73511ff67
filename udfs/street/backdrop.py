"""What no object stands behind: sky, far skyline, ground and road markings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from udfs.street.canvas import SCALE, Canvas, mixed, scaled
from udfs.street.world import IMAGE_SIZE_HW, Rgb, SequencePlan


@dataclass(frozen=True)
class Palette:
    """Colours of one sequence before the light of the hour falls on them."""

    sky_top: Rgb
    sky_low: Rgb
    haze: Rgb
    haze_m: float
    road: Rgb
    walk: Rgb
    verge: Rgb
    mark: Rgb


def sequence_palette(plan: SequencePlan) -> Palette:
    """The colours that domain, hour and weather give a sequence."""
    cond = plan.conditions
    top, low = {
        "day": ((92, 156, 214), (206, 228, 240)),
        "dusk": ((96, 92, 150), (252, 176, 124)),
        "night": ((30, 40, 84), (84, 96, 150)),
    }[cond.time]
    if plan.dataset == "harbor" and cond.time == "day":
        top, low = (128, 160, 172), (236, 226, 202)
    if cond.weather != "clear":
        grey = (150, 158, 168) if cond.time != "night" else (58, 64, 88)
        top, low = mixed(top, grey, 0.75), mixed(low, scaled(grey, 1.22), 0.7)
    haze_m = {"clear": 190.0, "rain": 95.0, "fog": 34.0}[cond.weather]
    if plan.dataset == "harbor":
        ground: Rgb = (228, 234, 240) if cond.snow else (206, 184, 142)
        road = mixed((96, 96, 98), ground, 0.35)
        return Palette(
            top, low, low, haze_m, road, mixed(ground, (150, 150, 150), 0.25), ground, (246, 214, 90)
        )
    return Palette(top, low, low, haze_m, (98, 100, 108), (178, 172, 164), (150, 150, 128), (236, 236, 230))


def paint_backdrop(plan: SequencePlan, palette: Palette) -> Image.Image:
    """Sky, skyline and bare ground, which stay put while the camera drives straight ahead.

    Args:
        plan: The sequence.
        palette: Its colours.

    Returns:
        An RGB picture of 2x the frame size.
    """
    height, width = (v * SCALE for v in IMAGE_SIZE_HW)
    horizon = int(plan.camera.horizon_y_px * SCALE)
    rng = np.random.default_rng([plan.seed, plan.sequence_number, 3])
    share = np.clip(np.arange(height) / max(horizon, 1), 0, 1)[:, None] ** 1.3
    column = np.asarray(palette.sky_top) * (1 - share) + np.asarray(palette.sky_low) * share
    picture = Image.fromarray(np.repeat(column.astype(np.uint8)[:, None, :], width, axis=1))
    pen = ImageDraw.Draw(picture)
    _paint_sky(pen, plan, palette, rng, width, horizon)
    picture = picture.filter(ImageFilter.BoxBlur(2))
    _paint_skyline(ImageDraw.Draw(picture), plan, palette, rng, width, horizon)
    _paint_ground(ImageDraw.Draw(picture), plan, palette, width, height, horizon)
    return picture


def _paint_sky(
    pen: ImageDraw.ImageDraw,
    plan: SequencePlan,
    palette: Palette,
    rng: np.random.Generator,
    width: int,
    horizon: int,
) -> None:
    cond = plan.conditions
    if cond.weather == "clear" and cond.time == "night":
        for _ in range(70):
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, horizon * 0.8))
            pen.ellipse([x, y, x + 3, y + 3], fill=(200, 206, 230))
    if cond.weather == "clear":
        x, y, r = float(rng.uniform(0.1, 0.9)) * width, float(rng.uniform(0.12, 0.5)) * horizon, 34.0
        disc: Rgb = (
            (236, 236, 220)
            if cond.time == "night"
            else (255, 244, 206)
            if cond.time == "day"
            else (255, 206, 140)
        )
        for k in (3.0, 2.2, 1.6, 1.0):
            pen.ellipse(
                [x - r * k, y - r * k, x + r * k, y + r * k],
                fill=mixed(palette.sky_top, disc, 0.16 if k > 1 else 1.0),
            )
    for _ in range(int(rng.integers(2, 7))):
        x, y, size = (
            float(rng.uniform(0, width)),
            float(rng.uniform(0.05, 0.7)) * horizon,
            float(rng.uniform(0.5, 1.5)),
        )
        base = mixed(palette.sky_low, (255, 255, 255), 0.1 if cond.time == "night" else 0.5)
        color = mixed(palette.sky_top, base, 0.6)
        for _ in range(7):
            dx, rx = float(rng.normal(0, 75 * size)), float(rng.uniform(40, 95)) * size
            ry = rx * float(rng.uniform(0.16, 0.3))
            pen.ellipse([x + dx - rx, y - ry * 1.4, x + dx + rx, y + ry], fill=color)


def _paint_skyline(
    pen: ImageDraw.ImageDraw,
    plan: SequencePlan,
    palette: Palette,
    rng: np.random.Generator,
    width: int,
    horizon: int,
) -> None:
    tone = mixed(palette.haze, (70, 84, 104), 0.42 if plan.conditions.weather == "clear" else 0.16)
    if plan.dataset == "harbor":
        for _ in range(int(rng.integers(3, 7))):
            x, h = float(rng.uniform(0, width)), float(rng.uniform(70, 190))
            side = 1 if rng.random() < 0.5 else -1
            top = horizon - h
            for leg in (0.0, 0.28 * h):
                pen.line([x + leg, horizon, x + leg * 0.8, top], fill=tone, width=6)
            pen.line([x - side * 0.35 * h, top + 4, x + side * 0.9 * h, top + 4], fill=tone, width=7)
            pen.line([x + 0.1 * h, top - 0.28 * h, x + side * 0.9 * h, top], fill=tone, width=3)
            pen.line([x + 0.1 * h, top - 0.28 * h, x + 0.1 * h, top], fill=tone, width=5)
        pen.rectangle([0, horizon - 10, width, horizon + 2], fill=mixed(tone, (60, 110, 140), 0.3))
        return
    for layer in (0.5, 1.0):
        x = -20.0
        while x < width:
            w, h = float(rng.uniform(30, 90)), float(rng.uniform(20, 90)) * (1.6 - layer)
            pen.rectangle([x, horizon - h, x + w, horizon + 2], fill=mixed(palette.haze, tone, layer))
            x += w * float(rng.uniform(0.6, 1.1))


def _paint_ground(
    pen: ImageDraw.ImageDraw, plan: SequencePlan, palette: Palette, width: int, height: int, horizon: int
) -> None:
    camera, road = plan.camera, plan.road
    focal, center = camera.focal_px * SCALE, camera.center_x_px * SCALE
    for y in range(horizon, height, 2):
        z = focal * camera.height_m / max(y + 1.0 - camera.horizon_y_px * SCALE, 0.5)
        clear = math.exp(-z / palette.haze_m)
        scale = focal / z
        pen.rectangle([0, y, width, y + 1], fill=mixed(palette.haze, palette.verge, clear))
        for left, right, color in (
            (road.left_wall_x - 0.6, road.right_wall_x + 0.6, palette.walk),
            (road.left_x - 0.2, road.right_x + 0.2, scaled(palette.walk, 1.16)),
            (road.left_x, road.right_x, palette.road),
        ):
            x0, x1 = max(center + left * scale, 0.0), min(center + right * scale, float(width))
            if x1 > x0:
                pen.rectangle([x0, y, x1, y + 1], fill=mixed(palette.haze, color, clear))


def _flat(canvas: Canvas, x0: float, x1: float, z0: float, z1: float, color: Rgb) -> None:
    if z1 > 1.2 and z0 < 90 and z1 > z0:
        canvas.begin(0, (max(z0, 0.0) + z1) / 2)
        z0 = max(z0, 1.2)
        canvas.face([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], color, solid=False)


def draw_road(canvas: Canvas, plan: SequencePlan, palette: Palette, travelled_m: float) -> None:
    """Draws what moves towards the camera on the ground: cross street, lane marks, zebra, patches."""
    road = plan.road
    if road.crossing_z is not None:
        z = road.crossing_z - travelled_m
        _flat(canvas, -70, 70, z - 3.9, z + 3.9, palette.road)
        x = road.left_x + 0.4
        while x < road.right_x - 0.4:
            _flat(canvas, x, x + 0.5, z - 7.6, z - 4.6, palette.mark)
            x += 1.05
    patches = np.random.default_rng([plan.seed, plan.sequence_number, 5]).random((26, 4))
    for a, b, c, d in patches.tolist():
        z = a * 130 - travelled_m
        x = road.left_x + 0.3 + b * (road.right_x - road.left_x - 2.4)
        _flat(canvas, x, x + 0.7 + c, z, z + 0.8 + 3.2 * d, scaled(palette.road, 0.93 if c > 0.4 else 1.06))
    for k in range(int(travelled_m / 6), int((travelled_m + 95) / 6)):
        z = k * 6.0 - travelled_m
        if road.crossing_z is None or abs(z + travelled_m + 1 - road.crossing_z) > 7:
            _flat(canvas, -1.81, -1.67, z, z + 2.8, palette.mark)
            _flat(canvas, road.right_x + 0.2, road.right_wall_x, z, z + 0.07, scaled(palette.walk, 0.86))
            _flat(canvas, road.left_wall_x, road.left_x - 0.2, z, z + 0.07, scaled(palette.walk, 0.86))
    for x in (1.75, -5.25):
        _flat(canvas, x, x + 0.09, 1.2, 80.0, mixed(palette.road, palette.mark, 0.6))
