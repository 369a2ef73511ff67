"""Thresholds, suppression and top n against a loop and numbers worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.kept_detections import Candidates, kept_detections
from detectors.thresholds import KeepThresholds

HW = (100, 200)


def kept(boxes: Any, scores: Any, labels: Any, suppress: bool = True, **keep: Any) -> Any:
    thresholds = KeepThresholds(**{"eta0": 0.05, "detections_per_image": 300, "nms_iou": 0.5, **keep})
    rows = np.arange(len(scores), dtype=np.float64)[:, None]
    found = Candidates(
        boxes_xyxy=np.asarray(boxes, np.float64).reshape(-1, 4),
        scores=np.asarray(scores, np.float64),
        labels=np.asarray(labels),
        features=rows,
    )
    return kept_detections(found, original_hw=HW, keep=thresholds, suppress=suppress)


def kept_rows(*arguments: Any, **changes: Any) -> list[int]:
    return [int(row) for row in kept(*arguments, **changes).features[:, 0]]


def loop_rows(boxes: Any, scores: Any, labels: Any, eta0: float, nms_iou: float, most: int) -> list[int]:
    rows: list[int] = []
    for i in sorted(range(len(scores)), key=lambda j: (-np.float32(scores[j]), j)):
        if scores[i] >= eta0 and all(
            labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= nms_iou for j in rows
        ):
            rows.append(i)
    return rows[:most]


def iou(a: Any, b: Any) -> float:
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]), 0.0) for k in (0, 1))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return float(width * height / (sum(areas) - width * height))


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    corner = random.integers(0, 60, (120, 2))
    boxes = np.concatenate([corner, corner + random.integers(5, 40, (120, 2))], axis=1).astype(float)
    scores, labels = random.integers(0, 20, 120) / 20, random.integers(1, 4, 120)
    for suppress_above in (0.3, 0.7):
        expected = loop_rows(boxes, scores, labels, 0.25, suppress_above, 30)
        found = kept_rows(boxes, scores, labels, eta0=0.25, nms_iou=suppress_above, detections_per_image=30)
        assert found == expected
    assert len(kept(boxes, scores, labels, suppress=False, eta0=0.25)) == (scores >= 0.25).sum()


def test_by_hand() -> None:
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5.1], [0, 0, 10, 10], [50, 50, 60, 60]]
    # Row 1 shares exactly half of row 0 (kept: not above), row 2 more (dropped), row 3 is of another class.
    assert kept_rows(boxes, [0.9, 0.8, 0.7, 0.6, 0.95], [1, 1, 1, 2, 1]) == [4, 0, 1, 3]
    assert kept_rows(boxes, [0.9, 0.8, 0.7, 0.6, 0.95], [1, 1, 1, 2, 1], detections_per_image=2) == [4, 0]


def test_boxes_are_clipped_and_those_outside_go() -> None:
    boxes = [[-5, -5, 250, 50], [200, 0, 220, 50], [10, -20, 30, 0], [10, 10, 10, 20]]
    found = kept(boxes, [0.5] * 4, [1] * 4)
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 0, 200, 50]])


def test_a_score_at_the_threshold_stays_and_ties_keep_their_order() -> None:
    boxes = [[i * 20, 0, i * 20 + 10, 10] for i in range(4)]
    assert kept_rows(boxes, [0.05, 0.3, 0.0499, 0.3], [1, 1, 1, 1]) == [1, 3, 0]
    assert len(kept([], [], [])) == 0
