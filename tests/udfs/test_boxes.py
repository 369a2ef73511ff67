from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from udfs.boxes import area_px, overlapping_pairs, pairwise_inter_px, pairwise_iou

CORNERS = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [3, 3, 3, 9]], np.float64)


def test_hand_worked_areas_and_ious() -> None:
    assert area_px(CORNERS).tolist() == [100, 100, 100, 0]
    inter = pairwise_inter_px(CORNERS, CORNERS)
    assert inter[0].tolist() == [100, 25, 0, 0]
    assert pairwise_iou(CORNERS, CORNERS)[0].tolist() == [1, 25 / 175, 0, 0]
    assert pairwise_iou(CORNERS, CORNERS)[3].tolist() == [0, 0, 0, 0]


def test_equals_pycocotools_with_crowds_and_flat_boxes() -> None:
    rng = np.random.default_rng(5)
    low = rng.uniform(0, 50, (60, 2)).astype(np.float32).astype(np.float64)
    size = rng.uniform(0, 40, (60, 2)).astype(np.float32).astype(np.float64)
    size[::9, 0] = 0.0
    boxes = np.concatenate((low, low + size), axis=1)
    is_crowd = rng.random(60) < 0.3
    xywh = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    oracle = mask.iou(xywh, xywh, is_crowd.astype(np.uint8).tolist())
    np.testing.assert_allclose(pairwise_iou(boxes, boxes, is_crowd), oracle, rtol=1e-12)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(seed=st.integers(0, 100_000), largest_px=st.sampled_from([8.0, 1e4, 1e9]))
def test_sweep_finds_exactly_the_pairs_that_share_area(seed: int, largest_px: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, 5)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    low = np.floor(rng.uniform(-largest_px, largest_px, (counts.sum(), 2)))
    boxes = np.concatenate((low, low + np.floor(rng.uniform(0, largest_px, (counts.sum(), 2)))), axis=1)
    involving = rng.random(len(boxes)) < 0.5
    image = np.repeat(np.arange(5), counts)
    dense = pairwise_inter_px(boxes, boxes)
    shared = np.triu((image[:, None] == image) & (dense > 0), k=1)
    for filtered, wanted in ((None, shared), (involving, shared & (involving[:, None] | involving))):
        pairs = overlapping_pairs(offsets, boxes, filtered)
        ends = np.sort(np.stack((pairs.first, pairs.second), axis=1), axis=1)
        found = set(map(tuple, ends.tolist()))
        assert len(found) == len(pairs.first)
        assert found == set(zip(*(axis.tolist() for axis in np.nonzero(wanted)), strict=True))
        assert pairs.inter_px == pytest.approx(dense[pairs.first, pairs.second])
