"""The moving world of the sample lake: what stands and drives along one street, as a pure function of a seed.

Axes: x to the right of the camera, y up from the ground, z ahead along the street, in metres;
heading 0 faces +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from conf.errors import QuarryError

IMAGE_SIZE_HW = (384, 640)
CLASS_NAMES = ("pedestrian", "car", "cyclist", "traffic_sign")
FIRST_DATE = date(2026, 3, 2)
VEHICLES = 10

Rgb = tuple[int, int, int]
Dataset = Literal["town", "harbor"]
DayTime = Literal["day", "dusk", "night"]
Weather = Literal["clear", "rain", "fog"]
Blur = Literal["none", "motion", "defocus"]
Damage = Literal["truncated", "empty", "text"]
DAMAGES: tuple[Damage, ...] = ("truncated", "empty", "text")


@dataclass(frozen=True, kw_only=True)
class StreetSettings:
    """Shape of the lake; every value is part of a frame's identity.

    Attributes:
        n_images: Files in the whole lake, damaged ones included; None for no limit.
        sequences_per_drive: Sequences in one dataset/date/vehicle partition.
        frames_per_sequence: Frames of one sequence.
        frames_per_second: Frame rate, Hz.
        harbor_share: Share of drives in the unseen domain, 0 to 1/3.
        damaged_share: Share of files damaged on purpose, 0 to 1.
        rotated_share: Share of files stored with EXIF orientation 6, 0 to 1.
        jpeg_quality: 1 to 95.
        min_visibility: Smallest visible fraction of a labelled object, 0 to 1.
        min_height_px: Smallest height of a labelled object.
    """

    n_images: int | None = None
    sequences_per_drive: int = 2
    frames_per_sequence: int = 20
    frames_per_second: float = 5.0
    harbor_share: float = 0.18
    damaged_share: float = 0.01
    rotated_share: float = 0.01
    jpeg_quality: int = 88
    min_visibility: float = 0.25
    min_height_px: float = 10.0

    @property
    def frames_per_drive(self) -> int:
        """Frames of one uncut drive."""
        return self.sequences_per_drive * self.frames_per_sequence


@dataclass(frozen=True, slots=True)
class Actor:
    """One thing in the world; `label` is 1 to 4 for the classes and 0 for a distractor."""

    kind: str
    label: int
    x: float
    z: float
    heading: float = 0.0
    vx: float = 0.0
    vz: float = 0.0
    height: float = 1.0
    width: float = 1.0
    length: float = 0.5
    variant: int = 0
    phase: float = 0.0
    colors: tuple[Rgb, ...] = ((128, 128, 128),)


@dataclass(frozen=True, slots=True)
class Camera:
    """A pin-hole camera level with the ground: focal length and centre in px, height in m, speed in m/s."""

    focal_px: float
    center_x_px: float
    horizon_y_px: float
    height_m: float
    speed_mps: float


@dataclass(frozen=True, slots=True)
class Road:
    """Edges of the carriageway and building lines (x, m), centre of a cross street (z, m; None for none)."""

    left_x: float
    right_x: float
    left_wall_x: float
    right_wall_x: float
    crossing_z: float | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """Light, weather, optics and crowding of one sequence; density runs from 0 (empty) to 3 (crowded)."""

    time: DayTime
    weather: Weather
    blur: Blur
    blur_px: float
    noise_sigma: float
    density: int
    snow: bool


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """Everything that the frames of one sequence share."""

    sequence_id: str
    sequence_number: int
    dataset: Dataset
    camera: Camera
    road: Road
    conditions: Conditions
    actors: tuple[Actor, ...]
    buildings: tuple[Actor, ...]
    frames: int
    frames_per_second: float
    seed: int


@dataclass(frozen=True, slots=True)
class DrivePlan:
    """One dataset/date/vehicle partition: keys and sequences; `first_image_id` starts its block of ids."""

    drive_index: int
    dataset: Dataset
    date: str
    vehicle: str
    first_image_id: int
    sequences: tuple[SequencePlan, ...]

    @property
    def partition(self) -> str:
        """The partition folder, such as ``dataset=town/date=2026-03-04/vehicle=v07``."""
        return f"dataset={self.dataset}/date={self.date}/vehicle={self.vehicle}"


def n_drives(n_images: int, settings: StreetSettings) -> int:
    """Drives that hold `n_images` files: drives 0 to n-1, the last one cut short.

    Args:
        n_images: Files in the lake, 1 or more.
        settings: Gives the frames of one drive.

    Returns:
        The number of drives, rounded up.

    Raises:
        QuarryError: When `n_images` is below 1.
    """
    if n_images < 1:
        raise QuarryError(f"n_images: expected 1 or more, got {n_images}; ask for at least one image")
    return math.ceil(n_images / settings.frames_per_drive)


def drive_dataset(seed: int, drive_index: int, settings: StreetSettings) -> Dataset:
    """The domain of a drive, spread evenly so that drive 1 or 2 is the first of the unseen domain."""
    share = settings.harbor_share
    offset = 1.0 - share * (1.0 + 2.0 * float(np.random.default_rng([seed, 7]).random()))
    wraps = math.floor((drive_index + 1) * share + offset) > math.floor(drive_index * share + offset)
    return "harbor" if wraps else "town"


def picked_in_block(seed: int, index: int, share: float, salt: int) -> int | None:
    """The block number when `index` is the one picked in its block of 1/share indices, else None."""
    if share <= 0:
        return None
    block_size = max(1, round(1.0 / share))
    block = index // block_size
    pick = int(np.random.default_rng([seed, salt, block]).integers(block_size))
    return block if index - block * block_size == pick else None


def frame_damage(seed: int, image_index: int, settings: StreetSettings) -> Damage | None:
    """How the file of a frame is damaged on purpose, None for an intact file; kinds take turns.

    Args:
        seed: Seed of the lake.
        image_index: Position of the frame in the lake, from 0.
        settings: Gives the share.

    Returns:
        The kind of damage; exactly one file in each block of 1/share is damaged.
    """
    block = picked_in_block(seed, image_index, settings.damaged_share, salt=11)
    return None if block is None else DAMAGES[(block + seed) % len(DAMAGES)]


def frame_is_rotated(seed: int, image_index: int, settings: StreetSettings) -> bool:
    """Whether the pixels of a frame are stored rotated under EXIF orientation 6."""
    return picked_in_block(seed, image_index, settings.rotated_share, salt=13) is not None
