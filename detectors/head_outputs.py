"""What every family of detectors says of a batch before any box is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList


class HeadOutputs(ABC):
    """Raw outputs of one batch, turned into scores, boxes and logits where they are asked for.

    A *row* is one proposal (R-CNN) or one anchor (the others) of an image, a *column* one class without
    background, so label - 1. Boxes are in px of the network's input. Whatever precision the network ran in,
    all that is returned is float32.

    Attributes:
        most_per_group: Candidates of a group that go into non-maximum suppression, by falling score; none:
            all of them.
        smallest_side_px: Boxes with a shorter side are dropped before non-maximum suppression.

    Args:
        images: The network's input.
        pyramid: The backbone's maps (b, c, h, w) by name, finest first.
    """

    most_per_group: int | None = None
    smallest_side_px: float = torch.finfo(torch.float32).tiny

    def __init__(self, images: ImageList, pyramid: Mapping[str, Tensor]) -> None:
        self.images = images
        self.pyramid = pyramid

    @abstractmethod
    def scores(self, image: int) -> Tensor:
        """(rows, K) in [0, 1] of one image."""

    @abstractmethod
    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4) of chosen rows and columns; they may reach beyond the image."""

    @abstractmethod
    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K + 1) with background first whose softmax is the score, or (n, K) whose sigmoid is."""

    @abstractmethod
    def features(self, image: int, row: Tensor) -> Tensor | None:
        """(n, D) of chosen rows; none where rows have no features of a common width."""

    @abstractmethod
    def foreground_maps(self) -> list[Tensor]:
        """One (b, h, w) a level, finest first: probability that a cell shows an object of any class."""

    @abstractmethod
    def finite(self) -> Tensor:
        """(b,) bool: whether all the network said of each image is finite; low precision may overflow."""

    def group(self, row: Tensor, column: Tensor) -> Tensor:
        """(n,) int: which candidates compete for the same `most_per_group` places."""
        return torch.zeros_like(row)

    def image_features(self) -> Tensor:
        """(b, F): mean over each image, without padding, of the deepest map straight from the backbone.

        Levels that are made from that one by pooling or further strides ("pool", "p6", "p7") add nothing.
        """
        deepest = [maps for name, maps in self.pyramid.items() if name.isdecimal()][-1]
        means = []
        for image, map_chw in enumerate(deepest):
            height, width = self.unpadded_hw(image, (map_chw.shape[-2], map_chw.shape[-1]))
            means.append(map_chw[:, :height, :width].float().mean(dim=(1, 2)))
        return torch.stack(means)

    def unpadded_hw(self, image: int, grid_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a grid over the padded input whose cells see any part of the image."""
        height, width = (-(-size * cells // padded) for size, padded, cells in self._sides(image, grid_hw))
        return height, width

    def covered_hw(self, image: int, grid_hw: tuple[int, int]) -> tuple[float, float]:
        """How many rows and columns of a grid over the padded input the image spans, parts included."""
        height, width = (size * cells / padded for size, padded, cells in self._sides(image, grid_hw))
        return height, width

    def _sides(self, image: int, grid_hw: tuple[int, int]) -> zip[tuple[int, int, int]]:
        return zip(self.images.image_sizes[image], self.images.tensors.shape[-2:], grid_hw, strict=True)


def finite_by_image(values: Tensor) -> Tensor:
    """(b,) bool of (b, ...): whether all of an image's values are finite."""
    return torch.isfinite(values).flatten(1).all(dim=1)


def float32_grids(maps: list[Tensor]) -> list[Tensor]:
    """Stand-ins of the same shapes for torchvision's anchor generators, which copy the maps' type.

    Anchors in bfloat16 would be off by several px. The stand-ins hold no memory.
    """
    one = maps[0].new_zeros((), dtype=torch.float32)
    return [one.expand(level.shape) for level in maps]
