"""Where a detector contradicts itself from pixel to pixel, from its dense foreground probability maps.

Source: Aghdam et al., "Active Learning for Deep Detection Neural Networks", Eq. 1-5. The maps of a detector's
levels are resized bilinearly to the image, and all scores are sums over the maps. We differ at the border:
windows count the pixels inside the image only.

Nothing is computed in the image's size that can be computed in a map's: resizing is linear and separable, and
so is the mean over a window, so that resized maps and their window means are one product of small matrices
each. Entropies are summed over the maps before their window mean is taken, once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

# Rows at a time: working memory stays small for images of any size, and in a processor's cache.
BAND_PX = {"cpu": 1 << 17, "cuda": 1 << 23}


@dataclass(frozen=True)
class LevelMap:
    """The probability that a cell of a level shows any object.

    Attributes:
        probabilities: (h, w) float32 in [0, 1], or (T, h, w) of T passes with dropout.
        covered_hw: How many cells the image spans; less than (h, w) where the last cells also saw padding.
            None: all of them.
    """

    probabilities: Tensor
    covered_hw: tuple[float, float] | None = None

    @property
    def span_hw(self) -> tuple[float, float]:
        """How many cells the image spans."""
        return self.covered_hw or (self.probabilities.shape[-2], self.probabilities.shape[-1])


def pixel_divergence(
    maps: Sequence[LevelMap], image_hw: tuple[int, int], radius_px: int, rows: range | None = None
) -> Tensor:
    """Entropy of the mean prediction round a pixel minus the mean entropy of the predictions there.

    s = sum over maps of H(p_hat) - mean H(p), over windows of (2 r + 1)^2 px clipped at the border
    (Eq. 1-4). 0 where all maps are constant over the window; high where neighbours disagree.

    Args:
        maps: Maps of one image, at least one.
        image_hw: Height and width (px) of the image: the size that maps are resized to.
        radius_px: r >= 0.
        rows: Rows of the image wanted; none: all.

    Returns:
        (rows, width) float32, nats, 0 to len(maps) * log 2.
    """
    return entropy_gap(maps, image_hw, radius_px, rows).clamp_min_(0)  # concavity of H, but for rounding


def entropy_gap(
    maps: Sequence[LevelMap], image_hw: tuple[int, int], radius_px: int, rows: range | None = None
) -> Tensor:
    """`pixel_divergence` as it is computed: below 0 by what float32 rounds, before it is cut there."""
    height, width = image_hw
    rows = rows if rows is not None else range(height)
    reach = range(max(rows.start - radius_px, 0), min(rows.stop + radius_px, height))
    expected = window_means(
        pixel_entropy(maps, image_hw, reach),
        radius_px,
        top=rows.start - reach.start,
        bottom=reach.stop - rows.stop,
    )
    divergence = expected.neg_()
    for level in maps:
        divergence += binary_entropy(resized(level, image_hw, rows, radius_px))
    return divergence


def pixel_entropy(maps: Sequence[LevelMap], image_hw: tuple[int, int], rows: range | None = None) -> Tensor:
    """Entropy of the predictions at a pixel, s = sum over maps of H(p) (section 4, "binary entropy").

    Args:
        maps: Maps of one image, at least one.
        image_hw: Height and width (px) of the image.
        rows: Rows of the image wanted; none: all.

    Returns:
        (rows, width) float32, nats, 0 to len(maps) * log 2.
    """
    first, *others = (binary_entropy(resized(level, image_hw, rows)) for level in maps)
    for entropy in others:
        first += entropy
    return first


def mutual_information(
    maps: Sequence[LevelMap], image_hw: tuple[int, int], rows: range | None = None
) -> Tensor:
    """Entropy of the mean prediction over passes with dropout minus the mean entropy of the passes.

    Args:
        maps: (T, h, w) maps of one image, at least one; T >= 1 passes.
        image_hw: Height and width (px) of the image.
        rows: Rows of the image wanted; none: all.

    Returns:
        (rows, width) float32, nats, 0 (the passes agree) to len(maps) * log 2; section 4, "MC-Dropout".
    """
    means = [LevelMap(level.probabilities.mean(dim=0), level.covered_hw) for level in maps]
    information = pixel_entropy(means, image_hw, rows)
    n_passes = len(maps[0].probabilities)
    for one in range(n_passes):
        of_pass = [LevelMap(level.probabilities[one], level.covered_hw) for level in maps]
        information -= pixel_entropy(of_pass, image_hw, rows).div_(n_passes)
    return information.clamp_min_(0)


def binary_entropy(p: Tensor) -> Tensor:
    """-p log p - (1 - p) log(1 - p) of float32 in [0, 1], nats, 0..log 2 (Eq. 3); 0 at p = 0 and 1."""
    q = 1 - p
    smallest = torch.finfo(p.dtype).tiny
    negative = p.clamp_min(smallest).log_().mul_(p).addcmul_(q, q.clamp_min(smallest).log_())
    return negative.abs_()


def resized(
    level: LevelMap, image_hw: tuple[int, int], rows: range | None = None, radius_px: int = 0
) -> Tensor:
    """Rows of a map resized bilinearly to the image, and with a radius their means over windows (Eq. 1).

    Args:
        level: (h, w).
        image_hw: Height and width (px) of the image.
        rows: Rows of the image wanted; none: all.
        radius_px: Of the windows; 0: the pixels themselves.

    Returns:
        (rows, width) float32 in [0, 1].
    """
    p = level.probabilities
    down, across = (
        interpolation(size, cells, span, radius_px, p.device)
        for size, cells, span in zip(image_hw, p.shape, level.span_hw, strict=True)
    )
    if rows is not None:
        down = down[rows.start : rows.stop]
    return ((down @ p) @ across.T).clamp_(0, 1)


# Of one size of image: two axes of five levels, with and without windows; most lakes have few sizes.
@lru_cache(maxsize=40)
@torch.inference_mode(mode=False)
def interpolation(size: int, cells: int, span: float, radius_px: int, device: torch.device) -> Tensor:
    """Weights of the cells of one axis at every pixel, averaged over the pixels within a radius.

    The center of pixel i lies at (i + 1/2) span / size - 1/2 between the centers of cells, as in torch's
    bilinear interpolation with `align_corners=False`; beyond the outermost centers they go on unchanged.

    Returns:
        (size, cells) float32; rows sum to 1.
    """
    pixels = torch.arange(size, device=device)
    at = ((pixels + 0.5) * (span / size) - 0.5).clamp_(0, cells - 1)
    weights = (1 - (at[:, None] - torch.arange(cells, device=device)).abs_()).clamp_min_(0)
    if radius_px == 0:
        return weights
    sums = pad(weights.double().cumsum(dim=0), (0, 0, 1, 0))
    start, stop = (pixels - radius_px).clamp_min_(0), (pixels + radius_px + 1).clamp_max_(size)
    return ((sums[stop] - sums[start]) / (stop - start)[:, None]).float()


def window_means(values: Tensor, radius_px: int, *, top: int = 0, bottom: int = 0) -> Tensor:
    """Mean over the (2 r + 1)^2 window of each value, of those values that are there.

    Args:
        values: (h, w).
        radius_px: r >= 0.
        top: First rows that are there for others' windows only, 0..r.
        bottom: Last rows that are there for others' windows only, 0..r.

    Returns:
        (h - top - bottom, w).
    """
    r, width = radius_px, 2 * radius_px + 1
    rows, columns = (torch.ones(size, device=values.device) for size in values.shape)
    n_down = window_sums(pad(rows, (r - top, r - bottom)), width, dim=0)
    n_across = window_sums(pad(columns, (r, r)), width, dim=0)
    sums = window_sums(pad(values, (r, r, r - top, r - bottom)), width, dim=0)
    return window_sums(sums, width, dim=1).div_(n_down[:, None]).div_(n_across)


def window_sums(values: Tensor, width: int, dim: int) -> Tensor:
    """Sums of `width` neighbours along an axis, which shrinks by width - 1.

    Sums of 1, 2, 4 ... neighbours are made of one another and put together as the bits of `width` say: few
    passes, and no large numbers that cancel as in differences of cumulative sums.
    """
    length = values.shape[dim] - width + 1
    found: Tensor | None = None
    doubled, n, start = values, 1, 0
    while True:
        if width & n:
            part = doubled.narrow(dim, start, length)
            found = part if found is None else found + part
            start += n
        if 2 * n > width:
            assert found is not None
            return found
        left = doubled.shape[dim] - n
        doubled = doubled.narrow(dim, 0, left) + doubled.narrow(dim, n, left)
        n *= 2


def region_maxima(scores: Tensor, region_px: int) -> Tensor:
    """Largest score of each region of a grid from the top left; those at the far borders may be smaller.

    Args:
        scores: (h, w), >= 0.
        region_px: Side of a region.

    Returns:
        (ceil(h / side), ceil(w / side)).
    """
    return max_pool2d(scores[None], region_px, stride=region_px, ceil_mode=True)[0]


def image_scores(
    score: Callable[[range], Tensor], image_hw: tuple[int, int], region_px: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scores of an image from those of its pixels, computed a band of rows at a time.

    Args:
        score: From rows of the image to (rows, width) scores.
        image_hw: Height and width (px) of the image.
        region_px: Side of the regions.
        device: Where scores are computed.

    Returns:
        Mean of the regions' maxima (Eq. 5), and mean of all pixels, each of shape ().
    """
    height, width = image_hw
    band = region_px * max(1, BAND_PX[device.type] // (width * region_px))
    maxima, sums = [], []
    for start in range(0, height, band):
        scores = score(range(start, min(start + band, height)))
        maxima.append(region_maxima(scores, region_px))
        sums.append(scores.sum(dtype=torch.float64))
    return torch.cat(maxima).mean(), torch.stack(sums).sum() / (height * width)
