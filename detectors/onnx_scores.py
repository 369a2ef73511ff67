"""From the score columns of an ONNX model to probabilities, candidates and class logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from conf.errors import QuarryError
from conf.onnx_spec import OnnxSpec
from detectors.architectures import Head

_EPSILON = float(np.finfo(np.float32).eps)
_ROUNDING = 1e-3
# float16 models round each of their columns.
_ROUNDING_OF_SUM = 1e-2


def output_head(spec: OnnxSpec) -> Head:
    """How logits make scores: softmax where scores are a distribution over classes, else sigmoid."""
    if spec.labels is not None:
        return "sigmoid"
    return "softmax" if spec.activation == "softmax" or spec.background != "none" else "sigmoid"


def class_probabilities(raw: Tensor, spec: OnnxSpec) -> Tensor:
    """Probability of each class, without background.

    Args:
        raw: (n, K), or (n, K + 1) with background first where the mapping has one.
        spec: The activation and whether there is background.

    Returns:
        (n, K) in [0, 1], before objectness.

    Raises:
        QuarryError: A value is NaN, or should be a probability and is none.
    """
    if raw.isnan().any():
        raise QuarryError("scores: a value is NaN")
    if spec.activation == "sigmoid":
        return torch.sigmoid(raw)
    if spec.activation == "softmax":
        values = torch.softmax(raw, dim=1)
    else:
        values = require_probabilities("scores", raw)
        if spec.background != "none":
            values = values / _sums(values).clamp_min(1)
    return values if spec.background == "none" else values[:, 1:]


def _sums(distribution: Tensor) -> Tensor:
    sums = distribution.sum(dim=1, keepdim=True)
    if (sums > 1 + _ROUNDING_OF_SUM).any():
        raise QuarryError(
            f"scores: the columns of a box add up to {sums.max():g}: with background expected probabilities "
            "that add up to 1; without select class columns and set background to none"
        )
    return sums


def require_probabilities(part: str, values: Tensor) -> Tensor:
    """The values, clamped to [0, 1].

    Raises:
        QuarryError: One is further outside than rounding takes it; names the part of the mapping.
    """
    bad = ~((values >= -_ROUNDING) & (values <= 1 + _ROUNDING))
    if bad.any():
        raise QuarryError(
            f"{part}: expected probabilities in [0, 1], got {values[bad][0]:g}; set activation to sigmoid or "
            "softmax if these are logits, else check columns and transposed"
        )
    return values.clamp(0, 1)


def candidates_above(probabilities: Tensor, eta0: float, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Row and column (n,) of each candidate: a box and its best class, or every class with `multi_label`."""
    if multi_label:
        rows, columns = torch.where(probabilities >= eta0)
        return rows, columns
    best = probabilities.max(dim=1)
    rows = torch.where(best.values >= eta0)[0]
    return rows, best.indices[rows]


def class_logits(raw: Tensor, probabilities: Tensor, spec: OnnxSpec) -> Tensor:
    """Class logits that give the scores.

    The raw values where the activation is ours and there is no objectness; else those of the probabilities,
    kept float32's epsilon away from 0 and 1. A softmax without background gets one of probability epsilon.

    Args:
        raw: (n, K), or (n, K + 1) with background first.
        probabilities: (n, K), objectness multiplied in.
        spec: How scores are made.

    Returns:
        (n, K) for a sigmoid head, (n, K + 1) with background first for a softmax head; float32.
    """
    is_ours = spec.activation != "none" and spec.objectness is None
    if output_head(spec) == "sigmoid":
        return raw if is_ours else torch.logit(probabilities.double(), eps=_EPSILON).float()
    if is_ours and spec.background != "none":
        return raw
    if is_ours:
        background = torch.logsumexp(raw, dim=1, keepdim=True) + float(np.log(_EPSILON))
        return torch.cat([background, raw], dim=1)
    rest = 1 - probabilities.double().sum(dim=1, keepdim=True)
    distribution = torch.cat([rest, probabilities.double()], dim=1)
    return distribution.clamp_min(_EPSILON / distribution.shape[1]).log().float()
