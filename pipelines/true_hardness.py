"""Hardness from ground truth, on the images that are held out to measure with."""

from __future__ import annotations

from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import ScoreSettings, settings_hash
from pipelines.hardness_rows import (
    GROUND_TRUTH,
    complete_hardness_rows,
    partition_condition,
    query_digest,
    up_to_date,
    without_hardness,
)
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from schemas.tables import GROUND_TRUTH as TRUTH_TABLE
from schemas.tables import HARDNESS
from udfs.score import HARDNESS_SCHEMA, supervise_batches
from udfs.score_request import ScoreRequest

_NEEDED = ("detection_id", "label", "score", "x1", "y1", "x2", "y2")


def held_out_truth(run: Run, model: Model) -> DataFrame:
    """Detections (boxes only) and ground truth of completely labeled, held-out images, in the model's labels.

    A class the model does not know (labels imported before it) gets label -1: its objects count as missed.
    """
    truth = run.store.read(TRUTH_TABLE).where("complete AND split <> 'train'")
    names = F.create_map(*[F.lit(v) for label, name in model.classes.items() for v in (name, label)])
    resolved = F.transform(
        "boxes", lambda b: b.withField("label", F.coalesce(F.try_element_at(names, b.label_name), F.lit(-1)))
    )
    truth = truth.select("image_id", resolved.alias("boxes"), F.col("ts").alias("truth_ts"))
    joined = detections_of(run, model).join(truth, "image_id")
    latest = F.greatest("ts", "truth_ts").alias("ts")
    needed = F.arrays_zip(*[F.col(f"detections.{field}").alias(field) for field in _NEEDED])
    return joined.select(
        "image_id",
        "width",
        "height",
        needed.alias("detections"),
        "boxes",
        F.col("ts").alias("detected_ts"),
        latest,
    )


def write_true_hardness(
    run: Run, truth: DataFrame, model: Model, request: ScoreRequest, scoring: ScoreSettings
) -> None:
    """Adds query values from ground truth to `hardness`, method `ground_truth`."""
    digest, query_hash = settings_hash(GROUND_TRUTH), query_digest(scoring)
    scored = truth.transform(up_to_date, run, model.model_id, GROUND_TRUTH, digest, query_hash)
    todo = truth.transform(without_hardness, scored, request.queries)
    supervised = todo.drop("ts", "detected_ts").mapInArrow(
        partial(supervise_batches, request=request), from_arrow_schema(HARDNESS_SCHEMA)
    )
    rows = supervised.transform(
        complete_hardness_rows, model.model_id, GROUND_TRUTH, digest, query_hash, scoring.eta, run
    )
    run.store.merge(HARDNESS, rows, only=partition_condition(model.model_id, request.queries, alias="t."))
