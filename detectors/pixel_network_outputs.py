"""The pixel network's probabilities as detections: a fixed box round every local maximum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.models.detection.image_list import ImageList

from detectors.head_outputs import HeadOutputs, finite_by_image
from detectors.pixel_network import PixelNetwork, at_image_size

MOST_CANDIDATES_PER_BLOCK = 1000


def forward_pixel_network(model: PixelNetwork, images: ImageList) -> PixelNetworkOutputs:
    """Backbone and head of a `PixelNetwork` in evaluation mode."""
    pyramid = model.backbone(images.tensors)
    return PixelNetworkOutputs(model, images, pyramid, model.head(list(pyramid.values())))


class PixelNetworkOutputs(HeadOutputs):
    """Outputs of a `PixelNetwork`; a row is a cell of a block, block by block from the finest.

    The paper does not say how probabilities become boxes. Here a cell whose logit no neighbour (3 x 3) of its
    block and class exceeds is a candidate for the block's box of the class round its center; non-maximum
    suppression does the rest. Logits between cells are interpolated, so a map at image size has its maxima at
    cells too. If all pixels were candidates, one large object would take all places of a block.

    Args:
        model: The network.
        images: Its input.
        pyramid: The backbone's maps by name.
        logits: (b, K, h, w) of every block at its own stride.
    """

    most_per_group = MOST_CANDIDATES_PER_BLOCK

    def __init__(
        self, model: PixelNetwork, images: ImageList, pyramid: Mapping[str, Tensor], logits: Sequence[Tensor]
    ) -> None:
        super().__init__(images, pyramid)
        self.head: Any = model.head
        self.box_sizes_hw = model.box_sizes_hw
        self.levels = [level.float() for level in logits]
        centers, blocks = [], []
        for block, level in enumerate(self.levels):
            centers.append(_cell_centers_yx(level, images.tensors.shape[-2:]))
            blocks.append(torch.full((len(centers[-1]),), block, device=level.device))
        self.centers_yx, self.block = torch.cat(centers), torch.cat(blocks)

    def scores(self, image: int) -> Tensor:
        """(cells, K): the probability where it is a local maximum of the image, else 0."""
        size_hw = torch.tensor(self.images.image_sizes[image], device=self.centers_yx.device)
        inside = (self.centers_yx < size_hw).all(dim=1)
        found = []
        start = 0
        for level in self.levels:
            own = level[image]
            end = start + own[0].numel()
            seen = own.masked_fill(~inside[start:end].view_as(own[0]), -torch.inf)
            highest = max_pool2d(seen, kernel_size=3, stride=1, padding=1)
            found.append(torch.where(seen == highest, torch.sigmoid(seen), 0).flatten(1))
            start = end
        return torch.cat(found, dim=1).T

    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4): the block's box of the class, round the center of the cell."""
        y, x = self.centers_yx[row].unbind(dim=1)
        half_h, half_w = (self.box_sizes_hw[self.block[row], column] / 2).unbind(dim=1)
        return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=1)

    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K)."""
        return torch.cat([level[image].flatten(1) for level in self.levels], dim=1)[:, row].T

    def features(self, image: int, row: Tensor) -> Tensor:
        """(n, 128): what the logits layer sees of the cell."""
        maps = self.head.features([level[image : image + 1].float() for level in self.pyramid.values()])
        return torch.cat([level[0].flatten(1) for level in maps], dim=1)[:, row].T

    def foreground_maps(self) -> list[Tensor]:
        """One (b, h, w) a block at the size of the input: the probability of the likeliest class."""
        size_hw = self.images.tensors.shape[-2:]
        return [torch.sigmoid(at_image_size(level, size_hw).amax(dim=1)) for level in self.levels]

    def finite(self) -> Tensor:
        """(b,) bool, over all logits."""
        return torch.stack([finite_by_image(level) for level in self.levels]).all(dim=0)

    def group(self, row: Tensor, column: Tensor) -> Tensor:
        """The block of each row."""
        return self.block[row]


def _cell_centers_yx(level: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(cells, 2) y and x (px of the input) of a map's cells, row by row."""
    y, x = (
        (torch.arange(cells, device=level.device) + 0.5) * (pixels / cells)
        for cells, pixels in zip(level.shape[-2:], size_hw, strict=True)
    )
    return torch.cartesian_prod(y, x)
