"""torchvision's FCOS: one sigmoid per cell and class, tempered by how central the cell is to its object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchvision.models.detection.image_list import ImageList

from detectors.dense_heads import DenseOutputs


def forward_fcos(model: Any, images: ImageList) -> FcosOutputs:
    """Backbone and head of an `FCOS` in evaluation mode."""
    pyramid = model.backbone(images.tensors)
    return FcosOutputs(model, images, pyramid, model.head(list(pyramid.values())))


class FcosOutputs(DenseOutputs):
    """Outputs of an FCOS; the score is sqrt(sigmoid(class logit) * sigmoid(center-ness logit)).

    Column 0 of the K + 1 is never trained to fire and left out, as in RetinaNet. `raw` also has
    `bbox_ctrness` (b, anchors, 1).

    Source: Tian et al., "FCOS: A simple and strong anchor-free object detector", section 3 (the square root);
    torchvision's `FCOS.postprocess_detections`.
    """

    def scores(self, image: int) -> Tensor:
        """(anchors, K)."""
        return _scores(self.raw["cls_logits"][image, :, 1:], self.raw["bbox_ctrness"][image])

    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4); the same for every class."""
        distances = self.raw["bbox_regression"][image][row].float()
        boxes: Tensor = self.box_coder.decode(distances, self.anchors_xyxy[row])
        return boxes

    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K): effective logits, log(p / (1 - p)) of the scores p."""
        return score_logits(
            self.raw["cls_logits"][image][row, 1:].float(), self.raw["bbox_ctrness"][image][row].float()
        )

    def foreground(self) -> Tensor:
        """(b, anchors): the score of the best class."""
        best = self.raw["cls_logits"][..., 1:].amax(dim=-1, keepdim=True)
        return _scores(best, self.raw["bbox_ctrness"]).squeeze(-1)


def score_logits(class_logits: Tensor, centerness_logits: Tensor) -> Tensor:
    """Logit of sqrt(sigmoid(a) * sigmoid(b)), finite for all finite a and b.

    From l = log p = (log sigmoid(a) + log sigmoid(b)) / 2 it is l - log(1 - exp(l)). Where both sigmoids are
    1 in float32, l is taken as the largest number below 0, so that the logit is 87, not infinite.

    Args:
        class_logits: (..., K) float32, a.
        centerness_logits: (..., 1) float32, b.
    """
    log_score = (logsigmoid(class_logits) + logsigmoid(centerness_logits)) / 2
    log_score = log_score.clamp(max=-torch.finfo(log_score.dtype).tiny)
    return log_score - torch.log(-torch.expm1(log_score))


def _scores(class_logits: Tensor, centerness_logits: Tensor) -> Tensor:
    return torch.sqrt(torch.sigmoid(class_logits.float()) * torch.sigmoid(centerness_logits.float()))
