"""torchvision's RetinaNets: one sigmoid per anchor and class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detectors.dense_heads import DenseOutputs


def forward_retinanet(model: Any, images: ImageList) -> RetinaNetOutputs:
    """Backbone and head of a `RetinaNet` in evaluation mode."""
    pyramid = model.backbone(images.tensors)
    return RetinaNetOutputs(model, images, pyramid, model.head(list(pyramid.values())))


class RetinaNetOutputs(DenseOutputs):
    """Outputs of a RetinaNet; the score is the sigmoid of the class logit.

    torchvision counts labels from 1 here too, so column 0 of the K + 1 is never trained to fire and is left
    out. Unlike torchvision, boxes that clipping leaves without area are dropped.
    """

    def scores(self, image: int) -> Tensor:
        """(anchors, K)."""
        return torch.sigmoid(self.raw["cls_logits"][image, :, 1:].float())

    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4); the same for every class."""
        deltas = self.raw["bbox_regression"][image][row].float()
        boxes: Tensor = self.box_coder.decode_single(deltas, self.anchors_xyxy[row])
        return boxes

    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K)."""
        return self.raw["cls_logits"][image][row, 1:].float()

    def foreground(self) -> Tensor:
        """(b, anchors): the score of the best class."""
        return torch.sigmoid(self.raw["cls_logits"][..., 1:].amax(dim=-1).float())
