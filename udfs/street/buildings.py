"""The walls along the street: houses with windows and stacks of containers."""

from __future__ import annotations

import math

from udfs.street.canvas import Canvas, Point3, mixed, scaled
from udfs.street.world import Actor, Rgb

LIT: tuple[Rgb, ...] = ((255, 214, 130), (255, 190, 96), (244, 232, 196), (186, 208, 236))


def draw_building(canvas: Canvas, block: Actor, z: float, shade: Rgb) -> None:
    """Draws a house or a stack of containers that begins at distance z, m, over its shadow."""
    far = z + block.length
    if far < 1.5 or z > 140:
        return
    canvas.begin(0, max(z, 2.0) * 0.6 + far * 0.4)
    x, h = block.x, block.height
    away = x + math.copysign(block.width, x)
    tone = 0.8 if x > 0 else 1.0
    if z > 1.0 and block.kind == "house":
        _draw_gable(canvas, block, z, away, 0.9 if x > 0 else 0.76)
    near = max(z, 0.6)
    canvas.face(
        [
            (x, 0, near),
            (x - math.copysign(0.5, x), 0, near),
            (x - math.copysign(0.5, x), 0, far),
            (x, 0, far),
        ],
        shade,
        solid=False,
    )
    wall = [(x, 0.0, near), (x, h, near), (x, h, far), (x, 0.0, far)]
    canvas.face(wall, scaled(block.colors[0], tone), solid=False)
    if block.kind == "house":
        _draw_facade(canvas, block, z, far, tone)
    else:
        _draw_stack(canvas, block, z, far, tone)


def _front_patch(x0: float, x1: float, y0: float, y1: float, z: float) -> list[Point3]:
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def _draw_gable(canvas: Canvas, block: Actor, z: float, away: float, tone: float) -> None:
    x, h = block.x, block.height
    step = (away - x) / 4
    canvas.face(_front_patch(x, away, 0.0, h, z), scaled(block.colors[0], tone), solid=False)
    canvas.face(_front_patch(x, away, h - 0.45, h, z), scaled(block.colors[0], tone * 1.12), solid=False)
    if z > 70:
        return
    for floor in range(int((h - 3.6) / 2.8)):
        for column in range(4):
            key = (block.variant * 17 + column * 29 + floor * 5) * 2654435761 % 1000
            if key < 250:
                continue
            left, low = x + step * (column + 0.3), 3.9 + floor * 2.8
            patch = _front_patch(left, left + step * 0.45, low, low + 1.5, z)
            canvas.face(patch, scaled((70, 88, 108), tone), solid=False)
            if key < 520:
                canvas.window([canvas.project(*p) for p in patch], scaled(LIT[key % 4], 0.62))


def _wall_patch(x: float, y0: float, y1: float, z0: float, z1: float) -> list[Point3]:
    return [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]


def _draw_facade(canvas: Canvas, block: Actor, z: float, far: float, tone: float) -> None:
    x, h, base = block.x, block.height, block.colors[0]
    trim = mixed(base, (250, 246, 236), 0.55)
    canvas.face(_wall_patch(x, h - 0.45, h, max(z, 0.6), far), scaled(trim, tone), solid=False)
    canvas.face(_wall_patch(x, 3.1, 3.3, max(z, 0.6), far), scaled(trim, tone), solid=False)
    if z > 85:
        return
    columns = max(2, int(block.length / 2.6))
    step = block.length / columns
    floors = max(1, int((h - 3.6) / 2.8))
    for column in range(columns):
        z0 = z + step * (column + 0.22)
        z1 = z0 + step * 0.56
        if z1 < 1.0:
            continue
        for floor in range(floors + 1):
            low = 0.5 if floor == 0 else 3.9 + (floor - 1) * 2.8
            if low > h - 1.8:
                continue
            key = (block.variant * 31 + column * 7 + floor * 13) * 2654435761 % 1000
            shop = floor == 0
            glass: Rgb = mixed((70, 88, 108), block.colors[1 + key % 8], 0.45 if shop else 0.1)
            patch = _wall_patch(x, low, low + (2.1 if shop else 1.55), max(z0, 0.6), z1)
            if z0 < 45:
                canvas.face(
                    _wall_patch(x, low - 0.12, low, max(z0 - 0.1, 0.6), z1 + 0.1),
                    scaled(trim, tone),
                    solid=False,
                )
            canvas.face(patch, scaled(glass, tone), solid=False)
            if key < (620 if shop else 380):
                canvas.window([canvas.project(*p) for p in patch], scaled(LIT[key % 4], 0.62))


def _draw_stack(canvas: Canvas, block: Actor, z: float, far: float, tone: float) -> None:
    x, level, index = block.x, 0.0, 0
    while level < block.height - 0.1:
        start = z
        while start < far - 0.1:
            color = scaled(block.colors[index % len(block.colors)], tone)
            index += 1
            stop = min(start + 6.1, far)
            if stop > 1.0:
                canvas.face(
                    _wall_patch(x, level, level + 2.6, max(start, 0.6), stop), scaled(color, 0.7), solid=False
                )
                canvas.face(
                    _wall_patch(x, level + 0.1, level + 2.5, max(start + 0.08, 0.6), stop - 0.08),
                    color,
                    solid=False,
                )
                for rib in range(0 if start < 60 else 7, 7):
                    at = start + 0.6 + rib * 0.8
                    if at > 0.8 and at + 0.3 < stop:
                        canvas.face(
                            _wall_patch(x, level + 0.2, level + 2.4, at, at + 0.3),
                            scaled(color, 0.86),
                            solid=False,
                        )
            start += 6.1
        if z > 1.0:
            _draw_doors(canvas, block, z, level, index)
        level += 2.6


def _draw_doors(canvas: Canvas, block: Actor, z: float, level: float, index: int) -> None:
    low, high, side = level + 0.1, level + 2.5, math.copysign(2.45, block.x)
    for row in range(3):
        color = scaled(block.colors[(index + 5 * row) % len(block.colors)], 0.85)
        left, right, gap = block.x + row * side, block.x + (row + 1) * side, 0.04 * side
        bar = (left + right) / 2
        canvas.face(_front_patch(left, right, level, level + 2.6, z), scaled(color, 0.7), solid=False)
        canvas.face(_front_patch(left + gap, right - gap, low, high, z), color, solid=False)
        canvas.face(_front_patch(bar - 0.05, bar + 0.05, low, high, z), scaled(color, 0.75), solid=False)
