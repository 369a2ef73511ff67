"""From `detections` to `hardness`: score only what is missing or out of date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError, nearest
from conf.settings import ScoreSettings, settings_hash
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.tables import DETECTIONS, HARDNESS
from udfs.detect import ORIGINAL_VIEW
from udfs.queries import queries_named
from udfs.score import HARDNESS_SCHEMA, ScoreRequest, score_batches
from udfs.uncertainty_baselines import check_baselines

BASELINE = "baseline"


def score(run: Run, model: Model, settings: ScoreSettings, seed: int) -> dict[str, int]:
    """Adds the hardness of every image for every query and baseline of the settings.

    Rows that are there under the same settings and newer than their detections are not computed again.

    Args:
        run: The run.
        model: Whose detections are scored.
        settings: Queries, thresholds, estimator.
        seed: Seed of Monte Carlo samples.

    Returns:
        Counts: images scored, rows written.

    Raises:
        QuarryError: No detections, or a class or query nobody knows.
    """
    request = score_request(model, settings, seed)
    detections = detections_of(run, model)
    hashes = {method: method_hash(method, settings, seed) for method in (settings.estimator, BASELINE)}
    scored = detections.transform(up_to_date, run, model.model_id, hashes)
    names = missing_names(detections, scored, (*request.queries, *request.baselines))
    if not names:
        return {"images": 0, "rows": 0}
    part = replace(
        request,
        queries=tuple(name for name in request.queries if name in names),
        baselines=tuple(name for name in request.baselines if name in names),
    )
    todo = detections.transform(without_hardness, scored, names)
    rows = todo.transform(add_hardness, part, hashes, settings.eta, run).persist(StorageLevel.DISK_ONLY)
    counts = rows.agg(F.count("*").alias("rows"), F.count_distinct("image_id").alias("images")).first()
    assert counts is not None
    run.tell(
        f"{counts.images:,} images scored for {len(part.queries)} queries ({settings.estimator}) "
        f"and {len(part.baselines)} baselines"
    )
    run.store.merge(HARDNESS, rows, only=partition_condition(model.model_id, names, alias="t."))
    rows.unpersist()
    return {"images": counts.images, "rows": counts.rows}


def require_known_names(settings: ScoreSettings, acquired: str) -> None:
    """Fails before any image is opened when a query or baseline is unknown, or acquired but not scored.

    Raises:
        QuarryError: Names the setting and the nearest valid name.
    """
    queries_named(settings.queries)
    check_baselines(settings.baselines)
    scored = (*settings.queries, *settings.baselines)
    if acquired not in scored:
        raise QuarryError(f"acquire.query: {acquired!r} is not in score.queries; {nearest(acquired, scored)}")


def score_request(model: Model, settings: ScoreSettings, seed: int) -> ScoreRequest:
    """The settings as the calculation takes them, with class names resolved to the model's label ids."""
    return ScoreRequest(
        queries=settings.queries,
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
    detections = run.store.require(DETECTIONS, made_by="detect")
    return detections.where((F.col("model_id") == model.model_id) & (F.col("view") == ORIGINAL_VIEW))


def up_to_date(detections: DataFrame, run: Run, model_id: str, hashes: Mapping[str, str]) -> DataFrame:
    """image_id and query of the rows that need no work: same settings, not older than their detections.

    Args:
        detections: Columns image_id and ts.
        run: The run.
        model_id: The model.
        hashes: Settings hash of each method.
    """
    rows = run.store.read(HARDNESS, pinned=True).where(F.col("model_id") == model_id)
    same = [f"(method = '{method}' AND settings_hash = '{digest}')" for method, digest in hashes.items()]
    rows = rows.where(" OR ".join(same)).select("image_id", "query", F.col("ts").alias("scored_ts"))
    current = rows.join(detections.select("image_id", "ts"), "image_id").where("scored_ts >= ts")
    return current.select("image_id", "query")


def missing_names(detections: DataFrame, scored: DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Names that at least one image lacks; as many rows come to the driver as there are names."""
    n_images = detections.count()
    complete = {
        row["query"] for row in scored.groupBy("query").count().where(F.col("count") == n_images).collect()
    }
    return tuple(name for name in names if name not in complete)


def without_hardness(detections: DataFrame, scored: DataFrame, names: Sequence[str]) -> DataFrame:
    """Images that lack at least one of the names."""
    per_image = scored.where(F.col("query").isin(*names)).groupBy("image_id").agg(F.count("*").alias("n"))
    complete = per_image.where(F.col("n") == len(names)).select("image_id")
    return detections.join(complete, "image_id", "left_anti")


def add_hardness(
    detections: DataFrame, request: ScoreRequest, hashes: Mapping[str, str], eta: float, run: Run
) -> DataFrame:
    """Rows of `hardness` for each image and name of the request."""
    columns = ("image_id", "model_id", "width", "height", "detections")
    scored = detections.select(*columns).mapInArrow(
        partial(score_batches, request=request), from_arrow_schema(HARDNESS_SCHEMA)
    )
    is_baseline = F.col("estimator") == BASELINE
    method = F.when(is_baseline, BASELINE).otherwise(request.estimator)
    digest = F.when(is_baseline, hashes[BASELINE]).otherwise(hashes[request.estimator])
    return scored.transform(complete_hardness_rows, method, digest, eta, run)


def complete_hardness_rows(
    rows: DataFrame, method: Column, digest: Column, eta: float, run: Run
) -> DataFrame:
    """Adds what is the same for all rows of a run, in schema order."""
    return rows.withColumns(
        {
            "method": method,
            "eta": F.lit(float(eta)),
            "settings_hash": digest,
            "run_id": F.lit(run.run_id),
            "ts": utc_timestamp(run.started_s),
        }
    ).select(*HARDNESS.column_names)


def method_hash(method: str, settings: ScoreSettings, seed: int) -> str:
    """Identity of the settings a method's rows depend on, and of no others."""
    classes = ",".join(settings.classes or ())
    if method == BASELINE:
        return settings_hash(method, classes)
    parts = [settings.matcher, str(settings.iou_threshold), str(settings.eta), classes]
    if method == "exact":
        parts.append(str(settings.max_component))
    # Exact rows depend on samples too: groups of boxes that are too large to enumerate are sampled.
    return settings_hash(method, *parts, settings.samples, seed)


def partition_condition(model_id: str, names: Sequence[str], alias: str = "") -> str:
    """SQL that names the partitions of `hardness` that hold a model's rows of some queries."""
    listed = ", ".join("'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'" for name in names) or "NULL"
    return f"{alias}model_id = '{model_id}' AND {alias}query IN ({listed})"
