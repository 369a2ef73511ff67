"""Detectors by name: three small ones of our own, and every one of torchvision's."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign

from conf.errors import QuarryError, nearest
from detectors.backbone import PYRAMID_CHANNELS, small_backbone
from detectors.pixel_network import PixelNetwork

Head = Literal["softmax", "sigmoid"]

TORCHVISION_FAMILIES = ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet", "fcos", "ssd")
FIXED_SIZE_FAMILIES = ("ssd",)
SMALL_MIN_SIZE_PX, SMALL_MAX_SIZE_PX = 288, 512
ANCHOR_ASPECTS = (0.5, 1.0, 2.0)
BOX_FEATURES = 128


def known_architectures() -> tuple[str, ...]:
    """Every name `build_model` takes: ours first, then torchvision's of the supported families."""
    return (*_SMALL_BUILDERS, *torchvision_architectures())


def torchvision_architectures() -> tuple[str, ...]:
    """torchvision's builders of detectors, in alphabetical order."""
    names = torchvision.models.list_models(module=torchvision.models.detection)
    return tuple(sorted(n for n in names if n.startswith(TORCHVISION_FAMILIES)))


def build_model(
    architecture: str, *, n_classes: int, min_size: int | None = None, max_size: int | None = None
) -> nn.Module:
    """A detector with random weights in torchvision's conventions; nothing is downloaded.

    Args:
        architecture: One of `known_architectures`.
        n_classes: K, number of classes without background (>= 1); the head has K + 1 columns and label i of
            a detection is column i, for softmax and sigmoid heads alike. A `PixelNetwork` has K columns.
        min_size: Shorter side fed to the model (px); none: the architecture's own.
        max_size: Longer side fed to the model (px); none: the architecture's own. An SSD takes one size
            only, whatever the image's aspect; both arguments may be none or just that.

    Returns:
        A `FasterRCNN`, `RetinaNet`, `FCOS` or `SSD` (or a subclass), or a `PixelNetwork`, in training mode.

    Raises:
        QuarryError: The architecture is unknown (the message names the nearest ones), or an SSD is asked
            for another size than its own.
    """
    require_known(architecture)
    given = {"min_size": min_size, "max_size": max_size}
    sizes = {key: value for key, value in given.items() if value is not None}
    if architecture.startswith(FIXED_SIZE_FAMILIES):
        return _fixed_size_model(architecture, n_classes, sizes)
    if architecture in _SMALL_BUILDERS:
        sizes = {"min_size": SMALL_MIN_SIZE_PX, "max_size": SMALL_MAX_SIZE_PX, **sizes}
        model: nn.Module = _SMALL_BUILDERS[architecture](n_classes + 1, **sizes)
        return model
    return _torchvision_model(architecture, n_classes, **sizes)


def require_known(architecture: str) -> None:
    """Fail unless `architecture` can be built.

    Raises:
        QuarryError: Unknown name; the message names the nearest ones.
    """
    known = known_architectures()
    if architecture not in known:
        raise QuarryError(f"unknown detector architecture {architecture!r}; {nearest(architecture, known)}")


def head_kind(model: nn.Module) -> Head:
    """How logits become scores: `softmax` over K + 1 classes (R-CNN, SSD) or K `sigmoid`s (the others)."""
    return "sigmoid" if isinstance(model, (RetinaNet, FCOS, PixelNetwork)) else "softmax"


def input_size_px(model: nn.Module) -> tuple[int, int]:
    """Shorter and longer side (px) of images at inference: limits, or in an SSD the fixed size."""
    transform: Any = model.transform
    return int(transform.min_size[-1]), int(transform.max_size)


class AntialiasedTransform(GeneralizedRCNNTransform):  # type: ignore[misc]
    """torchvision's input transform with an area-weighted resize, so that large photos do not alias.

    The small detectors are trained on images resized the same way.
    """

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Resize one image (3, h, w); at training time images arrive at their final size already."""
        if self.training:
            return image, target
        size_hw = resized_hw(image.shape[-2], image.shape[-1], self.min_size[-1], self.max_size)
        if size_hw != tuple(image.shape[-2:]):
            image = nn.functional.interpolate(
                image[None], size=size_hw, mode="bilinear", align_corners=False, antialias=True
            )[0]
        return image, target


def resized_hw(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Image size (height, width) in px once the shorter side is `min_size`, or the longer `max_size` if less.

    Same rule as torchvision's `GeneralizedRCNNTransform`: one scale for both sides, sizes rounded down. Sides
    are at least 1 px.
    """
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale)), max(1, int(width * scale))


def _torchvision_model(architecture: str, n_classes: int, **sizes: int) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(
        architecture, weights=None, weights_backbone=None, num_classes=n_classes + 1, **sizes
    )
    return model


def _fixed_size_model(architecture: str, n_classes: int, sizes: dict[str, int]) -> nn.Module:
    model = _torchvision_model(architecture, n_classes)
    own = dict(zip(("min_size", "max_size"), input_size_px(model), strict=True))
    for name, size in sizes.items():
        if size != own[name]:
            raise QuarryError(
                f"{architecture} resizes every image to {own['max_size']}x{own['min_size']} px: {name} "
                f"expected {own[name]} or none, got {size}"
            )
    return model


def _small_fasterrcnn(columns: int, *, min_size: int, max_size: int) -> nn.Module:
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2, canonical_scale=128)
    model = FasterRCNN(
        small_backbone(),
        rpn_anchor_generator=_anchors(((12,), (24,), (48,), (96,), (192,))),
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=200,
        rpn_post_nms_top_n_test=150,
        rpn_fg_iou_thresh=0.5,
        rpn_batch_size_per_image=128,
        box_roi_pool=pool,
        box_head=TwoMLPHead(PYRAMID_CHANNELS * 7 * 7, BOX_FEATURES),
        box_predictor=FastRCNNPredictor(BOX_FEATURES, columns),
        box_batch_size_per_image=64,
    )
    model.transform = _transform(min_size, max_size)
    return model  # type: ignore[no-any-return]


def _small_retinanet(columns: int, *, min_size: int, max_size: int) -> nn.Module:
    anchors = _anchors(((10, 14), (20, 28), (40, 56), (80, 113), (160, 226)))
    head = RetinaNetHead(
        PYRAMID_CHANNELS,
        anchors.num_anchors_per_location()[0],
        columns,
        norm_layer=partial(nn.GroupNorm, 8),
    )
    # Two of torchvision's four convolutions a tower: the towers are most of the cost at this size.
    head.classification_head.conv = head.classification_head.conv[:2]
    head.regression_head.conv = head.regression_head.conv[:2]
    model = RetinaNet(small_backbone(), columns, anchor_generator=anchors, head=head, topk_candidates=300)
    model.transform = _transform(min_size, max_size)
    return model  # type: ignore[no-any-return]


def _pixel_network(columns: int, *, min_size: int, max_size: int) -> nn.Module:
    return PixelNetwork(columns - 1, transform=_transform(min_size, max_size))


def _anchors(sizes_px: tuple[tuple[int, ...], ...]) -> Any:
    return AnchorGenerator(sizes_px, (ANCHOR_ASPECTS,) * len(sizes_px))


def _transform(min_size: int, max_size: int) -> AntialiasedTransform:
    return AntialiasedTransform(min_size, max_size, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


_SMALL_BUILDERS: dict[str, Any] = {
    "small_fasterrcnn": _small_fasterrcnn,
    "small_retinanet": _small_retinanet,
    "pixel_network": _pixel_network,
}
