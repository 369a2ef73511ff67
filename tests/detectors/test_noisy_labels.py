"""The loss of partly labeled images: equation 3 by hand and by loops, and torchvision's own without noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou

from conf.errors import QuarryError
from detectors.architectures import build_model, head_kind
from detectors.noisy_labels import NOISY, assigned_to_noisy, dampen_noisy_labels
from detectors.pixel_network import PixelNetwork
from detectors.pixel_network_loss import sampled_logistic_loss
from tests.detectors.tiny_detectors import random_images

ARCHITECTURES = ("small_fasterrcnn", "small_retinanet", "pixel_network")
BOXES = torch.tensor([[8.0, 8.0, 30.0, 28.0], [40.0, 12.0, 62.0, 40.0], [60.0, 44.0, 76.0, 60.0]])
LABELS = torch.tensor([1, 2, 1])
SIZES = torch.tensor([[[12.0, 12.0]] * 2, [[16.0, 16.0]] * 2, [[20.0, 22.0]] * 2, [[28.0, 22.0]] * 2,
                      [[40.0, 40.0]] * 2])  # fmt: skip


def new_model(architecture: str, noisy_weight: float | None = None) -> Any:
    """The same random weights for every call; none: as it is without `dampen_noisy_labels`."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build_model(architecture, n_classes=2, min_size=64, max_size=96)
    if isinstance(model, PixelNetwork):
        model.box_sizes_hw.copy_(SIZES)
    if noisy_weight is not None:
        dampen_noisy_labels(model, noisy_weight)
    return model


def target(noisy: list[bool]) -> dict[str, Tensor]:
    n = len(noisy)
    return {"boxes": BOXES[:n], "labels": LABELS[:n], "noisy": torch.tensor(noisy, dtype=torch.bool)}


MIXED = [target([False, True, True]), target([]), target([True, True])]


def losses(model: Any, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    pixels = random_images([(64, 96)] * len(targets))
    images = [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in pixels]
    torch.manual_seed(11)
    found: dict[str, Tensor] = model(images, targets)
    return found


# --- all architectures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_noisy_boxes_losses_and_draws_are_the_models_own(architecture: str) -> None:
    targets = [target([False] * 3), target([]), target([False])]
    plain = losses(new_model(architecture), targets)
    drawn = torch.get_rng_state()
    dampened = losses(new_model(architecture, 0.3), targets)
    assert {k: v.item() for k, v in dampened.items()} == {k: v.item() for k, v in plain.items()}
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_affine_in_the_weight(architecture: str) -> None:
    by_weight = {w: losses(new_model(architecture, w), MIXED) for w in (0.0, 0.3, 1.0)}
    for name, ignored in by_weight[0.0].items():
        full = by_weight[1.0][name]
        assert full > ignored + 1e-3, name
        torch.testing.assert_close(by_weight[0.3][name], ignored + 0.3 * (full - ignored))


class IgnoringMatcher:
    """torchvision's matcher, after which anchors of noisy boxes are between the thresholds."""

    BELOW_LOW_THRESHOLD, BETWEEN_THRESHOLDS = -1, -2

    def __init__(self, matcher: Matcher, targets: list[dict[str, Tensor]]) -> None:
        self.matcher = matcher
        self.flags = iter([t["noisy"].tolist() for t in targets if len(t["noisy"])])

    def __call__(self, quality: Tensor) -> Tensor:
        noisy = next(self.flags)
        matched = self.matcher(quality).tolist()
        return torch.tensor([-2 if m >= 0 and noisy[m] else m for m in matched])


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
def test_at_weight_0_anchors_of_noisy_boxes_are_ignored_not_background(architecture: str) -> None:
    found = losses(new_model(architecture, 0.0), MIXED)
    plain = new_model(architecture)
    for part in (plain.rpn, plain.roi_heads) if architecture == "small_fasterrcnn" else (plain,):
        part.proposal_matcher = IgnoringMatcher(part.proposal_matcher, MIXED)
    expected = losses(plain, MIXED)
    background = [{k: v[~t["noisy"]] for k, v in t.items()} for t in MIXED]
    without = losses(new_model(architecture), background)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])
    assert not np.isclose(sum(v.item() for v in found.values()), sum(v.item() for v in without.values()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize(
    "flags",
    [[[]], [[True]], [[True, True, True], [True]], [[], [True, False]]],
    ids=["no box", "one noisy box", "noisy boxes only", "with an empty image"],
)
def test_losses_and_gradients_are_finite(architecture: str, weight: float, flags: list[list[bool]]) -> None:
    model = new_model(architecture, weight)
    sum(losses(model, [target(noisy) for noisy in flags]).values()).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 10 and all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_kind_and_predictions_stay(architecture: str) -> None:
    plain, dampened = new_model(architecture), new_model(architecture, 0.5)
    assert list(plain.state_dict()) == list(dampened.state_dict())
    assert type(plain) is type(dampened) and head_kind(plain) == head_kind(dampened)
    if architecture == "pixel_network":
        return
    image = torch.from_numpy(random_images([(64, 96)])[0]).permute(2, 0, 1) / 255
    with torch.no_grad():
        one, other = plain.eval()([image])[0], dampened.eval()([image])[0]
    assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))
    assert isinstance(dampened, (FasterRCNN, RetinaNet))


