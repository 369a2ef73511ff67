"""What one-stage detectors share: anchors in levels, and a score for every anchor and class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detectors.head_outputs import HeadOutputs, finite_by_image, float32_grids


class DenseOutputs(HeadOutputs):
    """Outputs of a head that looks at every cell of every level; a row is an anchor.

    Anchors are numbered as torchvision does: level by level, there cell by cell, there anchor by anchor.
    The best `topk_candidates` of a level go into non-maximum suppression, as in torchvision's RetinaNet and
    FCOS.

    Args:
        model: torchvision's one-stage detector.
        images: The network's input.
        pyramid: The backbone's maps by name.
        raw: What the head made of them: `cls_logits` (b, anchors, K + 1), `bbox_regression` (b, anchors, 4).
    """

    def __init__(
        self, model: Any, images: ImageList, pyramid: Mapping[str, Tensor], raw: Mapping[str, Tensor]
    ) -> None:
        super().__init__(images, pyramid)
        maps = list(pyramid.values())
        one_image = ImageList(images.tensors, images.image_sizes[:1])
        self.anchors_xyxy: Tensor = model.anchor_generator(one_image, float32_grids(maps))[0]
        self.raw = raw
        self.box_coder = model.box_coder
        self.most_per_group = model.topk_candidates
        self._anchors_per_cell: list[int] = model.anchor_generator.num_anchors_per_location()
        self._levels_hw = [(level.shape[-2], level.shape[-1]) for level in maps]

    def finite(self) -> Tensor:
        """(b,) bool, over all of the head's outputs."""
        return torch.stack([finite_by_image(values) for values in self.raw.values()]).all(dim=0)

    @abstractmethod
    def foreground(self) -> Tensor:
        """(b, anchors): probability that an anchor shows an object of any class."""

    def group(self, row: Tensor, column: Tensor) -> Tensor:
        """The level of each anchor."""
        level = torch.zeros_like(row)
        start = 0
        for count in self._anchor_counts()[:-1]:
            start += count
            level += row >= start
        return level

    def features(self, image: int, row: Tensor) -> Tensor | None:
        """(n, D): the pyramid's map at the cell of each anchor; all levels have the same D channels."""
        cells = torch.cat([level[image].flatten(1) for level in self.pyramid.values()], dim=1)
        cell = torch.div(row, self._anchors_per_cell[0], rounding_mode="floor")
        return cells[:, cell].T.float()

    def foreground_maps(self) -> list[Tensor]:
        """One (b, h, w) a level, finest first: the most probable anchor of each cell."""
        levels = torch.split(self.foreground(), self._anchor_counts(), dim=1)
        return [
            level.reshape(len(level), *grid_hw, per_cell).amax(dim=-1)
            for level, grid_hw, per_cell in zip(levels, self._levels_hw, self._anchors_per_cell, strict=True)
        ]

    def _anchor_counts(self) -> list[int]:
        pairs = zip(self._levels_hw, self._anchors_per_cell, strict=True)
        return [height * width * per_cell for (height, width), per_cell in pairs]
