"""Frames of the sample lake: boxes from what was drawn, the visibility rule, smooth motion, determinism."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs.street.backdrop import paint_backdrop, sequence_palette
from udfs.street.canvas import NEAR_M, Canvas, signed_area
from udfs.street.layout import drive_plan
from udfs.street.scene import StreetFrame, sequence_frames
from udfs.street.world import (
    CLASS_NAMES,
    IMAGE_SIZE_HW,
    Actor,
    Camera,
    Conditions,
    Road,
    SequencePlan,
    StreetSettings,
    drive_dataset,
    frame_damage,
    n_drives,
)

SETTINGS = StreetSettings(frames_per_sequence=4)
SEED = 5


def _plan(actors: tuple[Actor, ...], *, frames: int = 1, speed: float = 0.0) -> SequencePlan:
    """An empty street by day with only the given actors, seen at 500 px focal length from 1.5 m."""
    return SequencePlan(
        "seq-0000",
        0,
        "town",
        Camera(500.0, 320.0, 180.0, 1.5, speed),
        Road(-8.0, 4.0, -11.0, 7.0, None),
        Conditions("day", "clear", "none", 0.0, 1.0, 0, snow=False),
        actors,
        (),
        frames,
        5.0,
        SEED,
    )


def _person(x: float, z: float, **changes: float) -> Actor:
    colors = ((200, 60, 60), (50, 60, 90), (220, 170, 130), (60, 40, 30), (90, 90, 160))
    return dataclasses.replace(Actor("pedestrian", 1, x, z, height=1.7, colors=colors), **changes)  # type: ignore[arg-type]


def _car(x: float, z: float) -> Actor:
    return Actor("car", 2, x, z, height=1.45, width=1.8, length=4.4, colors=((30, 90, 170), (200, 200, 200)))


def _only(plan: SequencePlan, settings: StreetSettings = SETTINGS) -> StreetFrame:
    (frame,) = sequence_frames(plan, settings)
    return frame


@pytest.fixture(scope="module")
def lake_frames() -> list[list[StreetFrame]]:
    """Every frame of the first six drives, which hold both domains and many conditions."""
    return [
        list(sequence_frames(sequence, SETTINGS))
        for drive in range(6)
        for sequence in drive_plan(SEED, drive, SETTINGS).sequences
    ]


def test_projection_by_hand() -> None:
    plan = _plan(())
    palette = sequence_palette(plan)
    canvas = Canvas(paint_backdrop(plan, palette), plan.camera, palette.haze, 100.0, dark=False)
    # 500 px * 2 m / 10 m = 100 px to the right; the ground is 75 px under the horizon.
    assert canvas.project(2.0, 0.0, 10.0) == (420.0, 255.0)
    assert canvas.project(1.0, 1.5, -3.0) == (320.0 + 500.0 / NEAR_M, 180.0)


def test_signed_area_of_a_unit_square() -> None:
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert signed_area(square) == 1.0
    assert signed_area(square[::-1]) == -1.0


def test_person_height_follows_distance() -> None:
    near, far = _only(_plan((_person(0.0, 8.0),))), _only(_plan((_person(0.0, 32.0),)))
    heights = [float(f.boxes_xyxy[0, 3] - f.boxes_xyxy[0, 1]) for f in (near, far)]
    # A figure of 1.7 m at 8 m and 500 px covers 106 px from sole to crown.
    assert heights[0] == pytest.approx(1.7 * 500 / 8, rel=0.05)
    assert heights[0] / heights[1] == pytest.approx(4.0, rel=0.08)
    assert near.boxes_xyxy[0, 3] > far.boxes_xyxy[0, 3]


def _mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


@pytest.mark.parametrize("kind", ["pedestrian", "car", "cyclist", "sign"])
def test_box_is_tight_round_the_rendered_mask(kind: str) -> None:
    colors = ((200, 60, 60), (50, 60, 90), (220, 170, 130), (60, 40, 30), (90, 90, 160))
    size = {
        "pedestrian": (1.7, 1.0, 0.5),
        "car": (1.5, 1.8, 4.4),
        "cyclist": (1.0, 1.0, 0.5),
        "sign": (2.6, 0.8, 0.1),
    }
    height, width, length = size[kind]
    label = {"pedestrian": 1, "car": 2, "cyclist": 3, "sign": 4}[kind]
    for heading in (0.0, 0.7, 1.57, 3.0):
        actor = Actor(kind, label, -1.0, 9.0, heading, 0.5, 0.5, height, width, length, 0, 0.4, colors)
        frame = _only(_plan((actor,)))
        drawn = _mask_box(frame.mask == frame.owners[0])
        np.testing.assert_allclose(frame.boxes_xyxy[0], drawn, atol=1.6)


def test_pixels_change_only_inside_the_box_and_its_shadow() -> None:
    empty, full = _only(_plan(())), _only(_plan((_car(-2.0, 12.0),)))
    changed = np.abs(np.asarray(empty.image, dtype=int) - np.asarray(full.image, dtype=int)).max(axis=2) > 24
    x0, y0, x1, y1 = full.boxes_xyxy[0].tolist()
    rows, columns = np.nonzero(changed)
    assert rows.min() >= y0 - 4 and columns.min() >= x0 - 12 and columns.max() <= x1 + 24
    assert rows.max() <= y1 + 16
    assert changed[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.5


def test_hidden_object_is_dropped_and_half_hidden_one_kept() -> None:
    car = _car(0.0, 8.0)
    hidden = _only(_plan((car, _person(0.0, 30.0))))
    assert hidden.labels.tolist() == [2]
    beside = _only(_plan((car, _person(6.0, 30.0))))
    assert sorted(beside.labels.tolist()) == [1, 2]
    assert beside.visibility[beside.labels.tolist().index(1)] == pytest.approx(1.0)
    front = _person(0.0, 9.0)
    behind = _only(_plan((front, dataclasses.replace(front, x=0.12, z=9.6))))
    assert len(behind.labels) == 2
    assert 0.25 <= float(behind.visibility.min()) < 0.95


def test_visibility_threshold_is_a_setting() -> None:
    actors = (_person(0.0, 9.0), _person(0.12, 9.6))
    share = float(_only(_plan(actors)).visibility.min())
    for limit, count in ((share - 0.01, 2), (share + 0.01, 1)):
        kept = _only(_plan(actors), dataclasses.replace(SETTINGS, min_visibility=limit))
        assert len(kept.labels) == count


def test_distractors_carry_no_label() -> None:
    kinds = (
        "tree",
        "lamp",
        "bin",
        "hydrant",
        "bollard",
        "cone",
        "bush",
        "bike",
        "mannequin",
        "disc",
        "poster",
        "trailer",
    )
    colors = ((200, 60, 60), (90, 120, 180), (60, 120, 90))
    for kind in kinds:
        frame = _only(_plan((Actor(kind, 0, 1.0, 9.0, height=1.0, colors=colors),)))
        assert len(frame.labels) == 0
        assert (frame.mask == 255).sum() > 50, kind


def test_boxes_lie_inside_the_image_and_obey_the_rules(lake_frames: list[list[StreetFrame]]) -> None:
    height, width = IMAGE_SIZE_HW
    seen: set[int] = set()
    heights: list[float] = []
    for frame in (f for frames in lake_frames for f in frames):
        assert frame.image.size == (width, height) and frame.image.mode == "RGB"
        boxes = frame.boxes_xyxy
        assert boxes.dtype == np.float32 and boxes.shape == (len(frame.labels), 4)
        assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
        assert (boxes[:, 2] > boxes[:, 0]).all()
        tall = boxes[:, 3] - boxes[:, 1]
        assert (tall >= SETTINGS.min_height_px).all()
        assert (frame.visibility >= SETTINGS.min_visibility).all() and (frame.visibility <= 1.0).all()
        seen |= set(frame.labels.tolist())
        heights += tall.tolist()
    assert seen == set(range(1, len(CLASS_NAMES) + 1))
    assert min(heights) < 14 and max(heights) > 180


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    wide = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    tall = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    union = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - wide * tall
    return wide * tall / union


def test_objects_move_smoothly(lake_frames: list[list[StreetFrame]]) -> None:
    overlaps: list[float] = []
    for frames in lake_frames:
        for before, after in zip(frames, frames[1:], strict=False):
            later = {int(a): k for k, a in enumerate(after.actor_ids)}
            for k, actor_id in enumerate(before.actor_ids.tolist()):
                if actor_id in later:
                    overlaps.append(_iou(before.boxes_xyxy[k], after.boxes_xyxy[later[actor_id]]))
    assert len(overlaps) > 200
    assert np.mean(np.asarray(overlaps) > 0) > 0.9
    assert 0.3 < float(np.median(overlaps)) < 0.999


def _jpeg(frame: StreetFrame) -> bytes:
    buffer = io.BytesIO()
    frame.image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    first, again, other = (
        [_jpeg(f) for f in sequence_frames(drive_plan(seed, 1, SETTINGS).sequences[0], SETTINGS)]
        for seed in (SEED, SEED, SEED + 1)
    )
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert len(set(first)) == len(first)


def test_last_drive_is_cut_to_the_number_of_images() -> None:
    settings = dataclasses.replace(SETTINGS, n_images=19)
    drives = n_drives(19, settings)
    frames = [[s.frames for s in drive_plan(SEED, d, settings).sequences] for d in range(drives)]
    assert frames == [[4, 4], [4, 4], [3]]
    with pytest.raises(QuarryError, match="drive_index"):
        drive_plan(SEED, drives, settings)
    with pytest.raises(QuarryError, match="drive_index"):
        drive_plan(SEED, -1, settings)
    with pytest.raises(QuarryError, match="n_images"):
        n_drives(0, settings)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_unseen_domain_has_its_share_and_comes_early(seed: int) -> None:
    domains = [drive_dataset(seed, d, SETTINGS) for d in range(200)]
    assert 0.15 <= domains.count("harbor") / 200 <= 0.2
    assert domains.index("harbor") in (1, 2)


def test_damage_hits_one_file_in_a_hundred_and_every_kind() -> None:
    damage = [frame_damage(SEED, k, SETTINGS) for k in range(1200)]
    assert all(sum(d is not None for d in damage[k : k + 100]) == 1 for k in range(0, 1200, 100))
    assert {d for d in damage if d} == {"truncated", "empty", "text"}


def test_drives_have_distinct_partitions_and_ids() -> None:
    settings = StreetSettings()
    plans = [drive_plan(SEED, d, settings) for d in range(25)]
    assert len({(p.date, p.vehicle) for p in plans}) == 25
    assert [p.first_image_id for p in plans[:3]] == [1, 41, 81]
    names = [s.sequence_id for p in plans for s in p.sequences]
    assert names[:3] == ["seq-0000", "seq-0001", "seq-0002"] and len(set(names)) == len(names)
