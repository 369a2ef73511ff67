from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.near_duplicates import Looks, NearDuplicateRule, TakenLooks, nearest_likenesses

SEEDS = st.integers(0, 100_000)


def _looks(rng: np.random.Generator, n: int, name: str) -> Looks:
    flips = np.uint64(1) << rng.integers(0, 64, (n, 3)).astype(np.uint64)
    scenes = np.array([0, 0xFFFF, 0xFF << 40], np.uint64)[rng.integers(0, 3, n)]
    features = rng.integers(0, 3, (n, 4)).astype(np.float32) / 10 + np.float32(5.0)
    features[rng.random(n) < 0.1] = np.nan
    return Looks(
        image_ids=np.array([f"{name}-{i}" for i in range(n)], object),
        hashes=scenes ^ np.bitwise_or.reduce(flips, axis=1),
        has_hash=rng.random(n) < 0.8,
        features=features,
    )


def _apart(a: Looks, i: int, b: Looks, j: int, rule: NearDuplicateRule) -> float:
    """Bits or distance, evaluated on Python's numbers; infinite where they are no near-duplicates."""
    assert a.hashes is not None and b.hashes is not None and a.has_hash is not None and b.has_hash is not None
    assert a.features is not None and b.features is not None
    if rule.max_hamming_bits is not None:
        bits = bin(int(a.hashes[i]) ^ int(b.hashes[j])).count("1")
        return bits if a.has_hash[i] and b.has_hash[j] and bits <= rule.max_hamming_bits else np.inf
    distance = float(np.sqrt(((a.features[i].astype(float) - b.features[j].astype(float)) ** 2).sum()))
    return distance if distance < (rule.below_feature_l2 or 0.0) else np.inf


@pytest.mark.parametrize(
    "rule", [NearDuplicateRule(max_hamming_bits=4), NearDuplicateRule(below_feature_l2=0.25)]
)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 12), m=st.integers(0, 600))
def test_the_nearest_known_picture_equals_looking_at_every_pair(
    rule: NearDuplicateRule, seed: int, n: int, m: int
) -> None:
    rng = np.random.default_rng(seed)
    images, known = _looks(rng, n, "new"), _looks(rng, m, "old")
    found = {row: (distance, like) for row, distance, like in nearest_likenesses(images, known, rule)}
    assert list(found) == sorted(found)
    for row in range(n):
        apart = [_apart(images, row, known, other, rule) for other in range(m)]
        least = min(apart, default=np.inf)
        assert (row in found) == (least < np.inf)
        if row in found:
            distance, like = found[row]
            assert distance == pytest.approx(least, abs=1e-6)
            assert like.image_id in {f"old-{i}" for i in range(m) if apart[i] <= least + 1e-6}
            assert rule.max_hamming_bits is None or like.image_id == f"old-{apart.index(least)}"


@pytest.mark.parametrize(
    "rule", [NearDuplicateRule(max_hamming_bits=4), NearDuplicateRule(below_feature_l2=0.25)]
)
@settings(derandomize=True, max_examples=100, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 40))
def test_taken_images_are_compared_one_by_one(rule: NearDuplicateRule, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    images = _looks(rng, n, "new")
    taken, rows = TakenLooks(rule, images), rng.permutation(n)[: n // 2].tolist()
    for row in rows:
        taken.take(row)
    since = int(rng.integers(0, len(rows) + 1))
    for row in range(n):
        like = taken.likeness(row, since)
        expected = [i for i in rows[since:] if _apart(images, row, images, i, rule) < np.inf]
        assert (like.image_id if like else None) == (f"new-{expected[0]}" if expected else None)


def test_reasons_name_the_picture_and_the_measure() -> None:
    images = Looks(
        image_ids=np.array(["a"], object),
        hashes=np.array([0b111], np.uint64),
        features=np.array([[3.0, 4.0]], np.float32),
    )
    known = Looks(
        image_ids=np.array(["x", "y", "z"], object),
        hashes=np.array([0, 0b110, 0b011], np.uint64),
        features=np.array([[0.0, 0.0], [np.nan, 0.0], [3.0, 3.0]], np.float32),
    )
    ((_, bits, by_hash),) = nearest_likenesses(images, known, NearDuplicateRule(max_hamming_bits=2))
    assert (bits, by_hash.reason) == (1, "near-duplicate of y: hashes differ in 1 of 64 bits")
    ((_, distance, by_feature),) = nearest_likenesses(images, known, NearDuplicateRule(below_feature_l2=5.0))
    assert (distance, by_feature.reason) == (1.0, "near-duplicate of z: features are 1 apart")
    assert not list(nearest_likenesses(images, known, NearDuplicateRule()))
    unknown = Looks(image_ids=np.array(["x"], object))
    for rule in (NearDuplicateRule(max_hamming_bits=2), NearDuplicateRule(below_feature_l2=5.0)):
        assert not list(nearest_likenesses(images, unknown, rule))


def test_features_far_from_the_origin_are_told_apart_as_exactly_as_near_it() -> None:
    rng = np.random.default_rng(3)
    far = rng.normal(size=256).astype(np.float32) * np.float32(100.0)
    steps = np.array([0.05, 0.09, 0.11, 0.5], np.float32)
    features = np.tile(far, (5, 1))
    features[1:, 0] += steps
    images = Looks(image_ids=np.array(list("abcde"), object), features=features)
    apart = [float(abs(features[row, 0] - features[0, 0])) for row in range(5)]
    taken = TakenLooks(NearDuplicateRule(below_feature_l2=0.1), images)
    taken.take(0)
    assert [taken.likeness(row) is not None for row in range(1, 5)] == [d < 0.1 for d in apart[1:]]
