"""People: pedestrians in mid-stride and cyclists, drawn as jointed figures in the world."""

from __future__ import annotations

import math
from collections.abc import Callable

from udfs.street.canvas import Canvas, Point3, scaled
from udfs.street.world import Actor, Rgb

Place = Callable[[float, float, float], Point3]


class Stance:
    """Places points of an actor's own frame (right, up, forward, m) in the world."""

    def __init__(self, x: float, z: float, heading: float, size: float = 1.0) -> None:
        self._x, self._z, self._size = x, z, size
        self._sin, self._cos = math.sin(heading), math.cos(heading)

    def at(self, right: float, up: float, forward: float) -> Point3:
        """The world position of a point of the actor's frame."""
        k = self._size
        x = self._x + k * (right * self._cos + forward * self._sin)
        return (x, up * k, self._z + k * (forward * self._cos - right * self._sin))


def ground_shadow(canvas: Canvas, x: float, z: float, rx_m: float, color: Rgb) -> None:
    """Darkens an ellipse on the ground under an object."""
    px, py = canvas.project(x + 0.25 * rx_m, 0.0, z)
    scale = canvas.px_per_m(z)
    ry = max(0.12 * rx_m * scale, rx_m * canvas.camera.height_m / max(z, 1.0) * scale * 0.35)
    canvas.ellipse(px, py, rx_m * scale, ry, color, solid=False)


