"""Random and hand-made scenes as Arrow batches, and slow readable references to compare with."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from udfs.detection_batch import DetectionBatch, TruthBatch

Box = dict[str, Any]

QUERY_NAMES = tuple(f"{q}_{e}" for q in ("total", "pixel_adj", "occ_aware") for e in ("fp", "fn", "false"))
_F32 = pa.float32()
_DETECTIONS = pa.list_(
    pa.struct(
        [
            ("detection_id", pa.string()),
            ("label", pa.int32()),
            ("label_name", pa.string()),
            ("score", _F32),
            *((name, _F32) for name in ("x1", "y1", "x2", "y2")),
            ("logits", pa.list_(_F32)),
        ]
    )
)
_TRUTH = pa.list_(
    pa.struct(
        [
            ("label", pa.int32()),
            *((name, _F32) for name in ("x1", "y1", "x2", "y2")),
            ("iscrowd", pa.bool_()),
            ("status", pa.string()),
        ]
    )
)


def box(corners: Sequence[float], label: int = 1, **fields: Any) -> Box:
    """A detection (with `score=`) or a ground-truth box (perhaps with `iscrowd=`)."""
    return {"label": label, **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)), **fields}


def scene_batch(
    detections: Sequence[Sequence[Box] | None],
    truth: Sequence[Sequence[Box]] | None = None,
    image_ids: Sequence[str] | None = None,
    wh_px: tuple[int, int] = (100, 100),
) -> pa.RecordBatch:
    """An Arrow batch as the scoring functions receive it."""
    n = len(detections)
    arrays = {
        "image_id": pa.array(image_ids or [f"image-{i}" for i in range(n)], pa.string()),
        "model_id": pa.array(["model"] * n, pa.string()),
        "width": pa.array([wh_px[0]] * n, pa.int32()),
        "height": pa.array([wh_px[1]] * n, pa.int32()),
        "detections": pa.array(detections, _DETECTIONS),
    }
    if truth is not None:
        arrays["boxes"] = pa.array(truth, _TRUTH)
    return pa.RecordBatch.from_pydict(arrays)


def parsed(
    detections: Sequence[Sequence[Box]], truth: Sequence[Sequence[Box]] | None = None
) -> tuple[DetectionBatch, TruthBatch]:
    """The same as flat arrays."""
    batch = scene_batch(detections, [[] for _ in detections] if truth is None else truth)
    return DetectionBatch.from_arrow(batch), TruthBatch.from_arrow(batch)


def random_boxes(rng: np.random.Generator, n: int, *, n_labels: int = 2, spread_px: int = 24) -> list[Box]:
    """Boxes on a coarse grid, so that they overlap, touch, coincide and hit IoU thresholds exactly."""
    low = rng.integers(0, spread_px // 4, (n, 2)) * 4
    size = rng.integers(0, 5, (n, 2)) * 4 + 4
    labels = rng.integers(1, n_labels + 1, n)
    return [
        box((*map(float, a), *map(float, a + s)), int(c)) for a, s, c in zip(low, size, labels, strict=True)
    ]


def random_detections(rng: np.random.Generator, n: int, **options: int) -> list[Box]:
    """Random boxes with scores that float32 holds exactly: ties, 0, 0.5 and 1 occur."""
    scores = rng.choice([0.0, 0.0625, 0.25, 0.375, 0.5, 0.625, 0.75, 0.75, 0.875, 1.0], n)
    boxes = random_boxes(rng, n, **options)
    rows = enumerate(zip(boxes, scores.tolist(), strict=True))
    return [{**b, "score": s, "detection_id": str(i)} for i, (b, s) in rows]


def crowded_detections(rng: np.random.Generator, n: int) -> list[Box]:
    """Random detections of one class on few almost equal boxes, as without NMS: components of many sizes."""
    detections = random_detections(rng, n, n_labels=1)
    for d in detections:
        x, y = rng.choice([0.0, 20.0]) + rng.integers(0, 2), float(rng.integers(0, 2))
        w, h = rng.choice([30, 39, 40], 2)
        d.update(x1=float(x), y1=y, x2=float(x + w), y2=float(y + h))
    if n > 2:
        detections[-1].update({k: detections[0][k] for k in ("x1", "y1", "x2", "y2")}, score=0.25)
    return detections


def coco_outcome(
    detections: Sequence[Box], truth: Sequence[Box], iou_threshold: float
) -> tuple[list[int], list[bool], list[bool]]:
    """pycocotools' answer for one image: box per detection or -1, absorbed per detection, found per box."""
    categories = sorted({b["label"] for b in (*detections, *truth)})
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        for coco, boxes in ((gt, truth), (dt, detections)):
            coco.dataset = {
                "images": [{"id": 1, "width": 100, "height": 100}],
                "categories": [{"id": c} for c in categories],
                "annotations": [_coco_annotation(i, b) for i, b in enumerate(boxes, start=1)],
            }
            coco.createIndex()
        evaluation = COCOeval(gt, dt, "bbox")
        evaluation.params.iouThrs = np.array([iou_threshold])
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [10_000]
        evaluation.evaluate()
    matched, absorbed, found = [-1] * len(detections), [False] * len(detections), [False] * len(truth)
    for result in evaluation.evalImgs:
        if result is None:
            continue
        for d, g, ignored in zip(result["dtIds"], result["dtMatches"][0], result["dtIgnore"][0], strict=True):
            if g > 0 and ignored:
                absorbed[d - 1] = True
            elif g > 0:
                matched[d - 1] = int(g) - 1
                found[int(g) - 1] = True
    return matched, absorbed, found


