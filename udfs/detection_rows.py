"""Arrow rows of what a detector found: built from whole arrays, not value by value."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.image_files import ImageFault
from udfs.image_hash import as_signed

if TYPE_CHECKING:
    from detectors.detections import Detections

DETECTION_TYPE = pa.struct(
    [
        ("detection_id", pa.string()),
        ("label", pa.int32()),
        ("label_name", pa.string()),
        ("score", pa.float64()),
        ("x1", pa.float64()),
        ("y1", pa.float64()),
        ("x2", pa.float64()),
        ("y2", pa.float64()),
        ("logits", pa.list_(pa.float32())),
        ("feature", pa.list_(pa.float32())),
    ]
)
# Where an image's time went (ms): waiting for the store, decoding, the model waiting for images, then its
# stages. Sums over images are worker time, not wall time: readers and model work side by side.
TIMINGS = (
    "fetch_ms",
    "decode_ms",
    "wait_ms",
    "transfer_ms",
    "forward_ms",
    "post_process_ms",
    "pixel_scores_ms",
)
PASSED_THROUGH = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("image_ts", pa.timestamp("us", tz="UTC")),
        ("sequence_id", pa.string()),
        ("frame_index", pa.int32()),
    ]
)
DETECT_SCHEMA = pa.schema(
    [
        *PASSED_THROUGH,
        ("model_id", pa.string()),
        ("view", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION_TYPE)),
        ("n_detections", pa.int32()),
        ("image_feature", pa.list_(pa.float32())),
        ("pixel_scores", pa.map_(pa.string(), pa.float64())),
        ("image_hash", pa.int64()),
        ("latency_ms", pa.float32()),
        ("error_class", pa.string()),
        ("message", pa.string()),
        *((name, pa.float32()) for name in TIMINGS),
        ("gpu_percent", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one view of one image.

    Attributes:
        row: Index of the image's input row.
        view: Test-time view.
        found: Detections in px of the image, or why there are none.
        size_wh: Width and height (px); none for a fault.
        image_hash: Perceptual hash of the image, 0..2^64 - 1; none for a fault.
        timings: Some of TIMINGS, ms.
        gpu_percent: How busy the GPU was (0 to 100); none where it cannot be read.
    """

    row: int
    view: str
    found: Detections | ImageFault
    size_wh: tuple[int, int] | None = None
    image_hash: int | None = None
    timings: dict[str, float] = field(default_factory=dict)
    gpu_percent: float | None = None


def outcome_batch(
    rows: pa.RecordBatch, outcomes: Sequence[Outcome], model_id: str, classes: Sequence[str]
) -> pa.RecordBatch:
    """One row an outcome, in the order given.

    Args:
        rows: Input rows with the columns of PASSED_THROUGH (all but image_id and uri may be missing).
        outcomes: What became of them.
        model_id: The detector.
        classes: Name of label i at i - 1.

    Returns:
        DETECT_SCHEMA: either detections (perhaps none), or error_class and message.
    """
    image_ids = rows.column("image_id").to_pylist()
    found = [None if isinstance(o.found, ImageFault) else o.found for o in outcomes]
    faults = [o.found if isinstance(o.found, ImageFault) else None for o in outcomes]
    sizes = [o.size_wh or (None, None) for o in outcomes]
    columns: dict[str, Any] = {
        "model_id": [model_id] * len(outcomes),
        "view": [o.view for o in outcomes],
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
        "n_detections": [None if d is None else len(d) for d in found],
        "image_feature": [None if d is None else d.image_feature for d in found],
        "pixel_scores": [
            None if d is None or d.pixel_scores is None else list(d.pixel_scores.items()) for d in found
        ],
        "image_hash": [None if o.image_hash is None else as_signed(o.image_hash) for o in outcomes],
        "latency_ms": [None if d is None else _latency_ms(o) for d, o in zip(found, outcomes, strict=True)],
        "error_class": [None if fault is None else fault.error_class for fault in faults],
        "message": [None if fault is None else fault.message for fault in faults],
        "gpu_percent": [o.gpu_percent for o in outcomes],
        **{name: [o.timings.get(name) for o in outcomes] for name in TIMINGS},
    }
    arrays = {name: pa.array(values, DETECT_SCHEMA.field(name).type) for name, values in columns.items()}
    ids = [
        [detection_id(image_ids[o.row], model_id, o.view, i) for i in range(0 if d is None else len(d))]
        for d, o in zip(found, outcomes, strict=True)
    ]
    arrays["detections"] = detection_lists(found, ids, classes)
    taken = pa.array([o.row for o in outcomes], pa.int64())
    for column in PASSED_THROUGH:
        if column.name in rows.schema.names:
            arrays[column.name] = rows.column(column.name).take(taken).cast(column.type)
        else:
            arrays[column.name] = pa.nulls(len(outcomes), column.type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in DETECT_SCHEMA.names], schema=DETECT_SCHEMA)


def detection_lists(
    found: Sequence[Detections | None], ids: Sequence[Sequence[str]], classes: Sequence[str]
) -> pa.ListArray:
    """The column `detections`: a list of DETECTION_TYPE an image, in the detector's order; null for a fault.

    Args:
        found: Detections, or none.
        ids: detection_id of every detection.
        classes: Name of label i at i - 1.
    """
    kept = [d for d in found if d is not None]
    labels = _joined([d.labels for d in kept], np.int64)
    boxes = _joined([d.boxes_xyxy for d in kept], np.float32).reshape(-1, 4)
    x1, y1, x2, y2 = (pa.array(corner.astype(np.float64)) for corner in boxes.T)
    values: dict[str, pa.Array] = {
        "detection_id": pa.array([i for image in ids for i in image], pa.string()),
        "label": pa.array(labels.astype(np.int32)),
        "label_name": pa.array(list(classes), pa.string()).take(pa.array(labels - 1)),
        "score": pa.array(_joined([d.scores for d in kept], np.float32).astype(np.float64)),
        **{"x1": x1, "y1": y1, "x2": x2, "y2": y2},
        "logits": _vectors([d.logits for d in kept], [len(d) for d in kept]),
        "feature": _vectors([d.features for d in kept], [len(d) for d in kept]),
    }
    structs = pa.StructArray.from_arrays(
        [values[f.name] for f in DETECTION_TYPE], fields=list(DETECTION_TYPE)
    )
    counts = [0 if d is None else len(d) for d in found]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    missing = pa.array([d is None for d in found], pa.bool_())
    return pa.ListArray.from_arrays(offsets, structs, type=pa.list_(DETECTION_TYPE), mask=missing)


def detection_id(image_id: str, model_id: str, view: str, position: int) -> str:
    """A stable id of one detection: 16 hexadecimal characters from image, model, view and position."""
    text = f"{image_id}\n{model_id}\n{view}\n{position}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _latency_ms(outcome: Outcome) -> float:
    stages = ("transfer_ms", "forward_ms", "post_process_ms", "pixel_scores_ms")
    return sum(outcome.timings.get(name, 0.0) for name in stages)


def _joined(parts: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _vectors(parts: Sequence[NDArray[np.float32] | None], counts: Sequence[int]) -> pa.Array:
    """A list of float32 a detection; null for those of an image that the detector hands out none for."""
    widths = np.repeat([0 if part is None else part.shape[1] for part in parts], counts)
    values = _joined([part.ravel() for part in parts if part is not None], np.float32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(widths)]).astype(np.int32))
    absent = pa.array(np.repeat([part is None for part in parts], counts).astype(bool))
    return pa.ListArray.from_arrays(offsets, pa.array(values), mask=absent)
