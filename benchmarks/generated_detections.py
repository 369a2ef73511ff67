"""Simulated detections: street-like images with clustered objects, most scores low, after class-wise NMS.

Nothing here comes from a detector. The numbers are chosen so that counts, overlaps and scores look like those
of a detector run with a low collection threshold: about 37 detections an image, a fifth of them confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from udfs.boxes import BoolArray, FloatArray, IntArray, area_px, iou_of, overlapping_pairs

IMAGE_WH_PX = (1600, 900)
N_CLASSES = 10
NMS_IOU = 0.5
ETA0 = 0.05
MODEL_ID = "simulated"
# Files stay small whatever the lake's size, so that no task holds more than this at a time.
IMAGES_PER_FILE = 5_000
COLUMNS_DDL = (
    "image_id STRING, model_id STRING, width INT, height INT, detections ARRAY<STRUCT<"
    "label: INT, score: DOUBLE, x1: DOUBLE, y1: DOUBLE, x2: DOUBLE, y2: DOUBLE>>"
)


def write_detections(session: SparkSession, folder: Path, n_images: int, seed: int = 0) -> None:
    """Writes simulated detections as Parquet, `IMAGES_PER_FILE` images a file.

    Args:
        session: The session.
        folder: Overwritten.
        n_images: Images; 10^7 need no more memory than 10^4.
        seed: With an image's number, all that its detections depend on.
    """
    n_files = -(-n_images // IMAGES_PER_FILE)

    def generate(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                first = number * IMAGES_PER_FILE
                yield detections_batch(first, min(IMAGES_PER_FILE, n_images - first), seed)

    files = session.range(0, n_files, 1, numPartitions=n_files)
    files.mapInArrow(generate, COLUMNS_DDL).write.mode("overwrite").parquet(str(folder))


def detections_batch(first_image: int, n_images: int, seed: int = 0) -> pa.RecordBatch:
    """Simulated detections of consecutive images.

    Args:
        first_image: Number of the first image.
        n_images: Images, 1 or more.
        seed: Seed; with `first_image` all that the batch depends on.

    Returns:
        Columns as `detections` has them, by falling score in each image, scores `ETA0`..1, boxes in float32
        precision.
    """
    rng = np.random.default_rng((seed, first_image))
    image, boxes, labels, scores = _before_nms(rng, n_images)
    order = np.lexsort((-scores, image))
    image, boxes, labels, scores = image[order], boxes[order], labels[order], scores[order]
    keep = kept_by_nms(np.searchsorted(image, np.arange(n_images + 1)), boxes, labels)
    offsets = np.searchsorted(image[keep], np.arange(n_images + 1)).astype(np.int32)
    fields = [labels[keep].astype(np.int32), scores[keep], *boxes[keep].T]
    structs = pa.StructArray.from_arrays(
        [pa.array(np.ascontiguousarray(values)) for values in fields],
        names=["label", "score", "x1", "y1", "x2", "y2"],
    )
    columns = {
        "image_id": pa.array([f"simulated-{i:09d}" for i in range(first_image, first_image + n_images)]),
        "model_id": pa.repeat(MODEL_ID, n_images),
        "width": pa.repeat(pa.scalar(IMAGE_WH_PX[0], pa.int32()), n_images),
        "height": pa.repeat(pa.scalar(IMAGE_WH_PX[1], pa.int32()), n_images),
        "detections": pa.ListArray.from_arrays(pa.array(offsets), structs),
    }
    return pa.RecordBatch.from_pydict(columns)


def kept_by_nms(offsets: IntArray, boxes_xyxy: FloatArray, labels: IntArray) -> BoolArray:
    """Which boxes greedy class-wise NMS at `NMS_IOU` keeps.

    Args:
        offsets: (n + 1,), starts of the n images.
        boxes_xyxy: (m, 4), px, by falling score in each image.
        labels: (m,), class ids.

    Returns:
        (m,), True for boxes no kept box of their class and a higher score overlaps by more.
    """
    area = area_px(boxes_xyxy)
    pairs = overlapping_pairs(offsets, boxes_xyxy)
    close = iou_of(pairs.inter_px, area[pairs.first] + area[pairs.second] - pairs.inter_px) > NMS_IOU
    close &= labels[pairs.first] == labels[pairs.second]
    better, worse = np.sort((pairs.first[close], pairs.second[close]), axis=0)
    keep = np.ones(len(area), bool)
    while True:  # the k-th best box of an image is settled after k rounds
        settled = np.ones(len(area), bool)
        settled[worse[keep[better]]] = False
        if (settled == keep).all():
            return keep
        keep = settled


def _before_nms(rng: np.random.Generator, n_images: int) -> tuple[IntArray, FloatArray, IntArray, FloatArray]:
    groups = rng.uniform((0.0, 0.35), (1.0, 0.75), (n_images, 3, 2)) * IMAGE_WH_PX
    image = np.repeat(np.arange(n_images), rng.negative_binomial(4, 4 / (4 + 10.0), n_images))
    m = len(image)
    centre = groups[image, rng.integers(0, 3, m)] + rng.normal(0.0, (170.0, 45.0), (m, 2))
    height = np.exp(rng.normal(4.1, 0.75, m))
    size = np.stack((height * np.exp(rng.normal(0.1, 0.5, m)), height), axis=1)
    share = 1.0 / np.arange(1, N_CLASSES + 1)
    label = rng.choice(np.arange(1, N_CLASSES + 1), m, p=share / share.sum())
    clutter = np.repeat(np.arange(n_images), rng.poisson(11.0, n_images))
    k = len(clutter)
    # One box on every object, looser ones beside it, the same box as another class, and clutter.
    beside, other = np.repeat(np.arange(m), rng.poisson(1.7, m)), np.repeat(np.arange(m), rng.poisson(0.6, m))
    rows = np.concatenate((np.arange(m), beside, other))
    spread = np.repeat((0.03, 0.28, 0.05), (m, len(beside), len(other)))[:, None]
    place = centre[rows] + rng.normal(0.0, 1.0, (len(rows), 2)) * spread * size[rows]
    extent = size[rows] * np.exp(rng.normal(0.0, 1.0, (len(rows), 2)) * spread)
    labels = label[rows]
    labels[m + len(beside) :] = rng.integers(1, N_CLASSES + 1, len(other))
    place = np.concatenate((place, rng.uniform((0.0, 0.2), (1.0, 1.0), (k, 2)) * IMAGE_WH_PX))
    extent = np.concatenate((extent, np.exp(rng.normal(3.6, 0.8, (k, 2)))))
    strength = np.concatenate((rng.beta(0.9, 0.6, m), rng.beta(0.5, 4.0, len(rows) - m + k)))
    scores = (ETA0 + (1.0 - ETA0) * strength).astype(np.float32).astype(np.float64)
    low = np.clip(place - extent / 2, 0.0, np.subtract(IMAGE_WH_PX, 2.0))
    high = np.clip(place + extent / 2, low + 1.0, IMAGE_WH_PX)
    boxes = np.concatenate((low, high), axis=1).astype(np.float32).astype(np.float64)
    labels = np.concatenate((labels, rng.integers(1, N_CLASSES + 1, k)))
    return np.concatenate((image[rows], clutter)), boxes, labels, scores
