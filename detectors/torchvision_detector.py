"""torchvision's detectors, and ours built from its parts, behind the one contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import QuarryError
from detectors.architectures import head_kind, input_size_px
from detectors.detections import Detections
from detectors.detector import Detector, DetectorCard, require_rgb, resolve_device
from detectors.identity import model_identity, weights_digest
from detectors.outputs import LOGITS_ONLY, Outputs
from detectors.rcnn import detect_rcnn
from detectors.retinanet import detect_retinanet
from detectors.thresholds import KeepThresholds


class TorchvisionDetector(Detector):
    """A torch model with its thresholds, class names and identity.

    Args:
        model: As `build_model` makes them; moved to `device`.
        architecture: Name of its builder.
        classes: Class names without background.
        keep: Thresholds of post-processing.
        outputs: What detections carry beside boxes, scores and labels.
        device: `cpu`, `cuda`, `cuda:<index>` or `auto`.
        name: What people call it; not part of its identity.
        uri: Where the weights came from.

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
        outputs: Outputs = LOGITS_ONLY,
        device: str = "cpu",
        name: str = "unnamed",
        uri: str = "",
    ) -> None:
        weights = model.state_dict()
        _require_finite(weights, uri or name)
        min_size, max_size = input_size_px(model)
        model_id = model_identity(
            weights_digest(weights),
            architecture=architecture,
            classes=classes,
            keep=keep,
            outputs=outputs,
            adapter={"min_size": min_size, "max_size": max_size},
        )
        card = DetectorCard(
            model_id=model_id,
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
        self.model: Any = model.to(self.device).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each image; images whose padded input sizes agree share a forward pass."""
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
            found.update(zip(indices, self._detect(batch, original_hw), strict=True))
        return [found[index] for index in range(len(images))]

    def _model_input(self, image: NDArray[np.uint8], index: int) -> Any:
        require_rgb(image, index)
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

    def _detect(self, batch: Any, original_hw: list[tuple[int, int]]) -> list[Detections]:
        if self.head == "sigmoid":
            detections = detect_retinanet(self.model, batch, original_hw, self.keep)
        else:
            detections = detect_rcnn(
                self.model, batch, original_hw, self.keep, features=self.outputs.features
            )
        if self.outputs.logits:
            return detections
        return [Detections(d.boxes_xyxy, d.scores, d.labels, None, d.features) for d in detections]


def _require_finite(weights: Mapping[str, Tensor], source: str) -> None:
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise QuarryError(f"{source}: weight {key} is not finite everywhere; train or export again")
