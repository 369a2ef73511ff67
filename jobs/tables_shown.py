"""Small results as text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame

from conf.settings import ScoreSettings
from pipelines.report_evaluation import read_evaluation
from pipelines.run import Run
from pipelines.sql import detector_figures

if TYPE_CHECKING:
    from udfs.evaluation import Cell

WIDEST_CELL = 90
MOST_FIGURES = 100


def show(run: Run, frame: DataFrame, rows: int) -> None:
    """Prints the first rows of a frame as a text table."""
    found = frame.limit(rows + 1).collect()
    tell_table(run, frame.columns, [[_text(value) for value in row] for row in found[:rows]])
    if len(found) > rows:
        run.tell(f"... more rows; --rows N shows more than {rows}")


def show_evaluation(run: Run, cycle_id: str, model_id: str, scoring: ScoreSettings) -> None:
    """Prints nDCG and mAUC of every query and method, how alike queries are, and the detector's figures."""
    evaluation = read_evaluation(run, cycle_id, model_id, scoring)
    for table in evaluation.tables:
        run.tell(f"{table.metric} of each ranking (1 is perfect):")
        rows = [[query, *map(_score, cells)] for query, cells in table.named_rows]
        tell_table(run, ["query", *table.methods], [*rows, ["mean", *map(_score, table.means)]])
        run.tell("")
    run.tell("* best of its row   ± half the 95 % interval   ~ no better than random\n")
    if evaluation.between_queries is not None:
        matrix = evaluation.between_queries
        run.tell("how alike true hardness ranks images (Spearman):")
        numbers = [str(place) for place in range(1, len(matrix.names) + 1)]
        cells = [["-" if value is None else f"{value:.2f}" for value in row] for row in matrix.values]
        names = [[f"{number} {name}"] for number, name in zip(numbers, matrix.names, strict=True)]
        tell_table(run, ["query", *numbers], [name + row for name, row in zip(names, cells, strict=True)])
        run.tell("")
    run.tell("the detector itself (ece: expected calibration error of its scores):")
    show(run, detector_figures(run, cycle_id, model_id), MOST_FIGURES)


def _score(cell: Cell) -> str:
    if cell.value is None:
        return "-"
    half = "" if cell.low is None or cell.high is None else f" ±{(cell.high - cell.low) / 2:.3f}"
    return f"{cell.value:.3f}{half}{'*' if cell.is_best else ''}{'~' if cell.no_better_than_random else ''}"


def tell_table(run: Run, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of text under a header, in columns."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        run.tell("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"
