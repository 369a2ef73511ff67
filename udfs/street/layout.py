"""The plan of one drive and its sequences: conditions, camera, road, street furniture, buildings, traffic."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from conf.errors import QuarryError
from udfs.street.colors import CLOTHES, CONTAINERS, FACADES, LEAVES, PAINTS, random_color
from udfs.street.traffic import cars_along, cyclists_along, pedestrians_along, signs_along
from udfs.street.world import (
    FIRST_DATE,
    IMAGE_SIZE_HW,
    VEHICLES,
    Actor,
    Blur,
    Camera,
    Conditions,
    Dataset,
    DayTime,
    DrivePlan,
    Road,
    SequencePlan,
    StreetSettings,
    Weather,
    drive_dataset,
)

ITEM_WEIGHTS: dict[Dataset, dict[str, float]] = {
    "town": {
        "bin": 4, "hydrant": 3, "bollard": 7, "bike": 3, "mannequin": 3, "disc": 2, "poster": 3,
        "trailer": 1.6, "bush": 3, "cone": 0.4,
    },
    "harbor": {
        "bin": 2, "hydrant": 2, "bollard": 9, "bike": 1, "mannequin": 1, "disc": 1, "poster": 3,
        "trailer": 3, "bush": 0.4, "cone": 6,
    },
}  # fmt: skip


def sequence_conditions(rng: np.random.Generator, dataset: Dataset) -> Conditions:
    """Light, weather, optics and crowding of a sequence, drawn independently of each other."""
    times: tuple[DayTime, ...] = ("day", "dusk", "night")
    weathers: tuple[Weather, ...] = ("clear", "rain", "fog")
    blurs: tuple[Blur, ...] = ("none", "motion", "defocus")
    time = times[int(rng.choice(3, p=[0.55, 0.20, 0.25]))]
    weather = weathers[int(rng.choice(3, p=[0.64, 0.22, 0.14]))]
    blur = blurs[int(rng.choice(3, p=[0.72, 0.15, 0.13]))]
    blur_px = (
        0.0 if blur == "none" else float(rng.uniform(1.0, 4.5) if blur == "motion" else rng.uniform(0.7, 1.9))
    )
    noise = float(rng.uniform(1.0, 5.0) + (rng.uniform(2.0, 9.0) if time == "night" else 0.0))
    density = int(rng.choice(4, p=[0.14, 0.30, 0.32, 0.24]))
    return Conditions(
        time, weather, blur, blur_px, noise, density, dataset == "harbor" and rng.random() < 0.5
    )


def sequence_plan(
    seed: int, drive_index: int, sequence: int, dataset: Dataset, frames: int, settings: StreetSettings
) -> SequencePlan:
    """The world of one sequence from a generator seeded by (seed, drive, sequence).

    Args:
        seed: Seed of the lake.
        drive_index: Position of the drive in the lake.
        sequence: Position of the sequence in the drive.
        dataset: Domain of the drive.
        frames: Frames of this sequence, 1 or more.
        settings: Gives the frame rate and the sequences of a drive.

    Returns:
        The plan; its id is unique over the lake.
    """
    rng = np.random.default_rng([seed, drive_index, sequence])
    conditions = sequence_conditions(rng, dataset)
    crossing = float(rng.uniform(13.0, 30.0)) if rng.random() < 0.35 else None
    speed = 0.0 if crossing is not None or rng.random() < 0.1 else float(rng.uniform(2.0, 8.5))
    camera = _camera(rng, speed)
    left = -5.3 - (2.4 if rng.random() < 0.8 else 0.3)
    right = 1.8 + (2.4 if rng.random() < 0.8 else 0.3)
    walk = float(rng.uniform(3.0, 4.6))
    road = Road(left, right, left - walk, right + walk, crossing)
    actors = (
        *cars_along(rng, road, conditions, speed, dataset),
        *pedestrians_along(rng, road, conditions, dataset),
        *cyclists_along(rng, road, conditions, dataset),
        *signs_along(rng, road, dataset),
        *_furniture(rng, road, dataset),
    )
    number = drive_index * settings.sequences_per_drive + sequence
    return SequencePlan(
        f"seq-{number:04d}", number, dataset, camera, road, conditions, actors,
        tuple(_buildings(rng, road, dataset)), frames, settings.frames_per_second, seed,
    )  # fmt: skip


def _camera(rng: np.random.Generator, speed_mps: float) -> Camera:
    height_px, width_px = IMAGE_SIZE_HW
    return Camera(
        float(rng.uniform(470, 580)),
        width_px * float(rng.uniform(0.42, 0.58)),
        height_px * float(rng.uniform(0.40, 0.52)),
        float(rng.uniform(1.3, 1.75)),
        speed_mps,
    )


def _furniture(rng: np.random.Generator, road: Road, dataset: Dataset) -> list[Actor]:
    props: list[Actor] = []
    for side, curb, wall in ((1, road.right_x, road.right_wall_x), (-1, road.left_x, road.left_wall_x)):
        props += _trees_and_lamps(rng, road, dataset, side, curb)
        props += _small_items(rng, road, dataset, side, curb, wall)
    return props


def _trees_and_lamps(
    rng: np.random.Generator, road: Road, dataset: Dataset, side: int, curb: float
) -> list[Actor]:
    props: list[Actor] = []
    share = 0.55 if dataset == "town" else 0.06
    for z in np.arange(float(rng.uniform(2, 10)), 125.0, float(rng.uniform(8, 13))).tolist():
        if rng.random() < share and not _in_crossing(road, z):
            height, variant = float(rng.uniform(4.5, 7.5)), int(rng.integers(3))
            phase, colors = float(rng.random()), (random_color(rng, LEAVES),)
            x = curb + 0.9 * side
            props.append(Actor("tree", 0, x, z, height=height, variant=variant, phase=phase, colors=colors))
    for z in np.arange(float(rng.uniform(6, 20)), 125.0, 22.0).tolist():
        props.append(Actor("lamp", 0, curb + 0.35 * side, z, height=5.6, variant=side))
    return props


def _small_items(
    rng: np.random.Generator, road: Road, dataset: Dataset, side: int, curb: float, wall: float
) -> list[Actor]:
    weights = np.asarray(tuple(ITEM_WEIGHTS[dataset].values()))
    kinds = tuple(ITEM_WEIGHTS[dataset])
    props: list[Actor] = []
    for _ in range(int(rng.integers(5, 15))):
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        z = float(rng.uniform(4, 80))
        near_wall = kind in ("mannequin", "poster", "bush")
        x = wall - 0.6 * side if near_wall else curb + side * float(rng.uniform(0.4, 1.0))
        if kind == "trailer":
            x = curb - side * 1.15
        if kind == "trailer" and abs(x) < 2.4 or _in_crossing(road, z):
            continue
        height, variant = float(rng.uniform(0.9, 1.1)), int(rng.integers(4))
        heading, phase = float(rng.uniform(-0.2, 0.2)), float(rng.random())
        colors = tuple(random_color(rng, choice) for choice in (PAINTS, CLOTHES, CONTAINERS))
        props.append(
            Actor(kind, 0, x, z, heading, height=height, variant=variant, phase=phase, colors=colors)
        )
    return props


def _in_crossing(road: Road, z: float) -> bool:
    return road.crossing_z is not None and abs(z - road.crossing_z) < 6.5


def _buildings(rng: np.random.Generator, road: Road, dataset: Dataset) -> list[Actor]:
    blocks: list[Actor] = []
    for wall in (road.left_wall_x, road.right_wall_x):
        z = -8.0
        while z < 150:
            harbor = dataset == "harbor"
            length = 6.1 * int(rng.integers(1, 4)) if harbor else float(rng.uniform(8, 17))
            height = 2.6 * int(rng.integers(1, 5)) if harbor else float(rng.uniform(2, 6)) * 3.0 + 1.0
            crosses = (
                road.crossing_z is not None and z < road.crossing_z + 6 and z + length > road.crossing_z - 6
            )
            if not crosses and rng.random() < (0.72 if harbor else 0.88):
                colors = tuple(random_color(rng, CONTAINERS if harbor else FACADES) for _ in range(12))
                blocks.append(
                    Actor(
                        "container" if harbor else "house",
                        0,
                        wall,
                        z,
                        height=height,
                        width=9.0,
                        length=length,
                        variant=int(rng.integers(1000)),
                        colors=colors,
                    )
                )
            z += length + (float(rng.uniform(0.3, 5)) if harbor else 0.0)
            if crosses and road.crossing_z is not None:
                z = max(z, road.crossing_z + 6)
    return blocks


def drive_plan(seed: int, drive_index: int, settings: StreetSettings) -> DrivePlan:
    """The plan of one drive, a pure function of its arguments.

    Args:
        seed: Seed of the lake, 0 or more.
        drive_index: Position of the drive in the lake, from 0.
        settings: Shape of the lake; `n_images` cuts the last drive short.

    Returns:
        The partition keys and the sequences with their worlds.

    Raises:
        QuarryError: When the index is negative or past the last drive.
    """
    first = drive_index * settings.frames_per_drive
    left = settings.frames_per_drive if settings.n_images is None else settings.n_images - first
    if drive_index < 0 or left < 1:
        raise QuarryError(
            f"drive_index: expected a drive of a lake of {settings.n_images} images, got {drive_index};"
            " ask for drives 0 to n_drives(n_images, settings) - 1"
        )
    dataset = drive_dataset(seed, drive_index, settings)
    sequences: list[SequencePlan] = []
    for sequence in range(settings.sequences_per_drive):
        frames = min(settings.frames_per_sequence, left - sequence * settings.frames_per_sequence)
        if frames > 0:
            sequences.append(sequence_plan(seed, drive_index, sequence, dataset, frames, settings))
    day = FIRST_DATE + timedelta(days=drive_index // VEHICLES)
    return DrivePlan(
        drive_index, dataset, day.isoformat(), f"v{drive_index % VEHICLES:02d}", first + 1, tuple(sequences)
    )
