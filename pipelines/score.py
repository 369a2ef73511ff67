"""From `detections` to `hardness`: score only what is missing or out of date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.settings import CalibrationSettings, ScoreSettings, settings_hash
from pipelines.calibrate import fitted_calibration, with_calibration_folds
from pipelines.hardness_rows import (
    BASELINE,
    CALIBRATED,
    complete_hardness_rows,
    missing_names,
    partition_condition,
    query_digest,
    up_to_date,
    without_hardness,
)
from pipelines.local_frame import local_frame
from pipelines.models import Model, model_named
from pipelines.pixel_hardness import score_pixels
from pipelines.run import Run
from pipelines.score_inputs import detections_of, require_known_queries, score_request, with_members
from schemas.tables import GROUND_TRUTH, HARDNESS
from udfs.committee import Committee, member_column
from udfs.detection_batch import field_column
from udfs.score import HARDNESS_SCHEMA, score_batches
from udfs.score_calibration import FOLD_COLUMN
from udfs.score_request import ScoreRequest

_BOX_FIELDS = ("label", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """One way to score: rows of one method.

    Attributes:
        method: `hardness.method`.
        digest: `hardness.settings_hash`: all that the rows depend on beside their query.
        request: What the workers compute.
        members: The committee, for its method.
        folds: Columns image_id and calibration_fold of the images that calibration was fitted on, for its
            method.
    """

    method: str
    digest: str
    request: ScoreRequest
    members: tuple[Model, ...] = ()
    folds: DataFrame | None = None


def score(
    run: Run, model: Model, settings: ScoreSettings, calibration: CalibrationSettings, seed: int
) -> dict[str, int]:
    """Adds the hardness of every image for every query and baseline of the settings, and its pixel scores.

    Rows that are there under the same settings and newer than their detections are not computed again.

    Args:
        run: The run.
        model: Whose detections are scored.
        settings: Queries, thresholds, estimator, committee.
        calibration: Whether and how calibrated rows come beside those of the raw scores.
        seed: Seed of Monte Carlo samples.

    Returns:
        Counts: images scored, rows written.

    Raises:
        QuarryError: No detections, or a class, query or model nobody knows.
    """
    require_known_queries(settings)
    plans = [
        *own_plans(model, settings, seed),
        *committee_plans(run, model, settings, seed),
        *calibrated_plans(run, model, settings, calibration, seed),
    ]
    counts = [score_by(run, model, plan, settings) for plan in plans]
    counts.append(score_pixels(run, model, settings))
    return {"images": max(c["images"] for c in counts), "rows": sum(c["rows"] for c in counts)}


def own_plans(model: Model, settings: ScoreSettings, seed: int) -> list[ScorePlan]:
    """Score sampling by the model's own scores, and the baselines."""
    request = score_request(model, settings, seed)
    return [
        ScorePlan(
            method=settings.estimator,
            digest=settings_hash(*_estimation(settings, seed)),
            request=replace(request, baselines=()),
        ),
        ScorePlan(
            method=BASELINE, digest=settings_hash(BASELINE, model.head), request=replace(request, queries=())
        ),
    ]


def committee_plans(run: Run, model: Model, settings: ScoreSettings, seed: int) -> list[ScorePlan]:
    """Other models' detections in place of the model's own scores, where settings name any."""
    if not settings.committee:
        return []
    members = tuple(model_named(run, name, "score.committee") for name in settings.committee)
    labels = {name: label for label, name in model.classes.items()}
    maps = [
        {label: labels[name] for label, name in member.classes.items() if name in labels}
        for member in members
    ]
    for member, shared in zip(members, maps, strict=True):
        if not shared:
            raise QuarryError(
                f"score.committee: {member.name} ({', '.join(member.classes.values())}) shares no class with "
                f"{model.name} ({', '.join(labels)})"
            )
    committee = Committee(truth=settings.committee_truth, label_maps=tuple(maps))
    ids = [member.model_id for member in members]
    return [
        ScorePlan(
            method=f"committee_{settings.committee_truth}{_suffix(settings)}",
            digest=settings_hash(*_estimation(settings, seed), *ids),
            request=replace(score_request(model, settings, seed), baselines=(), committee=committee),
            members=members,
        )
    ]


def calibrated_plans(
    run: Run, model: Model, settings: ScoreSettings, calibration: CalibrationSettings, seed: int
) -> list[ScorePlan]:
    """Calibrated scores in place of the raw ones, where held-out labels show that it pays."""
    fitted = None
    if not run.store.read(GROUND_TRUTH).isEmpty():
        fitted = fitted_calibration(run, model, settings, calibration, seed)
    if fitted is None:  # rows of an earlier fit would go on as if it held
        keys = [(model.model_id, method) for method in (CALIBRATED, f"{CALIBRATED}_mc")]
        run.store.delete(HARDNESS, local_frame(run.store.session, keys, "model_id STRING, method STRING"))
        return []
    return [
        ScorePlan(
            method=f"{CALIBRATED}{_suffix(settings)}",
            digest=settings_hash(*_estimation(settings, seed), fitted.calibration.digest),
            request=replace(
                score_request(model, settings, seed), baselines=(), calibration=fitted.calibration
            ),
            folds=fitted.folds,
        )
    ]


