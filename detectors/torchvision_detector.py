"""torchvision's detectors, and ours built from its parts, behind the one contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from conf.errors import QuarryError
from detectors.architectures import head_kind, input_size_px
from detectors.batch_detections import batch_detections
from detectors.detections import Detections
from detectors.detector import Detector, DetectorCard, resolve_device
from detectors.fcos import forward_fcos
from detectors.head_outputs import HeadOutputs
from detectors.identity import model_identity, weights_digest
from detectors.input_batches import input_batches
from detectors.outputs import LOGITS_ONLY, Outputs
from detectors.pixel_network import PixelNetwork
from detectors.pixel_network_outputs import forward_pixel_network
from detectors.pixel_scoring import DropoutPasses, pixel_score_map, pixel_scores
from detectors.rcnn import forward_rcnn
from detectors.retinanet import forward_retinanet
from detectors.ssd import forward_ssd
from detectors.thresholds import KeepThresholds

FLOAT32 = "float32"
_AUTOCAST_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_FORWARDS: dict[type[nn.Module], Callable[[Any, ImageList], HeadOutputs]] = {
    FasterRCNN: forward_rcnn,
    RetinaNet: forward_retinanet,
    FCOS: forward_fcos,
    SSD: forward_ssd,
    PixelNetwork: forward_pixel_network,
}


class TorchvisionDetector(Detector):
    """A torch model with its thresholds, class names and identity.

    Args:
        model: As `build_model` makes them; moved to `device`.
        architecture: Name of its builder.
        classes: Class names without background.
        keep: Thresholds of post-processing.
        outputs: What detections carry beside boxes, scores and labels.
        device: `cpu`, `cuda`, `cuda:<index>` or `auto`.
        precision: Arithmetic of the network: `float32`, `bfloat16` or `float16` (autocast: layers that need
            it stay in float32). Post-processing is always in float32. Part of the identity.
        compile: Whether the backbone and the convolutional heads are compiled by `torch.compile`, on first
            use and again for sizes that are new to it. Not part of the identity.
        name: What people call it; not part of its identity.
        uri: Where the weights came from.

    Raises:
        QuarryError: A weight is not finite, the precision is unknown, the model is of no known family, or
            CUDA was asked for and there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        classes: Sequence[str],
        keep: KeepThresholds,
        outputs: Outputs = LOGITS_ONLY,
        device: str = "cpu",
        precision: str = FLOAT32,
        compile: bool = False,
        name: str = "unnamed",
        uri: str = "",
    ) -> None:
        self._forward = _forward_of(model)
        scoring = outputs.pixel_scores
        self._autocast = _autocast(precision, resolve_device(device))
        weights = model.state_dict()
        _require_finite(weights, uri or name)
        min_size, max_size = input_size_px(model)
        adapter: dict[str, Any] = {"min_size": min_size, "max_size": max_size}
        if precision != FLOAT32:
            adapter["precision"] = precision
        if _normalises_without_epsilon(model):
            adapter["batch_norm_epsilon"] = 0.0
        card = DetectorCard(
            model_id=model_identity(
                weights_digest(weights),
                architecture=architecture,
                classes=classes,
                keep=keep,
                outputs=outputs,
                adapter=adapter,
            ),
            name=name,
            uri=uri,
            classes=tuple(classes),
            head=head_kind(model),
            architecture=architecture,
            parameters=sum(p.numel() for p in model.parameters()),
            min_size=min_size,
            max_size=max_size,
        )
        super().__init__(card, resolve_device(device))
        self.keep = keep
        self.outputs = outputs
        self._passes = DropoutPasses(model, self._forward, scoring)
        self.model: Any = model.to(self.device).to(memory_format=torch.channels_last).eval()
        if compile:
            _compile(self.model)

    @torch.inference_mode()
    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each image; images whose padded input sizes agree share a forward pass."""
        with self.clock.stage("transfer"):
            batches = input_batches(images, self.model.transform, self.device)
        found: dict[int, Detections] = {}
        for batch in batches:
            with self.clock.stage("forward"), self._autocast():
                raw = self._forward(self.model, batch.images)
            with self.clock.stage("post_process"):
                _require_finite_outputs(raw, batch.positions)
            scores = self._pixel_scores(raw, batch.original_hw)
            with self.clock.stage("post_process"):
                detections = batch_detections(raw, batch.original_hw, self.keep, self.outputs, scores)
            found.update(zip(batch.positions, detections, strict=True))
        return [found[position] for position in range(len(images))]

    @torch.inference_mode()
    def pixel_score_map(self, image: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """Score of every pixel of an image."""
        scoring = self.outputs.pixel_scores
        if scoring is None or name not in scoring.names:
            return super().pixel_score_map(image, name)
        (batch,) = input_batches([image], self.model.transform, self.device)
        with self._autocast():
            raw = self._forward(self.model, batch.images)
        _require_finite_outputs(raw, [0])
        scores = pixel_score_map(raw, batch.original_hw[0], replace(scoring, names=(name,)), self._passes)
        found: NDArray[np.float32] = scores.cpu().numpy()
        return found

    def _pixel_scores(
        self, raw: HeadOutputs, original_hw: Sequence[tuple[int, int]]
    ) -> list[dict[str, float]] | None:
        if self.outputs.pixel_scores is None:
            return None
        with self.clock.stage("pixel_scores"):
            return pixel_scores(raw, original_hw, self.outputs.pixel_scores, self._passes)


def _forward_of(model: nn.Module) -> Callable[[Any, ImageList], HeadOutputs]:
    for family, forward in _FORWARDS.items():
        if isinstance(model, family):
            return forward
    known = ", ".join(family.__name__ for family in _FORWARDS)
    raise QuarryError(f"expected a torchvision detector ({known}), got a {type(model).__name__}")


def _autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    if precision == FLOAT32:
        return nullcontext
    if precision not in _AUTOCAST_TYPES:
        known = ", ".join((FLOAT32, *_AUTOCAST_TYPES))
        raise QuarryError(f"detector.precision: expected one of {known}, got {precision!r}")
    return lambda: torch.autocast(device.type, dtype=_AUTOCAST_TYPES[precision])


def _compile(model: Any) -> None:
    """Compile what is convolutional, in place, so that names of weights stay as they are."""
    model.backbone.compile()
    head = model.rpn.head if isinstance(model, FasterRCNN) else model.head
    head.compile()


def _require_finite_outputs(raw: HeadOutputs, positions: Sequence[int]) -> None:
    """Fail where the network overflowed: comparisons with NaN are false, so nothing would be found."""
    finite = raw.finite().cpu().tolist()
    for position, fine in zip(positions, finite, strict=True):
        if not fine:
            raise QuarryError(
                f"image {position} of the batch: the network's output is not finite; with detector.precision "
                "float16 try bfloat16 or float32"
            ) from FloatingPointError("overflow")


def _normalises_without_epsilon(model: nn.Module) -> bool:
    """Whether batch normalisation has no epsilon, as some of torchvision's weights were trained."""
    return any(module.eps == 0.0 for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def _require_finite(weights: Mapping[str, Tensor], source: str) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise QuarryError(f"{source}: weight {key} is not finite everywhere; train or export again")
