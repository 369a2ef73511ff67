"""The training loss of partly labeled images, in which boxes that nobody has checked count less.

Source: Desai and Balasubramanian, "Towards Fine-grained Sampling for Active Learning in Object Detection"
(CVPR Workshops 2020), section 3.2, equation 3: L = L_labeled + lambda_d L_noisy, the mean loss over the
anchors assigned to a labeled box plus lambda_d times the mean over those assigned to a noisy one. Which
anchors are assigned to a box, and what the loss of an anchor is, stays torchvision's. The paper leaves open
where background belongs: here to the labeled part, which without noisy boxes is torchvision's whole loss.

In two-stage detectors and the pixel network the labeled mean has background in it: at most a half (proposal
network), a quarter (box head) or a sixteenth (pixel network) of the samples are positive. The noisy mean has
none, so it is taken times that share; without this, at lambda_d = 0.5, a noisy sample would count up to eight
times a labeled one. RetinaNet divides by positive anchors alone and needs no such factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from conf.errors import QuarryError
from detectors.pixel_network import PixelNetwork

# torchvision's samplers take labels of 0 and above; -1 is its own mark of anchors between the thresholds.
IGNORED = -1
NOISY = -2


def dampen_noisy_labels(model: nn.Module, noisy_weight: float) -> None:
    """Make a model train by equation 3; what it predicts and stores does not change.

    From then on every target in training has `noisy`, (m,) bool beside its `boxes` (m, 4): true where nobody
    has checked the box. Without any such box in a batch the losses and the random draws are those of the
    model as it was. Anchors assigned to a noisy box are never background, nor drawn: all of them count.

    Args:
        model: A `FasterRCNN` (but no subclass, which has more losses), `RetinaNet` or `PixelNetwork`, changed
            in place.
        noisy_weight: lambda_d in 0..1; at 0 what is assigned to a noisy box is ignored.

    Raises:
        QuarryError: Any other model.
    """
    # A part becomes another class with the same state: its weights and their names stay as they are.
    parts: list[Any]
    if type(model) is FasterRCNN:
        model.rpn.__class__, model.roi_heads.__class__ = _DampenedProposals, _DampenedRoIHeads
        parts = [model.rpn, model.roi_heads]
    elif isinstance(model, RetinaNet):
        model.head.__class__ = _DampenedRetinaNetHead
        parts = [model.head]
    elif isinstance(model, PixelNetwork):
        parts = [model]
    else:
        raise QuarryError(f"expected a FasterRCNN, RetinaNet or PixelNetwork, got a {type(model).__name__}")
    for part in parts:
        part.noisy_weight = noisy_weight


def assigned_to_noisy(matched: Tensor, noisy: Tensor) -> Tensor:
    """Which anchors of an image are assigned to a noisy box.

    Args:
        matched: (a,) int64, the box of each anchor; below 0 for none.
        noisy: (m,) bool; m may be 0 where no anchor has a box.

    Returns:
        (a,) bool.
    """
    none = noisy.new_zeros(1)
    return torch.cat([noisy, none])[matched.where(matched >= 0, len(noisy))]


class _DampenedRetinaNetHead(RetinaNetHead):  # type: ignore[misc]
    """Means are over the anchors of one image, as torchvision's."""

    noisy_weight: float

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        ignored = Matcher.BETWEEN_THRESHOLDS
        noisy = [assigned_to_noisy(m, t["noisy"]) for m, t in zip(matched_idxs, targets, strict=True)]
        labeled_only = [m.where(~n, ignored) for m, n in zip(matched_idxs, noisy, strict=True)]
        losses: dict[str, Tensor] = super().compute_loss(targets, head_outputs, anchors, labeled_only)
        if any(n.any() for n in noisy):
            noisy_only = [m.where(n, ignored) for m, n in zip(matched_idxs, noisy, strict=True)]
            noisy_losses = super().compute_loss(targets, head_outputs, anchors, noisy_only)
            losses = {name: loss + self.noisy_weight * noisy_losses[name] for name, loss in losses.items()}
        return losses


class _DampenedProposals(RegionProposalNetwork):  # type: ignore[misc]
    """Means are over a batch: of the anchors drawn for the labeled part, and of all noisy ones."""

    noisy_weight: float

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's, with label -2 for anchors of noisy boxes."""
        labels, matched_boxes = super().assign_targets_to_anchors(anchors, targets)
        for i, (anchors_xyxy, target) in enumerate(zip(anchors, targets, strict=True)):
            if target["noisy"].any():
                matched = self.proposal_matcher(self.box_similarity(target["boxes"], anchors_xyxy))
                labels[i] = labels[i].where(~assigned_to_noisy(matched, target["noisy"]), NOISY)
        return labels, matched_boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        all_labels = torch.cat(labels)
        noisy = (all_labels == NOISY).nonzero().squeeze(1)
        losses = []
        if len(noisy) == 0 or (all_labels > IGNORED).any():
            losses.append(super().compute_loss(objectness, pred_bbox_deltas, labels, regression_targets))
        if len(noisy):
            weight = self.noisy_weight * self.fg_bg_sampler.positive_fraction
            logits, deltas = objectness.flatten()[noisy], pred_bbox_deltas[noisy]
            expected = torch.cat(regression_targets)[noisy]
            moved = smooth_l1_loss(deltas, expected, beta=1 / 9, reduction="sum") / len(noisy)
            found = binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            losses.append((weight * found, weight * moved))
        found, moved = (sum(parts) for parts in zip(*losses, strict=True))
        return found, moved


class _DampenedRoIHeads(RoIHeads):  # type: ignore[misc]
    """Means are over a batch: of the proposals drawn for the labeled part, and of all noisy ones.

    Between `select_training_samples` and `forward` a proposal of a noisy box of label k has label -1 - k,
    which torchvision's sampler passes over.
    """

    noisy_weight: float

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if not self.training or targets is None or not any(t["noisy"].any() for t in targets):
            predicted: tuple[Any, Any] = super().forward(features, proposals, image_shapes, targets)
            return predicted
        proposals, _, coded_labels, deltas = self.select_training_samples(proposals, targets)
        outputs = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        expected = torch.cat(coded_labels), torch.cat(deltas)
        noisy = expected[0] < IGNORED
        losses = {"loss_classifier": outputs[0].new_zeros(()), "loss_box_reg": outputs[1].new_zeros(())}
        noisy_weight = self.noisy_weight * self.fg_bg_sampler.positive_fraction
        for part, weight in ((~noisy, 1.0), (noisy, noisy_weight)):
            if part.any():
                labels = expected[0][part]
                labels = labels.where(labels >= 0, IGNORED - labels)
                found, moved = fastrcnn_loss(*(o[part] for o in outputs), [labels], [expected[1][part]])
                losses["loss_classifier"] = losses["loss_classifier"] + weight * found
                losses["loss_box_reg"] = losses["loss_box_reg"] + weight * moved
        return [], losses

    def select_training_samples(self, proposals: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        coded = [{**t, "labels": t["labels"].where(~t["noisy"], IGNORED - t["labels"])} for t in targets]
        return super().select_training_samples(proposals, coded)

    def subsample(self, labels: Sequence[Tensor]) -> list[Tensor]:
        drawn = super().subsample(labels)
        noisy = [(of_image < IGNORED).nonzero().squeeze(1) for of_image in labels]
        return [torch.cat(parts) for parts in zip(drawn, noisy, strict=True)]
