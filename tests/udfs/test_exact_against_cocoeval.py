"""Exact score sampling against pycocotools' COCOeval run on every one of the 2^m pseudo ground truths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from tests.udfs.detection_scenes import (
    QUERY_NAMES,
    Box,
    box,
    coco_outcome,
    outcomes_of,
    parsed,
    reference_hardness,
)
from udfs.exact_score_sampling import exact_hardness
from udfs.monte_carlo_score_sampling import EXACT
from udfs.queries import queries_named
from udfs.self_overlaps import self_overlaps

QUERIES = queries_named(QUERY_NAMES)
IMAGE_AREA_PX = 100.0 * 100.0
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ETA = 0.5

# Derandomized: the seed follows from the test itself, so every run sees the same images.
REPEATABLE = settings(derandomize=True, deadline=None, database=None)


def enumerated_hardness(detections: list[Box], eta: float, iou_threshold: float) -> np.ndarray:
    """Sum over all pseudo ground truths of probability times the value COCOeval's matches give."""
    confirmed = [d for d in detections if d["score"] >= eta]
    expected = np.zeros(len(QUERIES))
    for probability, truth in outcomes_of(detections):
        if probability > 0.0:
            matched, absorbed, _ = coco_outcome(confirmed, truth, iou_threshold)
            values = reference_hardness(confirmed, truth, matched, absorbed, IMAGE_AREA_PX)
            expected += probability * values
    return expected


def exact_values(detections: list[Box], eta: float, iou_threshold: float) -> np.ndarray:
    """The same by the product, which must not have sampled anything."""
    hardness = exact_hardness(parsed([detections])[0], QUERIES, eta=eta, iou_threshold=iou_threshold)
    assert (hardness.estimator == EXACT).all() and not hardness.std_error.any()
    return hardness.value[:, 0]


@st.composite
def integer_boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Boxes whose IoUs are ratios of small integers: many nest, touch, coincide or have no area."""
    x, y = draw(st.sampled_from((0, 0, 0, 0, 1, 10))), draw(st.sampled_from((0, 0, 0, 1, 5)))
    width, height = draw(st.sampled_from((10, 10, 10, 10, 20, 0))), draw(st.sampled_from(range(3, 11)))
    return x, y, x + width, y + height


def scenes(labels: int, smallest: int, largest: int) -> st.SearchStrategy[list[Box]]:
    """Images with scores that are 0, 1, the threshold itself, or equal to one another."""
    scores = st.sampled_from((0.0, 0.125, 0.25, 0.375, ETA, ETA, 0.625, 0.75, 0.875, 1.0))
    one = st.builds(
        lambda corners, label, score: box(corners, label, score=score),
        integer_boxes(),
        st.integers(1, labels),
        scores,
    )
    return st.lists(one, min_size=smallest, max_size=largest)


@settings(REPEATABLE, max_examples=60)
@given(detections=scenes(labels=1, smallest=4, largest=7), iou_threshold=st.sampled_from(THRESHOLDS))
def test_boxes_of_one_class(detections: list[Box], iou_threshold: float) -> None:
    overlaps = self_overlaps(parsed([detections])[0], eta=ETA, iou_threshold=iou_threshold)
    event(f"largest component {max(overlaps.component_size, default=0)}")
    np.testing.assert_allclose(
        exact_values(detections, ETA, iou_threshold),
        enumerated_hardness(detections, ETA, iou_threshold),
        rtol=0,
        atol=1e-9,
    )


@settings(REPEATABLE, max_examples=30)
@given(
    detections=scenes(labels=2, smallest=0, largest=6),
    iou_threshold=st.sampled_from(THRESHOLDS),
    eta=st.sampled_from((0.0, 0.25, 0.625, 1.0)),
)
def test_boxes_of_two_classes_and_any_confirmation_threshold(
    detections: list[Box], iou_threshold: float, eta: float
) -> None:
    np.testing.assert_allclose(
        exact_values(detections, eta, iou_threshold),
        enumerated_hardness(detections, eta, iou_threshold),
        rtol=0,
        atol=1e-9,
    )


@settings(REPEATABLE, max_examples=15)
@given(
    corners=st.lists(st.floats(0.0, 30.0, width=32), min_size=12, max_size=12),
    scores=st.lists(st.floats(0.0, 1.0, width=32), min_size=6, max_size=6),
    iou_threshold=st.floats(0.3, 0.9),
)
@example(corners=[0.0] * 12, scores=[0.5] * 6, iou_threshold=0.5)
def test_boxes_off_the_grid(corners: list[float], scores: list[float], iou_threshold: float) -> None:
    low = np.reshape(corners, (6, 2))
    # As stored: sides that float32 holds.
    high = (low + np.stack((np.full(6, 40.0), np.arange(30.0, 36.0)), axis=1)).astype(np.float32)
    detections = [
        box(sides, score=score) for sides, score in zip(np.hstack((low, high)).tolist(), scores, strict=True)
    ]
    np.testing.assert_allclose(
        exact_values(detections, ETA, iou_threshold),
        enumerated_hardness(detections, ETA, iou_threshold),
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize("iou_threshold", THRESHOLDS)
def test_iou_exactly_at_the_threshold_matches(iou_threshold: float) -> None:
    # b lies in a and covers the share t of it: when a is no object, a's detection finds b.
    a, b = box((0, 0, 10, 10), score=0.75), box((0, 0, 10, round(10 * iou_threshold)), score=0.25)
    at, above = iou_threshold, float(np.nextafter(iou_threshold, 1.0))
    total_fp, total_fn = QUERY_NAMES.index("total_fp"), QUERY_NAMES.index("total_fn")
    matching, apart = exact_values([a, b], ETA, at), exact_values([a, b], ETA, above)
    assert matching[total_fp] == pytest.approx(0.25 * 0.75)
    assert matching[total_fn] == pytest.approx(0.75 * 0.25)
    assert (apart[total_fp], apart[total_fn]) == (pytest.approx(0.25), pytest.approx(0.25))
    np.testing.assert_allclose(matching, enumerated_hardness([a, b], ETA, at), rtol=0, atol=1e-12)
    np.testing.assert_allclose(apart, enumerated_hardness([a, b], ETA, above), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("corners", "scores"),
    [
        ([(0, 0, 10, 10), (10, 0, 20, 10), (0, 10, 10, 20)], [0.75, 0.75, 0.25]),
        ([(0, 0, 0, 10), (0, 0, 0, 10), (0, 0, 10, 10)], [0.75, 0.25, 0.5]),
        ([(0, 0, 10, 10)] * 5, [0.5] * 5),
        ([(0, 0, 10, 10)] * 4, [0.0, 1.0, 0.5, 1.0]),
        ([(0, 0, 10, 10), (0, 0, 10, 20), (0, 0, 20, 10)], [0.5, 0.75, 0.75]),
    ],
    ids=["touching", "no area", "equal boxes and scores", "scores 0 and 1", "ties at IoU 1/2"],
)
def test_special_images(corners: list[Any], scores: list[float]) -> None:
    detections = [box(c, score=s) for c, s in zip(corners, scores, strict=True)]
    for iou_threshold in (0.3, 0.5, 0.9):
        np.testing.assert_allclose(
            exact_values(detections, ETA, iou_threshold),
            enumerated_hardness(detections, ETA, iou_threshold),
            rtol=0,
            atol=1e-12,
        )
