from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from tests.udfs.detection_scenes import QUERY_NAMES, box, crowded_detections, parsed
from udfs.image_random import image_keys, image_uniforms
from udfs.matching import Matcher
from udfs.monte_carlo_score_sampling import monte_carlo_hardness, pseudo_truth_samples
from udfs.queries import queries_named
from udfs.supervised_hardness import supervised_hardness

QUERIES = queries_named(QUERY_NAMES)


@pytest.mark.parametrize("matcher", ["coco", "hungarian"])
def test_equals_algorithm_1_sample_by_sample(matcher: Matcher) -> None:
    rng = np.random.default_rng(31)
    scenes = [crowded_detections(rng, int(rng.integers(0, 12))) for _ in range(20)]
    batch = parsed(scenes)[0]
    is_present = pseudo_truth_samples(batch, n_samples=10, seed=4)
    samples = []
    for sample in range(10):
        present = is_present[:, sample]
        truths = [
            [d for d, x in zip(scene, present[start:], strict=False) if x]
            for scene, start in zip(scenes, batch.offsets.tolist(), strict=False)
        ]
        pseudo = parsed(scenes, truths)
        samples.append(supervised_hardness(*pseudo, QUERIES, eta=0.5, iou_threshold=0.5, matcher=matcher))
    hardness = monte_carlo_hardness(
        batch, QUERIES, eta=0.5, iou_threshold=0.5, matcher=matcher, n_samples=10, seed=4
    )
    np.testing.assert_allclose(hardness.value, np.mean(samples, axis=0), rtol=1e-12, atol=1e-12)
    expected_error = np.std(samples, axis=0, ddof=1) / np.sqrt(10)
    np.testing.assert_allclose(hardness.std_error, expected_error, rtol=1e-9, atol=1e-12)


def test_certain_scores_leave_nothing_to_chance() -> None:
    detections = [box((0, 0, 10, 10), score=1.0), box((20, 0, 30, 10), score=0.0)]
    hardness = monte_carlo_hardness(parsed([detections])[0], QUERIES, eta=0.0, iou_threshold=0.5)
    assert hardness.value[:3, 0].tolist() == [1.0, 0.0, 1.0]
    assert hardness.std_error.max() < 1e-15


def test_one_sample_has_no_standard_error() -> None:
    detections = [box((0, 0, 10, 10), score=0.5)]
    hardness = monte_carlo_hardness(parsed([detections])[0], QUERIES, eta=0.5, iou_threshold=0.5, n_samples=1)
    assert np.isnan(hardness.std_error).all()


def test_numbers_depend_on_seed_and_image_id_only() -> None:
    keys = image_keys(7, ["a", "b", "a"])
    offsets = np.array([0, 3, 5, 8])
    first, second = image_uniforms(keys, offsets, 0), image_uniforms(keys, offsets, 1)
    assert first[:3].tolist() == first[5:].tolist()
    other_seed = image_uniforms(image_keys(8, ["a"]), offsets[:2], 0)
    assert len(set(first[:5]) | set(second[:5]) | set(other_seed)) == 13
    assert image_keys(7, ["a"])[0] == 1674081855184152700  # recorded: other machines must agree


def test_numbers_are_uniform_and_uncorrelated() -> None:
    keys = image_keys(0, [f"image-{i}" for i in range(2000)])
    offsets = np.arange(2001) * 5
    draws = np.stack([image_uniforms(keys, offsets, sample) for sample in range(4)]).reshape(4, 2000, 5)
    assert draws.min() >= 0.0 and draws.max() < 1.0
    assert kstest(draws.ravel(), "uniform").pvalue > 0.01
    columns = draws.transpose(0, 2, 1).reshape(20, 2000)
    off_diagonal = np.corrcoef(columns)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)
