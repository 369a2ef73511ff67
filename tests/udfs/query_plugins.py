"""Queries in Python, good and bad."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from udfs.boxes import FloatArray, sums_at
from udfs.queries import ErrorSets


def errors_squared(sets: ErrorSets, labels: Mapping[str, int]) -> FloatArray:
    """(number of missed pedestrians + false positives) squared."""
    missed = sets.fn.probability * (sets.fn_boxes.labels == labels["pedestrian"])
    n = sums_at(sets.fn_boxes.image_index, missed, sets.n_images)
    return (n + sums_at(sets.fp_boxes.image_index, sets.fp.probability, sets.n_images)) ** 2


def wrong_shape(sets: ErrorSets, labels: Mapping[str, int]) -> FloatArray:
    """One number for all images."""
    return np.zeros(sets.n_images + 1)


def negative(sets: ErrorSets, labels: Mapping[str, int]) -> FloatArray:
    """Below zero."""
    return np.full(sets.n_images, -1.0)


def fails(sets: ErrorSets, labels: Mapping[str, int]) -> FloatArray:
    """Raises."""
    return np.full(sets.n_images, 1 // 0)


def overwrites(sets: ErrorSets, labels: Mapping[str, int]) -> FloatArray:
    """Writes into what other queries read."""
    sets.fp.probability[:] = 0.0
    return np.zeros(sets.n_images)