def draw_pedestrian(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a walking or standing person.

    Args:
        canvas: Where to draw; its object is already begun.
        actor: The person; variant 1 wears a long coat, 2 carries a bag, 3 a safety vest, 4 an umbrella.
        x: Position right of the camera, m.
        z: Distance ahead of the camera, m.
        time_s: Time since the start of the sequence, s.
        shadow: Colour of the ground in shade.
    """
    top, legs, skin, hair, extra = actor.colors
    speed = math.hypot(actor.vx, actor.vz)
    swing = math.sin(actor.phase + time_s * 5.2 * speed / 1.3) * 0.19 if speed else 0.03
    at = Stance(x, z, actor.heading, actor.height).at
    ground_shadow(canvas, x, z, 0.42, shadow)
    near = 1 if math.sin(actor.heading) > 0 else -1
    _leg(canvas, actor, at, -near, -near * swing, scaled(legs, 0.82))
    _leg(canvas, actor, at, near, near * swing, legs)
    _arm(canvas, actor, at, -near, -swing, 0.8)
    _torso(canvas, actor, at, top)
    neck, head = at(0, 0.85, 0.0), at(0, 0.925, 0.012)
    canvas.limb(neck, head, 0.028 * actor.height, skin)
    canvas.ball(*head, 0.068 * actor.height, skin)
    crown = at(0, 0.948, -0.018)
    canvas.ball(*crown, 0.062 * actor.height, hair)
    if actor.variant == 3:
        canvas.limb(at(-0.05, 0.94, 0.045), at(0.05, 0.94, 0.045), 0.02 * actor.height, hair)
    _arm(canvas, actor, at, near, swing, 1.0)
    if actor.variant == 2:
        canvas.limb(at(0.15 * near, 0.5, -0.03), at(0.15 * near, 0.42, -0.03), 0.07 * actor.height, extra)
    if actor.variant == 4:
        _umbrella(canvas, actor, at(0.1, 1.2, 0.08), at(0.12, 0.6, 0.1), extra)


def _leg(canvas: Canvas, actor: Actor, place: Place, side: int, swing: float, cloth: Rgb) -> None:
    hip, knee = place(0.05 * side, 0.5, 0), place(0.055 * side, 0.27, swing * 0.75)
    foot, toe = place(0.055 * side, 0.03, swing - 0.03), place(0.055 * side, 0.022, swing + 0.07)
    canvas.limb(hip, knee, 0.058 * actor.height, cloth)
    canvas.limb(knee, foot, 0.046 * actor.height, cloth)
    canvas.limb(foot, toe, 0.026 * actor.height, (44, 38, 36))


def _torso(canvas: Canvas, actor: Actor, place: Place, top: Rgb) -> None:
    long = actor.variant == 1
    low = 0.34 if long else 0.5
    hips, wide = (0.1 if long else 0.07), 0.085
    thick = 0.05 * actor.height
    left, right = place(-wide, 0.79, 0), place(wide, 0.79, 0)
    canvas.limb(left, place(-hips, low, 0), thick, top)
    canvas.limb(right, place(hips, low, 0), thick, top)
    canvas.face([left, right, place(hips, low, 0), place(-hips, low, 0)], top)
    canvas.limb(left, right, thick, top)
    if actor.variant == 3:
        for up in (0.72, 0.6):
            canvas.limb(
                place(-wide, up, 0), place(wide, up, 0), 0.02 * actor.height, (240, 244, 236), solid=False
            )
            px, py = canvas.project(*place(0, up, 0))
            canvas.light(px, py, 0.018 * actor.height * canvas.px_per_m(place(0, up, 0)[2]), (150, 150, 130))


def _arm(canvas: Canvas, actor: Actor, place: Place, side: int, swing: float, tone: float) -> None:
    sleeve = scaled(actor.colors[0], tone * 0.93)
    shoulder, elbow = place(0.125 * side, 0.79, 0), place(0.145 * side, 0.64, -swing * 0.5)
    hand = place(0.14 * side, 0.5, -swing * 0.9 + 0.03)
    canvas.limb(shoulder, elbow, 0.036 * actor.height, sleeve)
    canvas.limb(elbow, hand, 0.03 * actor.height, sleeve)
    canvas.ball(*hand, 0.028 * actor.height, actor.colors[2])


def _umbrella(canvas: Canvas, actor: Actor, tip: Point3, grip: Point3, color: Rgb) -> None:
    canvas.limb(grip, tip, 0.01, (60, 60, 64))
    px, py = canvas.project(*tip)
    r = 0.5 * canvas.px_per_m(tip[2])
    arc = [
        (px + r * math.cos(a), py + r * 0.25 - r * 0.62 * math.sin(a))
        for a in [math.pi * k / 10 for k in range(11)]
    ]
    canvas.polygon(arc, color)
    rib = [(px, py - r * 0.37), (px + r * 0.3, py + r * 0.25), (px - r * 0.3, py + r * 0.25)]
    canvas.polygon(rib, scaled(color, 1.15), solid=False)


def draw_wheel(canvas: Canvas, place: Stance, forward: float, radius: float, width: float) -> None:
    """Draws a spoked bicycle wheel standing in the plane of travel."""
    ring = [
        place.at(0, radius + radius * math.sin(a), forward + radius * math.cos(a))
        for a in [math.tau * k / 14 for k in range(14)]
    ]
    for a, b in zip(ring, ring[1:] + ring[:1], strict=True):
        canvas.limb(a, b, width, (34, 34, 38))
    for k in (0, 3, 5):
        canvas.limb(ring[k], ring[(k + 7) % 14], 0.006, (150, 150, 156), solid=False)


def draw_bicycle(canvas: Canvas, place: Stance, frame: Rgb, *, cargo: bool = False) -> None:
    """Draws a bicycle without its rider; a cargo bicycle carries a box in front."""
    draw_wheel(canvas, place, -0.52, 0.34, 0.028)
    draw_wheel(canvas, place, 0.52, 0.34, 0.028)
    crank, seat, head = place.at(0, 0.34, -0.05), place.at(0, 0.86, -0.2), place.at(0, 0.86, 0.36)
    for a, b in (
        (crank, seat),
        (crank, head),
        (seat, head),
        (crank, place.at(0, 0.34, -0.52)),
        (seat, place.at(0, 0.34, -0.52)),
        (head, place.at(0, 0.34, 0.52)),
    ):
        canvas.limb(a, b, 0.026, frame)
    canvas.limb(head, place.at(0, 1.02, 0.33), 0.022, (60, 60, 64))
    canvas.limb(place.at(-0.27, 1.03, 0.34), place.at(0.27, 1.03, 0.34), 0.022, (40, 40, 44))
    canvas.limb(place.at(0, 0.93, -0.32), place.at(0, 0.93, -0.1), 0.04, (36, 32, 32))
    if cargo:
        canvas.limb(place.at(0, 0.55, 0.75), place.at(0, 0.55, 0.95), 0.26, (176, 132, 84))


def draw_cyclist(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a rider on a bicycle, pedalling; arguments as in `draw_pedestrian`."""
    top, legs, skin, helmet, frame = actor.colors
    place = Stance(x, z, actor.heading, actor.height)
    at = place.at
    ground_shadow(canvas, x, z, 0.6, shadow)
    draw_bicycle(canvas, place, frame, cargo=actor.variant == 1)
    near = -1 if math.sin(actor.heading) > 0 else 1
    turn = actor.phase + time_s * 5.0
    hip, shoulder = at(0, 0.98, -0.18), at(0, 1.44, 0.14)
    for side in (-near, near):
        angle = turn + (math.pi if side > 0 else 0.0)
        foot = at(0.1 * side, 0.34 + 0.17 * math.sin(angle), -0.05 + 0.17 * math.cos(angle))
        knee = at(0.12 * side, 0.72 + 0.1 * math.sin(angle), 0.2 + 0.07 * math.cos(angle))
        tone = 0.8 if side != near else 1.0
        cloth = scaled(legs, tone)
        canvas.limb(at(0.08 * side, 0.96, -0.18), knee, 0.085, cloth)
        canvas.limb(knee, foot, 0.065, cloth)
        canvas.limb(
            foot,
            at(0.1 * side, foot[1] / actor.height - 0.01, 0.12 + 0.17 * math.cos(angle)),
            0.045,
            (44, 40, 40),
        )
        if side != near:
            canvas.limb(at(0.17 * side, 1.4, 0.12), at(0.25 * side, 1.05, 0.36), 0.05, top)
    for side in (-1, 1):
        canvas.limb(at(0.11 * side, 1.0, -0.16), at(0.14 * side, 1.38, 0.1), 0.1, top)
    canvas.limb(hip, shoulder, 0.14, top)
    canvas.limb(at(0.17 * near, 1.4, 0.12), at(0.24 * near, 1.2, 0.2), 0.055, top)
    canvas.limb(at(0.24 * near, 1.2, 0.2), at(0.25 * near, 1.06, 0.36), 0.045, skin)
    head = at(0, 1.66, 0.22)
    canvas.ball(*head, 0.115, skin)
    canvas.ball(*at(0, 1.70, 0.19), 0.115, helmet)
    px, py = canvas.project(*at(0, 0.72, 0.5 if math.cos(actor.heading) < 0 else -0.5))
    color = (255, 240, 200) if math.cos(actor.heading) < 0 else (255, 40, 30)
    canvas.light(px, py, max(0.035 * canvas.px_per_m(z), 0.7), color)
