"""Rows of `hardness` that may rank images: of one score, one method, one meaning, and not out of date."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from conf.settings import ScoreSettings
from pipelines.hardness_rows import BASELINE, GROUND_TRUTH, query_hash_meant, since_detection
from pipelines.models import Model
from pipelines.run import Run
from schemas.tables import HARDNESS


class ScoredOtherwise(QuarryError):
    """The images have the score, but by another method, or with another meaning than the one asked for."""


def ranked_images(run: Run, model: Model, query: str, method: str, scoring: ScoreSettings) -> DataFrame:
    """Rows of `hardness` that rank images for a query.

    Those older than the detections they speak of are left out, and so are those that were scored with other
    thresholds, classes or another definition of the query: another team may use its name.

    Raises:
        ScoredOtherwise: There are only such rows.
        QuarryError: There is none; the message has what there is.
    """
    scored = run.store.require(HARDNESS, made_by="score").where(F.col("model_id") == model.model_id)
    candidates = scored.where((F.col("query") == query) & F.col("method").isin(method, BASELINE))
    candidates = candidates.transform(since_detection, run, model.model_id)
    if candidates.isEmpty():
        known = scored.select("query", "method").distinct().limit(1000).collect()
        methods = sorted({row.method for row in known if row["query"] == query} - {GROUND_TRUTH})
        if methods:
            raise ScoredOtherwise(
                f"acquire.method: {query!r} was scored by {', '.join(methods)}, not by {method!r} "
                "since the images were last detected"
            )
        names = {row["query"] for row in known}
        raise QuarryError(
            f"acquire: no image has the score {query!r} ({nearest(query, names)}); run `quarry score` with "
            "it in score.queries or score.baselines, or, for a pixel score, `quarry detect` with it in "
            "detector.pixel_scores and then `quarry score`"
        )
    meant = candidates.where(F.col("query_hash") == query_hash_meant(scoring))
    if meant.isEmpty():
        raise ScoredOtherwise(
            f"acquire: {query!r} was scored last with other settings (eta, iou_threshold, matcher, classes "
            "or define of score): run `quarry score` with the settings of now, or give one of the two "
            "queries another name in score.define"
        )
    return meant
