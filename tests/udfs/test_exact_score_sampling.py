from __future__ import annotations

import numpy as np
import pytest

from tests.udfs.detection_scenes import (
    QUERY_NAMES,
    Box,
    box,
    coco_outcome,
    crowded_detections,
    outcomes_of,
    parsed,
    random_detections,
    reference_hardness,
)
from udfs.exact_score_sampling import exact_hardness
from udfs.matching import Matcher
from udfs.monte_carlo_score_sampling import monte_carlo_hardness
from udfs.queries import queries_named
from udfs.self_overlaps import self_overlaps
from udfs.supervised_hardness import supervised_hardness

QUERIES = queries_named(QUERY_NAMES)
IMAGE_AREA_PX = 100.0 * 100.0


def brute_force(detections: list[Box], threshold: float, matcher: Matcher = "coco") -> np.ndarray:
    """Expectation over all 2^m pseudo ground truths, each matched by the plain matcher."""
    probabilities, truths = zip(*outcomes_of(detections), strict=True)
    scene = parsed([detections] * len(truths), truths)
    values = supervised_hardness(*scene, QUERIES, eta=0.5, iou_threshold=threshold, matcher=matcher)
    return values @ np.array(probabilities)


def test_hand_worked_image() -> None:
    # a and b are confirmed and share 50 px²; c is not, and shares 25 px² with a. Classes differ.
    a, b, c = (0, 0, 10, 10), (5, 0, 15, 10), (0, 0, 5, 5)
    detections = [box(a, 1, score=0.75), box(b, 2, score=0.5), box(c, 3, score=0.25)]
    hardness = exact_hardness(parsed([detections])[0], QUERIES, eta=0.5, iou_threshold=0.5)
    fp_occ = 0.25 * 0.5 * 50 / 100 + 0.5 * 0.75 * 50 / 100
    fn_occ = 0.25 * 0.75 * 25 / 25
    pixel_fp, pixel_fn = (0.25 + 0.5) * 0.01, 0.25 * 0.0025
    expected = [0.75, 0.25, 1.0, pixel_fp, pixel_fn, pixel_fp + pixel_fn, fp_occ, fn_occ, fp_occ + fn_occ]
    assert hardness.value[:, 0] == pytest.approx(expected, abs=1e-15)
    assert not hardness.estimator.any() and not hardness.std_error.any()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("matcher", ["coco", "hungarian"])
def test_equals_brute_force_over_all_outcomes(threshold: float, matcher: Matcher) -> None:
    rng = np.random.default_rng(11)
    scenes = [crowded_detections(rng, int(rng.integers(0, 9))) for _ in range(25)]
    overlaps = self_overlaps(parsed(scenes)[0], eta=0.5, iou_threshold=threshold)
    contested = [overlaps.is_confirmed[stack].sum(axis=1) > 1 for stack in overlaps.components_up_to(None)]
    assert sum(stack.sum() for stack in contested) >= 5
    hardness = exact_hardness(parsed(scenes)[0], QUERIES, eta=0.5, iou_threshold=threshold, matcher=matcher)
    expected = np.stack([brute_force(scene, threshold, matcher) for scene in scenes], axis=1)
    np.testing.assert_allclose(hardness.value, expected, rtol=0, atol=1e-9)
    assert not hardness.estimator.any()


def test_equals_brute_force_through_pycocotools() -> None:
    rng = np.random.default_rng(12)
    for threshold in (0.3, 0.5, 0.7):
        detections = crowded_detections(rng, 6)
        confirmed = [d for d in detections if d["score"] >= 0.5]
        expected = np.zeros(len(QUERIES))
        for probability, truth in outcomes_of(detections):
            matched, absorbed, _ = coco_outcome(confirmed, truth, threshold)
            expected += probability * reference_hardness(confirmed, truth, matched, absorbed, IMAGE_AREA_PX)
        value = exact_hardness(parsed([detections])[0], QUERIES, eta=0.5, iou_threshold=threshold).value[:, 0]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-9)


def test_zero_area_detection_is_never_found() -> None:
    detections = [box((5, 5, 5, 20), score=0.75), box((0, 0, 10, 10), score=0.625)]
    value = exact_hardness(parsed([detections])[0], QUERIES, eta=0.5, iou_threshold=0.5).value[:, 0]
    np.testing.assert_allclose(value, brute_force(detections, 0.5), rtol=0, atol=1e-12)
    assert value[QUERY_NAMES.index("total_fp")] == pytest.approx(1.0 + 0.375)
    assert value[QUERY_NAMES.index("total_fn")] == pytest.approx(0.75)


def test_larger_components_are_sampled_and_say_so() -> None:
    rng = np.random.default_rng(13)
    crowded = [box((0, 0, 40 + i % 3, 40), score=0.3 + 0.05 * i) for i in range(9)]
    apart = random_detections(rng, 4, n_labels=3)
    plain = [box((0, 0, 10, 10), score=0.7)]
    scenes = parsed([plain, crowded + [{**d, "label": d["label"] + 5} for d in apart]])[0]
    options = {"eta": 0.5, "iou_threshold": 0.5}
    exact = exact_hardness(scenes, QUERIES, **options)
    mixed = exact_hardness(scenes, QUERIES, **options, max_component=5, n_samples=4000, seed=3)
    assert mixed.estimator.any(axis=0).tolist() == [False, True]
    assert not exact.estimator.any()
    np.testing.assert_array_equal(mixed.value[:, 0], exact.value[:, 0])
    assert (mixed.std_error[:, 1] > 0).all()
    assert (np.abs(mixed.value - exact.value) <= 4 * mixed.std_error + 1e-12).all()
    sampled = monte_carlo_hardness(scenes, QUERIES, **options, n_samples=4000, seed=3)
    assert mixed.std_error[:, 1].sum() < sampled.std_error[:, 1].sum()


@pytest.mark.parametrize("matcher", ["coco", "hungarian"])
def test_monte_carlo_mean_agrees_on_every_query(matcher: Matcher) -> None:
    rng = np.random.default_rng(14)
    scenes = parsed([crowded_detections(rng, 9) for _ in range(6)])[0]
    n_samples = 4000 if matcher == "coco" else 800
    exact = exact_hardness(scenes, QUERIES, eta=0.5, iou_threshold=0.5, matcher=matcher)
    sampled = monte_carlo_hardness(
        scenes, QUERIES, eta=0.5, iou_threshold=0.5, matcher=matcher, n_samples=n_samples, seed=1
    )
    assert (np.abs(sampled.value - exact.value) <= 4 * sampled.std_error + 1e-12).all()
    assert sampled.std_error.max() > 0


def test_image_without_detections_has_hardness_zero() -> None:
    hardness = exact_hardness(parsed([[], []])[0], QUERIES, eta=0.5, iou_threshold=0.5)
    assert hardness.value.shape == (9, 2) and not hardness.value.any()


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_values_do_not_change_with_the_unit_of_length(scale: float) -> None:
    rng = np.random.default_rng(15)
    detections = random_detections(rng, 7)
    bigger = [{**d, **{k: d[k] * scale for k in ("x1", "y1", "x2", "y2")}} for d in detections]
    first, second = (
        exact_hardness(parsed([d])[0], QUERIES, eta=0.5, iou_threshold=0.5).value[:, 0]
        for d in (detections, bigger)
    )
    factor = np.array([scale**2 if name.startswith("pixel") else 1.0 for name in QUERY_NAMES])
    np.testing.assert_allclose(second, first * factor, rtol=1e-12)
