"""Pixel scores of the images of a batch, from the maps that the network's head made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from conf.errors import QuarryError
from detectors.head_outputs import HeadOutputs
from detectors.outputs import PixelScoring
from detectors.pixel_divergence import (
    LevelMap,
    image_scores,
    mutual_information,
    pixel_divergence,
    pixel_entropy,
)
from detectors.pixel_network import dropout_enabled, dropout_layers

MUTUAL_INFORMATION = "pixel_mutual_information"
DROPOUT_SEED = 0
# Fixed, as the passes' random numbers depend on it; a few images of the usual size fit any device.
PASSES_TOGETHER = 5

Forward = Callable[[Any, ImageList], HeadOutputs]


def pixel_scores(
    raw: HeadOutputs, original_hw: Sequence[tuple[int, int]], scoring: PixelScoring, passes: DropoutPasses
) -> list[dict[str, float]]:
    """Scores of every image of a batch by name; they leave the device in one transfer.

    Args:
        raw: What the network said of the batch.
        original_hw: Height and width (px) of each image as it came: the size that maps are resized to.
        scoring: Which scores, and their radius and regions.
        passes: Of the same network with dropout.

    Returns:
        One mapping an image, in the order of `scoring.names`.
    """
    names, maps = scoring.names, raw.foreground_maps()
    found = []
    for image, image_hw in enumerate(original_hw):
        by_measure = {
            name: image_scores(
                partial(_score_rows, name, levels, image_hw, scoring.radius_px),
                image_hw,
                scoring.region_px,
                raw.images.tensors.device,
            )
            for name, levels in _levels_by_measure(raw, image, maps, scoring, passes).items()
        }
        found += [by_measure[measure_of(name)][name.endswith("_mean")].double() for name in names]
    values = iter(torch.stack(found).tolist())
    return [{name: next(values) for name in names} for _ in original_hw]


def pixel_score_map(
    raw: HeadOutputs, original_hw: tuple[int, int], scoring: PixelScoring, passes: DropoutPasses
) -> Tensor:
    """The score of every pixel of a batch's only image, as `pixel_scores` pools it, for the first name.

    Returns:
        (height, width) float32, nats.
    """
    ((measure, levels),) = _levels_by_measure(raw, 0, raw.foreground_maps(), scoring, passes).items()
    return _score_rows(measure, levels, original_hw, scoring.radius_px, range(original_hw[0]))


def measure_of(name: str) -> str:
    """What a score measures at each pixel, however it is pooled."""
    return name.removesuffix("_mean")


class DropoutPasses:
    """Maps of several passes of a network with its dropout layers at work.

    The passes of an image draw their random numbers from one seed, whatever it is batched with, so that its
    score is the same in every run.

    Args:
        model: The network, in evaluation mode.
        forward: Runs it.
        scoring: How many passes (none: no pass is wanted), and what they drop.

    Raises:
        QuarryError: Passes are wanted of a network that has no dropout layer.
    """

    def __init__(self, model: nn.Module, forward: Forward, scoring: PixelScoring | None) -> None:
        self._model, self._forward = model, forward
        self._n = scoring.passes if scoring else 0
        self._ratio = scoring.dropout_ratio if scoring else None
        if self._n and not dropout_layers(model):
            raise QuarryError(
                f"detector.pixel_scores: {MUTUAL_INFORMATION} compares passes with dropout, and a "
                f"{type(model).__name__} has no dropout layer; use pixel_divergence or pixel_entropy"
            )

    def maps(self, images: ImageList, image: int) -> list[Tensor]:
        """One (T, h, w) a level of one image of a batch."""
        devices = [images.tensors.device] if images.tensors.is_cuda else []
        one = images.tensors[image : image + 1]
        parts: list[list[Tensor]] = []
        with torch.random.fork_rng(devices), dropout_enabled(self._model, self._ratio):
            torch.manual_seed(DROPOUT_SEED)
            for start in range(0, self._n, PASSES_TOGETHER):
                n = min(PASSES_TOGETHER, self._n - start)
                copies = ImageList(one.expand(n, -1, -1, -1), [images.image_sizes[image]] * n)
                parts.append(self._forward(self._model, copies).foreground_maps())
        return [torch.cat(level) for level in zip(*parts, strict=True)]


def _levels_by_measure(
    raw: HeadOutputs, image: int, maps: Sequence[Tensor], scoring: PixelScoring, passes: DropoutPasses
) -> dict[str, list[LevelMap]]:
    """The maps that each measure is taken of, without padding."""
    levels: dict[str, list[LevelMap]] = {}
    for measure in dict.fromkeys(map(measure_of, scoring.names)):
        wants_passes = measure == MUTUAL_INFORMATION
        own = passes.maps(raw.images, image) if wants_passes else [level[image] for level in maps]
        levels[measure] = [_level_map(raw, image, level) for level in own]
    return levels


def _level_map(raw: HeadOutputs, image: int, level: Tensor) -> LevelMap:
    grid_hw = (level.shape[-2], level.shape[-1])
    height, width = raw.unpadded_hw(image, grid_hw)
    return LevelMap(level[..., :height, :width].float(), raw.covered_hw(image, grid_hw))


def _score_rows(
    measure: str, levels: Sequence[LevelMap], image_hw: tuple[int, int], radius_px: int, rows: range
) -> Tensor:
    if measure == MUTUAL_INFORMATION:
        return mutual_information(levels, image_hw, rows)
    if measure == "pixel_entropy":
        return pixel_entropy(levels, image_hw, rows)
    return pixel_divergence(levels, image_hw, radius_px, rows)
