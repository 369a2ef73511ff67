"""Exact expectations of queries that are no sums: the largest error, any error, and comparisons.

Components of an image are independent (`udfs.outcome_stacks`): each brings a small distribution of values,
and these are combined. P(max < w) is the product of the components' own; a difference of counts has the
convolution of theirs, a generalised Poisson-binomial distribution, through its discrete Fourier transform
(Hong, "On computing the distribution function for the Poisson binomial distribution", 2013). This form of
score sampling is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from udfs.boxes import BoolArray, FloatArray, IntArray, sums_at
from udfs.outcome_stacks import OutcomeStack
from udfs.queries import COMPARE, Comparison, Operator, Query, Term
from udfs.self_overlaps import SelfOverlaps

MAX_GRID_POINTS = 2**13
_MAX_TRANSFORM_ELEMENTS = 2**20
_DECIMALS = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class ComponentValues:
    """What every component adds in each of its outcomes, equal values of a component put together.

    Attributes:
        component: (k,), not falling; components of an image are adjacent.
        image_index: (k,), image of the component, not falling.
        value: (k,), rising inside a component.
        probability: (k,), 0..1; sums to 1 in a component.
    """

    component: IntArray
    image_index: IntArray
    value: FloatArray
    probability: FloatArray

    def where(self, keep: BoolArray | IntArray) -> ComponentValues:
        """Only the entries marked, (k,), or numbered."""
        return ComponentValues(
            component=self.component[keep],
            image_index=self.image_index[keep],
            value=self.value[keep],
            probability=self.probability[keep],
        )


def is_combinable(query: Query) -> bool:
    """Whether a query that is no sum has an exact form here; with overlap of other components none has."""
    rule = query.rule
    if isinstance(rule, Term):
        return rule.reduce != "sum" and rule.overlap_power == 0.0
    if isinstance(rule, Comparison):
        terms = [term for term in (rule.left, rule.right) if isinstance(term, Term)]
        return all(term.reduce == "sum" and term.overlap_power == 0.0 for term in terms)
    return False


def stack_values(query: Query, overlaps: SelfOverlaps, stack: OutcomeStack) -> ComponentValues:
    """What the components of a stack add to a query that `is_combinable`.

    Args:
        query: The query.
        overlaps: Detections and their components.
        stack: Components with all their outcomes.

    Returns:
        The largest weight among a component's errors (max, any), or its part of left minus right.
    """
    rule = query.rule
    if isinstance(rule, Term):
        values = (_weights(rule, overlaps)[stack.members][:, :, None] * (_errors(rule, stack) > 0)).max(
            axis=1
        )
    else:
        assert isinstance(rule, Comparison)
        values = _sums(rule.left, overlaps, stack)
        if isinstance(rule.right, Term):
            values = values - _sums(rule.right, overlaps, stack)
    # The first member names a component; drawn detections are components of their own.
    component = np.repeat(stack.members[:, 0], stack.probability.shape[1])
    return _merged(component, values.ravel(), stack.probability.ravel(), overlaps.boxes.image_index)


def combined_expectation(query: Query, parts: Sequence[ComponentValues], n_images: int) -> FloatArray:
    """Expected value of a query that `is_combinable`.

    Args:
        query: The query.
        parts: `stack_values` of stacks that together cover every detection.
        n_images: Number of images.

    Returns:
        (n_images,), >= 0. NaN where the sums of a comparison lie on no grid: weights with more than three
        decimals, or more than `MAX_GRID_POINTS` possible sums.
    """
    names = ("component", "image_index", "value", "probability")
    flat = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(flat["component"], kind="stable")
    values = ComponentValues(**{name: array[order] for name, array in flat.items()})
    rule = query.rule
    if isinstance(rule, Comparison):
        threshold = 0.0 if isinstance(rule.right, Term) else rule.right
        return comparison_probability(values, n_images, rule.op, threshold)
    return expected_maximum(values, n_images)


def expected_maximum(values: ComponentValues, n_images: int) -> FloatArray:
    """Expected largest value among an image's components.

    Args:
        values: Values >= 0.
        n_images: Number of images.

    Returns:
        (n_images,), >= 0; 0 for an image without components.
    """
    order = np.lexsort((values.component, -values.value, values.image_index))
    image, value = values.image_index[order], values.value[order]
    counts = np.bincount(image, minlength=n_images)
    column = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    below = np.ones((n_images, int(counts.max(initial=0)) + 1))  # P(maximum < w), w falling
    below[image, column + 1] = _share_below(values)[order]
    np.cumprod(below, axis=1, out=below)
    return sums_at(image, (below[image, column] - below[image, column + 1]) * value, n_images)


def comparison_probability(
    values: ComponentValues, n_images: int, op: Operator, threshold: float
) -> FloatArray:
    """P(the sum of an image's component values compares with a threshold).

    Args:
        values: Values of at most three decimals.
        n_images: Number of images.
        op: Comparison.
        threshold: What the sum is compared with.

    Returns:
        (n_images,), 0..1; NaN where values have more decimals, or more than `MAX_GRID_POINTS` sums.
    """
    result = np.full(n_images, float(COMPARE[op](np.zeros(1), threshold)[0]))
    matters = np.bincount(values.component, values.value != 0.0)[values.component] > 0
    values = values.where(matters)
    if len(values.value) == 0:
        return result
    grid = _grid_steps(values)
    result[values.image_index[np.isnan(grid)]] = np.nan
    values, grid = values.where(~np.isnan(grid)), grid[~np.isnan(grid)]
    steps = np.rint(values.value / grid).astype(np.int64)
    limit = np.zeros(n_images)
    limit[values.image_index] = threshold / grid
    limit = np.where(np.abs(limit - np.rint(limit)) < 1e-9, np.rint(limit), limit)
    starts = _starts(values.component)
    owner = values.image_index[starts]
    low, high = np.zeros(n_images, np.int64), np.zeros(n_images, np.int64)
    if len(starts):
        np.add.at(low, owner, np.minimum.reduceat(steps, starts))
        np.add.at(high, owner, np.maximum.reduceat(steps, starts))
    n_points = 2 ** np.ceil(np.log2(np.maximum(high - low + 1, 2))).astype(np.int64)
    result[owner[n_points[owner] > MAX_GRID_POINTS]] = np.nan
    for points in np.unique(n_points[owner[n_points[owner] <= MAX_GRID_POINTS]]).tolist():
        for rows in _runs(np.flatnonzero(n_points[values.image_index] == points), values.image_index, points):
            image, mass = _sum_distribution(values.where(rows), steps[rows], points)
            total = low[image][:, None] + (np.arange(points) - low[image][:, None]) % points
            result[image] = (mass * COMPARE[op](total.astype(np.float64), limit[image][:, None])).sum(axis=1)
    probability: FloatArray = np.clip(result, 0.0, 1.0)
    return probability


def _errors(term: Term, stack: OutcomeStack) -> IntArray:
    """(components, size, outcomes): how often a box is an error; a box without area may be fp and fn."""
    is_fp = stack.is_fp & (term.errors != "fn")
    return is_fp.astype(np.int64) + (stack.is_fn & (term.errors != "fp"))


def _sums(term: Term, overlaps: SelfOverlaps, stack: OutcomeStack) -> FloatArray:
    sums: FloatArray = (_weights(term, overlaps)[stack.members][:, :, None] * _errors(term, stack)).sum(
        axis=1
    )
    return sums


def _weights(term: Term, overlaps: SelfOverlaps) -> FloatArray:
    weights = term.weight(overlaps.boxes)
    return (weights > 0.0).astype(np.float64) if term.reduce == "any" else weights


def _merged(
    component: IntArray, value: FloatArray, probability: FloatArray, image_index: IntArray
) -> ComponentValues:
    order = np.lexsort((value, component))
    component, value = component[order], value[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (np.diff(component) != 0) | (np.diff(value) != 0.0)
    starts = np.flatnonzero(is_new)
    total = np.add.reduceat(probability[order], starts) if len(starts) else probability
    component = component[starts]
    return ComponentValues(
        component=component, image_index=image_index[component], value=value[starts], probability=total
    )


def _share_below(values: ComponentValues) -> FloatArray:
    """(k,): P(component < value) / P(component <= value)."""
    share = np.zeros(len(values.value))
    starts = _starts(values.component)
    counts = np.diff(np.append(starts, len(share)))
    # Cumulated inside each component, so that no component's rounding reaches another.
    for count in np.unique(counts).tolist():
        entries = starts[counts == count][:, None] + np.arange(count)
        up_to = np.cumsum(values.probability[entries], axis=1)
        below = np.concatenate((np.zeros((len(entries), 1)), up_to[:, :-1]), axis=1)
        share[entries] = np.divide(below, up_to, out=np.ones_like(below), where=up_to > 0.0)
    return share


def _grid_steps(values: ComponentValues) -> FloatArray:
    """(k,): width of the grid all values of an image lie on, the same for all of them; NaN without one."""
    grid = np.full(len(values.value), np.nan)
    first = _starts(values.image_index)
    counts = np.diff(np.append(first, len(grid)))
    for decimals in _DECIMALS:
        scaled = np.abs(values.value) * decimals
        step = np.rint(scaled)
        fits = np.abs(scaled - step) <= 1e-9 * np.maximum(1.0, scaled)
        fits &= (scaled < 2**50) & ((step > 0.0) | (scaled == 0.0))  # what is not 0 must not round to it
        whole = np.where(fits, step, 0.0).astype(np.int64)
        width = np.gcd.reduceat(whole, first) / decimals
        width[~np.logical_and.reduceat(fits, first)] = np.nan
        grid = np.where(np.isnan(grid), np.repeat(width, counts), grid)
    return grid


def _runs(rows: IntArray, image_index: IntArray, points: int) -> Iterator[IntArray]:
    """The rows in pieces of whole images whose transforms stay small; results do not depend on it."""
    piece = np.arange(len(rows)) * points // _MAX_TRANSFORM_ELEMENTS
    piece = piece[np.searchsorted(image_index[rows], image_index[rows])]  # that of the image's first row
    yield from np.split(rows, np.flatnonzero(np.diff(piece)) + 1)


def _sum_distribution(values: ComponentValues, steps: IntArray, points: int) -> tuple[IntArray, FloatArray]:
    """Images, and (images, points) P(sum of steps = column modulo points)."""
    frequency = np.arange(points // 2 + 1)
    roots = np.exp(-2j * np.pi * np.arange(points) / points)
    phases = roots[steps[:, None] * frequency % points] * values.probability[:, None]
    starts = _starts(values.component)
    of_component = np.add.reduceat(phases, starts, axis=0)
    owner = values.image_index[starts]
    first = _starts(owner)
    mass = np.fft.irfft(np.multiply.reduceat(of_component, first, axis=0), n=points, axis=1)
    return owner[first], np.maximum(mass, 0.0)


def _starts(keys: IntArray) -> IntArray:
    return np.flatnonzero(np.concatenate((np.ones(min(len(keys), 1), bool), np.diff(keys) != 0)))
