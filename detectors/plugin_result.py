"""What a plugin returned for one image, checked: shapes, ranges, and logits that give the scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError, nearest
from detectors.architectures import Head
from detectors.kept_detections import Candidates
from detectors.outputs import Outputs

_REQUIRED = ("boxes_xyxy", "scores", "labels")
_OPTIONAL = ("logits", "features", "image_feature")
LOGIT_TOLERANCE = 1e-3


def checked_result(
    result: object, n_classes: int, head: Head, outputs: Outputs
) -> tuple[Candidates, NDArray[np.float32] | None]:
    """One image's boxes and image feature, as far as asked for.

    Args:
        result: What came.
        n_classes: Classes without background.
        head: How logits make scores.
        outputs: What is kept.

    Raises:
        QuarryError: Says what, what was expected and what came.
    """
    values = _mapping(result)
    boxes = _floats("boxes_xyxy", values["boxes_xyxy"])
    n = len(boxes) if boxes.ndim else 0
    if boxes.size == 0 and n == 0:
        boxes = boxes.reshape(0, 4)
    _require_shape("boxes_xyxy", boxes, (n, 4))
    _require_rows("boxes_xyxy", (boxes[:, 2:] >= boxes[:, :2]).all(axis=1), "x2 >= x1 and y2 >= y1", boxes)
    scores = _floats("scores", values["scores"])
    _require_shape("scores", scores, (n,))
    _require_rows("scores", (scores >= 0) & (scores <= 1), "values in [0, 1]", scores)
    labels = _labels(values["labels"], n, n_classes)
    logits = _optional(values, "logits", (n, n_classes + (head == "softmax")))
    if logits is not None:
        _require_score(logits, scores, labels, head)
    features = _optional(values, "features", (n, None))
    image_feature = _optional(values, "image_feature", (None,))
    return (
        Candidates(
            boxes_xyxy=boxes,
            scores=scores,
            labels=labels,
            logits=logits if outputs.logits else None,
            features=features if outputs.features else None,
        ),
        image_feature.astype(np.float32) if image_feature is not None and outputs.image_feature else None,
    )


def _mapping(result: object) -> Mapping[str, Any]:
    if not isinstance(result, Mapping):
        raise QuarryError(f"expected a mapping with {', '.join(_REQUIRED)}, got {type(result).__name__}")
    for name in _REQUIRED:
        if result.get(name) is None:
            raise QuarryError(f"expected {name}, got {', '.join(map(str, result)) or 'nothing'}")
    for name in result:
        if name not in (*_REQUIRED, *_OPTIONAL):
            raise QuarryError(f"unknown {name!r}; {nearest(str(name), (*_REQUIRED, *_OPTIONAL))}")
    return result


def _array(name: str, values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except Exception as error:  # ragged lists, tensors on a device, whatever __array__ does
        raise QuarryError(f"{name}: expected a numpy array, got {type(values).__name__}: {error}") from error


def _floats(name: str, values: Any) -> NDArray[np.float64]:
    array = _array(name, values)
    if array.dtype.kind not in "fiu":
        raise QuarryError(f"{name}: expected numbers, got {array.dtype}")
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise QuarryError(f"{name}: expected finite values, got {numbers[~np.isfinite(numbers)][0]}")
    return numbers


def _labels(values: Any, n: int, n_classes: int) -> NDArray[np.int64]:
    array = _array("labels", values)
    _require_shape("labels", array, (n,))
    if n and array.dtype.kind not in "iu":
        raise QuarryError(f"labels: expected integers, got {array.dtype}")
    labels = array.astype(np.int64)
    _require_rows(
        "labels", (labels >= 1) & (labels <= n_classes), f"1..{n_classes} (0 is background)", labels
    )
    return labels


def _optional(
    values: Mapping[str, Any], name: str, shape: tuple[int | None, ...]
) -> NDArray[np.float64] | None:
    if values.get(name) is None:
        return None
    array = _floats(name, values[name])
    if shape[0] == 0 and array.size == 0:  # no boxes: an empty list has no columns
        return array.reshape(0, shape[1] or (array.shape[1] if array.ndim == 2 else 0))
    _require_shape(name, array, shape)
    return array


def _require_shape(name: str, values: NDArray[Any], shape: tuple[int | None, ...]) -> None:
    fits = values.ndim == len(shape) and all(
        e in (None, got) for e, got in zip(shape, values.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if axis is None else str(axis) for axis in shape)
        comma = "," if len(shape) == 1 else ""
        raise QuarryError(f"{name}: expected shape ({expected}{comma}), got {values.shape}")


def _require_rows(name: str, good: Any, expected: str, values: NDArray[Any]) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise QuarryError(f"{name}: expected {expected}, got {values[row].tolist()} in row {row}")


def _require_score(
    logits: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray[np.int64], head: Head
) -> None:
    rows = np.arange(len(scores))
    if head == "sigmoid":
        with np.errstate(over="ignore"):
            given = 1 / (1 + np.exp(-logits[rows, labels - 1]))
    else:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        given = powers[rows, labels] / powers.sum(axis=1)
    wrong = np.abs(given - scores) > LOGIT_TOLERANCE
    if wrong.any():
        row = int(np.argmax(wrong))
        raise QuarryError(
            f"logits: expected {head} of the label's column to be the score {scores[row]:g}, "
            f"got {given[row]:g} in row {row}"
        )
