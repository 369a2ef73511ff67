"""A detector that is ready to run: arrays of images in, aligned arrays of detections out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import QuarryError
from detectors.architectures import Head, head_kind, input_size_px
from detectors.detections import Detections
from detectors.rcnn import detect_rcnn
from detectors.retinanet import detect_retinanet
from detectors.thresholds import KeepThresholds


@dataclass(frozen=True)
class DetectorCard:
    """What is known of a detector without running it.

    Attributes:
        model_id: 16 hexadecimal characters; same weights and adapter settings, same id, whatever the name.
        name: What people call it.
        uri: Where the weights came from.
        classes: Class names; label i is `classes[i - 1]`.
        head: `softmax` (logits K + 1, background first) or `sigmoid` (logits K).
        architecture: Name of the builder.
        parameters: Number of weights.
        min_size: Shorter side fed to the model (px).
        max_size: Longer side fed to the model (px).
    """

    model_id: str
    name: str
    uri: str
    classes: tuple[str, ...]
    head: Head
    architecture: str
    parameters: int
    min_size: int
    max_size: int


class Detector:
    """A torch model with its thresholds, class names and identity.

    Args:
        model: `FasterRCNN`, `RetinaNet` or a subclass, as `build_model` makes them; moved to `device`.
        architecture: Name of its builder.
        classes: Class names without background.
        keep: Thresholds of post-processing.
        device: `cpu`, `cuda` or `auto`.
        name: What people call it; not part of its identity.
        uri: Where the weights came from.
        keep_logits: Whether detections carry class logits.

    Raises:
        QuarryError: A weight is not finite, or CUDA was asked for and there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        classes: Sequence[str],
        keep: KeepThresholds,
        device: str = "cpu",
        name: str = "unnamed",
        uri: str = "",
        keep_logits: bool = True,
    ) -> None:
        weights = model.state_dict()
        _require_finite(weights, uri or name)
        min_size, max_size = input_size_px(model)
        self.card = DetectorCard(
            model_id=model_identity(
                weights, architecture, classes, keep, (min_size, max_size), keep_logits=keep_logits
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
        self.keep = keep
        self.keep_logits = keep_logits
        self.device = resolve_device(device)
        self.model: Any = model.to(self.device).to(memory_format=torch.channels_last).eval()

    @property
    def model_id(self) -> str:
        """Identity over weights and adapter settings."""
        return self.card.model_id

    @property
    def name(self) -> str:
        """What people call the detector."""
        return self.card.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; label i is `classes[i - 1]`."""
        return self.card.classes

    @property
    def head(self) -> Head:
        """`softmax` or `sigmoid`."""
        return self.card.head

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.card.parameters

    @torch.inference_mode()
    def predict(self, images: Sequence[NDArray[np.uint8]], *, features: bool = False) -> list[Detections]:
        """Detections of each image, in the order given.

        Images whose padded input sizes agree share a forward pass; what one image gets does not depend on
        the others (beyond float rounding).

        Args:
            images: Arrays (h, w, 3) uint8, RGB, EXIF orientation applied; sizes may differ.
            features: Also return the box head's features; only R-CNN detectors have them.

        Returns:
            One `Detections` an image, in px of that image, scores >= eta0, best first.

        Raises:
            QuarryError: An array is no RGB image, or so thin that no pixel is left at the input size.
        """
        groups: dict[tuple[int, ...], list[tuple[int, Any]]] = {}
        for index, image in enumerate(images):
            prepared = self._model_input(image, index)
            groups.setdefault(tuple(prepared.tensors.shape), []).append((index, prepared))
        found: dict[int, Detections] = {}
        for members in groups.values():
            indices = [index for index, _ in members]
            batch = members[0][1]
            batch.tensors = torch.cat([prepared.tensors for _, prepared in members]).contiguous(
                memory_format=torch.channels_last
            )
            batch.image_sizes = [prepared.image_sizes[0] for _, prepared in members]
            original_hw = [(images[i].shape[0], images[i].shape[1]) for i in indices]
            found.update(zip(indices, self._detect(batch, original_hw, features), strict=True))
        return [found[index] for index in range(len(images))]

    def _model_input(self, image: NDArray[np.uint8], index: int) -> Any:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise QuarryError(
                f"image {index} of the batch: expected (h, w, 3) uint8, got {image.shape} {image.dtype}"
            )
        height, width = image.shape[:2]
        scale = min(self.card.min_size / min(height, width), self.card.max_size / max(height, width))
        if min(height, width) * scale < 1:
            raise QuarryError(
                f"image {index} of the batch: {width}x{height} px has no pixel left across at the "
                f"detector's input size (longer side {self.card.max_size} px)"
            )
        # torch warns on read-only arrays, which Arrow and Pillow hand out.
        owned = np.require(image, requirements=["C", "W"])
        pixels = torch.from_numpy(owned).to(self.device)
        prepared, _ = self.model.transform([pixels.permute(2, 0, 1).float().div_(255)])
        return prepared

    def _detect(self, batch: Any, original_hw: list[tuple[int, int]], features: bool) -> list[Detections]:
        if self.head == "sigmoid":
            detections = detect_retinanet(self.model, batch, original_hw, self.keep)
        else:
            detections = detect_rcnn(self.model, batch, original_hw, self.keep, features=features)
        if self.keep_logits:
            return detections
        return [Detections(d.boxes_xyxy, d.scores, d.labels, None, d.features) for d in detections]


def model_identity(
    weights: Mapping[str, Tensor],
    architecture: str,
    classes: Sequence[str],
    keep: KeepThresholds,
    input_sizes_px: tuple[int, int],
    *,
    keep_logits: bool,
) -> str:
    """16 hexadecimal characters that change whenever the detections could.

    SHA-256 over every weight tensor (name, type, shape, bytes, in order of name) and the adapter settings:
    architecture, classes, thresholds, input sizes, whether logits are kept. The detector's name is left out.
    """
    digest = hashlib.sha256()
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    adapter = {
        "architecture": architecture,
        "classes": list(classes),
        "eta0": keep.eta0,
        "detections_per_image": keep.detections_per_image,
        "nms_iou": keep.nms_iou,
        "min_size": input_sizes_px[0],
        "max_size": input_sizes_px[1],
        "keep_logits": keep_logits,
    }
    digest.update(json.dumps(adapter, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def resolve_device(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        QuarryError: CUDA was asked for and this machine has none.
    """
    available = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if available else "cpu")
    if device.startswith("cuda") and not available:
        raise QuarryError("detect.device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return torch.device(device)


def _require_finite(weights: Mapping[str, Tensor], source: str) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise QuarryError(f"{source}: weight {key} is not finite everywhere; train or export again")
