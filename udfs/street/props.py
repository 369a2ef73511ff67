"""Street furniture: traffic signs (a class) and distractors that resemble the classes but carry no label."""

from __future__ import annotations

import math
from collections.abc import Callable

from udfs.street.canvas import OCCLUDER, Canvas, Point, mixed, scaled
from udfs.street.figures import Stance, draw_bicycle, draw_cyclist, draw_pedestrian, ground_shadow
from udfs.street.vehicles import draw_box, draw_car
from udfs.street.world import Actor, Rgb

Painter = Callable[[Canvas, Actor, float, float, float, Rgb], None]
RED: Rgb = (204, 34, 40)
WHITE: Rgb = (244, 244, 240)
BLUE: Rgb = (30, 92, 178)
STEEL: Rgb = (132, 136, 142)


def _regular(x: float, y: float, r: float, corners: int, turn: float) -> list[Point]:
    return [
        (x + r * math.cos(turn + math.tau * k / corners), y + r * math.sin(turn + math.tau * k / corners))
        for k in range(corners)
    ]


def draw_sign(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a traffic sign; the labelled silhouette is the plate, the pole only hides what is behind it.

    Args:
        canvas: Where to draw; its object is already begun.
        actor: The sign: variants are limit, yield, warning, stop, parking, no entry, diamond.
        x: Position right of the camera, m.
        z: Distance ahead, m.
        time_s: Time since the start of the sequence, s (unused).
        shadow: Colour of the ground in shade.
    """
    owner = canvas.owner
    canvas.owner = OCCLUDER
    ground_shadow(canvas, x, z, 0.15, shadow)
    canvas.limb((x, 0.0, z), (x, actor.height + 0.1, z), 0.035, STEEL)
    canvas.begin(owner, z)
    px, py = canvas.project(x, actor.height, z)
    _plate(canvas, actor.variant, px, py, actor.width / 2 * canvas.px_per_m(z), actor.phase)
    glow = (90, 84, 76) if z < 40 else (40, 38, 34)
    canvas.light(px, py, actor.width * 0.3 * canvas.px_per_m(z), glow)


def _plate(canvas: Canvas, variant: int, x: float, y: float, r: float, phase: float) -> None:
    if variant in (0, 5):
        canvas.ellipse(x, y, r, r, RED)
        if variant == 0:
            canvas.ellipse(x, y, r * 0.76, r * 0.76, WHITE, solid=False)
            for dx in (-0.28, 0.22):
                canvas.polygon(_bar(x + dx * r, y, r * 0.13, r * 0.36), (30, 30, 34), solid=False)
        else:
            canvas.polygon(_bar(x, y, r * 0.66, r * 0.17), WHITE, solid=False)
    elif variant in (1, 2):
        turn = math.pi / 2 if variant == 1 else -math.pi / 2
        dy = -0.14 * r if variant == 1 else 0.14 * r
        canvas.polygon(_regular(x, y + dy, r * 1.14, 3, turn), RED)
        canvas.polygon(_regular(x, y + dy, r * 0.68, 3, turn), WHITE, solid=False)
        if variant == 2:
            canvas.polygon(_bar(x, y + 0.12 * r, r * 0.1, r * 0.3), (30, 30, 34), solid=False)
    elif variant == 3:
        canvas.polygon(_regular(x, y, r * 1.06, 8, math.pi / 8), WHITE)
        canvas.polygon(_regular(x, y, r * 0.96, 8, math.pi / 8), RED, solid=False)
        canvas.polygon(_bar(x, y, r * 0.62, r * 0.16), WHITE, solid=False)
    elif variant == 4:
        canvas.polygon(_bar(x, y, r * 0.92, r * 0.92), WHITE)
        canvas.polygon(_bar(x, y, r * 0.82, r * 0.82), BLUE, solid=False)
        canvas.polygon(_bar(x - 0.2 * r, y, r * 0.13, r * 0.5), WHITE, solid=False)
        canvas.ellipse(x + 0.1 * r, y - 0.2 * r, r * 0.3, r * 0.28, WHITE, solid=False)
    else:
        canvas.polygon(_regular(x, y, r * 1.12, 4, 0.0), (40, 40, 40))
        canvas.polygon(_regular(x, y, r * 1.0, 4, 0.0), (244, 196, 40), solid=False)
        canvas.polygon(_bar(x, y, r * 0.1, r * 0.42 * (0.7 + 0.3 * phase)), (40, 40, 40), solid=False)


def _bar(x: float, y: float, rx: float, ry: float) -> list[Point]:
    return [(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)]


def draw_tree(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a tree with a crown of three tones, or a conifer (variant 2)."""
    leaf, h = actor.colors[0], actor.height
    ground_shadow(canvas, x, z, 1.2, shadow)
    canvas.limb((x, 0.0, z), (x, h * 0.6, z), 0.13, (92, 68, 52))
    if actor.variant == 2:
        for low, high, half, tone in (
            (0.25, 0.65, 1.35, 0.7),
            (0.45, 0.85, 1.05, 0.82),
            (0.65, 1.0, 0.7, 0.95),
        ):
            canvas.face(
                [(x - half, h * low, z), (x, h * high, z), (x + half, h * low, z)], scaled(leaf, tone)
            )
        return
    lean = (actor.phase - 0.5) * 0.7
    blobs = (
        (-0.75, 0.62, 0.95, 0.74),
        (0.75, 0.6, 0.9, 0.7),
        (0.0, 0.68, 1.25, 0.86),
        (lean - 0.3, 0.83, 0.95, 0.98),
        (lean + 0.45, 0.76, 0.7, 1.08),
        (lean - 0.5, 0.9, 0.45, 1.16),
    )
    for dx, up, r, tone in blobs:
        canvas.ball(x + dx, h * up, z, r, scaled(leaf, tone))


def draw_lamp(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a street lamp whose arm reaches over the road."""
    reach = -1.3 * actor.variant
    canvas.limb((x, 0.0, z), (x, actor.height, z), 0.06, (84, 90, 96))
    canvas.limb((x, actor.height, z), (x + reach, actor.height + 0.25, z), 0.045, (84, 90, 96))
    canvas.limb(
        (x + reach * 0.8, actor.height + 0.2, z),
        (x + reach * 1.15, actor.height + 0.22, z),
        0.09,
        (210, 206, 190),
    )
    px, py = canvas.project(x + reach, actor.height + 0.12, z)
    canvas.light(px, py, max(0.16 * canvas.px_per_m(z), 1.0), (255, 214, 140))


def draw_bin(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a litter bin of a person's width."""
    ground_shadow(canvas, x, z, 0.4, shadow)
    color = mixed(actor.colors[0], (70, 96, 80), 0.6)
    canvas.face([(x - 0.27, 0, z), (x - 0.32, 0.9, z), (x + 0.32, 0.9, z), (x + 0.27, 0, z)], color)
    canvas.face(
        [(x - 0.35, 0.9, z), (x - 0.3, 1.05, z), (x + 0.3, 1.05, z), (x + 0.35, 0.9, z)], scaled(color, 0.7)
    )


def draw_hydrant(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a fire hydrant."""
    ground_shadow(canvas, x, z, 0.25, shadow)
    canvas.limb((x, 0.08, z), (x, 0.62, z), 0.13, (206, 54, 44))
    canvas.limb((x - 0.2, 0.42, z), (x + 0.2, 0.42, z), 0.07, (180, 44, 38))
    canvas.ball(x, 0.7, z, 0.13, (224, 74, 58))


def draw_bollard(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a bollard with a round head, as tall as a child (variants 2 and 3)."""
    high = 0.85 if actor.variant < 2 else 1.15
    color: Rgb = (70, 74, 82) if actor.variant % 2 else (196, 176, 120)
    ground_shadow(canvas, x, z, 0.18, shadow)
    canvas.limb((x, 0.0, z), (x, high, z), 0.1, color)
    canvas.limb((x, high * 0.72, z), (x, high * 0.8, z), 0.105, (236, 236, 230))
    canvas.ball(x, high + 0.08, z, 0.12, scaled(color, 1.15))


def draw_cone(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a traffic cone."""
    for low, high, color in ((0.0, 0.75, (236, 96, 32)), (0.25, 0.45, WHITE)):
        a, b = 0.24 * (1 - low / 0.85), 0.24 * (1 - high / 0.85)
        canvas.face([(x - a, low, z), (x - b, high, z), (x + b, high, z), (x + a, low, z)], color)


def draw_bush(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a low bush."""
    ground_shadow(canvas, x, z, 0.8, shadow)
    for dx, up, r, tone in (
        (-0.5, 0.4, 0.42, 0.7),
        (0.45, 0.38, 0.4, 0.75),
        (0.0, 0.55, 0.55, 0.9),
        (0.1, 0.75, 0.3, 1.05),
    ):
        canvas.ball(x + dx, up, z, r, scaled((84, 126, 72), tone))


def draw_parked_bike(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a bicycle without a rider, at an angle to the kerb."""
    ground_shadow(canvas, x, z, 0.6, shadow)
    draw_bicycle(canvas, Stance(x, z, 0.5 + actor.variant * 0.4), actor.colors[0])


def draw_mannequin(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a shop mannequin: a dressed bust on a stand, no legs and no face."""
    cloth = actor.colors[1]
    canvas.limb((x, 0.02, z), (x, 0.8, z), 0.025, (60, 56, 52))
    canvas.limb((x - 0.22, 0.03, z), (x + 0.22, 0.03, z), 0.03, (60, 56, 52))
    canvas.face([(x - 0.19, 0.8, z), (x - 0.23, 1.4, z), (x + 0.23, 1.4, z), (x + 0.19, 0.8, z)], cloth)
    canvas.limb((x - 0.17, 1.4, z), (x + 0.17, 1.4, z), 0.08, cloth)
    canvas.limb((x, 1.45, z), (x, 1.55, z), 0.05, (222, 208, 190))
    if actor.variant < 2:
        canvas.ball(x, 1.66, z, 0.11, (222, 208, 190))


def draw_disc(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws what a sign is easily taken for: a clock, an advertising disc or a red lantern on a pole."""
    canvas.limb((x, 0.0, z), (x, 2.6, z), 0.045, (70, 74, 82))
    color = ((238, 234, 222), actor.colors[0], (214, 60, 44), (60, 130, 84))[actor.variant]
    canvas.ball(x, 2.75, z, 0.4, (52, 56, 62))
    canvas.ball(x, 2.75, z, 0.34, color)
    if actor.variant == 0:
        canvas.limb((x, 2.75, z), (x, 2.98, z), 0.02, (40, 40, 44))
        canvas.limb((x, 2.75, z), (x + 0.15, 2.7, z), 0.02, (40, 40, 44))
    else:
        canvas.limb((x - 0.18, 2.75, z), (x + 0.18, 2.75, z), 0.05, mixed(color, WHITE, 0.7))


def draw_poster(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a billboard that shows a person, a cyclist or a car: look-alikes without a label."""
    for dx in (-0.9, 0.9):
        canvas.limb((x + dx, 0.0, z), (x + dx, 1.0, z), 0.05, (74, 78, 84))
    paper = mixed(actor.colors[1], WHITE, 0.45)
    canvas.face(
        [(x - 1.35, 0.75, z), (x - 1.35, 2.75, z), (x + 1.35, 2.75, z), (x + 1.35, 0.75, z)], (56, 60, 66)
    )
    canvas.face([(x - 1.26, 0.84, z), (x - 1.26, 2.66, z), (x + 1.26, 2.66, z), (x + 1.26, 0.84, z)], paper)
    canvas.face(
        [(x + 0.2, 2.2, z), (x + 0.2, 2.42, z), (x + 1.1, 2.42, z), (x + 1.1, 2.2, z)],
        mixed(paper, (30, 30, 40), 0.6),
    )
    canvas.lift_m = 0.95
    _draw_print(canvas, actor, x, z, paper)
    canvas.lift_m = 0.0


def _draw_print(canvas: Canvas, actor: Actor, x: float, z: float, paper: Rgb) -> None:
    colors = (actor.colors[0], (60, 64, 80), (216, 166, 128), (60, 44, 36), actor.colors[2])
    if actor.variant == 0:
        shown = Actor(
            "car", 0, x, z, math.pi / 2, height=0.85, width=0.3, length=2.2, variant=1, colors=colors[:2]
        )
        draw_car(canvas, shown, x, z, 0.0, scaled(paper, 0.85))
    elif actor.variant == 1:
        shown = Actor("cyclist", 0, x, z, math.pi / 2, height=0.9, colors=colors)
        draw_cyclist(canvas, shown, x - 0.4, z, 0.0, scaled(paper, 0.85))
    else:
        shown = Actor("pedestrian", 0, x, z, 2.6, vx=1.0, height=1.6, phase=1.2, colors=colors)
        draw_pedestrian(canvas, shown, x - 0.55, z, 0.0, scaled(paper, 0.85))


def draw_trailer(canvas: Canvas, actor: Actor, x: float, z: float, time_s: float, shadow: Rgb) -> None:
    """Draws a parked trailer: a box on two wheels with red reflectors, without cab or glass."""
    place = Stance(x, z, 0.0)
    canvas.face(
        [place.at(-1.0, 0, -1.5), place.at(1.0, 0, -1.5), place.at(1.0, 0, 1.5), place.at(-1.0, 0, 1.5)],
        shadow,
        solid=False,
    )
    for side in (-0.85, 0.85):
        canvas.limb(place.at(side, 0.3, -0.2), place.at(side, 0.32, 0.2), 0.28, (32, 32, 36))
    draw_box(canvas, place, 1.7, (-1.4, 1.4), (0.4, 1.2 + 0.25 * actor.variant), actor.colors[2])
    for side in (-0.75, 0.75):
        canvas.ball(*place.at(side, 0.5, -1.42), 0.07, (200, 40, 36))
    canvas.limb(place.at(0, 0.4, 1.4), place.at(0, 0.4, 2.3), 0.05, (60, 60, 64))


PAINTERS: dict[str, Painter] = {
    "car": draw_car,
    "pedestrian": draw_pedestrian,
    "cyclist": draw_cyclist,
    "sign": draw_sign,
    "tree": draw_tree,
    "lamp": draw_lamp,
    "bin": draw_bin,
    "hydrant": draw_hydrant,
    "bollard": draw_bollard,
    "cone": draw_cone,
    "bush": draw_bush,
    "bike": draw_parked_bike,
    "mannequin": draw_mannequin,
    "disc": draw_disc,
    "poster": draw_poster,
    "trailer": draw_trailer,
}
