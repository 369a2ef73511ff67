"""Which boxes of a batch are kept, and their way from the device to aligned arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from detectors.detections import Detections
from detectors.head_outputs import HeadOutputs
from detectors.outputs import Outputs
from detectors.thresholds import KeepThresholds


@dataclass(frozen=True)
class _KeptBoxes:
    """Aligned tensors of one image, best first; boxes in px of the network's input."""

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    row: Tensor


def batch_detections(
    raw: HeadOutputs,
    original_hw: Sequence[tuple[int, int]],
    keep: KeepThresholds,
    outputs: Outputs,
    pixel_scores: Sequence[dict[str, float]] | None = None,
) -> list[Detections]:
    """Detections of every image of a batch.

    Post-processing is torchvision's own (threshold, clipping, class-wise non-maximum suppression, best
    first) with our thresholds, save that a score equal to `eta0` is kept, that boxes without area go, and
    that every kept box remembers the proposal or anchor it came from.

    Args:
        raw: What the network said of the batch.
        original_hw: Height and width (px) of each image as it came.
        keep: Thresholds.
        outputs: What detections carry beside boxes, scores and labels.
        pixel_scores: Handed through, one mapping an image.

    Returns:
        One `Detections` an image, in px of the image as it came.
    """
    kept = [_kept_boxes(raw, image, keep) for image in range(len(original_hw))]
    aligned = _aligned_arrays(raw, kept, outputs)
    image_features = raw.image_features().cpu().numpy() if outputs.image_feature else None
    maps = [level.cpu().numpy() for level in raw.foreground_maps()] if outputs.maps else None
    detections = []
    for i, image_hw in enumerate(original_hw):
        arrays = {name: by_image[i] for name, by_image in aligned.items()}
        boxes = _in_original_px(arrays["boxes_xyxy"], raw.images.image_sizes[i], image_hw)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        detections.append(
            Detections(
                **{name: values[solid] for name, values in {**arrays, "boxes_xyxy": boxes}.items()},
                image_feature=None if image_features is None else image_features[i],
                maps=None if maps is None else _unpadded_maps(raw, i, maps),
                pixel_scores=None if pixel_scores is None else pixel_scores[i],
            )
        )
    return detections


def _kept_boxes(raw: HeadOutputs, image: int, keep: KeepThresholds) -> _KeptBoxes:
    scores = raw.scores(image)
    row, column = torch.where(scores >= keep.eta0)
    scores = scores[row, column]
    boxes = clip_boxes_to_image(raw.boxes_xyxy(image, row, column), raw.images.image_sizes[image])
    usable = (boxes[:, 2:] - boxes[:, :2] >= raw.smallest_side_px).all(dim=1)
    if raw.most_per_group is not None and len(scores) > raw.most_per_group:
        usable &= best_of_each_group(scores, raw.group(row, column), raw.most_per_group)
    # Each use of a mask as an index waits for the device: one for all tests.
    chosen = usable.nonzero().squeeze(1)
    boxes, scores, row, labels = boxes[chosen], scores[chosen], row[chosen], column[chosen] + 1
    best = batched_nms(boxes, scores, labels, keep.nms_iou)[: keep.detections_per_image]
    return _KeptBoxes(boxes[best], scores[best], labels[best], row[best])


def best_of_each_group(scores: Tensor, group: Tensor, most: int) -> Tensor:
    """Which elements are among the best of their group.

    Args:
        scores: (n,) float.
        group: (n,) int.
        most: Elements of each group that pass.

    Returns:
        (n,) bool; among equal scores the first ones pass.
    """
    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[group[by_score].argsort(stable=True)]
    in_order = group[order]
    place = torch.arange(len(order), device=order.device) - torch.searchsorted(in_order, in_order)
    passes = torch.empty_like(order, dtype=torch.bool)
    passes[order] = place < most
    return passes


def _aligned_arrays(
    raw: HeadOutputs, kept: Sequence[_KeptBoxes], outputs: Outputs
) -> dict[str, list[NDArray[Any]]]:
    """What detections hold of each box, by field and image, through one transfer a field."""
    tensors: dict[str, list[Tensor]] = {
        "boxes_xyxy": [found.boxes_xyxy for found in kept],
        "scores": [found.scores for found in kept],
        "labels": [found.labels for found in kept],
    }
    if outputs.logits:
        tensors["logits"] = [raw.logits(image, found.row) for image, found in enumerate(kept)]
    if outputs.features:
        features = [raw.features(image, found.row) for image, found in enumerate(kept)]
        present = [values for values in features if values is not None]
        if present:
            tensors["features"] = present
    ends = np.cumsum([len(found.scores) for found in kept])
    return {
        name: np.split(torch.cat(by_image).cpu().numpy(), ends[:-1]) for name, by_image in tensors.items()
    }


def _in_original_px(
    boxes_xyxy: NDArray[np.float32], input_hw: tuple[int, int], original_hw: tuple[int, int]
) -> NDArray[np.float32]:
    scale_y, scale_x = (original / resized for original, resized in zip(original_hw, input_hw, strict=True))
    boxes = boxes_xyxy * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    height, width = original_hw
    clipped: NDArray[np.float32] = boxes.clip(0, np.array([width, height, width, height], np.float32))
    return clipped


def _unpadded_maps(
    raw: HeadOutputs, image: int, maps: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], ...]:
    cropped = []
    for level in maps:
        height, width = raw.unpadded_hw(image, (level.shape[1], level.shape[2]))
        cropped.append(np.ascontiguousarray(level[image, :height, :width]))
    return tuple(cropped)
