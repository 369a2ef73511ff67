"""What an error box weighs in a user's query: filters, powers of its size and place, prices of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from udfs.boxes import FloatArray
from udfs.queries import ErrorBoxes, image_fraction

Feature = Callable[[ErrorBoxes], FloatArray]


def _share(boxes: ErrorBoxes, pixels: FloatArray, axis: int) -> FloatArray:
    share: FloatArray = pixels / boxes.image_wh_px[:, axis]
    return share


def _aspect_ratio(boxes: ErrorBoxes) -> FloatArray:
    size = boxes.boxes_xyxy[:, 2:] - boxes.boxes_xyxy[:, :2]
    ratio: FloatArray = np.divide(
        size[:, 0], size[:, 1], out=np.full(len(size), np.inf), where=size[:, 1] > 0.0
    )
    return ratio


def _score(boxes: ErrorBoxes) -> FloatArray:
    assert boxes.scores is not None, "settings allow scores for false positives only, which have one"
    return boxes.scores


# Names as in settings. Shares are of the image: 0..1 for boxes inside it.
FEATURES: dict[str, Feature] = {
    "area_px": lambda boxes: boxes.area_px,
    "area": image_fraction,
    "width": lambda boxes: _share(boxes, boxes.boxes_xyxy[:, 2] - boxes.boxes_xyxy[:, 0], 0),
    "height": lambda boxes: _share(boxes, boxes.boxes_xyxy[:, 3] - boxes.boxes_xyxy[:, 1], 1),
    # In a forward-facing camera, what stands lower in the image is nearer.
    "bottom": lambda boxes: np.maximum(_share(boxes, boxes.boxes_xyxy[:, 3], 1), 0.0),
    "aspect_ratio": _aspect_ratio,
    "score": _score,
}

# Boxes smaller than this (shares, px²) weigh as if they were as large: negative powers stay finite.
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class FeatureRange:
    """low <= feature <= high."""

    feature: str
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, kw_only=True)
class WeightRule:
    """Weight of a box: constant x price of its class x powers of features; 0 where a filter leaves it out.

    Attributes:
        labels: Class ids that count; None for all.
        ranges: All must hold.
        region: x1, y1, x2, y2 in shares of the image; the box's centre must lie inside. None for all.
        constant: > 0.
        powers: Feature and power.
        prices: Class id and price, >= 0.
        other_price: Price of all other classes.
    """

    labels: tuple[int, ...] | None = None
    ranges: tuple[FeatureRange, ...] = ()
    region: tuple[float, float, float, float] | None = None
    constant: float = 1.0
    powers: tuple[tuple[str, float], ...] = ()
    prices: tuple[tuple[int, float], ...] = ()
    other_price: float = 1.0

    def __call__(self, boxes: ErrorBoxes) -> FloatArray:
        """(m,), >= 0, finite; a power of 0 pixels is 0."""
        weights = np.full(len(boxes.labels), self.constant, np.float64)
        for feature, power in self.powers:
            values = FEATURES[feature](boxes)
            weights *= np.where(values > 0.0, np.maximum(values, _SMALLEST) ** power, 0.0)
        if self.prices or self.other_price != 1.0:
            price = np.full(len(weights), self.other_price)
            for label, value in self.prices:
                price[boxes.labels == label] = value
            weights *= price
        keep = np.ones(len(weights), bool)
        if self.labels is not None:
            keep &= np.isin(boxes.labels, self.labels)
        for limit in self.ranges:
            values = FEATURES[limit.feature](boxes)
            keep &= (values >= limit.low) & (values <= limit.high)
        if self.region is not None:
            centre = (boxes.boxes_xyxy[:, :2] + boxes.boxes_xyxy[:, 2:]) / 2.0 / boxes.image_wh_px
            low, high = np.array(self.region[:2]), np.array(self.region[2:])
            keep &= ((centre >= low) & (centre <= high)).all(axis=1)
        return np.where(keep, weights, 0.0)
