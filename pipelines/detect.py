"""From `images` to `detections`: run the detector on every image it has not seen, quarantine what fails."""

from __future__ import annotations

import json
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import DetectorSettings, DetectSettings
from pipelines.quarantine import quarantined, record_outcomes
from pipelines.run import Run
from pipelines.tables import spark_schema, utc_timestamp
from schemas.tables import DETECTIONS, IMAGES, MODELS
from udfs.detect import DETECT_SCHEMA, ORIGINAL_VIEW, detect_batches, detector_card

if TYPE_CHECKING:
    from detectors.detector import DetectorCard


def detect(
    run: Run, card: DetectorCard, detector: DetectorSettings, settings: DetectSettings, max_pixels: int
) -> dict[str, int]:
    """Runs the detector on the images that have no up-to-date detections from it.

    Args:
        run: The run.
        card: The detector's identity.
        detector: What runs.
        settings: How it runs.
        max_pixels: Larger images are quarantined.

    Returns:
        Counts: images pending before, detected, quarantined, and boxes.

    Raises:
        QuarryError: Nothing was ingested.
    """
    images = run.store.require(IMAGES, made_by="ingest")
    register_model(run, card, detector)
    pending = images.transform(not_yet_detected, run, card.model_id)
    n_pending = pending.count()
    run.tell(f"{n_pending:,} images to detect with {card.name} ({card.model_id})")
    if n_pending == 0:
        return {"pending": 0, "detected": 0, "quarantined": 0, "boxes": 0}
    outcomes = pending.transform(run_detector, detector, settings, max_pixels, n_pending)
    outcomes = outcomes.persist(StorageLevel.DISK_ONLY)
    counts = outcomes.agg(
        F.count("n_detections").alias("detected"),
        F.count("error_class").alias("quarantined"),
        F.coalesce(F.sum("n_detections"), F.lit(0)).alias("boxes"),
    ).first()
    assert counts is not None
    fine = outcomes.where("error_class IS NULL").withColumns(
        {"run_id": F.lit(run.run_id), "ts": utc_timestamp(run.started_s)}
    )
    run.store.merge(DETECTIONS, fine, only=f"t.model_id = '{card.model_id}'")
    record_outcomes(outcomes, "detect", run)
    outcomes.unpersist()
    return {"pending": n_pending, **counts.asDict()}


def not_yet_detected(images: DataFrame, run: Run, model_id: str) -> DataFrame:
    """Readable images that this model has neither detected nor quarantined since they last changed.

    A model tries once more what was in quarantine before it came, and every run what could not be reached.
    """
    registered = run.store.read(MODELS).where(F.col("model_id") == model_id).select("created_ts")
    done = run.store.read(DETECTIONS, pinned=True).where(
        (F.col("model_id") == model_id) & (F.col("view") == ORIGINAL_VIEW)
    )
    faults = (
        quarantined(run, transient=False).crossJoin(F.broadcast(registered)).where("last_ts >= created_ts")
    )
    known = done.select("image_id", "ts").unionByName(faults.select("image_id", F.col("last_ts").alias("ts")))
    current = known.join(images.select("image_id", "ingest_ts"), "image_id").where("ts >= ingest_ts")
    readable = images.where("width IS NOT NULL").select("image_id", "uri")
    return readable.join(current.select("image_id"), "image_id", "left_anti")


def run_detector(
    images: DataFrame, detector: DetectorSettings, settings: DetectSettings, max_pixels: int, n_images: int
) -> DataFrame:
    """One row per image: detections, or the fault. Paths go to the workers, never pixels."""
    worker = partial(detect_batches, detector=detector, run=settings, max_pixels=max_pixels)
    tasks = max(1, -(-n_images // settings.images_per_task))
    # Sorted, so that the same images share a batch on every cluster: sums of floats depend on their order.
    parts = images.repartition(tasks, "image_id").sortWithinPartitions("image_id")
    return parts.mapInArrow(worker, from_arrow_schema(DETECT_SCHEMA))


@lru_cache(maxsize=4)
def known_detector(detector: DetectorSettings) -> DetectorCard:
    """Identity of the detector the settings name; its weights are read once per process.

    Raises:
        QuarryError: The weights are missing, damaged, or do not fit the settings.
    """
    return detector_card(detector)


def register_model(run: Run, card: DetectorCard, detector: DetectorSettings) -> None:
    """Adds the detector to `models`; one that is known under the same id stays as it was."""
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
    frame = run.store.session.createDataFrame([row], spark_schema(MODELS))
    run.store.merge(MODELS, frame.withColumn("created_ts", utc_timestamp(run.started_s)), on_match="keep")