def test_other_models_are_refused() -> None:
    with pytest.raises(QuarryError, match="expected a FasterRCNN, RetinaNet or PixelNetwork, got a Linear"):
        dampen_noisy_labels(torch.nn.Linear(2, 2), 0.5)


def test_assigned_to_noisy_by_hand() -> None:
    matched = torch.tensor([0, 1, -1, -2, 1])
    assert assigned_to_noisy(matched, torch.tensor([False, True])).tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert assigned_to_noisy(matched, torch.tensor([True, False])).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]
    none = torch.zeros(0, dtype=torch.bool)
    assert assigned_to_noisy(torch.tensor([-1, -2]), none).tolist() == [False, False]


# --- RetinaNet -------------------------------------------------------------------------------------------


def focal(logit: float, positive: bool) -> float:
    """Lin et al. (2017), equation 5, with alpha 0.25 and gamma 2."""
    p = 1 / (1 + np.exp(-logit))
    p_true, alpha = (p, 0.25) if positive else (1 - p, 0.75)
    return float(-alpha * (1 - p_true) ** 2 * np.log(p_true))


def test_retinanet_against_loops() -> None:
    """Each image: labeled and background anchors over the count of labeled ones, noisy over theirs."""
    random = torch.Generator().manual_seed(5)
    weight = 0.4
    matched = [torch.tensor([0, 0, 1, 2, 2, 2, -1, -1, -2]), torch.tensor([-1] * 9),
               torch.tensor([0, 1, 1, -1, -2, -1, -1, -1, -1])]  # fmt: skip
    targets = [target([False, True, True]), target([]), target([True, True])]
    corners = torch.rand(3, 9, 2, generator=random) * 40
    anchors = list(torch.cat([corners, corners + 10], dim=-1))
    outputs = {"cls_logits": torch.randn(3, 9, 3, generator=random),
               "bbox_regression": torch.randn(3, 9, 4, generator=random)}  # fmt: skip
    found = new_model("small_retinanet", weight).head.compute_loss(targets, outputs, anchors, matched)
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    expected = {"classification": 0.0, "bbox_regression": 0.0}
    for i, of_image in enumerate(targets):
        sums = {(name, noisy): 0.0 for name in expected for noisy in (False, True)}
        counts = {False: 0, True: 0}
        for a, m in enumerate(matched[i].tolist()):
            if m == -2:
                continue
            noisy = m >= 0 and bool(of_image["noisy"][m])
            label = int(of_image["labels"][m]) if m >= 0 else None
            logits = outputs["cls_logits"][i, a].tolist()
            sums["classification", noisy] += sum(focal(z, k == label) for k, z in enumerate(logits))
            if m >= 0:
                counts[noisy] += 1
                aim = coder.encode_single(of_image["boxes"][m][None], anchors[i][a][None])[0]
                moved = outputs["bbox_regression"][i, a]
                sums["bbox_regression", noisy] += (moved - aim).abs().sum().item()
        for (name, noisy), value in sums.items():
            expected[name] += (weight if noisy else 1.0) * value / max(1, counts[noisy]) / len(targets)
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-5)


# --- Faster R-CNN ----------------------------------------------------------------------------------------


def smooth_l1(difference: float) -> float:
    size, beta = abs(difference), 1 / 9
    return size**2 / (2 * beta) if size < beta else size - beta / 2


