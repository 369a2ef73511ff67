"""torchvision's R-CNN family: proposals first, then a softmax for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from detectors.head_outputs import HeadOutputs, finite_by_image, float32_grids


def forward_rcnn(model: Any, images: ImageList) -> RcnnOutputs:
    """Backbone, proposals and box head of a `FasterRCNN` or a subclass in evaluation mode.

    Masks and keypoints are not computed. Proposals are decoded and suppressed in float32 whatever the
    precision of the network: a bfloat16 coordinate of 1000 px is off by up to 4.
    """
    pyramid = model.backbone(images.tensors)
    objectness, deltas = model.rpn.head(list(pyramid.values()))
    proposals = _proposals(model.rpn, images, objectness, deltas)
    heads = model.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(pyramid, proposals, images.image_sizes))
    logits, box_deltas = heads.box_predictor(pooled)
    return RcnnOutputs(
        images,
        pyramid,
        objectness=objectness,
        proposals_xyxy=proposals,
        raw={"logits": logits, "deltas": box_deltas, "features": pooled},
        box_coder=heads.box_coder,
    )


def _proposals(rpn: Any, images: ImageList, objectness: list[Tensor], deltas: list[Tensor]) -> list[Tensor]:
    """Boxes (p, 4) of each image; the rest of torchvision's `RegionProposalNetwork.forward`."""
    anchors = rpn.anchor_generator(images, float32_grids(objectness))
    per_level = [level[0].numel() for level in objectness]
    flat_objectness, flat_deltas = concat_box_prediction_layers(
        [level.float() for level in objectness], [level.float() for level in deltas]
    )
    boxes = rpn.box_coder.decode(flat_deltas, anchors).view(len(anchors), -1, 4)
    kept: list[Tensor] = rpn.filter_proposals(boxes, flat_objectness, images.image_sizes, per_level)[0]
    return kept


class RcnnOutputs(HeadOutputs):
    """Outputs of a two-stage detector; a row is a proposal, every class moves it in its own way.

    Args:
        images: The network's input.
        pyramid: The backbone's maps by name.
        objectness: The proposal network's logits, one (b, a, h, w) a level.
        proposals_xyxy: (p, 4) of each image, px of the input.
        raw: `logits` (p, K + 1) with background first, `deltas` (p, 4 (K + 1)) and `features` (p, D), the
            box head's output, of all images' proposals one after another.
        box_coder: Turns deltas into boxes.
    """

    smallest_side_px = 1e-2

    def __init__(
        self,
        images: ImageList,
        pyramid: Mapping[str, Tensor],
        *,
        objectness: list[Tensor],
        proposals_xyxy: list[Tensor],
        raw: Mapping[str, Tensor],
        box_coder: Any,
    ) -> None:
        super().__init__(images, pyramid)
        self._objectness = objectness
        self._proposals_xyxy = proposals_xyxy
        counts = [len(proposals) for proposals in proposals_xyxy]
        self._raw = {name: torch.split(values, counts) for name, values in raw.items()}
        self._box_coder = box_coder

    def scores(self, image: int) -> Tensor:
        """(proposals, K)."""
        return torch.softmax(self._raw["logits"][image].float(), dim=-1)[:, 1:]

    def boxes_xyxy(self, image: int, row: Tensor, column: Tensor) -> Tensor:
        """(n, 4)."""
        deltas = self._raw["deltas"][image]
        of_class = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[row, column + 1].float()
        boxes: Tensor = self._box_coder.decode_single(of_class, self._proposals_xyxy[image][row])
        return boxes

    def logits(self, image: int, row: Tensor) -> Tensor:
        """(n, K + 1), background first."""
        return self._raw["logits"][image][row].float()

    def features(self, image: int, row: Tensor) -> Tensor | None:
        """(n, D): the box head's output for each proposal."""
        return self._raw["features"][image][row].float()

    def finite(self) -> Tensor:
        """(b,) bool, over the proposal network's logits and the box head's outputs."""
        proposed = torch.stack([finite_by_image(level) for level in self._objectness]).all(dim=0)
        chosen = [
            torch.stack([torch.isfinite(self._raw[name][image]).all() for name in ("logits", "deltas")]).all()
            for image in range(len(self._proposals_xyxy))
        ]
        return proposed & torch.stack(chosen)

    def foreground_maps(self) -> list[Tensor]:
        """One (b, h, w) a level, finest first: the proposal network's most probable anchor of each cell."""
        return [torch.sigmoid(level.float().amax(dim=1)) for level in self._objectness]
