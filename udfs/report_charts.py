"""The charts of a report as small inline SVG whose colours follow the page's light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Matplotlib only knows fixed colours: these stand for CSS variables of the page and are swapped afterwards.
_CSS_COLOURS = {
    "#010101": "var(--ink-2)",
    "#010102": "var(--rule)",
    "#010103": "var(--accent)",
    "#010104": "var(--c1)",
    "#010105": "var(--c2)",
    "#010106": "var(--c3)",
    "#010107": "var(--c4)",
    "#010108": "var(--c5)",
    "#010109": "var(--c6)",
    "#01010a": "var(--ink-3)",
}
_INK, _RULE, _ACCENT, *_SERIES, _FAINT = _CSS_COLOURS
_DASHES = ("none", "7 2.5", "2 2", "8 2 2 2", "5 2 1.5 2 1.5 2", "4 4")
_REFERENCES = {"random": "1.5 3.5", "ideal": "5 4"}
_FONT_PT = 10.5
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, kw_only=True)
class LineStyle:
    """How a method is drawn everywhere: a stand-in colour for `css_colour`, and SVG dashes."""

    colour: str
    css_colour: str
    dashes: str


def method_styles(methods: Iterable[str]) -> dict[str, LineStyle]:
    """One colour and dash pattern a method, in order of first appearance; `random` and `ideal` are faint."""
    styles: dict[str, LineStyle] = {}
    n_series = 0
    for method in dict.fromkeys(methods):
        if method.lower() in _REFERENCES:
            colour, dashes = _FAINT, _REFERENCES[method.lower()]
        else:
            colour = _SERIES[n_series % len(_SERIES)]
            dashes = _DASHES[n_series % len(_DASHES)]
            n_series += 1
        styles[method] = LineStyle(colour=colour, css_colour=_CSS_COLOURS[colour], dashes=dashes)
    return styles


def histogram_svg(edges: Sequence[float], counts: Sequence[int], *, chart_id: str, label: str) -> str:
    """How many images have which hardness.

    Args:
        edges: Bin edges, rising, one more than `counts`.
        counts: Images per bin.
        chart_id: A name unique on the page; the ids inside the SVG start with it.
        label: What a screen reader says.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = _figure(4.5, 2.7)
    widths = [high - low for low, high in pairwise(edges)]
    axes.bar(edges[:-1], counts, width=[0.9 * width for width in widths], align="edge", color=_ACCENT)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="hardness", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=_STEPS))
    axes.yaxis.set_major_formatter(FuncFormatter(_short_count))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    return _inline_svg(figure, chart_id, label)


def curves_svg(
    curves: Iterable[tuple[str, Sequence[float], Sequence[float]]],
    styles: dict[str, LineStyle],
    *,
    chart_id: str,
    label: str,
) -> str:
    """Share of hardness found against share of images looked at, one line a method.

    Args:
        curves: Method, budget shares (0..1, rising), found shares (0..1); long curves are thinned to 80
            points.
        styles: From `method_styles`, so that all panels agree.
        chart_id: A name unique on the page.
        label: What a screen reader says.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = _figure(3.7, 2.9)
    for method, budget, found in curves:
        style = styles[method]
        step = max(1, -(-len(budget) // 80))
        keep = sorted({*range(0, len(budget), step), len(budget) - 1}) if budget else []
        faint = style.colour == _FAINT
        (line,) = axes.plot(
            [budget[i] for i in keep],
            [found[i] for i in keep],
            color=style.colour,
            linewidth=1.3 if faint else 2.0,
            zorder=2 if faint else 3,
        )
        if style.dashes != "none":
            line.set_dashes([float(part) / line.get_linewidth() for part in style.dashes.split()])
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="images looked at", ylabel="hardness found")
    _share_axes(axes)
    return _inline_svg(figure, chart_id, label)


def reliability_svg(
    scores: Sequence[float], precisions: Sequence[float], counts: Sequence[int], *, chart_id: str, label: str
) -> str:
    """Share of correct detections against their score; the diagonal is a perfectly calibrated detector.

    Args:
        scores: Mean score of each bin, 0..1.
        precisions: Share of correct detections in each bin, 0..1.
        counts: Detections in each bin; empty bins are skipped. The area of a point grows with it.
        chart_id: A name unique on the page.
        label: What a screen reader says.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = _figure(4.3, 3.9)
    axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.3, dashes=(4, 3))
    filled = [i for i, count in enumerate(counts) if count > 0]
    largest = max((counts[i] for i in filled), default=1)
    for i in filled:
        axes.plot([scores[i]] * 2, [scores[i], precisions[i]], color=_SERIES[1], linewidth=4, alpha=0.55)
    xs, ys = [scores[i] for i in filled], [precisions[i] for i in filled]
    axes.plot(xs, ys, color=_ACCENT, linewidth=1.6)
    axes.scatter(
        xs, ys, s=[18 + 130 * counts[i] / largest for i in filled], color=_ACCENT, zorder=4, clip_on=False
    )
    axes.set(
        xlim=(0, 1), ylim=(0, 1.03), xlabel="score given by the detector", ylabel="share that is correct"
    )
    _share_axes(axes)
    return _inline_svg(figure, chart_id, label)


def _figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    figure.set_facecolor("none")
    axes.grid(visible=True, axis="y", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_RULE)
    axes.tick_params(length=0, labelsize=_FONT_PT, labelcolor=_INK, pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_INK)
        axis.label.set_fontsize(_FONT_PT)
    return figure, axes


def _share_axes(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _short_count(value: float, _: object) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):g}{suffix}"
    return f"{value:g}"


def _inline_svg(figure: Figure, chart_id: str, label: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart_id, "svg.id": None}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    # Several charts share the page, so ids and references to them get the chart's name in front.
    body = re.sub(r'\bid="', f'id="{chart_id}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{chart_id}-", body)
    body = re.sub(r" ?font-family: [^;\"]*;", "", body)
    body = body.replace("rotate(-0 ", "rotate(0 ")
    for stand_in, css in _CSS_COLOURS.items():
        body = body.replace(stand_in, css)
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)
    body = re.sub(r">\s+<", "><", body).strip()
    box = view_box.group(1) if view_box else "0 0 320 200"
    return f'<svg class="chart" viewBox="{box}" role="img" aria-label="{_attribute(label)}">{body}'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
