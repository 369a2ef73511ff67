"""What scoring starts from: the detections, and the settings as the calculation takes them."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from conf.settings import ScoreSettings
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import in_schema
from schemas.tables import DETECTIONS
from udfs.committee import member_column
from udfs.queries import BUILT_IN_QUERIES
from udfs.query_definitions import defined_query
from udfs.score_request import ScoreRequest
from udfs.uncertainty_baselines import check_baselines
from udfs.views import ORIGINAL_VIEW


def require_known_names(
    settings: ScoreSettings, ranked_by: Sequence[str], pixel_scores: Sequence[str] = ()
) -> None:
    """Fails before any image is opened when a query or baseline is unknown, or ranked by but not scored.

    Args:
        settings: What is scored.
        ranked_by: Scores that strategies rank by.
        pixel_scores: What the detector scores beside its detections.

    Raises:
        QuarryError: Names the setting and the nearest valid name.
    """
    require_known_queries(settings)
    scored = (*settings.queries, *settings.baselines, *pixel_scores)
    for name in ranked_by:
        if name not in scored:
            raise QuarryError(
                f"acquire: a strategy ranks by {name!r}, which is not in score.queries, score.baselines or "
                f"detector.pixel_scores; {nearest(name, scored)}"
            )


def require_known_queries(settings: ScoreSettings) -> None:
    """Fails when a query or baseline is unknown.

    Raises:
        QuarryError: Names the setting and the nearest valid name.
    """
    known = (*BUILT_IN_QUERIES, *settings.define)
    for name in settings.queries:
        if name not in known:
            raise QuarryError(f"score.queries: no query {name!r}; {nearest(name, known)}")
    check_baselines(settings.baselines)


def score_request(model: Model, settings: ScoreSettings, seed: int) -> ScoreRequest:
    """The settings as the calculation takes them, with class names resolved to the model's label ids.

    Raises:
        QuarryError: A query or class nobody knows, or a query's Python function that cannot be loaded.
    """
    labels = {name: label for label, name in model.classes.items()}
    wanted = {name: spec for name, spec in settings.define.items() if name in settings.queries}
    return ScoreRequest(
        queries=settings.queries,
        defined=tuple(defined_query(name, spec, labels) for name, spec in wanted.items()),
        baselines=settings.baselines,
        estimator=settings.estimator,
        n_samples=settings.samples,
        seed=seed,
        eta=settings.eta,
        iou_threshold=settings.iou_threshold,
        matcher=settings.matcher,
        max_component=settings.max_component,
        head=model.head,
        labels=label_ids(model, settings.classes),
    )


def label_ids(model: Model, classes: Sequence[str] | None) -> tuple[int, ...] | None:
    """Label ids of class names.

    Raises:
        QuarryError: A class the model does not know.
    """
    if classes is None:
        return None
    ids = {name: label for label, name in model.classes.items()}
    for name in classes:
        if name not in ids:
            raise QuarryError(
                f"score.classes: {name!r} is no class of model {model.name}; {nearest(name, ids)}"
            )
    return tuple(ids[name] for name in classes)


def detections_of(run: Run, model: Model) -> DataFrame:
    """The model's detections on the images as they are, one row an image."""
    detections = in_schema(run.store.require(DETECTIONS, made_by="detect"), DETECTIONS)
    return detections.where((F.col("model_id") == model.model_id) & (F.col("view") == ORIGINAL_VIEW))


def with_members(detections: DataFrame, run: Run, members: Sequence[Model]) -> DataFrame:
    """A committee's detections of the same images beside the model's; images that a member lacks are left
    out and told."""
    n_before = detections.count() if members else 0
    for index, member in enumerate(members):
        theirs = detections_of(run, member).select(
            "image_id", F.col("detections").alias(member_column(index)), F.col("ts").alias("member_ts")
        )
        detections = detections.join(theirs, "image_id").withColumn("ts", F.greatest("ts", "member_ts"))
        detections = detections.drop("member_ts")
    n_missing = n_before - detections.count() if members else 0
    if n_missing == n_before > 0:
        raise QuarryError("score.committee: no image has detections of all members; run them on this lake")
    if n_missing:
        run.tell(f"{n_missing:,} images left out: a member of the committee has no detections of them")
    return detections
