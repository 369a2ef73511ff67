"""Who a detector is: a hash over weights and adapter settings, whatever people call it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from detectors.outputs import Outputs
from detectors.thresholds import KeepThresholds

ID_LENGTH = 16


def weights_digest(weights: Mapping[str, Tensor]) -> Any:
    """SHA-256 over every weight tensor (name, type, shape, bytes, in order of name), to be continued."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest


def model_identity(
    digest: Any,
    *,
    architecture: str,
    classes: Sequence[str],
    keep: KeepThresholds,
    outputs: Outputs,
    adapter: Mapping[str, Any],
) -> str:
    """16 hexadecimal characters that change whenever the detections could; the detector's name is left out.

    Args:
        digest: hashlib object that has seen the weights.
        architecture: Name of the builder, or what takes its place.
        classes: Class names.
        keep: Thresholds.
        outputs: What is kept.
        adapter: Further settings that change the detections, as JSON takes them. A setting that came later
            is left out where it has its default, so that ids stay what they were.
    """
    kept = asdict(outputs, dict_factory=_set_values)
    settings = {
        "architecture": architecture,
        "classes": list(classes),
        "eta0": keep.eta0,
        "detections_per_image": keep.detections_per_image,
        "nms_iou": keep.nms_iou,
        "keep_logits": outputs.logits,
        **{f"keep_{name}": value for name, value in kept.items() if value and name != "logits"},
        **adapter,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return str(digest.hexdigest()[:ID_LENGTH])


def _set_values(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """What is not none: a setting that came later leaves ids as they were where it is not given."""
    return {name: value for name, value in items if value is not None}
