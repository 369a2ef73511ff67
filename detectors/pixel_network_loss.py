"""The pixel network's training loss: which pixels are samples of what, and the logistic loss over them.

Source: Aghdam et al. (2019), section 4, equation 7: the logistic loss of sampled pixels in every block, with
15 negatives to a positive (N2P). When a pixel "fits" a box, and which pixels are drawn, it leaves open.
Boxes that nobody has checked are dampened as in `detectors.noisy_labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from detectors.pixel_network_boxes import centred_iou

NEGATIVES_TO_POSITIVES = 15
# Of the object's best IoU with any fixed box: at least the first is positive, below the second negative.
POSITIVE_FIT, NEGATIVE_FIT = 0.7, 0.4
# A large object has a thousand fitting pixels where a small one has one; each should weigh about the same.
MOST_POSITIVES_PER_OBJECT = 16
# Negatives are the hardest of so many times as many: most of an image is plain background.
CANDIDATES_PER_NEGATIVE = 4


def sampled_logistic_loss(
    logits: Tensor,
    targets: Sequence[Mapping[str, Tensor]],
    box_sizes_hw: Tensor,
    image_sizes_hw: Sequence[tuple[int, int]],
    noisy_weight: float,
) -> Tensor:
    """Mean logistic loss over sampled pixels of a batch, and over those of its noisy boxes, weighted.

    Args:
        logits: (b, blocks, K, h, w) float32 at the padded input's size.
        targets: `boxes` (m, 4) in px, `labels` (m,) in 1..K and `noisy` (m,) bool of each image; without
            `noisy` all boxes are labeled.
        box_sizes_hw: (blocks, K, 2), px.
        image_sizes_hw: Height and width (px) of each image without padding, which is never sampled.
        noisy_weight: Of positive samples of noisy boxes, relative to those of labeled ones. They bring no
            negatives of their own, so a sixteenth of the mean over them counts, times this weight; they keep
            negatives away as labeled ones do.

    Returns:
        Scalar; samples come from torch's generator.
    """
    values, expected, noisy_values = [], [], []
    for image, target, (height, width) in zip(logits, targets, image_sizes_hw, strict=True):
        inside = image[..., :height, :width]
        samples, box, usable = pixel_samples(target["boxes"], target["labels"], box_sizes_hw, (height, width))
        noisy = target.get("noisy", torch.zeros_like(target["labels"], dtype=torch.bool))[box]
        positive = samples[~noisy]
        flat = inside.reshape(-1)
        negative = hard_negatives(flat, usable.reshape(-1), NEGATIVES_TO_POSITIVES * max(1, len(positive)))
        values += [flat[positive], flat[negative]]
        expected += [torch.ones_like(values[-2]), torch.zeros_like(values[-1])]
        noisy_values.append(flat[samples[noisy]])
    labeled_values, of_noisy = torch.cat(values), torch.cat(noisy_values)
    losses = []
    if len(of_noisy) == 0 or len(labeled_values):
        losses.append(binary_cross_entropy_with_logits(labeled_values, torch.cat(expected)))
    if len(of_noisy):
        weight = noisy_weight / (1 + NEGATIVES_TO_POSITIVES)
        losses.append(weight * binary_cross_entropy_with_logits(of_noisy, torch.ones_like(of_noisy)))
    return torch.stack(losses).sum()


def pixel_samples(
    boxes_xyxy: Tensor, labels: Tensor, box_sizes_hw: Tensor, size_hw: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Positive samples of an image, whose they are, and where negatives may be taken.

    How well a pixel fits an object in a block is the IoU of the block's box round it, as a share of the best
    IoU that any pixel and block reaches: no fixed box may come near an object of unusual shape, yet something
    must find it.

    Args:
        boxes_xyxy: (m, 4) px, with area.
        labels: (m,) in 1..K.
        box_sizes_hw: (blocks, K, 2), px.
        size_hw: Height and width (px) of the image.

    Returns:
        (p,) int64, places in (blocks, K, h, w) made flat of up to 16 random pixels an object whose fit is 0.7
        or more, (p,) int64, the box of each, and (blocks, K, h, w) bool of those whose fit is below 0.4 for
        every object of the class.
    """
    blocks, n_classes = box_sizes_hw.shape[:2]
    usable = torch.ones(blocks, n_classes, *size_hw, dtype=torch.bool, device=box_sizes_hw.device)
    area = size_hw[0] * size_hw[1]
    positive = []
    for box, label in zip(boxes_xyxy, labels.tolist(), strict=True):
        fit = centred_iou(box, box_sizes_hw[:, label - 1], size_hw)
        fit /= fit.max()
        usable[:, label - 1] &= fit < NEGATIVE_FIT
        fitting = (fit >= POSITIVE_FIT).flatten().nonzero().squeeze(1)
        drawn = fitting[torch.randperm(len(fitting), device=fit.device)[:MOST_POSITIVES_PER_OBJECT]]
        block, pixel = torch.div(drawn, area, rounding_mode="floor"), drawn % area
        positive.append((block * n_classes + label - 1) * area + pixel)
    counts = torch.tensor([len(drawn) for drawn in positive], dtype=torch.int64, device=labels.device)
    boxes = torch.arange(len(labels), device=labels.device).repeat_interleave(counts)
    return torch.cat(positive) if positive else labels.new_zeros(0), boxes, usable


def hard_negatives(logits: Tensor, usable: Tensor, count: int) -> Tensor:
    """Places of the `count` highest logits among four times as many usable ones drawn at random.

    Args:
        logits: (n,).
        usable: (n,) bool.
        count: How many; fewer where few are usable.

    Returns:
        (at most count,) int64.
    """
    drawn = torch.randint(len(usable), (CANDIDATES_PER_NEGATIVE * count,), device=usable.device)
    drawn = drawn[usable[drawn]]
    hardest = logits.detach()[drawn].topk(min(count, len(drawn))).indices
    return drawn[hardest]
