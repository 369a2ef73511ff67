"""The charts of an evaluation as SVG files, for slides and papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from udfs.chart_svg import file_svg, method_styles
from udfs.evaluation import Evaluation
from udfs.evaluation_charts import SENSITIVITY_TITLES, matrix_svg, methods_svg, sensitivity_svg
from udfs.report_charts import curves_svg, histogram_svg, reliability_svg
from udfs.report_content import CurvePanel, Histogram


def evaluation_files(
    evaluation: Evaluation, curves: Sequence[CurvePanel], histograms: Mapping[str, Histogram]
) -> dict[str, str]:
    """Every chart of an evaluation, each with its title and legend.

    Args:
        evaluation: What was measured.
        curves: Hardness found, a panel a query.
        histograms: Query to the distribution of its hardness.

    Returns:
        File name to SVG text: ndcg.svg, mauc.svg, curves-<query>.svg, hardness-<query>.svg,
        spearman-queries.svg, spearman-<query>.svg, reliability-<class>.svg, samples-<measure>.svg; what was
        not measured has no file.
    """
    charts = [*_ranking_charts(evaluation, curves), *_other_charts(evaluation, histograms)]
    return {f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.svg": file_svg(svg) for name, svg in charts}


def _ranking_charts(evaluation: Evaluation, curves: Sequence[CurvePanel]) -> Iterator[tuple[str, str]]:
    methods = [method for table in evaluation.tables for method in table.methods]
    styles = method_styles([*methods, *(curve.method for panel in curves for curve in panel.curves)])
    for table in evaluation.tables:
        title = f"{table.metric} of each query and method"
        yield table.metric.lower(), methods_svg(table, styles, chart_id="c", label=title, title=title)
    for panel in curves:
        lines = [(curve.method, curve.budget, curve.found) for curve in panel.curves]
        chart = curves_svg(lines, styles, chart_id="c", label=panel.query, title=panel.query)
        yield f"curves-{panel.query}", chart
    matrices = [evaluation.between_queries] if evaluation.between_queries else []
    for matrix in (*matrices, *evaluation.between_methods):
        title = f"Rank correlation: {matrix.title}"
        yield f"spearman-{matrix.title}", matrix_svg(matrix, chart_id="c", label=title, title=title)


def _other_charts(evaluation: Evaluation, histograms: Mapping[str, Histogram]) -> Iterator[tuple[str, str]]:
    for query, histogram in histograms.items():
        bins = (histogram.edges, histogram.counts, histogram.truth_counts)
        yield f"hardness-{query}", histogram_svg(*bins, chart_id="c", label=query, title=query)
    for part in evaluation.reliability:
        title = f"{part.name}: calibration error {100 * part.ece:.1f} %"
        points = (part.scores, part.precisions, part.counts)
        yield f"reliability-{part.name}", reliability_svg(*points, chart_id="c", label=title, title=title)
    for measure, title in SENSITIVITY_TITLES.items() if evaluation.sensitivity else ():
        chart = sensitivity_svg(evaluation.sensitivity, measure, chart_id="c", label=title, title=title)
        yield f"samples-{measure}", chart
