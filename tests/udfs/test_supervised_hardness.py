from __future__ import annotations

import numpy as np
import pytest

from conf.errors import QuarryError
from tests.udfs.detection_scenes import (
    QUERY_NAMES,
    box,
    coco_outcome,
    parsed,
    random_boxes,
    random_detections,
    reference_hardness,
)
from udfs.queries import queries_named
from udfs.supervised_hardness import supervised_hardness

QUERIES = queries_named(QUERY_NAMES)


def test_hand_worked_image() -> None:
    # One tp, one fp that shares half its area with it, three missed boxes sharing all, nothing and a quarter.
    truth = [box((0, 0, 10, 10), 1), box((0, 0, 4, 4), 2), box((60, 60, 64, 64), 2), box((0, 8, 4, 16), 3)]
    detections = [
        box((0, 0, 10, 10), 1, score=0.5),
        box((5, 0, 15, 10), 1, score=0.75),
        box((60, 60, 64, 64), 2, score=0.25),
    ]
    values = supervised_hardness(*parsed([detections], [truth]), QUERIES, eta=0.5, iou_threshold=0.5)[:, 0]
    pixel_fp, pixel_fn = 0.01, (16 + 16 + 32) / 1e4
    occ_fp, occ_fn = 0.5, 1.0 + 0.0 + 0.25
    expected = [1, 3, 4, pixel_fp, pixel_fn, pixel_fp + pixel_fn, occ_fp, occ_fn, occ_fp + occ_fn]
    assert values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_equals_loops_over_pycocotools_matches(threshold: float) -> None:
    rng = np.random.default_rng(21)
    detections = [random_detections(rng, int(rng.integers(0, 12)), spread_px=16) for _ in range(40)]
    truth = [random_boxes(rng, int(rng.integers(0, 8)), spread_px=16) for _ in range(40)]
    for b in (b for boxes in truth for b in boxes):
        b["iscrowd"] = bool(rng.random() < 0.15)
        if rng.random() < 0.1:
            b["y2"] = b["y1"]
    values = supervised_hardness(*parsed(detections, truth), QUERIES, eta=0.5, iou_threshold=threshold)
    for i in range(40):
        confirmed = [d for d in detections[i] if d["score"] >= 0.5]
        matched, absorbed, _ = coco_outcome(confirmed, truth[i], threshold)
        expected = reference_hardness(confirmed, truth[i], matched, absorbed, 1e4)
        np.testing.assert_allclose(values[:, i], expected, rtol=1e-12, atol=1e-12)


def test_unknown_query_names_the_nearest() -> None:
    with pytest.raises(QuarryError, match="total_fp"):
        queries_named(["totl_fp"])
