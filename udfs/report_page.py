"""The report of a cycle: what it shows, and the one self-contained HTML page it becomes."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2
from markupsafe import Markup
from PIL import Image

from udfs import report_charts
from udfs.box_pictures import ROLE_COLOURS


@dataclass(frozen=True, kw_only=True)
class CaseImage:
    """One image of a list: its rank from 1, hardness, ground-truth hardness when known, and its path."""

    image_id: str
    rank: int
    hardness: float
    path: str
    truth_hardness: float | None = None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Numbers of images per bin: `edges` has one value more than `counts`, rising."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class QuerySection:
    """The hardest and the easiest images of one query, and how its hardness is distributed."""

    name: str
    title: str
    description: str = ""
    hardest: tuple[CaseImage, ...] = ()
    easiest: tuple[CaseImage, ...] = ()
    histogram: Histogram | None = None


@dataclass(frozen=True, kw_only=True)
class HardnessCurve:
    """Share of all hardness found (0..1) against share of images looked at (0..1), for one method."""

    method: str
    budget: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """The curves of one query; methods named `random` and `ideal` are drawn as references."""

    query: str
    curves: tuple[HardnessCurve, ...]


@dataclass(frozen=True, kw_only=True)
class MethodTable:
    """One quality measure, larger is better: `values` has a row a query, a column a method."""

    metric: str
    queries: tuple[str, ...]
    methods: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Mean score, share of correct detections and number of detections per score bin; ece in 0..1."""

    scores: tuple[float, ...]
    precisions: tuple[float, ...]
    counts: tuple[int, ...]
    ece: float


@dataclass(frozen=True, kw_only=True)
class SelectionArm:
    """One group of images sent to labeling: the strategy's pick, or its random control."""

    name: str
    n_images: int
    n_boxes: int
    mean_hardness: float | None = None
    truth_hardness: float | None = None
    cost_s: float | None = None
    is_control: bool = False
    cases: tuple[CaseImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """One file written for a labeling tool."""

    vendor: str
    path: str
    n_images: int
    n_boxes: int


@dataclass(frozen=True, kw_only=True)
class QuarantineRow:
    """One image that could not be processed, with the stage and the reason."""

    path: str
    stage: str
    reason: str
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class SqlExample:
    """A statement to try next, and what it answers."""

    title: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class ReportCounts:
    """The numbers in the header; None where a step did not run."""

    n_images: int
    n_detections: int
    n_quarantined: int
    n_labeled: int | None = None
    n_selected: int | None = None


@dataclass(frozen=True, kw_only=True)
class CycleReport:
    """Everything one report page shows; an empty field leaves its section out or says how to fill it.

    `pictures` maps image_id to a JPEG with boxes drawn; `missing_pictures` maps image_id to a reason.
    `truth_hint` says how to get the numbers that need ground truth. `quarantine` may be the first rows only.
    """

    cycle_id: str
    model: str
    dataset: str
    created: str
    counts: ReportCounts
    eta: float = 0.5
    queries: tuple[QuerySection, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    missing_pictures: Mapping[str, str] = field(default_factory=dict)
    curves: tuple[CurvePanel, ...] = ()
    tables: tuple[MethodTable, ...] = ()
    reliability: Reliability | None = None
    selection: tuple[SelectionArm, ...] = ()
    manifests: tuple[ManifestFile, ...] = ()
    quarantine: tuple[QuarantineRow, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    sql: tuple[SqlExample, ...] = ()
    truth_hint: str = ""
    pictures_show_truth: bool = False


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
    styles = report_charts.method_styles(curve.method for panel in report.curves for curve in panel.curves)
    return environment.from_string(text).render(
        report=report,
        pictures=pictures,
        ratio=_middle_ratio(pictures),
        roles={name: _hex(colour) for name, colour in ROLE_COLOURS.items()},
        histograms={
            query.name: _histogram(query, i) for i, query in enumerate(report.queries) if query.histogram
        },
        styles=styles,
        panels=[_curve_panel(panel, styles, i) for i, panel in enumerate(report.curves)],
        tables=[_ranked_table(table) for table in report.tables],
        reliability=_reliability(report.reliability) if report.reliability else None,
        selection_gain=_selection_gain(report.selection),
        reasons=Counter((row.stage, row.reason.split(":")[0]) for row in report.quarantine).most_common(8),
    )


@dataclass(frozen=True)
class _Picture:
    key: str
    data_uri: str
    width: int
    height: int
    path: str


@dataclass(frozen=True)
class _Cell:
    value: float | None
    is_best: bool


def _embedded_pictures(report: CycleReport) -> dict[str, _Picture]:
    cases = [case for query in report.queries for case in (*query.hardest, *query.easiest)]
    cases += [case for arm in report.selection for case in arm.cases]
    shown: dict[str, _Picture] = {}
    for case in cases:
        jpeg = report.pictures.get(case.image_id)
        if jpeg is not None and case.image_id not in shown:
            with Image.open(io.BytesIO(jpeg)) as opened:
                width, height = opened.size
            uri = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
            shown[case.image_id] = _Picture(f"p{len(shown)}", uri, width, height, case.path)
    return shown


def _middle_ratio(pictures: Mapping[str, _Picture]) -> float:
    ratios = sorted(picture.width / picture.height for picture in pictures.values())
    return round(min(max(ratios[len(ratios) // 2], 1.0), 3.4), 3) if ratios else 1.6


def _histogram(query: QuerySection, number: int) -> Markup:
    assert query.histogram is not None
    label = f"Histogram of hardness for {query.title}"
    return Markup(
        report_charts.histogram_svg(
            query.histogram.edges, query.histogram.counts, chart_id=f"h{number}", label=label
        )
    )


def _curve_panel(
    panel: CurvePanel, styles: dict[str, report_charts.LineStyle], number: int
) -> tuple[str, Markup]:
    lines = [(curve.method, curve.budget, curve.found) for curve in panel.curves]
    label = f"Hardness found against images looked at for {panel.query}"
    return panel.query, Markup(report_charts.curves_svg(lines, styles, chart_id=f"c{number}", label=label))


def _reliability(reliability: Reliability) -> Markup:
    return Markup(
        report_charts.reliability_svg(
            reliability.scores,
            reliability.precisions,
            reliability.counts,
            chart_id="r0",
            label="Share of correct detections against their score",
        )
    )


def _ranked_table(table: MethodTable) -> dict[str, object]:
    """The table's rows with their best cells marked, and the mean of each column that has no gap."""
    columns = list(zip(*table.values, strict=True)) if table.values else []
    means = [
        math.fsum(value for value in column if value is not None) / len(column)
        if None not in column
        else None
        for column in columns
    ]
    rows = [(query, _cells(row)) for query, row in zip(table.queries, table.values, strict=True)]
    return {"metric": table.metric, "methods": table.methods, "rows": rows, "means": _cells(means)}


def _cells(values: Sequence[float | None]) -> list[_Cell]:
    # Compared as printed: two methods that read the same are both bold.
    best = max((round(value, 3) for value in values if value is not None), default=None)
    return [_Cell(value, value is not None and round(value, 3) == best) for value in values]


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
