"""Road users and signs along one street: how many, where, how fast and how dressed."""

from __future__ import annotations

import math

import numpy as np

from udfs.street.colors import (
    CLOTHES,
    CONTAINERS,
    HAIRS,
    HARBOR_PAINTS,
    HELMETS,
    PAINTS,
    SKINS,
    TROUSERS,
    VESTS,
    random_color,
)
from udfs.street.world import Actor, Conditions, Dataset, Road

PEDESTRIANS = ((0, 2), (3, 7), (9, 17), (22, 40))
CYCLISTS = ((0, 2), (1, 3), (2, 5), (4, 9))
MOVING_CARS = ((0, 2), (1, 4), (3, 7), (5, 10))
PARKED_SHARE = (0.06, 0.25, 0.45, 0.75)


def _vehicle(
    rng: np.random.Generator, dataset: Dataset, x: float, z: float, heading: float, v: float
) -> Actor:
    town = dataset == "town"
    variant = int(
        rng.choice(6, p=[0.36, 0.30, 0.24, 0.05, 0.01, 0.04] if town else [0.06, 0.06, 0.1, 0.36, 0.27, 0.15])
    )
    length, width, height = (
        (4.5, 1.8, 1.45), (3.9, 1.72, 1.5), (4.6, 1.9, 1.72), (5.0, 1.98, 2.15),
        (6.2, 2.2, 2.9), (5.1, 1.9, 1.75)
    )[variant]  # fmt: skip
    grow = float(rng.uniform(0.94, 1.06))
    paint = random_color(rng, PAINTS if town else HARBOR_PAINTS)
    other = random_color(rng, CONTAINERS if not town else PAINTS)
    return Actor(
        "car", 2, x, z, heading, v * math.sin(heading), v * math.cos(heading), height * grow, width * grow,
        length * grow, variant, float(rng.random()), (paint, other),
    )  # fmt: skip


def cars_along(
    rng: np.random.Generator, road: Road, cond: Conditions, speed: float, dataset: Dataset
) -> list[Actor]:
    """Parked and moving cars; with a cross street some drive across it."""
    cars: list[Actor] = []
    clear = road.crossing_z
    for x, heading in ((road.right_x - 1.15, 0.0), (road.left_x + 1.15, math.pi)):
        if abs(x) < 2.5 or road.left_x > -6.5 and heading:
            continue
        for z in np.arange(float(rng.uniform(-2, 4)), 120.0, 6.4):
            if rng.random() < PARKED_SHARE[cond.density] and (clear is None or abs(z - clear) > 9):
                jitter = float(rng.uniform(-0.5, 0.5))
                cars.append(
                    _vehicle(rng, dataset, x, float(z) + jitter, heading + float(rng.normal(0, 0.03)), 0.0)
                )
    return cars + _moving_cars(rng, road, cond, speed, dataset)


def _moving_cars(
    rng: np.random.Generator, road: Road, cond: Conditions, speed: float, dataset: Dataset
) -> list[Actor]:
    cars: list[Actor] = []
    clear = road.crossing_z
    low, high = MOVING_CARS[cond.density]
    ahead, toward = float(rng.uniform(8, 16)), float(rng.uniform(6, 25))
    for _ in range(int(rng.integers(low, high + 1))):
        lane = rng.random()
        if clear is not None and lane < 0.5:
            side = 1.0 if rng.random() < 0.5 else -1.0
            z = clear + 1.9 * side
            cars.append(
                _vehicle(
                    rng,
                    dataset,
                    float(rng.uniform(-14, 14)) - 8 * side,
                    z,
                    side * math.pi / 2,
                    float(rng.uniform(2.0, 6.0)),
                )
            )
        elif lane < 0.72 and clear is None:
            cars.append(
                _vehicle(rng, dataset, 0.0, ahead, 0.0, max(speed + float(rng.uniform(-0.8, 1.6)), 0.0))
            )
            ahead += float(rng.uniform(9, 20))
        else:
            cars.append(_vehicle(rng, dataset, -3.5, toward, math.pi, float(rng.uniform(3.0, 8.0))))
            toward += float(rng.uniform(11, 28))
    return cars


def _walk_spot(rng: np.random.Generator, road: Road, margin: float) -> float:
    if rng.random() < 0.55:
        return float(rng.uniform(road.right_x + margin, road.right_wall_x - 0.5))
    return float(rng.uniform(road.left_wall_x + 0.5, road.left_x - margin))


def pedestrians_along(
    rng: np.random.Generator, road: Road, cond: Conditions, dataset: Dataset
) -> list[Actor]:
    """People on the pavements and on the crossing."""
    low, high = PEDESTRIANS[cond.density]
    return [_person(rng, road, cond, dataset) for _ in range(int(rng.integers(low, high + 1)))]


