"""From `images` to `detections`: run the detector on every image it has not seen, quarantine what fails."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from conf.settings import DetectorSettings, Settings
from pipelines.detect_chunks import DetectChunks, DetectJob
from pipelines.local_frame import local_frame
from pipelines.pending_images import WORK_ORDER, out_of_date, pending_images
from pipelines.quarantine import settle
from pipelines.run import Run
from pipelines.tables import spark_schema, utc_timestamp
from pipelines.work_queue import WorkQueue
from schemas.tables import DETECTIONS, IMAGES, MODELS
from udfs.detect import detector_card

if TYPE_CHECKING:
    from detectors.detector import DetectorCard


def detect(run: Run, cycle_id: str, job: DetectJob) -> dict[str, int]:
    """Runs the detector on the images and views that have no up-to-date detections from it.

    Work is committed chunk by chunk: a run that is killed loses the chunk under way, and the next one goes
    on from the tables. Several runs may work on one lake: each begins at another place of the queue, leaves
    out what others have committed, and no row is written twice.

    Args:
        run: The run.
        cycle_id: Cycle under which the figures of the run go to `metrics`.
        job: What to do.

    Returns:
        Counts: images pending before, detected, quarantined, and boxes.

    Raises:
        QuarryError: Nothing was ingested.
    """
    # Delta knows the number of rows without reading any.
    n_images = run.store.read(IMAGES).count()
    if not n_images:
        run.store.require(IMAGES, made_by="ingest")
    register_model(run, job.card, job.detector)
    model_id = job.card.model_id
    settle(run, model_id)
    run.store.delete(DETECTIONS, out_of_date(run, model_id))
    chunks = DetectChunks(run, job)
    pending = pending_images(run, model_id, job.settings.views, retry_quarantined=job.retry_quarantined)
    queue = WorkQueue(pending, WORK_ORDER, most_rows=n_images)
    run.tell(f"{len(queue):,} images to detect with {job.card.name} ({model_id})")
    try:
        chunks.work_through(queue)
    finally:
        run.goal.end()
        queue.close()
    settle(run)
    metrics = chunks.metrics
    if metrics.images:
        metrics.write(run, cycle_id, model_id)
        run.tell(metrics.line())
    return {
        "pending": len(queue),
        "detected": metrics.detected,
        "quarantined": metrics.quarantined,
        "boxes": metrics.boxes,
    }


def detect_job(settings: Settings, *, retry_quarantined: bool = False) -> DetectJob:
    """What the settings ask a detection run to do.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    return DetectJob(
        card=known_detector(settings.detector),
        detector=settings.detector,
        settings=settings.detect,
        max_pixels=settings.lake.max_pixels,
        retry_quarantined=retry_quarantined,
    )


@lru_cache(maxsize=4)
def known_detector(detector: DetectorSettings) -> DetectorCard:
    """Identity of the detector the settings name; its weights are read once per process.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    return detector_card(detector)


def register_model(run: Run, card: DetectorCard, detector: DetectorSettings) -> None:
    """Adds the detector to `models`; one that is known under the same id stays as it was."""
    if not run.store.read(MODELS).where(F.col("model_id") == card.model_id).isEmpty():
        return
    row = {
        "model_id": card.model_id,
        "name": card.name,
        "uri": card.uri,
        "classes": dict(enumerate(card.classes, start=1)),
        "head": card.head,
        "parent": None,
        "settings": json.dumps(detector.model_dump(mode="json"), sort_keys=True),
        "created_ts": None,
    }
    frame = local_frame(run.store.session, [row], spark_schema(MODELS))
    run.store.merge(MODELS, frame.withColumn("created_ts", utc_timestamp(run.started_s)), on_match="keep")
