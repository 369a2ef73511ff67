"""Runs a detector over image paths: read, decode, batch, predict, one Arrow row an image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from conf.errors import QuarryError
from conf.settings import DetectorSettings, DetectSettings
from udfs.image_files import ImageFault, decode_rgb, read_bytes

if TYPE_CHECKING:
    from detectors.detections import Detections
    from detectors.detector import Detector, DetectorCard

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
    ]
)
DETECT_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("model_id", pa.string()),
        ("view", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION_TYPE)),
        ("n_detections", pa.int32()),
        ("latency_ms", pa.float32()),
        ("error_class", pa.string()),
        ("message", pa.string()),
    ]
)
ORIGINAL_VIEW = "original"
READER_THREADS = 2


def detect_batches(
    batches: Iterator[pa.RecordBatch], detector: DetectorSettings, run: DetectSettings, max_pixels: int
) -> Iterator[pa.RecordBatch]:
    """Detections of every image, or the reason why there are none; mapInArrow-shaped.

    The model is loaded once per worker process and kept between tasks. The next images are read and decoded
    by threads while the model works on the current ones.

    Args:
        batches: Columns image_id and uri.
        detector: What runs; part of the model's identity.
        run: Device, batch size and threads; they do not change results beyond float tolerance.
        max_pixels: Larger images are faults.

    Yields:
        Batches of DETECT_SCHEMA, one row per input row: either detections (perhaps none), or error_class and
        message.
    """
    model = _worker_detector(detector.model_dump_json(), run.device, run.threads)
    with ThreadPoolExecutor(READER_THREADS) as readers:
        ahead = None
        for image_ids, uris in _groups(batches, run.batch_size):
            coming = (image_ids, uris, [readers.submit(_read, uri, max_pixels) for uri in uris])
            if ahead is not None:
                yield _detect_group(model, *ahead)
            ahead = coming
        if ahead is not None:
            yield _detect_group(model, *ahead)


def detector_card(detector: DetectorSettings) -> DetectorCard:
    """What is known of a detector without running it: identity, classes, head.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    from detectors.load import describe_detector

    return describe_detector(detector)


@lru_cache(maxsize=1)
def _worker_detector(detector_json: str, device: str, threads: int) -> Detector:
    import torch

    from detectors.load import load_detector

    torch.set_num_threads(threads)
    return load_detector(DetectorSettings.model_validate_json(detector_json), device=device)


def _groups(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[tuple[list[str], list[str]]]:
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            part = batch.slice(start, size)
            yield part.column("image_id").to_pylist(), part.column("uri").to_pylist()


def _read(uri: str, max_pixels: int) -> NDArray[np.uint8] | ImageFault:
    try:
        return decode_rgb(read_bytes(uri), max_pixels)
    except ImageFault as fault:
        return fault


def _detect_group(
    model: Detector, image_ids: Sequence[str], uris: Sequence[str], reads: Sequence[Any]
) -> pa.RecordBatch:
    contents = [read.result() for read in reads]
    readable = [i for i, content in enumerate(contents) if not isinstance(content, ImageFault)]
    start_s = time.perf_counter()
    found = dict(zip(readable, _predicted(model, [contents[i] for i in readable]), strict=True))
    latency_ms = (time.perf_counter() - start_s) * 1000 / max(len(readable), 1)
    rows = []
    for i, (image_id, uri) in enumerate(zip(image_ids, uris, strict=True)):
        row: dict[str, Any] = {"image_id": image_id, "uri": uri}
        row |= {"model_id": model.model_id, "view": ORIGINAL_VIEW}
        outcome = found.get(i, contents[i])
        if isinstance(outcome, ImageFault):
            row |= {"error_class": outcome.error_class, "message": outcome.message}
        else:
            height, width = contents[i].shape[:2]
            structs = detection_structs(image_id, model.model_id, outcome, model.classes)
            row |= {"width": width, "height": height, "latency_ms": latency_ms}
            row |= {"detections": structs, "n_detections": len(structs)}
        rows.append(row)
    return pa.RecordBatch.from_pylist(rows, schema=DETECT_SCHEMA)


def _predicted(model: Detector, images: Sequence[NDArray[np.uint8]]) -> list[Detections | ImageFault]:
    """Detections of each image; one that the model refuses becomes a fault and spares the others."""
    if not images:
        return []
    try:
        return list(model.predict(images))
    except QuarryError as error:
        if len(images) == 1:
            return [ImageFault("undetectable", str(error))]
        return [outcome for image in images for outcome in _predicted(model, [image])]


def detection_structs(
    image_id: str, model_id: str, found: Detections, classes: Sequence[str], view: str = ORIGINAL_VIEW
) -> list[dict[str, Any]]:
    """One image's detections as the structs of the `detections` table, in the detector's order.

    Args:
        image_id: The image.
        model_id: The detector.
        found: Aligned arrays of the image.
        classes: Name of label i at i - 1.
        view: Test-time view.

    Returns:
        A dict per detection with the fields of DETECTION_TYPE.
    """
    logits = found.logits
    return [
        {
            "detection_id": detection_id(image_id, model_id, view, i),
            "label": int(label),
            "label_name": classes[int(label) - 1],
            "score": float(score),
            "x1": float(box[0]),
            "y1": float(box[1]),
            "x2": float(box[2]),
            "y2": float(box[3]),
            "logits": None if logits is None else logits[i].tolist(),
        }
        for i, (box, score, label) in enumerate(
            zip(found.boxes_xyxy, found.scores, found.labels, strict=True)
        )
    ]


def detection_id(image_id: str, model_id: str, view: str, position: int) -> str:
    """A stable id of one detection: 16 hexadecimal characters from image, model, view and position."""
    text = f"{image_id}\n{model_id}\n{view}\n{position}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