def test_proposal_loss_against_loops() -> None:
    """So few anchors that the sampler takes all: means over 3 labeled and background ones, and
    2 noisy times the share of positives, a half."""
    labels = [torch.tensor([1.0, 0.0, NOISY, -1.0]), torch.tensor([0.0, -1.0, NOISY, -1.0])]
    logits, deltas, aims = torch.randn(8, 1), torch.randn(8, 4), torch.randn(8, 4)
    rpn = new_model("small_fasterrcnn", 0.4).rpn
    found, moved = rpn.compute_loss(logits, deltas, labels, list(aims.split(4)))
    entropy = [np.log1p(np.exp(-logits[i].item())) for i in range(8)]
    off = [sum(smooth_l1(d) for d in (deltas[i] - aims[i]).tolist()) for i in range(8)]
    background = entropy[1] + logits[1].item() + entropy[4] + logits[4].item()
    assert found.item() == pytest.approx((entropy[0] + background) / 3 + 0.2 * (entropy[2] + entropy[6]) / 2)
    assert moved.item() == pytest.approx(off[0] / 3 + 0.2 * (off[2] + off[6]) / 2)
    only = [torch.tensor([NOISY, -1.0, -1.0, -1.0]), torch.full((4,), -1.0)]
    found, moved = rpn.compute_loss(logits, deltas, only, list(aims.split(4)))
    assert (found.item(), moved.item()) == pytest.approx((0.2 * entropy[0], 0.2 * off[0]))


def test_anchors_of_noisy_boxes_are_marked() -> None:
    rpn = new_model("small_fasterrcnn", 0.4).rpn
    anchors = torch.cat([BOXES, BOXES + 3, BOXES + 9, BOXES + 200])
    flags = torch.tensor([False, True, True])
    marked, boxes = rpn.assign_targets_to_anchors([anchors] * 3, MIXED)
    plain, plain_boxes = new_model("small_fasterrcnn").rpn.assign_targets_to_anchors([anchors] * 3, MIXED)
    assert all(torch.equal(one, other) for one, other in zip(boxes, plain_boxes, strict=True))
    of_box = torch.arange(12) % 3
    assert torch.equal(marked[0], torch.where((plain[0] == 1) & flags[of_box], float(NOISY), plain[0]))
    assert (marked[0] == NOISY).sum() == 3 and (marked[0] == 1).sum() == 2
    assert torch.equal(marked[1], torch.zeros(12))
    assert (marked[2] == NOISY).sum() == (plain[2] == 1).sum() > 0


def roi_case(targets: list[dict[str, Tensor]], proposals: list[Tensor]) -> tuple[dict[str, Tensor], Any]:
    """Losses of the box head at weight 0.4, and per image what it saw: proposals, logits and deltas."""
    heads = new_model("small_fasterrcnn", 0.4).roi_heads
    pooled: dict[str, Any] = {}
    heads.box_roi_pool.register_forward_pre_hook(lambda _, inputs: pooled.update(boxes=inputs[1]))
    heads.box_predictor.register_forward_hook(lambda _, inputs, outputs: pooled.update(outputs=outputs))
    random = torch.Generator().manual_seed(8)
    features = {str(k): torch.randn(len(targets), 48, 16 >> k, 24 >> k, generator=random) for k in range(4)}
    found = heads(features, proposals, [(64, 96)] * len(targets), targets)[1]
    counts = [len(boxes) for boxes in pooled["boxes"]]
    logits, deltas = (output.split(counts) for output in pooled["outputs"])
    return found, list(zip(pooled["boxes"], logits, deltas, strict=True))


def roi_losses_by_loops(targets: list[dict[str, Tensor]], seen: Any) -> tuple[dict[str, float], list[int]]:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    sums, counts = np.zeros((2, 2)), [0, 0]
    for of_image, (boxes, logits, deltas) in zip(targets, seen, strict=True):
        for box, logit, delta in zip(boxes, logits, deltas, strict=True):
            iou = box_iou(box[None], of_image["boxes"])[0].tolist()
            best = int(np.argmax(iou)) if iou and max(iou) >= 0.5 else None
            label = 0 if best is None else int(of_image["labels"][best])
            noisy = best is not None and bool(of_image["noisy"][best])
            counts[noisy] += 1
            sums[0, int(noisy)] += torch.logsumexp(logit, dim=0).item() - logit[label].item()
            if best is not None:
                aim = coder.encode_single(of_image["boxes"][best][None], box[None])[0]
                moved = delta.reshape(-1, 4)[label]
                sums[1, int(noisy)] += sum(smooth_l1(d) for d in (moved - aim).tolist())
    means = sums / np.maximum(counts, 1)
    classifier, box_reg = means @ [1.0, 0.4 / 4]
    return {"loss_classifier": classifier, "loss_box_reg": box_reg}, counts


