"""From `hardness` to `acquisition`: the hardest images under a budget, and a random control beside them."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from conf.settings import AcquireSettings, settings_hash
from pipelines.hardness_rows import BASELINE, GROUND_TRUTH
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from pipelines.tables import sql_literal
from schemas.tables import ACQUISITION, HARDNESS
from schemas.tables import GROUND_TRUTH as TRUTH_TABLE

RANDOM = "random"


def acquire(
    run: Run, cycle_id: str, model: Model, settings: AcquireSettings, seed: int, estimator: str
) -> dict[str, int]:
    """Picks the images a cycle sends to labeling; the same settings pick the same rows again.

    Args:
        run: The run.
        cycle_id: The cycle; its earlier picks are replaced.
        model: Whose hardness ranks the images.
        settings: Query, budget, control.
        seed: Seed of ties and of the control.
        estimator: The method that ranks where the settings name none: exact or monte_carlo.

    Returns:
        Rows per strategy.

    Raises:
        QuarryError: The query was not scored, or nothing is left to label.
    """
    method = settings.method or estimator
    candidates = ranked_images(run, model, settings.query, method)
    pool = candidates.transform(not_labeled_for_training, run).select("image_id", "hardness")
    n_pool = pool.count()
    if n_pool == 0:
        raise QuarryError("nothing to acquire: every scored image has labels that were trained on")
    budget = min(settings.budget_images, n_pool)
    if budget < settings.budget_images:
        run.tell(f"the pool holds {n_pool:,} images only, below the budget of {settings.budget_images:,}")
    strategies = {f"hardest:{settings.query}": "hardness"} | ({RANDOM: "draw"} if settings.control else {})
    picked = [
        pool.transform(top_images, column, strategy, budget, seed) for strategy, column in strategies.items()
    ]
    rows = picked[0]
    for more in picked[1:]:
        rows = rows.unionByName(more)
    rows = rows.withColumns(
        {
            "cycle_id": F.lit(cycle_id),
            "unit": F.lit("image"),
            "detection_id": F.lit(None).cast("string"),
            "cost_s": F.lit(None).cast("double"),
            "settings_hash": F.lit(settings_hash(settings, seed, method, model.model_id)),
        }
    )
    rows = rows.select(*ACQUISITION.column_names)
    run.store.replace(ACQUISITION, rows, where=f"cycle_id = {sql_literal(cycle_id)}")
    return dict.fromkeys(strategies, budget)


def ranked_images(run: Run, model: Model, query: str, method: str) -> DataFrame:
    """Rows of `hardness` that rank images for a query: not older than the detections they speak of.

    Raises:
        QuarryError: There is none; the message has what there is.
    """
    scored = run.store.require(HARDNESS, made_by="score").where(F.col("model_id") == model.model_id)
    candidates = scored.where((F.col("query") == query) & F.col("method").isin(method, BASELINE))
    detected = detections_of(run, model).select("image_id", F.col("ts").alias("detected_ts"))
    candidates = candidates.join(detected, "image_id").where("ts >= detected_ts")
    if candidates.isEmpty():
        known = scored.select("query", "method").distinct().limit(1000).collect()
        methods = sorted({row.method for row in known if row["query"] == query} - {GROUND_TRUTH})
        if methods:
            raise QuarryError(
                f"acquire.method: {query!r} was scored by {', '.join(methods)}, not by {method!r} "
                "since the images were last detected"
            )
        raise QuarryError(
            f"acquire.query: {query!r} was not scored; {nearest(query, [row['query'] for row in known])}"
        )
    return candidates


def not_labeled_for_training(candidates: DataFrame, run: Run) -> DataFrame:
    """Leaves out images whose complete labels were trained on; labels held out to measure do not count."""
    trained_on = run.store.read(TRUTH_TABLE).where("complete AND split = 'train'").select("image_id")
    return candidates.join(trained_on, "image_id", "left_anti")


def top_images(pool: DataFrame, column: str, strategy: str, budget: int, seed: int) -> DataFrame:
    """The `budget` images with the largest value; ties break by a hash of image and seed.

    Args:
        pool: Columns image_id, hardness.
        column: `hardness`, or `draw` for a uniform number from (seed, image_id).
        strategy: Name written to the rows.
        budget: Number of images, at least 1: they are ranked in one task after each partition has
            sent its own best.
        seed: Seed of ties and draws.
    """
    tie = F.xxhash64(F.lit(seed), F.lit(strategy), F.col("image_id"))
    draw = F.shiftrightunsigned(tie, 11).cast("double") / F.lit(float(1 << 53))
    best = pool.withColumns({"tie": tie, "draw": draw}).orderBy(F.desc(column), "tie").limit(budget)
    rank = F.row_number().over(Window.partitionBy(F.lit(0)).orderBy(F.desc(column), "tie"))
    return best.select(
        F.lit(strategy).alias("strategy"), rank.alias("rank"), "image_id", F.col(column).alias("score")
    )