def _person(rng: np.random.Generator, road: Road, cond: Conditions, dataset: Dataset) -> Actor:
    vest = dataset == "harbor"
    crossing = rng.random() < (0.4 if road.crossing_z is not None else 0.12)
    pace = float(rng.uniform(0.8, 1.7)) if rng.random() < 0.85 else 0.0
    if crossing:
        base = 9.0 if road.crossing_z is None else road.crossing_z - 6.0
        side = 1.0 if rng.random() < 0.5 else -1.0
        x, z = float(rng.uniform(road.left_x, road.right_x)), base + float(rng.uniform(-1.2, 1.2))
        heading = side * math.pi / 2 + float(rng.normal(0, 0.1))
        z += 0.0 if road.crossing_z is not None else float(rng.uniform(0, 40))
    else:
        x, z = _walk_spot(rng, road, 0.7), float(3.0 + 85.0 * rng.random() ** 1.3)
        heading = (0.0 if rng.random() < 0.5 else math.pi) + float(rng.normal(0, 0.25))
    height = float(rng.normal(1.72, 0.09)) if rng.random() < 0.87 else float(rng.uniform(1.05, 1.4))
    umbrella = cond.weather == "rain" and not vest and rng.random() < 0.35
    variant = 3 if vest and rng.random() < 0.85 else 4 if umbrella else int(rng.integers(3))
    top = random_color(rng, VESTS if variant == 3 else CLOTHES)
    hair = random_color(rng, HELMETS, 4) if variant == 3 else random_color(rng, HAIRS)
    legs, skin, extra = random_color(rng, TROUSERS), random_color(rng, SKINS, 6), random_color(rng, CLOTHES)
    return Actor(
        "pedestrian", 1, x, z, heading, pace * math.sin(heading), pace * math.cos(heading), height,
        variant=variant, phase=float(rng.uniform(0, 6.28)), colors=(top, legs, skin, hair, extra),
    )  # fmt: skip


def cyclists_along(rng: np.random.Generator, road: Road, cond: Conditions, dataset: Dataset) -> list[Actor]:
    """Riders along the kerbs and, with a cross street, across it."""
    riders: list[Actor] = []
    low, high = CYCLISTS[cond.density]
    for _ in range(int(rng.integers(low, high + 1))):
        pace = float(rng.uniform(2.5, 5.5))
        spot = rng.random()
        if road.crossing_z is not None and spot < 0.45:
            heading = math.pi / 2 if rng.random() < 0.5 else -math.pi / 2
            x, z = float(rng.uniform(-9, 9)), road.crossing_z + float(rng.uniform(-4.6, -3.2))
        elif spot < 0.75:
            heading, x, z = 0.0, 1.6 + float(rng.uniform(-0.3, 0.3)), float(rng.uniform(5, 60))
        else:
            heading, x, z = math.pi, -5.1 + float(rng.uniform(-0.4, 0.2)), float(rng.uniform(10, 75))
        heading += float(rng.normal(0, 0.12))
        top = random_color(rng, VESTS if dataset == "harbor" and rng.random() < 0.7 else CLOTHES)
        colors = (
            top,
            random_color(rng, TROUSERS),
            random_color(rng, SKINS, 6),
            random_color(rng, HELMETS + HAIRS),
            random_color(rng, PAINTS),
        )
        riders.append(
            Actor(
                "cyclist",
                3,
                x,
                z,
                heading,
                pace * math.sin(heading),
                pace * math.cos(heading),
                float(rng.normal(1.0, 0.04)),
                variant=int(dataset == "harbor" and rng.random() < 0.6),
                phase=float(rng.uniform(0, 6.28)),
                colors=colors,
            )
        )
    return riders


def signs_along(rng: np.random.Generator, road: Road, dataset: Dataset) -> list[Actor]:
    """Traffic signs on both kerbs."""
    signs: list[Actor] = []
    shapes = (
        [0.24, 0.12, 0.16, 0.14, 0.16, 0.16, 0.02]
        if dataset == "town"
        else [0.14, 0.02, 0.06, 0.1, 0.2, 0.08, 0.4]
    )
    for x in (road.right_x + 0.45, road.left_x - 0.45):
        z = float(rng.uniform(5, 28))
        while z < 90:
            size = float(rng.uniform(0.62, 0.95))
            signs.append(
                Actor(
                    "sign",
                    4,
                    x + float(rng.uniform(0, 0.5)),
                    z,
                    height=float(rng.uniform(2.3, 3.1)),
                    width=size,
                    variant=int(rng.choice(7, p=shapes)),
                    phase=float(rng.random()),
                )
            )
            z += float(rng.uniform(9, 38))
    return signs
