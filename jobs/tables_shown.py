"""Small results as text tables."""

from __future__ import annotations

from pyspark.sql import DataFrame

from pipelines.run import Run
from pipelines.sql import detector_figures, ndcg_table

WIDEST_CELL = 90
MOST_METRICS = 100


def show(run: Run, frame: DataFrame, rows: int) -> None:
    """Prints the first rows of a frame as a text table."""
    found = frame.limit(rows + 1).collect()
    cells = [[_cell(value) for value in row] for row in found[:rows]]
    widths = [max(len(row[i]) for row in [frame.columns, *cells]) for i in range(len(frame.columns))]
    for row in [frame.columns, ["-" * width for width in widths], *cells]:
        run.tell("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
    if len(found) > rows:
        run.tell(f"... more rows; --rows N shows more than {rows}")


def show_evaluation(run: Run, cycle_id: str, model_id: str) -> None:
    """Prints the nDCG table of a cycle and the detector's own figures."""
    run.tell("nDCG of each ranking (1 is perfect):")
    show(run, ndcg_table(run, cycle_id, model_id), MOST_METRICS)
    run.tell("\nthe detector itself:")
    show(run, detector_figures(run, cycle_id, model_id), MOST_METRICS)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"
