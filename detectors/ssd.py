"""torchvision's SSDs: one softmax per default box, on images of one fixed size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detectors.dense_heads import DenseOutputs


def forward_ssd(model: Any, images: ImageList) -> SsdOutputs:
    """Backbone and head of an `SSD` in evaluation mode."""
    pyramid = model.backbone(images.tensors)
    return SsdOutputs(model, images, pyramid, model.head(list(pyramid.values())))


class SsdOutputs(DenseOutputs):
    """Outputs of an SSD; scores are the softmax over K classes and background, column 0.

    The best `topk_candidates` of a class, not of a level, go into non-maximum suppression. Boxes have no
    features: the channels of the levels differ in number and in meaning, so vectors of boxes found on
    different levels could not be compared. Unlike torchvision, boxes that clipping leaves without area are
    dropped.
    """

    def scores(self, image: int) -> Tensor:
        """(anchors, K)."""
        return torch.softmax(self.raw["cls_logits"][image].float(), dim=-1)[:, 1:]

    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4); the same for every class."""
        deltas = self.raw["bbox_regression"][image][row].float()
        boxes: Tensor = self.box_coder.decode_single(deltas, self.anchors_xyxy[row])
        return boxes

    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K + 1), background first."""
        return self.raw["cls_logits"][image][row].float()

    def features(self, image: int, row: Tensor) -> Tensor | None:
        """None."""
        return None

    def group(self, row: Tensor, column: Tensor) -> Tensor:
        """The class."""
        return column

    def foreground(self) -> Tensor:
        """(b, anchors): 1 - P(background)."""
        return 1 - torch.softmax(self.raw["cls_logits"].float(), dim=-1)[..., 0]
