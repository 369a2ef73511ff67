"""Score sampling as a plain loop: a pycocotools COCOeval per image and sample, queries from its matches.

What one writes first from Algorithm 1 of the paper, and the measure of how much the calculation here saves.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Box = dict[str, Any]
CocoMatches = Callable[[list[Box], list[Box]], list[int]]

IOU_THRESHOLD = 0.5


def plain_loop_seconds(images: pa.Table, queries: Sequence[str], *, n_samples: int, seed: int) -> float:
    """Seconds of one process for all images, one query after another, COCOeval as it comes.

    Only the IoU threshold is set; as by default, every COCOeval matches in four ranges of area.

    Args:
        images: Columns width, height, detections.
        queries: Names of built-in queries; each is a score of its own, with samples of its own.
        n_samples: Samples per image and query.
        seed: Seed of the samples.
    """
    rows = images.to_pylist()
    start_s = time.perf_counter()
    for query in queries:
        for row in rows:
            sampled_hardness(row, [query], n_samples=n_samples, seed=seed, coco_matches=plain_matches)
    return time.perf_counter() - start_s


def trimmed_loop_seconds(images: pa.Table, queries: Sequence[str], *, n_samples: int, seed: int) -> float:
    """The loop at its best: every COCOeval serves all queries and matches in one range of area."""
    rows = images.to_pylist()
    start_s = time.perf_counter()
    for row in rows:
        sampled_hardness(row, queries, n_samples=n_samples, seed=seed, coco_matches=trimmed_matches)
    return time.perf_counter() - start_s


def sampled_hardness(
    image: Box,
    queries: Sequence[str],
    *,
    n_samples: int,
    seed: int,
    coco_matches: CocoMatches,
    eta: float = 0.5,
) -> NDArray[np.float64]:
    """Mean of the queries over samples of pseudo ground truth (Algorithm 1).

    Args:
        image: width and height in px, and a list of detections.
        queries: Names of built-in queries.
        n_samples: Samples, 1 or more.
        seed: Seed of the samples.
        coco_matches: `plain_matches` or `trimmed_matches`.
        eta: Confirmation threshold.

    Returns:
        (len(queries),), larger is harder.
    """
    rng = np.random.default_rng(seed)
    detections = image["detections"]
    confirmed = [d for d in detections if d["score"] >= eta]
    total = np.zeros(len(queries))
    for _ in range(n_samples):
        truth = [d for d in detections if rng.random() < d["score"]]
        matched = coco_matches(confirmed, truth) if confirmed and truth else [-1] * len(confirmed)
        tp = [d for d, g in zip(confirmed, matched, strict=True) if g >= 0]
        fp = [d for d, g in zip(confirmed, matched, strict=True) if g < 0]
        fn = [truth[i] for i in sorted(set(range(len(truth))) - set(matched))]
        errors = {"fp": fp, "fn": fn, "false": fp + fn}
        total += [_value(query, errors, tp, image["width"] * image["height"]) for query in queries]
    mean: NDArray[np.float64] = total / n_samples
    return mean


def plain_matches(detections: list[Box], truth: list[Box]) -> list[int]:
    """Position of the ground truth every detection takes, -1 for none."""
    return _matches(detections, truth, {})


def trimmed_matches(detections: list[Box], truth: list[Box]) -> list[int]:
    """The same without the ranges of area and the limits on detections nobody asked for."""
    trimmed = {"areaRng": [[0, 1e10]], "areaRngLbl": ["all"], "maxDets": [len(detections)]}
    return _matches(detections, truth, trimmed)


def _value(query: str, errors: dict[str, list[Box]], tp: list[Box], image_area_px: int) -> float:
    kind, _, error_set = query.rpartition("_")
    boxes = errors[error_set]
    if kind == "total":
        return float(len(boxes))
    if kind == "pixel_adj":
        return sum(_shared_px(b, b) for b in boxes) / image_area_px
    return sum(_shared_px(b, t) / _shared_px(b, b) for b in boxes for t in tp)


def _matches(detections: list[Box], truth: list[Box], parameters: dict[str, Any]) -> list[int]:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": label} for label in sorted({b["label"] for b in (*detections, *truth)})],
        "annotations": [
            {**_annotation(b), "id": position, "iscrowd": 0, "area": _shared_px(b, b)}
            for position, b in enumerate(truth, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes([{**_annotation(b), "score": b["score"]} for b in detections])
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.iouThrs = np.array([IOU_THRESHOLD])
        vars(evaluation.params).update(parameters)
        evaluation.evaluate()
    matched = [-1] * len(detections)
    for result in evaluation.evalImgs:
        if result is not None and result["aRng"] == evaluation.params.areaRng[0]:
            for detection, box in zip(result["dtIds"], result["dtMatches"][0], strict=True):
                matched[detection - 1] = int(box) - 1
    return matched


def _annotation(b: Box) -> Box:
    corners = [b["x1"], b["y1"], b["x2"] - b["x1"], b["y2"] - b["y1"]]
    return {"image_id": 1, "category_id": b["label"], "bbox": corners}


def _shared_px(a: Box, b: Box) -> float:
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    return float(max(width, 0.0) * max(height, 0.0))
