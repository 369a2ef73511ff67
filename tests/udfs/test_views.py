"""Mirrored images and the way back."""

from __future__ import annotations

import numpy as np

from detectors.detections import Detections
from udfs.views import in_original_px, seen_as


def _found(boxes: list[list[float]]) -> Detections:
    n = len(boxes)
    return Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(n, 4),
        scores=np.linspace(0.9, 0.2, n).astype(np.float32),
        labels=np.arange(1, n + 1),
        logits=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
    )


def test_the_original_view_is_the_image_itself() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    found = _found([[0, 0, 1, 1]])
    assert seen_as(image, "original") is image
    assert in_original_px(found, "original", 3) is found


def test_a_box_round_a_pixel_is_found_again_after_flipping_back() -> None:
    image = np.zeros((4, 7, 3), np.uint8)
    image[1, 2] = 255
    mirrored = seen_as(image, "hflip")
    rows, columns = np.nonzero(mirrored[:, :, 0])
    box = [float(columns[0]), float(rows[0]), float(columns[0] + 1), float(rows[0] + 1)]
    assert box == [4.0, 1.0, 5.0, 2.0]
    back = in_original_px(_found([box]), "hflip", 7)
    np.testing.assert_array_equal(back.boxes_xyxy, [[2, 1, 3, 2]])


def test_twice_flipped_is_as_it_was_and_other_arrays_stay_aligned() -> None:
    found = _found([[0.5, 1, 3.25, 4], [10, 0, 40, 8]])
    twice = in_original_px(in_original_px(found, "hflip", 64), "hflip", 64)
    np.testing.assert_array_equal(twice.boxes_xyxy, found.boxes_xyxy)
    np.testing.assert_array_equal(twice.scores, found.scores)
    np.testing.assert_array_equal(twice.labels, found.labels)
    assert twice.logits is not None and found.logits is not None
    np.testing.assert_array_equal(twice.logits, found.logits)


def test_a_box_that_rounding_flattens_is_left_out() -> None:
    # 1e-7 px at x = 0 vanishes beside a width of 4096.
    back = in_original_px(_found([[0, 0, 1e-7, 1], [1, 0, 2, 1]]), "hflip", 4096)
    np.testing.assert_array_equal(back.boxes_xyxy, [[4094, 0, 4095, 1]])
    np.testing.assert_array_equal(back.labels, [2])
