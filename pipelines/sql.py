"""What people query: the tables and views by name, and the small results that jobs print."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import ScoreSettings
from pipelines.run import Run
from schemas.tables import BOXES_VIEW, METRICS, hardness_wide_view


def register_tables(run: Run, scoring: ScoreSettings) -> list[str]:
    """Makes all tables that exist, and the views `boxes` and `hardness_wide`, readable by name.

    Returns:
        The names now registered.
    """
    wide = hardness_wide_view((*scoring.queries, *scoring.baselines))
    return run.store.register_views((BOXES_VIEW, wide))


def ndcg_table(run: Run, cycle_id: str, model_id: str) -> DataFrame:
    """nDCG of a cycle: a row a query, a column a method."""
    rows = _metrics(run, cycle_id, model_id).where("metric = 'ndcg'")
    return rows.groupBy("query").pivot("method").agg(F.round(F.first("value"), 3)).orderBy("query")


def detector_figures(run: Run, cycle_id: str, model_id: str) -> DataFrame:
    """AP, AP50 (also per class) and expected calibration error of a cycle's detector."""
    rows = _metrics(run, cycle_id, model_id).where("method = 'detector'")
    return rows.select("metric", "query", F.round("value", 3).alias("value"), "n").orderBy("metric", "query")


def _metrics(run: Run, cycle_id: str, model_id: str) -> DataFrame:
    return run.store.read(METRICS).where((F.col("cycle_id") == cycle_id) & (F.col("model_id") == model_id))
