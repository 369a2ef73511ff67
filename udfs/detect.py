"""Runs a detector over image paths: read, decode, batch, predict, one Arrow row an image and view."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from conf.errors import QuarryError
from conf.settings import DetectorSettings, DetectSettings
from udfs.detection_rows import Outcome, outcome_batch
from udfs.devices import TaskGpu, worker_device
from udfs.image_files import ImageFault
from udfs.prediction import Prediction
from udfs.read_ahead import ReadGroup, ReadImage, read_ahead
from udfs.views import in_original_px, seen_as

if TYPE_CHECKING:
    import torch

    from detectors.detector import DetectorCard


def detect_batches(
    batches: Iterator[pa.RecordBatch],
    detector: DetectorSettings,
    run: DetectSettings,
    max_pixels: int,
    model_id: str,
    gpu: TaskGpu | None = None,
) -> Iterator[pa.RecordBatch]:
    """Detections of every image, or the reason why there are none; mapInArrow-shaped.

    The model is loaded once per worker process and kept between tasks. The next images are read and decoded
    by threads while the model works on the current ones.

    Args:
        batches: Columns image_id and uri, perhaps n_pixels, sequence_id, frame_index, and `views`: those
            wanted of this image where they are not all of `run.views`.
        detector: What runs; part of the model's identity.
        run: Views, batch size and threads.
        max_pixels: Larger images are faults.
        model_id: Identity of the detector as the job knows it.
        gpu: What Spark says of this task's GPU; none outside Spark.

    Raises:
        QuarryError: The weights or the plugin on this worker are others than the job's.

    Yields:
        Batches of DETECT_SCHEMA: a row per view of a readable image, and one row per image that is not.
    """
    device = worker_device(run.device, gpu)
    model = worker_model(detector.model_dump_json(), device, run.threads, run.compile)
    if model.detector.model_id != model_id:
        raise QuarryError(
            f"{detector.weights}: this worker loads model {model.detector.model_id}, the job runs "
            f"{model_id}: the file was replaced, or workers differ in it or in a plugin; start the job again"
        )
    groups = read_ahead(batches, batch_size=run.batch_size, threads=run.reader_threads, max_pixels=max_pixels)
    for group in groups:
        outcomes = list(_outcomes(model, group, run.views))
        yield outcome_batch(group.rows, outcomes, model.detector.model_id, model.detector.classes)


def detector_card(detector: DetectorSettings) -> DetectorCard:
    """What is known of a detector without running it: identity, classes, head.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    from detectors.load import describe_detector

    return describe_detector(detector)


# A worker of a machine with several GPUs may serve them in turn.
@lru_cache(maxsize=8)
def worker_model(detector_json: str, device: str, threads: int, compile: bool) -> Prediction:
    """The detector of these settings on a device, loaded once per worker process and kept between tasks.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    import torch

    from detectors.load import load_detector

    torch.set_num_threads(threads)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    settings = DetectorSettings.model_validate_json(detector_json)
    return Prediction(load_detector(settings, device=device, compile=compile))


def _outcomes(model: Prediction, group: ReadGroup, views: Sequence[str]) -> Iterator[Outcome]:
    for row, image in enumerate(group.images):
        if isinstance(image.pixels, ImageFault):
            yield Outcome(row=row, view=views[0], found=image.pixels, timings=_read_timings(image, group))
    wanted = group.rows.column("views").to_pylist() if "views" in group.rows.schema.names else None
    refused: set[int] = set()
    seen: set[int] = set()
    for view in views:
        rows = [
            row
            for row, image in enumerate(group.images)
            if not isinstance(image.pixels, ImageFault)
            and row not in refused
            and (wanted is None or view in wanted[row])
        ]
        for outcome in _seen(model, group, rows, view, charged=seen):
            if isinstance(outcome.found, ImageFault):
                refused.add(outcome.row)
            yield outcome
        seen.update(rows)


def _seen(
    model: Prediction, group: ReadGroup, rows: Sequence[int], view: str, *, charged: Collection[int]
) -> Iterator[Outcome]:
    """Outcomes of these rows' images in one view; reading is not charged again to those `charged`."""
    pixels = [group.images[row].pixels for row in rows]
    images = [seen_as(image, view) for image in pixels if not isinstance(image, ImageFault)]
    if not images:
        return
    found = model.outcomes(images)
    stages = {f"{stage}_ms": s * 1000 / len(rows) for stage, s in model.detector.clock.take().items()}
    busy = _gpu_percent(model.detector.device)
    for row, image, seen in zip(rows, images, found, strict=True):
        read = {} if row in charged else _read_timings(group.images[row], group)
        height, width = image.shape[:2]
        if isinstance(seen, ImageFault):
            yield Outcome(row=row, view=view, found=seen, timings=read)
        else:
            yield Outcome(
                row=row,
                view=view,
                found=in_original_px(seen, view, width),
                size_wh=(width, height),
                image_hash=group.images[row].image_hash,
                timings=read | stages,
                gpu_percent=busy,
            )


def _read_timings(image: ReadImage, group: ReadGroup) -> dict[str, float]:
    wait_ms = group.wait_ms / len(group.images)
    return {"fetch_ms": image.fetch_ms, "decode_ms": image.decode_ms, "wait_ms": wait_ms}


def _gpu_percent(device: torch.device) -> float | None:
    """How busy the GPU was of late, where NVIDIA's management library is installed (nvidia-ml-py)."""
    if device.type != "cuda":
        return None
    import torch

    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # no nvidia-ml-py, or a device that does not tell: each has its own error
        return None
