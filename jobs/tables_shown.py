"""What jobs print of the tables: small results as text tables."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.run import Run
from schemas.table import View
from schemas.tables import BOXES_VIEW, METRICS, hardness_wide_view

WIDEST_CELL = 90


def sql_views(settings: Settings) -> tuple[View, ...]:
    """The views of every SQL session."""
    return BOXES_VIEW, hardness_wide_view((*settings.score.queries, *settings.score.baselines))


def show(run: Run, frame: DataFrame, rows: int) -> None:
    """Prints the first rows of a frame as a text table."""
    shown = frame.limit(rows + 1).toPandas()
    more = len(shown) > rows
    cells = [[_cell(value) for value in row] for row in shown.head(rows).itertuples(index=False)]
    header = [str(name) for name in shown.columns]
    widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *cells]:
        run.tell("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
    if more:
        run.tell(f"... more rows; --rows N shows more than {rows}")


def show_ndcg(run: Run, cycle_id: str, model_id: str) -> None:
    """Prints the nDCG table of a cycle and the detector's own figures."""
    rows = run.store.read(METRICS).where((F.col("cycle_id") == cycle_id) & (F.col("model_id") == model_id))
    table = rows.where("metric = 'ndcg'").groupBy("query").pivot("method").agg(F.round(F.first("value"), 3))
    run.tell("nDCG of each ranking (1 is perfect):")
    show(run, table.orderBy("query"), rows=100)
    figures = rows.where("method = 'detector'").select("metric", "query", F.round("value", 3).alias("value"))
    show(run, figures.orderBy("metric", "query"), rows=100)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"
