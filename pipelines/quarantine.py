"""Images a stage could not use: into `quarantine` with a reason, out of it when they succeed."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.table import Table
from schemas.tables import DETECTIONS, HARDNESS, QUARANTINE
from udfs.image_files import TRANSIENT_FAULTS
from udfs.imported_detections import BAD_DETECTIONS
from udfs.prediction import UNDETECTABLE

IMPORT_STAGE = "import_detections"
MODEL_FAULTS = (UNDETECTABLE, BAD_DETECTIONS)


def record_outcomes(outcomes: DataFrame, stage: str, run: Run) -> None:
    """Merges one stage's outcomes into `quarantine`.

    Args:
        outcomes: Rows with image_id, uri, error_class and message (both null when the image was fine), and
            model_id where a model is involved; an image may have several, one of which may be a fault.
        stage: ingest, detect or import_detections.
        run: Gives the time stamps.
    """
    now = utc_timestamp(run.started_s)
    if "model_id" not in outcomes.columns:
        outcomes = outcomes.withColumn("model_id", F.lit(None).cast("string"))
    faults = outcomes.where("error_class IS NOT NULL")
    stamps = {"stage": F.lit(stage), "attempts": F.lit(1), "first_ts": now, "last_ts": now}
    of_model = F.when(F.col("error_class").isin(*MODEL_FAULTS), F.col("model_id"))
    failed = faults.withColumns({**stamps, "model_id": of_model, "resolved": F.lit(False)})
    # One view of an image may be fine and the other not.
    fine = outcomes.where("error_class IS NULL").join(faults.select("image_id"), "image_id", "left_anti")
    fine = fine.select("image_id", F.col("model_id").alias("by_model")).distinct()
    cured = _unresolved(run, imported=stage == IMPORT_STAGE).join(fine, "image_id")
    cured = cured.where("model_id IS NULL OR model_id = by_model")
    changes = {
        name: f"s.{name}" for name in ("uri", "stage", "error_class", "message", "last_ts", "resolved")
    }
    changes["attempts"] = "CASE WHEN s.resolved THEN t.attempts ELSE t.attempts + 1 END"
    found = failed.select(*QUARANTINE.column_names).unionByName(_resolved(cured))
    if not found.isEmpty():
        run.store.merge(QUARANTINE, found, update=changes)


def settle(run: Run, model_id: str | None = None) -> None:
    """Makes `quarantine` and the findings agree, whatever an earlier run left undone.

    Findings in a file before it broke are removed; those in a file that could only not be reached stay. What
    lies between a file and one model removes that model's findings only.

    Args:
        run: The run.
        model_id: A detector; images it has detected since they failed leave quarantine.
    """
    if model_id is not None:
        _resolve_detected(run, model_id)
    faults = _unresolved(run).where(~F.col("error_class").isin(*TRANSIENT_FAULTS))
    faults = faults.select("image_id", F.col("model_id").alias("of_model"), "last_ts")
    if faults.isEmpty():
        return
    for table in (DETECTIONS, HARDNESS):
        run.store.delete(table, _broken_before(run, table, faults))


def _broken_before(run: Run, table: Table, faults: DataFrame) -> DataFrame:
    """image_id and model_id of findings no newer than a fault of their file, or of it and their model."""
    findings = run.store.read(table).select("image_id", "model_id", "ts")
    broken = findings.join(F.broadcast(faults), "image_id").where("ts <= last_ts")
    return broken.where("of_model IS NULL OR of_model = model_id").select("image_id", "model_id")


def _resolve_detected(run: Run, model_id: str) -> None:
    """A run that died between its two commits, or another run, has detected them meanwhile."""
    detected = run.store.read(DETECTIONS).where(F.col("model_id") == model_id)
    detected = detected.groupBy("image_id").agg(F.max("ts").alias("detected_ts"))
    rows = _unresolved(run, imported=False).where(_concerns(model_id)).join(detected, "image_id")
    transient = F.col("error_class").isin(*TRANSIENT_FAULTS)
    cured = _resolved(rows.where(transient | (F.col("detected_ts") > F.col("last_ts"))))
    if not cured.isEmpty():
        run.store.merge(QUARANTINE, cured, update={"resolved": "true"})


def quarantined(run: Run, model_id: str) -> DataFrame:
    """image_id and last_ts of images whose file is at fault, or which this model could not use."""
    passing = (*TRANSIENT_FAULTS, BAD_DETECTIONS)
    rows = _unresolved(run, pinned=True).where(~F.col("error_class").isin(*passing))
    return rows.where(_concerns(model_id)).select("image_id", "last_ts")


def unreached(run: Run) -> DataFrame:
    """image_id of images whose store did not answer, which may be readable next time."""
    rows = _unresolved(run, pinned=True).where(F.col("error_class").isin(*TRANSIENT_FAULTS))
    return rows.select("image_id")


def _unresolved(run: Run, *, imported: bool | None = None, pinned: bool = False) -> DataFrame:
    """Rows of images in quarantine now; an import opens no file, and a file that opens mends no import."""
    run.store.create(QUARANTINE)
    rows = run.store.read(QUARANTINE, pinned=pinned).where("NOT resolved")
    return rows if imported is None else rows.where((F.col("stage") == IMPORT_STAGE) == F.lit(imported))


def _concerns(model_id: str) -> Column:
    return F.coalesce("model_id", F.lit(model_id)) == model_id


def _resolved(rows: DataFrame) -> DataFrame:
    return rows.withColumn("resolved", F.lit(True)).select(*QUARANTINE.column_names)