def proposals_round(boxes: Tensor, count: int) -> Tensor:
    return (boxes.repeat(count, 1) + torch.randn(count * len(boxes), 4) * 3).clamp(0, 64)


def test_box_head_loss_against_loops() -> None:
    proposals = [torch.cat([proposals_round(BOXES, 12), torch.rand(80, 4).cumsum(dim=1) * 20])
                 for _ in MIXED]  # fmt: skip
    found, seen = roi_case(MIXED, proposals)
    expected, counts = roi_losses_by_loops(MIXED, seen)
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)
    assert counts[0] == 3 * 64, "the sampler's own number in every image"
    assigned = 0
    for of_image, boxes in zip(MIXED, proposals, strict=True):
        if len(of_image["boxes"]):
            best, box = box_iou(torch.cat([boxes, of_image["boxes"]]), of_image["boxes"]).max(dim=1)
            assigned += int(((best >= 0.5) & of_image["noisy"][box]).sum())
    assert counts[1] == assigned > 20


def test_a_box_head_that_sees_noisy_boxes_only() -> None:
    targets = [target([True])]
    found, seen = roi_case(targets, [BOXES[:1] + 1])
    expected, counts = roi_losses_by_loops(targets, seen)
    assert counts == [0, 2]
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)


# --- pixel network ---------------------------------------------------------------------------------------


def pixel_loss(logits: Tensor, noisy: list[bool], weight: float = 0.4) -> float:
    """5 x 5 objects round pixels (4, 4) and (14, 14) of 20 x 20, the block's own size."""
    boxes = torch.tensor([[2.0, 2.0, 7.0, 7.0], [12.0, 12.0, 17.0, 17.0]])[: len(noisy)]
    of_image = {
        "boxes": boxes,
        "labels": torch.ones(len(noisy), dtype=torch.int64),
        "noisy": torch.tensor(noisy, dtype=torch.bool),
    }
    sizes = torch.tensor([[[5.0, 5.0]]])
    return sampled_logistic_loss(logits, [of_image], sizes, [(20, 20)], weight).item()


def test_pixel_loss_by_hand() -> None:
    """A labeled positive of logit 2, 15 negatives of -1 and, by itself, a noisy positive of 0.5."""
    logits = torch.full((1, 1, 1, 20, 20), -1.0)
    logits[..., 4, 4], logits[..., 14, 14] = 2.0, 0.5
    labeled = (np.log1p(np.exp(-2)) + 15 * np.log1p(np.exp(-1))) / 16
    assert pixel_loss(logits, [False, True]) == pytest.approx(labeled + 0.4 / 16 * np.log1p(np.exp(-0.5)))
    assert pixel_loss(logits, [False, True], weight=0.0) == pytest.approx(labeled)
    background = np.log1p(np.exp(-1))
    noisy = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-0.5))) / 2
    assert pixel_loss(logits, [True, True]) == pytest.approx(background + 0.4 / 16 * noisy)


def test_no_negative_where_a_noisy_object_fits() -> None:
    logits = torch.full((1, 1, 1, 20, 20), -9.0)
    logits[..., 4, 4] = 9.0
    logits[..., 13:16, 13:16] = 50.0
    assert max(pixel_loss(logits, [False, True], weight=0.0) for _ in range(30)) < 0.01
    assert max(pixel_loss(logits, [False], weight=0.0) for _ in range(30)) > 1


def test_a_pixel_loss_of_noisy_positives_only() -> None:
    """The object fits everywhere: no negative is left."""
    of_image = {"boxes": torch.tensor([[0.0, 0.0, 2.0, 2.0]]), "labels": torch.tensor([1])}
    noisy = {**of_image, "noisy": torch.tensor([True])}
    loss = sampled_logistic_loss(
        torch.zeros(1, 1, 1, 2, 2), [noisy], torch.tensor([[[9.0, 9.0]]]), [(2, 2)], 0.4
    )
    assert loss.item() == pytest.approx(0.4 / 16 * np.log(2))