def reference_hardness(
    confirmed: Sequence[Box],
    truth: Sequence[Box],
    matched: Sequence[int],
    absorbed: Sequence[bool],
    image_area_px: float,
) -> NDArray[np.float64]:
    """The nine built-in queries by plain loops, given a matching; no area adds nothing to occ_aware."""
    tp = [d for d, g in zip(confirmed, matched, strict=True) if g >= 0]
    fp = [d for d, g, a in zip(confirmed, matched, absorbed, strict=True) if g < 0 and not a]
    fn = [g for i, g in enumerate(truth) if i not in matched and not g.get("iscrowd")]
    values = []
    for prefix in ("total", "pixel_adj", "occ_aware"):
        for errors in (fp, fn, [*fp, *fn]):
            if prefix == "total":
                values.append(float(len(errors)))
            elif prefix == "pixel_adj":
                values.append(sum(_area(b) / image_area_px for b in errors))
            else:
                values.append(sum(_inter(b, t) / _area(b) for b in errors for t in tp if _area(b) > 0.0))
    return np.array(values)


def outcomes_of(detections: Sequence[Box]) -> list[tuple[float, list[Box]]]:
    """Every possible pseudo ground truth with its probability."""
    outcomes = []
    for present in itertools.product((False, True), repeat=len(detections)):
        chosen = list(zip(detections, present, strict=True))
        p = float(np.prod([d["score"] if x else 1.0 - d["score"] for d, x in chosen]))
        outcomes.append((p, [d for d, x in chosen if x]))
    return outcomes


def _coco_annotation(index: int, b: Box) -> Box:
    x, y, w, h = b["x1"], b["y1"], b["x2"] - b["x1"], b["y2"] - b["y1"]
    crowd = int(bool(b.get("iscrowd")))
    return {
        "id": index,
        "image_id": 1,
        "category_id": b["label"],
        "bbox": [x, y, w, h],
        "area": w * h,
        "iscrowd": crowd,
        "score": b.get("score", 1.0),
    }


def _area(b: Box) -> float:
    return float((b["x2"] - b["x1"]) * (b["y2"] - b["y1"]))


def _inter(a: Box, b: Box) -> float:
    w = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    h = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    return float(max(w, 0.0) * max(h, 0.0))
