"""Committees against plain loops over members and over every possible pseudo ground truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.udfs.detection_scenes import (
    QUERY_NAMES,
    Box,
    box,
    crowded_detections,
    outcomes_of,
    parsed,
    random_detections,
    scene_batch,
)
from udfs.committee import Committee, exact_committee_hardness, judged_by, member_column
from udfs.exact_score_sampling import exact_hardness
from udfs.matching import Matcher
from udfs.monte_carlo_score_sampling import monte_carlo_hardness
from udfs.queries import queries_named
from udfs.score import score_batches
from udfs.score_request import ScoreRequest
from udfs.supervised_hardness import supervised_hardness

QUERIES = queries_named(QUERY_NAMES)
OPTIONS = {"eta": 0.5, "iou_threshold": 0.5}
SAME = {1: 1, 2: 2}


def against(judged: list[Box], member: list[Box], truth: str, matcher: Matcher) -> np.ndarray:
    """Expected query values by the plain matcher: over all outcomes, or the confirmed detections alone."""
    outcomes = outcomes_of(member)
    if truth == "uniform":
        outcomes = [(1.0, [d for d in member if d["score"] >= 0.5])]
    probabilities, truths = zip(*outcomes, strict=True)
    scene = parsed([judged] * len(truths), truths)
    return supervised_hardness(*scene, QUERIES, **OPTIONS, matcher=matcher) @ np.array(probabilities)


@pytest.mark.parametrize("truth", ["score_sampled", "uniform"])
@pytest.mark.parametrize("matcher", ["coco", "hungarian"])
def test_exact_committee_equals_enumeration(truth: str, matcher: Matcher) -> None:
    rng = np.random.default_rng(81)
    for draw in (random_detections, crowded_detections):
        judged = [draw(rng, int(rng.integers(0, 8))) for _ in range(12)]
        members = [[draw(rng, int(rng.integers(0, 7))) for _ in judged] for _ in range(3)]
        scenes = [judged_by(parsed(judged)[0], parsed(m)[0], SAME, truth, 0.5) for m in members]
        hardness = exact_committee_hardness(
            scenes, QUERIES, **OPTIONS, matcher=matcher, max_component=12, n_samples=1, seed=0
        )
        expected = [
            np.mean([against(judged[i], m[i], truth, matcher) for m in members], axis=0) for i in range(12)
        ]
        np.testing.assert_allclose(hardness.value, np.transpose(expected), rtol=0, atol=1e-9)
        assert not hardness.estimator.any()


def test_a_detector_judged_by_itself_is_score_sampling() -> None:
    rng = np.random.default_rng(82)
    scenes = parsed([random_detections(rng, 7) for _ in range(20)])[0]
    itself = judged_by(scenes, scenes, SAME, "score_sampled", 0.5)
    expected = exact_hardness(scenes, QUERIES, **OPTIONS)
    found = exact_hardness(itself, QUERIES, **OPTIONS)
    np.testing.assert_allclose(found.value, expected.value, rtol=0, atol=1e-12)


def test_presence_takes_the_place_of_scores_but_confirms_nothing() -> None:
    detections = [box((0, 0, 10, 10), score=0.75), box((20, 0, 30, 10), score=0.25)]
    batch = replace(parsed([detections])[0], presence=np.array([0.4, 0.9]))
    value = exact_hardness(batch, QUERIES, **OPTIONS).value[:3, 0]
    assert value == pytest.approx([0.6, 0.9, 1.5])
    sampled = monte_carlo_hardness(batch, QUERIES, **OPTIONS, n_samples=2000, seed=1)
    assert (np.abs(sampled.value[:3, 0] - value) <= 4 * sampled.std_error[:3, 0]).all()


def _batch(rng: np.random.Generator, n_images: int):  # noqa: ANN202
    first, second, third = (
        [random_detections(rng, int(rng.integers(0, 9))) for _ in range(n_images)] for _ in range(3)
    )
    batch = scene_batch(first)
    for index, scenes in enumerate((second, third)):
        batch = batch.append_column(member_column(index), scene_batch(scenes)["detections"])
    return batch


@pytest.mark.parametrize("truth", ["score_sampled", "uniform"])
def test_monte_carlo_committee_agrees_within_its_error(truth: str) -> None:
    batch = _batch(np.random.default_rng(83), 8)
    exact = ScoreRequest(queries=QUERY_NAMES, committee=Committee(truth=truth, label_maps=(SAME, SAME)))
    sampled = replace(exact, estimator="monte_carlo", n_samples=3000, seed=2)
    rows, drawn = (next(score_batches(iter([batch]), request)) for request in (exact, sampled))
    error = drawn["std_error"].to_numpy()
    difference = drawn["hardness"].to_numpy() - rows["hardness"].to_numpy()
    assert set(rows["estimator"].to_pylist()) == {"committee_exact"}
    assert set(drawn["estimator"].to_pylist()) == {"committee_monte_carlo"}
    assert (np.abs(difference) <= 4.5 * error + 1e-12).all() and error.max() > 0
    pieces = [next(score_batches(iter([batch.slice(i, 1)]), sampled)) for i in range(8)]
    by_image = np.stack([piece["hardness"].to_numpy() for piece in pieces], axis=1)
    np.testing.assert_array_equal(by_image.ravel(), drawn["hardness"].to_numpy())


def test_classes_are_told_apart_by_their_own_labels() -> None:
    judged = parsed([[box((0, 0, 10, 10), 1, score=0.75)]])[0]
    member = parsed([[box((0, 0, 10, 10), 7, score=0.75), box((50, 0, 60, 10), 9, score=0.75)]])[0]
    scene = judged_by(judged, member, {7: 1}, "uniform", 0.5)
    value = exact_hardness(scene, QUERIES, **OPTIONS).value[:3, 0]
    assert value.tolist() == [0.0, 1.0, 1.0]
