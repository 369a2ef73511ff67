"""Pixel scores against numbers worked by hand, a slow loop over windows, and what must hold of any maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from detectors import pixel_divergence as subject
from detectors.pixel_divergence import (
    LevelMap,
    binary_entropy,
    entropy_gap,
    image_scores,
    mutual_information,
    pixel_divergence,
    pixel_entropy,
    region_maxima,
    resized,
)

CPU = torch.device("cpu")
IMAGE_HW = (37, 52)


def random_levels(seed: int, *shapes: tuple[int, ...]) -> list[LevelMap]:
    drawn = torch.Generator().manual_seed(seed)
    return [LevelMap(torch.rand(shape, generator=drawn)) for shape in shapes or ((9, 13), (5, 7), (1, 2))]


def entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(p, 1e-300, 1.0)
    outside = np.clip(1 - p, 1e-300, 1.0)
    result: NDArray[np.float64] = -p * np.log(inside) - (1 - p) * np.log(outside)
    return result


def slow_divergence(
    levels: Sequence[LevelMap], image_hw: tuple[int, int], radius: int
) -> NDArray[np.float64]:
    """Eq. 1-4 word by word: a loop over all windows of every resized map."""
    height, width = image_hw
    total = np.zeros(image_hw)
    for level in levels:
        big = interpolate(level.probabilities[None, None].double(), image_hw, mode="bilinear")
        p = big[0, 0].numpy()
        for m in range(height):
            for n in range(width):
                window = p[max(m - radius, 0) : m + radius + 1, max(n - radius, 0) : n + radius + 1]
                total[m, n] += entropy(window.mean()) - entropy(window).mean()
    return total


def slow_image_score(scores: NDArray[np.float64], region: int) -> float:
    """Eq. 5: the mean of the maxima of non-overlapping regions."""
    height, width = scores.shape
    corners = [(top, left) for top in range(0, height, region) for left in range(0, width, region)]
    return float(np.mean([scores[t : t + region, s : s + region].max() for t, s in corners]))


def test_a_single_sure_pixel_in_the_middle_by_hand() -> None:
    # r = 1 and 3x3 px: the middle sees nine pixels, one of them 1, so H(1/9) - 0; an edge one of six, a
    # corner one of four, as windows count the pixels inside only.
    image = torch.zeros(3, 3)
    image[1, 1] = 1.0
    ninth, sixth, quarter = (float(entropy(np.float64(1 / n))) for n in (9, 6, 4))
    assert ninth == pytest.approx(math.log(9) - 8 / 9 * math.log(8)) == pytest.approx(0.348832, abs=1e-6)
    expected = [[quarter, sixth, quarter], [sixth, ninth, sixth], [quarter, sixth, quarter]]
    found = pixel_divergence([LevelMap(image)], (3, 3), radius_px=1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    # Regions of 2x2 px: maxima are a corner's everywhere.
    largest, mean = image_scores(
        lambda rows: pixel_divergence([LevelMap(image)], (3, 3), 1, rows), (3, 3), 2, CPU
    )
    assert float(largest) == pytest.approx((quarter * 4) / 4, abs=1e-6)
    assert float(mean) == pytest.approx((4 * quarter + 4 * sixth + ninth) / 9, abs=1e-6)


def test_mean_entropy_is_taken_off_by_hand() -> None:
    # One row of 1/2 and 1/4, r = 1: both see both; p_hat = 3/8.
    row = LevelMap(torch.tensor([[0.5, 0.25]]))
    expected = entropy(np.float64(0.375)) - (entropy(np.float64(0.5)) + entropy(np.float64(0.25))) / 2
    assert float(expected) == pytest.approx(0.033822, abs=1e-6)
    found = pixel_divergence([row], (1, 2), radius_px=1)
    np.testing.assert_allclose(found.numpy(), [[expected, expected]], atol=1e-6)


@pytest.mark.parametrize("radius", [1, 4, 9, 60])
def test_divergence_is_that_of_the_loop_over_windows(radius: int) -> None:
    levels = random_levels(1)
    expected = slow_divergence(levels, IMAGE_HW, radius)
    found = pixel_divergence(levels, IMAGE_HW, radius)
    assert expected.max() > 0.05
    np.testing.assert_allclose(found.numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("size_hw", [(37, 52), (9, 13), (4, 50), (90, 3), (1, 1)])
def test_resizing_is_torchs_bilinear(size_hw: tuple[int, int]) -> None:
    (level,) = random_levels(2, (9, 13))
    expected = interpolate(level.probabilities[None, None], size_hw, mode="bilinear")[0, 0]
    torch.testing.assert_close(resized(level, size_hw), expected, atol=1e-6, rtol=0)


def test_a_map_that_also_saw_padding_is_cut_where_the_image_ends() -> None:
    # A picture of 3 cells fills 2.5 of them: 10 px an axis, 4 px a cell, as the first 10 of 12 px.
    whole = torch.rand(3, 3, generator=torch.Generator().manual_seed(3))
    expected = resized(LevelMap(whole), (12, 12))[:10, :10]
    torch.testing.assert_close(resized(LevelMap(whole, (2.5, 2.5)), (10, 10)), expected)


@pytest.mark.parametrize("band_px", [1, 500, 1 << 20])
def test_bands_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, band_px: int) -> None:
    levels = random_levels(4)
    monkeypatch.setitem(subject.BAND_PX, "cpu", band_px)
    largest, mean = image_scores(lambda rows: pixel_divergence(levels, IMAGE_HW, 9, rows), IMAGE_HW, 10, CPU)
    expected = slow_divergence(levels, IMAGE_HW, 9)
    assert float(largest) == pytest.approx(slow_image_score(expected, 10), abs=3e-6)
    assert float(mean) == pytest.approx(expected.mean(), abs=3e-6)


def test_partial_regions_at_the_border_count() -> None:
    scores = torch.zeros(31, 65)
    scores[30, 64] = 4.0
    scores[3, 29] = 1.0
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    assert torch.equal(region_maxima(scores, 30), expected)
    assert torch.equal(region_maxima(torch.full((5, 7), 2.0), 30), torch.tensor([[2.0]]))


@pytest.mark.parametrize("p", [0.0, 1e-30, 1e-7, 0.01, 0.5, 1.0])
def test_constant_maps_score_nothing(p: float) -> None:
    levels = [LevelMap(torch.full((6, 8), p)), LevelMap(torch.full((3, 4), p))]
    # Next to 1, the neighbouring float32 has an entropy of 1e-6.
    assert float(pixel_divergence(levels, IMAGE_HW, 9).max()) < 3e-6
    passes = [LevelMap(torch.full((4, 6, 8), p))]
    assert float(mutual_information(passes, IMAGE_HW).max()) < 3e-6


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    power=st.sampled_from([0.0, 1.0, 8.0, 60.0]),
    radius=st.integers(1, 12),
)
def test_divergence_is_at_least_zero_and_at_most_log_two_a_map(seed: int, power: float, radius: int) -> None:
    levels = [LevelMap(level.probabilities**power) for level in random_levels(seed)]
    found = pixel_divergence(levels, IMAGE_HW, radius)
    assert torch.isfinite(found).all()
    # Concavity, before what is below 0 is cut off.
    assert float(entropy_gap(levels, IMAGE_HW, radius).min()) > -3e-6
    assert float(found.min()) >= 0 and float(found.max()) <= 3 * math.log(2) + 1e-6


def test_order_of_maps_and_sides_do_not_matter() -> None:
    levels = random_levels(5)
    found = pixel_divergence(levels, IMAGE_HW, 9)
    torch.testing.assert_close(pixel_divergence(levels[::-1], IMAGE_HW, 9), found, atol=1e-6, rtol=0)
    for axes in ((0,), (1,), (0, 1)):
        mirrored = [LevelMap(level.probabilities.flip(axes)) for level in levels]
        again = pixel_divergence(mirrored, IMAGE_HW, 9).flip(axes)
        torch.testing.assert_close(again, found, atol=1e-6, rtol=0)
    complement = [LevelMap(1 - level.probabilities) for level in levels]
    torch.testing.assert_close(pixel_divergence(complement, IMAGE_HW, 9), found, atol=2e-6, rtol=0)


def test_entropy_sums_over_maps() -> None:
    assert float(binary_entropy(torch.tensor(0.5))) == pytest.approx(math.log(2))
    assert binary_entropy(torch.tensor([0.0, 1.0])).tolist() == [0.0, 0.0]
    levels = random_levels(6)
    expected = sum(entropy(resized(level, IMAGE_HW).double().numpy()) for level in levels)
    np.testing.assert_allclose(pixel_entropy(levels, IMAGE_HW).numpy(), expected, atol=2e-6)


def test_mutual_information_of_passes() -> None:
    # Two passes that are sure of the opposite know nothing together: log 2.
    opposite = LevelMap(torch.tensor([[[0.0]], [[1.0]]]))
    assert float(mutual_information([opposite], (1, 1))) == pytest.approx(math.log(2))
    levels = random_levels(7, (6, 9, 13), (6, 2, 3))
    expected = np.zeros(IMAGE_HW)
    for level in levels:
        passes = [resized(LevelMap(one), IMAGE_HW).double().numpy() for one in level.probabilities]
        expected += entropy(np.mean(passes, axis=0)) - np.mean([entropy(p) for p in passes], axis=0)
    found: Tensor = mutual_information(levels, IMAGE_HW)
    np.testing.assert_allclose(found.numpy(), expected, atol=3e-6)
    same = [LevelMap(torch.stack([level.probabilities] * 7)) for level in random_levels(8)]
    agreed = mutual_information(same, IMAGE_HW)
    assert float(agreed.min()) >= 0 and float(agreed.max()) < 1e-5
