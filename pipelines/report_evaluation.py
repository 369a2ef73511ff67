"""What was measured in a cycle, read back for the report, the console and picture files."""

from __future__ import annotations

from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import ScoreSettings
from pipelines.one_table import one_table
from pipelines.rankings import rankings
from pipelines.report_queries import query_histograms
from pipelines.report_source import ReportSource
from pipelines.run import Run
from pipelines.true_hardness import held_out_truth
from schemas.tables import METRICS
from udfs.evaluate import CURVE_SCHEMA, IDEAL, curve_rows
from udfs.evaluation import METHOD_ORDER, Evaluation, MetricRow, evaluation_of, listed_first
from udfs.evaluation_files import evaluation_files
from udfs.metric_rows import RANDOM
from udfs.published_file import published
from udfs.report_content import CurvePanel, HardnessCurve


def read_evaluation(run: Run, cycle_id: str, model_id: str, scoring: ScoreSettings) -> Evaluation:
    """The metrics of a cycle: as many rows as queries times methods, and classes times score bins."""
    rows = run.store.read(METRICS).where((F.col("cycle_id") == cycle_id) & (F.col("model_id") == model_id))
    names = ("metric", "query", "method", "value", "n", "low", "high")
    found = [MetricRow(**row.asDict()) for row in rows.select(*names).collect()]
    return evaluation_of(found, scoring.queries)


def curve_panels(source: ReportSource) -> tuple[CurvePanel, ...]:
    """Cumulative hardness curves of every query: each method, and the ideal ranking."""
    scoring = source.settings.score
    truth = held_out_truth(source.run, source.model)
    ranked = rankings(source.run, truth, source.model, scoring, source.settings.seed)
    curves = ranked.groupBy("query").applyInArrow(one_table(curve_rows), from_arrow_schema(CURVE_SCHEMA))
    in_order = listed_first(METHOD_ORDER, last=(RANDOM, IDEAL))
    rows = sorted(curves.collect(), key=lambda row: in_order(row.method))
    panels = []
    for query in scoring.queries:
        lines = tuple(
            HardnessCurve(method=row.method, budget=tuple(row.budget), found=tuple(row.found))
            for row in rows
            if row["query"] == query
        )
        if lines:
            panels.append(CurvePanel(query=query, curves=lines))
    return tuple(panels)


def write_pictures(source: ReportSource, folder: str) -> int:
    """Writes every chart of a cycle's evaluation as an SVG file; returns how many.

    Args:
        source: Whose evaluation.
        folder: Path or URI; made when absent, files of the same name are replaced.
    """
    evaluation = read_evaluation(source.run, source.cycle_id, source.model.model_id, source.settings.score)
    files = evaluation_files(evaluation, curve_panels(source), query_histograms(source))
    for name, svg in files.items():
        with published(f"{folder.rstrip('/')}/{name}") as stream:
            stream.write(svg)
    return len(files)
