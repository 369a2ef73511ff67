"""Detections of torchvision's R-CNN family, with the class logits of the very proposal that was kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import (
    batched_nms,
    clip_boxes_to_image,
    remove_small_boxes,
)

from detectors.detections import Detections, detections_in_original_px
from detectors.thresholds import KeepThresholds

SMALLEST_SIDE_PX = 1e-2


def detect_rcnn(
    model: Any, images: Any, original_hw: list[tuple[int, int]], keep: KeepThresholds, *, features: bool
) -> list[Detections]:
    """Detections of one batch by a two-stage detector; masks and keypoints are not computed.

    Post-processing is torchvision's `RoIHeads.postprocess_detections` (per-class boxes, score threshold,
    class-wise NMS, best first) with our thresholds, save that a score equal to `eta0` is kept and that every
    kept box remembers its proposal.

    Args:
        model: `FasterRCNN` or a subclass, in evaluation mode.
        images: `ImageList` of the model's own transform.
        original_hw: Height and width (px) of every original image.
        keep: Thresholds.
        features: Also return the box head's output (n, D) for each kept box.

    Returns:
        One `Detections` an image; logits (n, K + 1), column 0 background, softmax of them is the score.
    """
    maps = model.backbone(images.tensors)
    proposals, _ = model.rpn(images, maps)
    heads = model.roi_heads
    pooled = heads.box_head(heads.box_roi_pool(maps, proposals, images.image_sizes))
    logits, deltas = heads.box_predictor(pooled)
    boxes = heads.box_coder.decode(deltas, proposals)
    counts = [len(p) for p in proposals]
    detections = []
    for image_boxes, image_logits, image_pooled, input_hw, image_hw in zip(
        boxes.split(counts), logits.split(counts), pooled.split(counts), images.image_sizes, original_hw,
        strict=True,
    ):  # fmt: skip
        kept, scores, labels, proposal = _kept_boxes(image_boxes, image_logits, input_hw, keep)
        detections.append(
            detections_in_original_px(
                kept, scores, labels, image_logits[proposal], image_pooled[proposal] if features else None,
                input_hw=input_hw, original_hw=image_hw,
            )
        )  # fmt: skip
    return detections


def _kept_boxes(
    boxes_xyxy: Tensor, logits: Tensor, input_hw: tuple[int, int], keep: KeepThresholds
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (n, 4), scores (n,), labels (n,) and proposal indices (n,) kept of (p, C, 4) boxes."""
    scores = torch.softmax(logits, dim=-1)
    proposal, column = torch.where(scores[:, 1:] >= keep.eta0)
    labels = column + 1
    scores = scores[proposal, labels]
    boxes = clip_boxes_to_image(boxes_xyxy[proposal, labels], input_hw)
    large = remove_small_boxes(boxes, SMALLEST_SIDE_PX)
    boxes, scores, labels, proposal = boxes[large], scores[large], labels[large], proposal[large]
    best = batched_nms(boxes, scores, labels, keep.nms_iou)[: keep.detections_per_image]
    return boxes[best], scores[best], labels[best], proposal[best]
