from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.udfs.detection_scenes import box, coco_outcome, parsed, random_boxes, random_detections
from udfs.matching import match_detections


def test_a_later_detection_gets_what_is_left() -> None:
    truth = [box((0, 0, 10, 10)), box((0, 0, 10, 8))]
    detections = [box((0, 0, 10, 9), score=0.6), box((0, 0, 10, 8), score=0.9)]
    matches = match_detections(*parsed([detections], [truth]), iou_threshold=0.5)
    assert matches.truth_of_detection.tolist() == [0, 1]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, 0), (np.nextafter(0.5, 1.0), -1), (1.0, -1)])
def test_iou_exactly_at_the_threshold_matches(threshold: float, expected: int) -> None:
    scene = parsed([[box((0, 0, 10, 10), score=0.9)]], [[box((0, 0, 10, 5))]])
    assert match_detections(*scene, iou_threshold=threshold).truth_of_detection.tolist() == [expected]


def test_equal_boxes_match_at_threshold_one_and_the_last_of_equal_truths_wins() -> None:
    same = (1.1, 2.3, 7.7, 9.9)
    scene = parsed([[box(same, score=0.9)]], [[box(same), box(same)]])
    matches = match_detections(*scene, iou_threshold=1.0)
    assert matches.truth_of_detection.tolist() == [1]
    assert coco_outcome([box(same, score=0.9)], [box(same), box(same)], 1.0)[0] == [1]


def test_a_crowd_absorbs_what_is_not_matched() -> None:
    truth = [box((0, 0, 40, 40), iscrowd=True), box((0, 0, 10, 10))]
    detections = [box((0, 0, 10, 10), score=s) for s in (0.9, 0.8, 0.7)] + [box((90, 90, 99, 99), score=0.6)]
    matches = match_detections(*parsed([detections], [truth]), iou_threshold=0.5)
    assert matches.truth_of_detection.tolist() == [1, -1, -1, -1]
    assert matches.is_absorbed.tolist() == [False, True, True, False]
    assert matches.is_found.tolist() == [False, True]


def test_a_box_without_area_is_never_matched() -> None:
    flat = (5.0, 5.0, 5.0, 9.0)
    matches = match_detections(*parsed([[box(flat, score=0.9)]], [[box(flat)]]), iou_threshold=0.1)
    assert matches.truth_of_detection.tolist() == [-1]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75, 1.0])
def test_coco_matcher_agrees_with_pycocotools(threshold: float) -> None:
    rng = np.random.default_rng(20260101)
    detections = [random_detections(rng, int(rng.integers(0, 14)), spread_px=12) for _ in range(150)]
    truth = [random_boxes(rng, int(rng.integers(0, 8)), spread_px=12) for _ in range(150)]
    for boxes in truth:
        for b in boxes:
            b["iscrowd"] = bool(rng.random() < 0.15)
            if rng.random() < 0.05:
                b["x2"] = b["x1"]
    parsed_detections, parsed_truth = parsed(detections, truth)
    matches = match_detections(parsed_detections, parsed_truth, iou_threshold=threshold)
    n_matched = n_absorbed = 0
    for i in range(150):
        d = slice(*parsed_detections.offsets[i : i + 2])
        g = slice(*parsed_truth.offsets[i : i + 2])
        matched, absorbed, found = coco_outcome(detections[i], truth[i], threshold)
        ours = matches.truth_of_detection[d]
        assert np.where(ours < 0, -1, ours - g.start).tolist() == matched
        assert matches.is_absorbed[d].tolist() == absorbed
        assert matches.is_found[g].tolist() == found
        n_matched += sum(m >= 0 for m in matched)
        n_absorbed += sum(absorbed)
    assert n_matched >= 10 and n_absorbed >= 10


def test_hungarian_finds_more_where_greedy_takes_the_wrong_box() -> None:
    truth = [box((0, 0, 10, 10)), box((3, 0, 13, 10))]
    detections = [box((1, 0, 11, 10), score=0.9), box((-2, 0, 8, 10), score=0.8)]
    scene = parsed([detections], [truth])
    assert match_detections(*scene, iou_threshold=0.5).truth_of_detection.tolist() == [0, -1]
    hungarian = match_detections(*scene, iou_threshold=0.5, matcher="hungarian")
    assert hungarian.truth_of_detection.tolist() == [1, 0]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.5, 0.7]))
def test_hungarian_total_is_the_best_of_all_assignments(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    detections = random_detections(rng, 4, n_labels=1)
    truth = random_boxes(rng, 4, n_labels=1)
    scene = parsed([detections], [truth])
    iou = _iou_table(detections, truth, threshold)
    matches = match_detections(*scene, iou_threshold=threshold, matcher="hungarian")
    total = sum(iou[d, g] for d, g in enumerate(matches.truth_of_detection) if g >= 0)
    assert total == pytest.approx(_best_total(iou, frozenset(range(4)), 0))
    assert all(iou[d, g] > 0 for d, g in enumerate(matches.truth_of_detection) if g >= 0)


def _best_total(iou: np.ndarray, free: frozenset[int], detection: int) -> float:
    if detection == len(iou):
        return 0.0
    return max(
        _best_total(iou, free, detection + 1),
        *(iou[detection, g] + _best_total(iou, free - {g}, detection + 1) for g in free),
        0.0,
    )


def _iou_table(detections: list, truth: list, threshold: float) -> np.ndarray:
    table = np.zeros((len(detections), len(truth)))
    for i, a in enumerate(detections):
        for j, b in enumerate(truth):
            w = max(0.0, min(a["x2"], b["x2"]) - max(a["x1"], b["x1"]))
            h = max(0.0, min(a["y2"], b["y2"]) - max(a["y1"], b["y1"]))
            areas = [(c["x2"] - c["x1"]) * (c["y2"] - c["y1"]) for c in (a, b)]
            table[i, j] = w * h / (sum(areas) - w * h)
    return np.where(table >= threshold, table, 0.0)
