"""What people query: the tables and views by name, and the small results that jobs print."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import ScoreSettings
from pipelines.run import Run
from schemas.tables import BOXES_VIEW, METRICS, hardness_wide_view


def register_tables(run: Run, scoring: ScoreSettings, pixel_scores: Sequence[str] = ()) -> list[str]:
    """Makes all tables that exist, and the views `boxes` and `hardness_wide`, readable by name.

    Args:
        run: The run.
        scoring: Its queries and baselines are columns of `hardness_wide`.
        pixel_scores: So are these.

    Returns:
        The names now registered.
    """
    wide = hardness_wide_view((*scoring.queries, *scoring.baselines, *pixel_scores))
    return run.store.register_views((BOXES_VIEW, wide))


def detector_figures(run: Run, cycle_id: str, model_id: str) -> DataFrame:
    """AP, AP50 and expected calibration error of a cycle's detector, overall and per class."""
    rows = run.store.read(METRICS).where((F.col("cycle_id") == cycle_id) & (F.col("model_id") == model_id))
    rows = rows.where("method = 'detector' AND metric IN ('ap', 'ap50', 'ece')")
    return rows.select("metric", "query", F.round("value", 3).alias("value"), "n").orderBy("metric", "query")
