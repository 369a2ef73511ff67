"""Images a stage could not use: into `quarantine` with a reason, out of it when they succeed."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.tables import DETECTIONS, HARDNESS, QUARANTINE
from udfs.image_files import TRANSIENT_FAULTS
from udfs.imported_detections import BAD_DETECTIONS

IMPORT_STAGE = "import_detections"
MODEL_FAULTS = ("undetectable", BAD_DETECTIONS)


def record_outcomes(outcomes: DataFrame, stage: str, run: Run) -> None:
    """Merges one stage's outcomes into `quarantine`; what was found in a file before it broke is removed.

    Where the fault is not the file's but lies between it and one model, only that model's rows are removed.

    Args:
        outcomes: One row per image with image_id, uri, error_class and message (both null when the image was
            fine), perhaps model_id.
        stage: ingest, detect or import_detections.
        run: Gives the time stamps.
    """
    now = utc_timestamp(run.started_s)
    failed = outcomes.where("error_class IS NOT NULL").select(
        "image_id",
        "uri",
        F.lit(stage).alias("stage"),
        "error_class",
        "message",
        F.lit(1).alias("attempts"),
        now.alias("first_ts"),
        now.alias("last_ts"),
        F.lit(False).alias("resolved"),
    )
    cured = (
        run.store.read(QUARANTINE)
        .where("NOT resolved")
        # An import opens no file, and a file that opens does not mend an import.
        .where((F.col("stage") == IMPORT_STAGE) == F.lit(stage == IMPORT_STAGE))
        .join(outcomes.where("error_class IS NULL").select("image_id"), "image_id", "left_semi")
        .withColumn("resolved", F.lit(True))
        .select(*QUARANTINE.column_names)
    )
    changes = {
        name: f"s.{name}" for name in ("uri", "stage", "error_class", "message", "last_ts", "resolved")
    }
    changes["attempts"] = "CASE WHEN s.resolved THEN t.attempts ELSE t.attempts + 1 END"
    # Quarantine last: a job that dies before it finds the image still to do.
    if not failed.isEmpty():
        _delete_findings(outcomes, run)
    run.store.merge(QUARANTINE, failed.unionByName(cured), update=changes)


def _delete_findings(outcomes: DataFrame, run: Run) -> None:
    of_model = F.col("error_class").isin(*MODEL_FAULTS)
    for table in (DETECTIONS, HARDNESS):
        run.store.delete(table, outcomes.where(~of_model).select("image_id"))
        if "model_id" in outcomes.columns:
            run.store.delete(table, outcomes.where(of_model).select("image_id", "model_id"))


def quarantined(run: Run, *, transient: bool) -> DataFrame:
    """image_id and last_ts of the images that are in quarantine now.

    Args:
        run: The run.
        transient: Those whose store did not answer, which may be readable next time; else those whose file
            is at fault. Bad detections that were imported are neither.
    """
    rows = run.store.read(QUARANTINE, pinned=True).where("NOT resolved")
    unreached = F.col("error_class").isin(*TRANSIENT_FAULTS)
    at_fault = ~F.col("error_class").isin(*TRANSIENT_FAULTS, BAD_DETECTIONS)
    return rows.where(unreached if transient else at_fault).select("image_id", "last_ts")
