"""Motor vehicles as small solids: a side profile drawn out over the width, with glass, wheels and lights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from udfs.street.canvas import Canvas, Point, Point3, mixed, scaled, signed_area
from udfs.street.figures import Stance
from udfs.street.world import Actor, Rgb

GLASS: Rgb = (58, 74, 92)
RUBBER: Rgb = (30, 30, 34)


@dataclass(frozen=True)
class Shape:
    """A body: profile from rear bumper over roof to front (shares of length and height), glass, wheels."""

    profile: tuple[Point, ...]
    glass: tuple[int, ...]
    windows: tuple[tuple[Point, ...], ...]
    wheels: tuple[float, float]
    wheel_radius_m: float = 0.33


_SEDAN_WINDOWS = (
    ((-0.30, 0.69), (-0.20, 0.93), (-0.06, 0.94), (-0.06, 0.69)),
    ((-0.03, 0.69), (-0.03, 0.94), (0.10, 0.93), (0.23, 0.69)),
)
_HATCH_WINDOWS = (
    ((-0.42, 0.68), (-0.36, 0.93), (-0.12, 0.94), (-0.12, 0.68)),
    ((-0.09, 0.68), (-0.09, 0.94), (0.09, 0.93), (0.22, 0.68)),
)
SHAPES = (
    Shape(((-0.5, 0.16), (-0.5, 0.6), (-0.37, 0.68), (-0.22, 1.0), (0.12, 1.0), (0.28, 0.66), (0.48, 0.55),
           (0.5, 0.16)),
          (2, 4), _SEDAN_WINDOWS, (-0.31, 0.31)),
    Shape(((-0.5, 0.16), (-0.49, 0.64), (-0.4, 1.0), (0.1, 1.0), (0.27, 0.66), (0.48, 0.55), (0.5, 0.16)),
          (1, 3), _HATCH_WINDOWS, (-0.31, 0.31)),
    Shape(((-0.5, 0.2), (-0.49, 0.64), (-0.44, 1.0), (0.13, 1.0), (0.27, 0.68), (0.48, 0.6), (0.5, 0.2)),
          (1, 3), _HATCH_WINDOWS, (-0.31, 0.31), 0.37),
    Shape(((-0.5, 0.14), (-0.5, 0.55), (-0.48, 1.0), (0.24, 1.0), (0.38, 0.58), (0.49, 0.46), (0.5, 0.14)),
          (1, 3), (((0.1, 0.6), (0.1, 0.92), (0.23, 0.92), (0.33, 0.6)),), (-0.3, 0.32), 0.35),
    Shape(((0.2, 0.14), (0.2, 0.8), (0.44, 0.8), (0.48, 0.44), (0.5, 0.42), (0.5, 0.14)),
          (2,), (((0.28, 0.46), (0.28, 0.72), (0.42, 0.72), (0.45, 0.46)),), (-0.3, 0.33), 0.42),
    Shape(((-0.5, 0.24), (-0.5, 0.6), (-0.12, 0.6), (-0.08, 1.0), (0.14, 1.0), (0.28, 0.64), (0.48, 0.57),
           (0.5, 0.24)),
          (2, 4), (((-0.04, 0.67), (-0.02, 0.93), (0.12, 0.93), (0.22, 0.67)),), (-0.3, 0.32), 0.39),
)  # fmt: skip


def _blend3(a: Point3, b: Point3, share: float) -> Point3:
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def _patch(
    quad: tuple[Point3, Point3, Point3, Point3], u0: float, u1: float, v0: float, v1: float
) -> list[Point3]:
    """The part of a quad (left-low, right-low, right-high, left-high) between shares u across and v up."""
    ll, rl, rh, lh = quad
    low0, low1, high0, high1 = (
        _blend3(ll, rl, u0),
        _blend3(ll, rl, u1),
        _blend3(lh, rh, u0),
        _blend3(lh, rh, u1),
    )
    return [
        _blend3(low0, high0, v0),
        _blend3(low1, high1, v0),
        _blend3(low1, high1, v1),
        _blend3(low0, high0, v1),
    ]


def draw_car(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a car, van, truck or pickup seen from wherever the camera is.

    Args:
        canvas: Where to draw; its object is already begun.
        actor: The vehicle; the variant picks its shape.
        x: Position of its centre right of the camera, m.
        z: Distance of its centre ahead, m.
        time_s: Time since the start of the sequence, s (unused: a car has no gait).
        shadow: Colour of the ground in shade.
    """
    place = Stance(x, z, actor.heading)
    half_l, half_w = actor.length / 2 + 0.1, actor.width / 2 + 0.12
    corners = ((-half_w, -half_l), (half_w, -half_l), (half_w, half_l), (-half_w, half_l))
    canvas.face([place.at(r + 0.15, 0.0, f) for r, f in corners], shadow, solid=False)
    _draw_wheels(canvas, actor, place, far=True)
    away = math.cos(actor.heading) > 0
    if actor.variant == 4 and not away:
        _draw_cargo(canvas, actor, place)
    draw_body(canvas, actor, place)
    if actor.variant == 4 and away:
        _draw_cargo(canvas, actor, place)
        _tail_lights(canvas, actor, place)
    _draw_wheels(canvas, actor, place, far=False)