def score_by(run: Run, model: Model, plan: ScorePlan, settings: ScoreSettings) -> dict[str, int]:
    """Adds the missing rows of one method; returns counts of images and rows."""
    query_hash = query_digest(settings, is_baseline=plan.method == BASELINE)
    detections = detections_of(run, model).transform(with_members, run, plan.members)
    if plan.folds is not None:
        detections = detections.transform(with_calibration_folds, plan.folds)
    scored = detections.transform(up_to_date, run, model.model_id, plan.method, plan.digest, query_hash)
    missing = missing_names(detections, scored, (*plan.request.queries, *plan.request.baselines))
    names = (*missing.everywhere, *missing.somewhere)
    if not names:
        return {"images": 0, "rows": 0}
    # A query that is new to the lake needs all images, one that is not only the new images.
    lacking = detections.transform(without_hardness, scored, missing.somewhere)
    parts = [
        frame.transform(add_hardness, _only(plan.request, chosen))
        for frame, chosen in ((detections, missing.everywhere), (lacking, missing.somewhere))
        if chosen
    ]
    rows = reduce(DataFrame.unionByName, parts).transform(
        complete_hardness_rows, model.model_id, plan.method, plan.digest, query_hash, settings.eta, run
    )
    rows = rows.persist(StorageLevel.DISK_ONLY)
    n_rows = rows.count()
    n_images = missing.n_images if missing.everywhere else n_rows // len(names)
    run.tell(f"{n_images:,} images scored: {len(names)} {_what(plan)}")
    if settings.estimator == "exact":
        _tell_sampled(run, rows)
    run.store.merge(HARDNESS, rows, only=partition_condition(model.model_id, names, alias="t."))
    if plan.members:  # images that this committee left out may have rows of another one
        others = run.store.read(HARDNESS).where(partition_condition(model.model_id, names))
        others = others.where((F.col("method") == plan.method) & (F.col("settings_hash") != plan.digest))
        run.store.delete(HARDNESS, others.select(*HARDNESS.key))
    rows.unpersist()
    return {"images": n_images, "rows": n_rows}


def _only(request: ScoreRequest, names: Sequence[str]) -> ScoreRequest:
    queries, baselines = (
        tuple(name for name in every if name in names) for every in (request.queries, request.baselines)
    )
    return replace(request, queries=queries, baselines=baselines)


def add_hardness(detections: DataFrame, request: ScoreRequest) -> DataFrame:
    """Hardness of each image for each name of the request, computed on the workers."""
    needs_logits = bool(request.baselines) and request.head == "softmax"
    fields = (*_BOX_FIELDS, "logits") if needs_logits else _BOX_FIELDS
    members = () if request.committee is None else request.committee.label_maps
    # Lists of single fields: Spark reads no other field from the files and builds no structs.
    lists = [
        F.col(f"{name}.{field}").alias(field_column(name, field))
        for name in ("detections", *map(member_column, range(len(members))))
        for field in fields
    ]
    folds = () if request.calibration is None else (FOLD_COLUMN,)
    slim = detections.select("image_id", "width", "height", *folds, *lists)
    return slim.mapInArrow(partial(score_batches, request=request), from_arrow_schema(HARDNESS_SCHEMA))


def _suffix(settings: ScoreSettings) -> str:
    return "" if settings.estimator == "exact" else "_mc"


def _estimation(settings: ScoreSettings, seed: int) -> tuple[str | int, ...]:
    # Exact rows depend on samples too: what has no exact form is sampled.
    return settings.estimator, settings.max_component, settings.samples, seed


def _what(plan: ScorePlan) -> str:
    return "baselines" if plan.method == BASELINE else f"queries ({plan.method})"


def _tell_sampled(run: Run, rows: DataFrame) -> None:
    """Says which queries the exact estimator had to sample: one row a query comes to the driver."""
    sampled = rows.where("estimator LIKE '%mixed' OR estimator LIKE '%monte_carlo'")
    counts = sampled.groupBy("query", "estimator").count().orderBy("query", "estimator").collect()
    for row in counts:
        why = "a group too large to enumerate" if "mixed" in row.estimator else "no exact form"
        run.tell(f"    {row['query']}: {row['count']:,} images sampled ({row.estimator}: {why})")
