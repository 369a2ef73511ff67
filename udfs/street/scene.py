"""Street frames with ground truth: objects drawn far to near, boxes and visibility from what was drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from conf.errors import QuarryError
from udfs.street.backdrop import draw_road, paint_backdrop, sequence_palette
from udfs.street.buildings import draw_building
from udfs.street.canvas import OCCLUDER, SCALE, Canvas, scaled
from udfs.street.props import PAINTERS
from udfs.street.weather import add_glow, add_optics, add_wet_road, light_map
from udfs.street.world import IMAGE_SIZE_HW, Actor, SequencePlan, StreetSettings

FAR_M = 120.0
MIN_WIDTH_PX = 4.0
MAX_OWNERS = OCCLUDER - 1


@dataclass(frozen=True)
class StreetFrame:
    """A drawn frame and its labelled objects.

    Attributes:
        image: RGB picture, 640 x 384.
        boxes_xyxy: (n, 4) float32, px, inside the image.
        labels: (n,) int64, 1 to 4 in the order of `CLASS_NAMES`.
        visibility: (n,) float32, visible share of the object's pixels inside the image, 0 to 1.
        actor_ids: (n,) int64, index of each object in the sequence's actors, the same in every frame.
        owners: (n,) int64, the object's value in `mask`.
        mask: (384, 640) uint8, which object shows at a pixel: 0 none, 255 an unlabelled one.
    """

    image: Image.Image
    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    visibility: NDArray[np.float32]
    actor_ids: NDArray[np.int64]
    owners: NDArray[np.int64]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class _Drawn:
    actor_id: int
    label: int
    owner: int
    box: tuple[float, float, float, float]
    full_area_px: int


def sequence_frames(plan: SequencePlan, settings: StreetSettings) -> Iterator[StreetFrame]:
    """The frames of a sequence in order; sky, ground and light are prepared once.

    Args:
        plan: The sequence.
        settings: Gives the rules for labelled objects.

    Yields:
        One frame for each index from 0 to plan.frames - 1.

    Raises:
        QuarryError: When more than 254 labelled objects stand in the view.
    """
    palette = sequence_palette(plan)
    backdrop = paint_backdrop(plan, palette)
    light = light_map(plan)
    dark = plan.conditions.time != "day"
    for index in range(plan.frames):
        canvas = Canvas(backdrop, plan.camera, palette.haze, palette.haze_m, dark=dark)
        time_s = index / plan.frames_per_second
        travelled_m = plan.camera.speed_mps * time_s
        draw_road(canvas, plan, palette, travelled_m)
        for block in sorted(plan.buildings, key=lambda b: -b.z):
            draw_building(canvas, block, block.z - travelled_m, scaled(palette.walk, 0.78))
        drawn = _draw_actors(canvas, plan, time_s, travelled_m, (palette.road, palette.walk))
        picture = canvas.picture.reduce(SCALE)
        if light is not None:
            picture = add_glow(ImageChops.multiply(picture, light), canvas)
        if plan.conditions.weather == "rain":
            picture = add_wet_road(picture, plan.camera.horizon_y_px)
        yield _labelled(add_optics(picture, plan, index), np.asarray(canvas.mask), drawn, settings)


def _draw_actors(
    canvas: Canvas,
    plan: SequencePlan,
    time_s: float,
    travelled_m: float,
    grounds: tuple[tuple[int, int, int], ...],
) -> list[_Drawn]:
    placed: list[tuple[float, int, Actor]] = []
    for actor_id, actor in enumerate(plan.actors):
        z = actor.z + actor.vz * time_s - travelled_m
        reach = actor.length / 2 if actor.kind == "car" else 0.5
        if z + reach > 1.6 and z < FAR_M:
            placed.append((z, actor_id, actor))
    drawn: list[_Drawn] = []
    for z, actor_id, actor in sorted(placed, key=lambda p: (-p[0], p[1])):
        x = actor.x + actor.vx * time_s
        owner = len(drawn) + 1 if actor.label else OCCLUDER
        if owner > MAX_OWNERS and actor.label:
            raise QuarryError(
                f"{plan.sequence_id}: expected at most {MAX_OWNERS} objects in view; lower the density"
            )
        canvas.begin(owner, z)
        ground = grounds[0] if plan.road.left_x < x < plan.road.right_x else grounds[1]
        shadow = (int(ground[0] * 0.66), int(ground[1] * 0.66), int(ground[2] * 0.7))
        PAINTERS[actor.kind](canvas, actor, x, z, time_s, shadow)
        if actor.label:
            drawn.append(_measured(canvas, actor_id, actor.label))
    return drawn


def _measured(canvas: Canvas, actor_id: int, label: int) -> _Drawn:
    """The box and the pixel count of the object just drawn, before anything nearer hides it."""
    height, width = IMAGE_SIZE_HW
    box = (
        max(canvas.left, 0.0),
        max(canvas.top, 0.0),
        min(canvas.right, float(width)),
        min(canvas.bottom, float(height)),
    )
    area = 0
    if box[0] < box[2] and box[1] < box[3]:
        window = (int(box[0]), int(box[1]), min(int(box[2]) + 2, width), min(int(box[3]) + 2, height))
        area = canvas.mask.crop(window).histogram()[canvas.owner]
    return _Drawn(actor_id, label, canvas.owner, box, area)


def _labelled(
    image: Image.Image, mask: NDArray[np.uint8], drawn: list[_Drawn], settings: StreetSettings
) -> StreetFrame:
    counts = np.bincount(mask.ravel(), minlength=256)
    kept: list[tuple[_Drawn, float]] = []
    for item in drawn:
        x0, y0, x1, y1 = item.box
        if item.full_area_px and y1 - y0 >= settings.min_height_px and x1 - x0 >= MIN_WIDTH_PX:
            visible = float(counts[item.owner]) / item.full_area_px
            if visible >= settings.min_visibility:
                kept.append((item, visible))
    return StreetFrame(
        image,
        np.asarray([item.box for item, _ in kept], dtype=np.float32).reshape(-1, 4),
        np.asarray([item.label for item, _ in kept], dtype=np.int64),
        np.asarray([visible for _, visible in kept], dtype=np.float32),
        np.asarray([item.actor_id for item, _ in kept], dtype=np.int64),
        np.asarray([item.owner for item, _ in kept], dtype=np.int64),
        mask,
    )