def draw_body(canvas: Canvas, actor: Actor, place: Stance) -> None:
    """Draws the painted body with glass and lights, faces turned away left out."""
    shape = SHAPES[actor.variant]
    paint = actor.colors[0]

    def edge(point: Point, side: float) -> Point3:
        inset = 0.84 if point[1] > 0.75 else 1.0
        return place.at(side * actor.width / 2 * inset, point[1] * actor.height, point[0] * actor.length)

    faces: list[tuple[float, int]] = []
    for i in range(len(shape.profile) - 1):
        a, b = shape.profile[i], shape.profile[i + 1]
        quad = [edge(a, -1), edge(a, 1), edge(b, 1), edge(b, -1)]
        if signed_area([canvas.project(*p) for p in quad]) < 0:
            faces.append((sum(p[2] for p in quad), i))
    for _, i in sorted(faces, reverse=True):
        a, b = shape.profile[i], shape.profile[i + 1]
        flat = abs(b[0] - a[0]) * actor.length > abs(b[1] - a[1]) * actor.height
        quad4 = (edge(a, -1), edge(a, 1), edge(b, 1), edge(b, -1))
        canvas.face(quad4, scaled(paint, 1.12 if flat else 0.9))
        if i in shape.glass:
            canvas.face(_patch(quad4, 0.08, 0.92, 0.1, 0.9), GLASS, solid=False)
            canvas.face(_patch(quad4, 0.12, 0.4, 0.2, 0.85), mixed(GLASS, (190, 214, 230), 0.45), solid=False)
        # The rear of a truck's cab is hidden by its cargo box, which carries the tail lights.
        if i == len(shape.profile) - 2 or i == 0 and actor.variant != 4:
            _draw_end(canvas, actor, quad4, rear=i == 0)
    for side in (-1, 1):
        outline = [edge(p, side) for p in shape.profile]
        if signed_area([canvas.project(*p) for p in outline]) * side > 0:
            canvas.face(outline, scaled(paint, 0.8 if side > 0 else 0.96))
            back = shape.profile[0][0]
            sill = ((back, 0.16), (back, 0.28), (0.5, 0.28), (0.5, 0.16))
            canvas.face([edge(p, side) for p in sill], scaled(paint, 0.6), solid=False)
            for window in shape.windows:
                canvas.face([edge(p, side) for p in window], GLASS, solid=False)


def _draw_end(
    canvas: Canvas, actor: Actor, quad: tuple[Point3, Point3, Point3, Point3], *, rear: bool
) -> None:
    if not rear:
        quad = (quad[3], quad[2], quad[1], quad[0])
    canvas.face(_patch(quad, 0.0, 1.0, 0.0, 0.2), (46, 46, 50), solid=False)
    canvas.face(_patch(quad, 0.38, 0.62, 0.28, 0.46), (236, 234, 220), solid=False)
    if not rear:
        canvas.face(_patch(quad, 0.28, 0.72, 0.58, 0.84), (40, 42, 46), solid=False)
    color: Rgb = (206, 30, 28) if rear else (250, 246, 226)
    for u in (0.03, 0.77):
        lamp = _patch(quad, u, u + 0.2, 0.6, 0.88)
        canvas.face(lamp, color, solid=False)
        spot = canvas.project(*_blend3(lamp[0], lamp[2], 0.5))
        size = canvas.px_per_m(max(lamp[0][2], 1.0))
        canvas.light(
            *spot, max(size * (0.08 if rear else 0.13), 0.8), (255, 36, 24) if rear else (255, 246, 216)
        )


