"""The report of a cycle as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup
from PIL import Image

from udfs.box_pictures import ROLE_COLOURS
from udfs.chart_svg import LineStyle, method_styles
from udfs.evaluation import Evaluation, Matrix, MethodTable, Reliability
from udfs.evaluation_charts import SENSITIVITY_TITLES, matrix_svg, methods_svg, sensitivity_svg
from udfs.report_charts import curves_svg, histogram_svg, reliability_svg, spending_svg
from udfs.report_content import (
    CaseImage,
    CurvePanel,
    CycleReport,
    QuerySection,
    SelectionArm,
    SpendingCurve,
)


def render_report(report: CycleReport) -> str:
    """One HTML page of the report that needs no network, no script and no other file.

    Each picture that a list uses is embedded once, however many lists show it. All text is escaped.

    Args:
        report: What to show.

    Returns:
        The page, HTML 5; a section without data is left out, or says how to get its numbers where that helps.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(figure=_figure_text, count=_count_text, tail=_path_tail)
    text = resources.files("udfs").joinpath("report.html.j2").read_text(encoding="utf-8")
    pictures = _embedded_pictures(report)
    evaluation = report.evaluation
    methods = [method for table in evaluation.tables for method in table.methods]
    methods += [curve.method for panel in report.curves for curve in panel.curves]
    styles = method_styles(methods)
    return environment.from_string(text).render(
        report=report,
        pictures=pictures,
        heat_pictures=_embedded_heat_maps(report),
        ratio=_middle_ratio(pictures),
        roles={name: _hex(colour) for name, colour in ROLE_COLOURS.items()},
        histograms={
            query.name: _histogram(query, i) for i, query in enumerate(report.queries) if query.histogram
        },
        styles=styles,
        panels=[_curve_panel(panel, styles, i) for i, panel in enumerate(report.curves)],
        tables=[(table, _methods_chart(table, styles, i)) for i, table in enumerate(evaluation.tables)],
        query_matrix=_matrix_chart(evaluation.between_queries, "mq") if evaluation.between_queries else None,
        matrices=[(part, _matrix_chart(part, f"m{i}")) for i, part in enumerate(evaluation.between_methods)],
        reliability=_reliability_charts(evaluation),
        sensitivity=_sensitivity_charts(evaluation),
        selection_gain=_selection_gain(report.selection),
        spending=_spending_chart(report.spending),
        captured={curve.strategy: curve.captured[-1] for curve in report.spending},
        reasons=Counter((row.stage, row.reason.split(":")[0]) for row in report.quarantine).most_common(8),
    )


@dataclass(frozen=True)
class _Picture:
    key: str
    data_uri: str
    width: int
    height: int
    path: str


def _embedded_pictures(report: CycleReport) -> dict[str, _Picture]:
    cases = [case for query in report.queries for case in (*query.hardest, *query.easiest)]
    cases += [case for arm in report.selection for case in arm.cases]
    cases += report.heat_maps.cases if report.heat_maps else ()
    return _embedded(cases, report.pictures, prefix="p")


def _embedded_heat_maps(report: CycleReport) -> dict[str, _Picture]:
    heat = report.heat_maps
    return _embedded(heat.cases, heat.pictures, prefix="d") if heat else {}


def _embedded(
    cases: Sequence[CaseImage], pictures: Mapping[str, bytes], *, prefix: str
) -> dict[str, _Picture]:
    shown: dict[str, _Picture] = {}
    for case in cases:
        jpeg = pictures.get(case.image_id)
        if jpeg is not None and case.image_id not in shown:
            with Image.open(io.BytesIO(jpeg)) as opened:
                width, height = opened.size
            uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
            shown[case.image_id] = _Picture(f"{prefix}{len(shown)}", uri, width, height, case.path)
    return shown


def _middle_ratio(pictures: Mapping[str, _Picture]) -> float:
    ratios = sorted(picture.width / picture.height for picture in pictures.values())
    return round(min(max(ratios[len(ratios) // 2], 1.0), 3.4), 3) if ratios else 1.6


def _histogram(query: QuerySection, number: int) -> Markup:
    assert query.histogram is not None
    histogram = query.histogram
    label = f"Histogram of hardness for {query.title}"
    svg = histogram_svg(
        histogram.edges, histogram.counts, histogram.truth_counts, chart_id=f"h{number}", label=label
    )
    return Markup(svg)


def _curve_panel(panel: CurvePanel, styles: dict[str, LineStyle], number: int) -> tuple[str, Markup]:
    lines = [(curve.method, curve.budget, curve.found) for curve in panel.curves]
    label = f"Hardness found against images looked at for {panel.query}"
    return panel.query, Markup(curves_svg(lines, styles, chart_id=f"c{number}", label=label))


def _methods_chart(table: MethodTable, styles: dict[str, LineStyle], number: int) -> Markup:
    label = f"{table.metric} of each method with its interval"
    return Markup(methods_svg(table, styles, chart_id=f"t{number}", label=label))


def _matrix_chart(matrix: Matrix, chart_id: str) -> Markup:
    return Markup(matrix_svg(matrix, chart_id=chart_id, label=f"Rank correlations: {matrix.title}"))


def _reliability_charts(evaluation: Evaluation) -> list[tuple[Reliability, Markup]]:
    charts = []
    for number, part in enumerate(evaluation.reliability):
        label = f"Share of correct detections against their score: {part.name}"
        svg = reliability_svg(part.scores, part.precisions, part.counts, chart_id=f"r{number}", label=label)
        charts.append((part, Markup(svg)))
    return charts


def _sensitivity_charts(evaluation: Evaluation) -> list[tuple[str, Markup]]:
    if not evaluation.sensitivity:
        return []
    return [
        (
            title,
            Markup(sensitivity_svg(evaluation.sensitivity, measure, chart_id=f"s{i}", label=title)),
        )
        for i, (measure, title) in enumerate(SENSITIVITY_TITLES.items())
    ]


def _spending_chart(curves: Sequence[SpendingCurve]) -> Markup | None:
    if not curves:
        return None
    styles = method_styles(curve.strategy for curve in curves)
    lines = [(curve.strategy, curve.cost_h, curve.captured) for curve in curves]
    return Markup(spending_svg(lines, styles, chart_id="spending", label="Hardness captured against cost"))  # noqa: S704


def _selection_gain(arms: Sequence[SelectionArm]) -> dict[str, object] | None:
    picks = [arm for arm in arms if not arm.is_control]
    controls = [arm for arm in arms if arm.is_control]
    if len(picks) != 1 or len(controls) != 1:
        return None
    for name, kind in (("truth_hardness", "ground-truth hardness"), ("mean_hardness", "estimated hardness")):
        pick, control = getattr(picks[0], name), getattr(controls[0], name)
        if pick is not None and control:
            return {"times": pick / control, "kind": kind}
    return None


def _figure_text(value: float | None) -> str:
    """A number with three significant digits, a dash for None."""
    if value is None:
        return "\u2013"
    if value == round(value) and abs(value) < 1000:
        return f"{value:.0f}"
    if 0.001 <= abs(value) < 1000:
        return f"{value:.{min(max(2 - math.floor(math.log10(abs(value))), 0), 3)}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1e}"


def _count_text(value: int | None) -> str:
    return "\u2013" if value is None else f"{value:,}"


def _path_tail(path: str, length: int = 44) -> str:
    if len(path) <= length:
        return path
    cut, slash, rest = path[-length:].partition("/")
    return f"\u2026/{rest}" if slash and rest else f"\u2026{cut}"


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
