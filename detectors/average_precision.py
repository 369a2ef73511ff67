"""COCO average precision of detections against ground truth, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conf.errors import QuarryError

IOU_50_INDEX = 0
ALL_AREAS_INDEX = 0
MOST_DETECTIONS_INDEX = -1


class Found(Protocol):
    """What a detector found in one image, such as `Detections`: n boxes (x1, y1, x2, y2 in px; a box may have
    no area), scores in 0..1 and labels 1..K."""

    @property
    def boxes_xyxy(self) -> NDArray[Any]: ...

    @property
    def scores(self) -> NDArray[Any]: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...


class FoundBoxes(NamedTuple):
    """The plainest `Found`."""

    boxes_xyxy: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TruthBoxes:
    """Annotated objects of one image.

    Attributes:
        boxes_xyxy: (m, 4) float32, px of the original image.
        labels: (m,) int64, 1..K.
        crowd: (m,) bool, regions in which detections of the class count neither way; none: no such regions.
    """

    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class AveragePrecision:
    """COCO summary; every number is in [0, 1], higher is better, none where there is no object to find.

    Attributes:
        ap: Mean over IoU thresholds 0.50:0.05:0.95 and classes.
        ap50: Mean over classes at IoU 0.50.
        ap50_per_class: AP at IoU 0.50 by class name.
        n_images: Images evaluated.
    """

    ap: float | None
    ap50: float | None
    ap50_per_class: dict[str, float | None]
    n_images: int


def average_precision(
    detections: Sequence[Found], truths: Sequence[TruthBoxes], classes: Sequence[str]
) -> AveragePrecision:
    """COCO average precision, 101-point interpolated, at most 100 detections an image, all object sizes.

    Args:
        detections: One entry an image.
        truths: One entry an image, in the same order.
        classes: Class names; label i is `classes[i - 1]`.

    Returns:
        The summary; a class without objects is left out of the means.

    Raises:
        QuarryError: The sequences differ in length.

    Source:
        Lin et al., Microsoft COCO (2014), and its reference implementation pycocotools.
    """
    if len(detections) != len(truths):
        raise QuarryError(f"average precision: {len(detections)} images detected, {len(truths)} annotated")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _truth_index(truths, len(classes))
        rows = [row for i, found in enumerate(detections, start=1) for row in _result_rows(i, found)]
        if not rows or not truth.anns:
            return _without_matches(truth, classes, len(truths))
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recall points, classes); -1 marks a class without objects.
    precision = evaluation.eval["precision"][:, :, :, ALL_AREAS_INDEX, MOST_DETECTIONS_INDEX]
    at_50 = precision[IOU_50_INDEX]
    return AveragePrecision(
        ap=_mean_of_known(precision),
        ap50=_mean_of_known(at_50),
        ap50_per_class={name: _mean_of_known(at_50[:, k]) for k, name in enumerate(classes)},
        n_images=len(truths),
    )


def _mean_of_known(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _without_matches(truth: Any, classes: Sequence[str], n_images: int) -> AveragePrecision:
    """Precision where nothing was detected or there is nothing to detect."""
    present = {row["category_id"] for row in truth.anns.values() if not row["iscrowd"]}
    per_class = {name: 0.0 if k in present else None for k, name in enumerate(classes, start=1)}
    overall = 0.0 if present else None
    return AveragePrecision(overall, overall, per_class, n_images)


def _truth_index(truths: Sequence[TruthBoxes], n_classes: int) -> Any:
    annotations: list[dict[str, Any]] = []
    for image_id, truth in enumerate(truths, start=1):
        crowd = np.zeros(len(truth.labels), bool) if truth.crowd is None else truth.crowd
        for box, label, is_crowd in zip(truth.boxes_xyxy.tolist(), truth.labels, crowd, strict=True):
            x1, y1, x2, y2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(is_crowd),
                }
            )
    index = COCO()
    index.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(truths) + 1)],
        "annotations": annotations,
        "categories": [{"id": k} for k in range(1, n_classes + 1)],
    }
    index.createIndex()
    return index


def _result_rows(image_id: int, found: Found) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(score),
        }
        for (x1, y1, x2, y2), label, score in zip(
            found.boxes_xyxy.tolist(), found.labels, found.scores, strict=True
        )
    ]