def _draw_cargo(canvas: Canvas, actor: Actor, place: Stance) -> None:
    back, front = -actor.length / 2, actor.length * 0.18
    draw_box(canvas, place, actor.width * 0.8, (back + 0.2, actor.length * 0.4), (0.4, 0.62), (44, 44, 50))
    draw_box(canvas, place, actor.width, (back, front), (0.55, actor.height), actor.colors[1])


def _tail_lights(canvas: Canvas, actor: Actor, place: Stance) -> None:
    for side in (-0.42, 0.42):
        px, py = canvas.project(*place.at(side * actor.width, 0.7, -actor.length / 2))
        r = 0.1 * canvas.px_per_m(place.at(0, 0, -actor.length / 2)[2])
        canvas.ellipse(px, py, r, r, (206, 30, 28), solid=False)
        canvas.light(px, py, max(r, 0.8), (255, 36, 24))


def _draw_wheels(canvas: Canvas, actor: Actor, place: Stance, *, far: bool) -> None:
    shape = SHAPES[actor.variant]
    radius = (
        shape.wheel_radius_m
        * actor.height
        / (1.45 if actor.variant < 2 else 1.75 if actor.variant in (2, 5) else 2.4)
    )
    radius = max(radius, 0.3)
    for side in (-1, 1):
        outer = [
            place.at(side * actor.width / 2, u, f)
            for u, f in ((0.2, -1.0), (0.8, -1.0), (0.8, 1.0), (0.2, 1.0))
        ]
        shown = signed_area([canvas.project(*p) for p in outer]) * side > 0
        if far:
            _draw_treads(canvas, actor, place, side, radius)
        if far or not shown:
            continue
        for share in shape.wheels:
            hub = share * actor.length
            for r, color in ((radius, RUBBER), (radius * 0.58, (150, 152, 158))):
                ring = [
                    place.at(side * actor.width * 0.5, radius + r * math.sin(a), hub + r * math.cos(a))
                    for a in [math.tau * k / 14 for k in range(14)]
                ]
                canvas.face(ring, color, solid=r == radius)


def _draw_treads(canvas: Canvas, actor: Actor, place: Stance, side: int, radius: float) -> None:
    """Draws the tyres' treads, of which only what hangs below the body stays visible."""
    for share in SHAPES[actor.variant].wheels:
        hub = share * actor.length
        for end in (hub - 0.6 * radius, hub + 0.6 * radius):
            outer, inner = side * actor.width / 2, side * (actor.width / 2 - 0.24)
            canvas.face(
                [
                    place.at(outer, 0.02, end),
                    place.at(outer, radius, end),
                    place.at(inner, radius, end),
                    place.at(inner, 0.02, end),
                ],
                RUBBER,
            )


def draw_box(
    canvas: Canvas,
    place: Stance,
    width: float,
    span: tuple[float, float],
    rise: tuple[float, float],
    color: Rgb,
) -> None:
    """Draws a closed box from forward span[0] to span[1] and from height rise[0] to rise[1], m."""
    (back, front), (low, high), w = span, rise, width / 2
    sides = (
        ([(-w, low, front), (-w, high, front), (w, high, front), (w, low, front)], 0.92),
        ([(-w, low, back), (w, low, back), (w, high, back), (-w, high, back)], 0.92),
        ([(w, low, back), (w, low, front), (w, high, front), (w, high, back)], 0.78),
        ([(-w, low, front), (-w, low, back), (-w, high, back), (-w, high, front)], 0.98),
    )
    for corners, tone in sides:
        points = [place.at(*c) for c in corners]
        if signed_area([canvas.project(*p) for p in points]) < 0:
            canvas.face(points, scaled(color, tone))
            quad = (points[0], points[1], points[2], points[3])
            canvas.face(_patch(quad, 0.08, 0.92, 0.08, 0.92), scaled(color, tone * 1.07), solid=False)
