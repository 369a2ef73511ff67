"""Average precision against a case worked by hand, and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from conf.errors import QuarryError
from detectors.average_precision import TruthBoxes, average_precision
from detectors.detections import Detections

CLASSES = ("car", "sign")


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def truth(boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None) -> TruthBoxes:
    return TruthBoxes(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        None if crowd is None else np.array(crowd),
    )


def test_hand_worked_case() -> None:
    """Two cars. By falling score: hit, miss, hit. Precision is 1 up to recall 1/2, then 2/3.

    101 recall points: 51 (0.00 ... 0.50) at precision 1 and 50 at 2/3. Boxes are exact, so AP equals AP50.
    """
    found = detections([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40]], [0.9, 0.8, 0.7], [1, 1, 1])
    result = average_precision([found], [truth([[0, 0, 10, 10], [20, 20, 40, 40]], [1, 1])], CLASSES)
    expected = (51 + 50 * 2 / 3) / 101
    assert result.ap50 == pytest.approx(expected, abs=1e-9)
    assert result.ap == pytest.approx(expected, abs=1e-9)
    assert result.ap50_per_class["car"] == pytest.approx(expected, abs=1e-9)
    assert result.ap50_per_class["sign"] is None


def test_loose_boxes_count_up_to_their_iou() -> None:
    """IoU 0.6 exactly inside [0.60, 0.65): a hit at 3 of the 10 thresholds (0.50, 0.55, 0.60)."""
    found = detections([[0, 0, 10, 6.2]], [0.9], [2])
    result = average_precision([found], [truth([[0, 0, 10, 10]], [2])], CLASSES)
    assert result.ap50 == pytest.approx(1.0)
    assert result.ap == pytest.approx(0.3)


def test_crowd_regions_count_neither_way() -> None:
    found = detections([[0, 0, 10, 10], [100, 100, 120, 120]], [0.5, 0.9], [1, 1])
    boxes: list[list[float]] = [[0, 0, 10, 10], [90, 90, 200, 200]]
    with_crowd = truth(boxes, [1, 1], [False, True])
    assert average_precision([found], [with_crowd], CLASSES).ap50 == pytest.approx(1.0)
    assert average_precision([found], [truth(boxes[:1], [1])], CLASSES).ap50 == pytest.approx(0.5)


def test_nothing_found_and_nothing_to_find(capsys: pytest.CaptureFixture[str]) -> None:
    empty = detections([], [], [])
    missed = average_precision([empty], [truth([[0, 0, 5, 5]], [1])], CLASSES)
    assert (missed.ap, missed.ap50, missed.ap50_per_class) == (0.0, 0.0, {"car": 0.0, "sign": None})
    nothing = average_precision([empty], [truth([], [])], CLASSES)
    assert (nothing.ap, nothing.ap50, nothing.n_images) == (None, None, 1)
    assert average_precision([], [], CLASSES).ap is None
    assert capsys.readouterr().out == ""


def test_lengths_must_agree() -> None:
    with pytest.raises(QuarryError, match="1 images detected, 0 annotated"):
        average_precision([detections([], [], [])], [], CLASSES)
