from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from udfs.queries import ErrorBoxes
from udfs.query_weights import FeatureRange, WeightRule

# In an image of 200 x 100 px: near and tall; far and small; without area; crossing the left border.
BOXES = ErrorBoxes(
    boxes_xyxy=np.array([[20, 40, 40, 90], [150, 10, 170, 20], [60, 50, 60, 80], [-10, 0, 10, 30.0]]),
    labels=np.array([1, 2, 1, 3]),
    image_sizes_px=np.array([[200.0, 100.0]]),
    image_index=np.zeros(4, np.int64),
    scores=np.array([0.9, 0.6, 0.5, 0.7]),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (WeightRule(), [1, 1, 1, 1]),
        (WeightRule(labels=(1,)), [1, 0, 1, 0]),
        (WeightRule(ranges=(FeatureRange(feature="area_px", low=200),)), [1, 1, 0, 1]),
        (WeightRule(ranges=(FeatureRange(feature="area", high=0.01),)), [0, 1, 1, 0]),
        (WeightRule(ranges=(FeatureRange(feature="bottom", low=0.8),)), [1, 0, 1, 0]),
        (WeightRule(ranges=(FeatureRange(feature="aspect_ratio", low=0.4, high=1),)), [1, 0, 0, 1]),
        (WeightRule(ranges=(FeatureRange(feature="score", low=0.6, high=0.7),)), [0, 1, 0, 1]),
        (WeightRule(region=(0, 0.5, 1, 1)), [1, 0, 1, 0]),
        (WeightRule(region=(0, 0, 0.5, 1)), [1, 0, 1, 1]),
        (WeightRule(constant=2, powers=(("height", 1.0),)), [1.0, 0.2, 0.6, 0.6]),
        (WeightRule(powers=(("area", 0.5),)), [0.05**0.5, 0.01**0.5, 0, 0.03**0.5]),
        (WeightRule(powers=(("area_px", -1.0),)), [1e-3, 5e-3, 0, 1 / 600]),
        (WeightRule(prices=((1, 10.0), (2, 3.0)), other_price=0.5), [10, 3, 10, 0.5]),
        (WeightRule(labels=(1, 3), powers=(("width", 1.0), ("bottom", 2.0))), [0.081, 0, 0, 0.009]),
    ],
)
def test_hand_worked_weights(rule: WeightRule, expected: list[float]) -> None:
    assert rule(BOXES) == pytest.approx(expected)


@seed(91)
@settings(max_examples=60, deadline=None)
@given(
    corners=st.lists(st.tuples(*[st.floats(-500, 500)] * 4), min_size=1, max_size=6),
    feature=st.sampled_from(["area", "area_px", "width", "height", "bottom"]),
    power=st.floats(-4, 4),
)
def test_weights_are_finite_and_not_negative(
    corners: list[tuple[float, ...]], feature: str, power: float
) -> None:
    raw = np.array(corners)
    boxes = ErrorBoxes(
        boxes_xyxy=np.concatenate(
            (np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])), 1
        ),
        labels=np.ones(len(raw), np.int64),
        image_sizes_px=np.full((1, 2), 100.0),
        image_index=np.zeros(len(raw), np.int64),
    )
    weights = WeightRule(powers=((feature, power),))(boxes)
    assert np.isfinite(weights).all() and (weights >= 0).all()
