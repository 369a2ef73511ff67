"""Detections of torchvision's RetinaNets, with the class logits of the very anchor that was kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from detectors.detections import Detections, detections_in_original_px
from detectors.thresholds import KeepThresholds


def detect_retinanet(
    model: Any, images: Any, original_hw: list[tuple[int, int]], keep: KeepThresholds
) -> list[Detections]:
    """Detections of one batch by a one-stage detector with sigmoid scores.

    Post-processing is torchvision's `RetinaNet.postprocess_detections` (best `topk_candidates` a level,
    class-wise NMS, best first) with our thresholds, save that a score equal to `eta0` is kept, boxes without
    area and column 0 (background, never trained) are left out, and every kept box remembers its anchor.

    Args:
        model: `RetinaNet`, in evaluation mode, with K + 1 columns.
        images: `ImageList` of the model's own transform.
        original_hw: Height and width (px) of every original image.
        keep: Thresholds.

    Returns:
        One `Detections` an image; logits (n, K), the sigmoid of column label - 1 is the score.
    """
    maps = list(model.backbone(images.tensors).values())
    outputs = model.head(maps)
    anchors = model.anchor_generator(images, maps)
    per_location = model.anchor_generator.num_anchors_per_location()
    level_counts = [m.shape[-2] * m.shape[-1] * a for m, a in zip(maps, per_location, strict=True)]
    detections = []
    for i, (input_hw, image_hw) in enumerate(zip(images.image_sizes, original_hw, strict=True)):
        logits = outputs["cls_logits"][i][:, 1:]
        level_of_best = [
            _best_of_level(level, keep.eta0, model.topk_candidates) for level in logits.split(level_counts)
        ]
        offsets = [sum(level_counts[:level]) for level in range(len(level_counts))]
        anchor = torch.cat([best[0] + offset for best, offset in zip(level_of_best, offsets, strict=True)])
        column = torch.cat([best[1] for best in level_of_best])
        boxes = model.box_coder.decode_single(outputs["bbox_regression"][i][anchor], anchors[i][anchor])
        kept, scores, labels, anchor = _kept_boxes(boxes, logits, anchor, column, input_hw, keep)
        detections.append(
            detections_in_original_px(
                kept, scores, labels, logits[anchor], None, input_hw=input_hw, original_hw=image_hw
            )
        )
    return detections


def _best_of_level(logits: Tensor, eta0: float, most: int) -> tuple[Tensor, Tensor]:
    """Anchor and column indices of the best candidates of one level, from its logits (a, K)."""
    scores = torch.sigmoid(logits).flatten()
    candidates = torch.where(scores >= eta0)[0]
    best = scores[candidates].topk(min(most, len(candidates))).indices
    flat = candidates[best]
    return torch.div(flat, logits.shape[-1], rounding_mode="floor"), flat % logits.shape[-1]


def _kept_boxes(
    boxes_xyxy: Tensor,
    logits: Tensor,
    anchor: Tensor,
    column: Tensor,
    input_hw: tuple[int, int],
    keep: KeepThresholds,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (n, 4), scores (n,), labels (n,) and anchor indices (n,) that survive NMS, best first."""
    boxes = clip_boxes_to_image(boxes_xyxy, input_hw)
    scores = torch.sigmoid(logits[anchor, column])
    solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, scores, column, anchor = boxes[solid], scores[solid], column[solid], anchor[solid]
    best = batched_nms(boxes, scores, column, keep.nms_iou)[: keep.detections_per_image]
    return boxes[best], scores[best], column[best] + 1, anchor[best]
