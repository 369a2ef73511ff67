"""Matplotlib figures as small SVG: inline, in the colours of the page's scheme, or as files of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Matplotlib only knows fixed colours: these stand for CSS variables of the page and are swapped afterwards; a
# file of its own gets the fixed colours of the light scheme.
_COLOURS = {
    "#010101": ("var(--ink-2)", "#4d5957"),
    "#010102": ("var(--rule)", "#e1e5e3"),
    "#010103": ("var(--accent)", "#0f766e"),
    "#010104": ("var(--c1)", "#0f766e"),
    "#010105": ("var(--c2)", "#c2570c"),
    "#010106": ("var(--c3)", "#3b6fd4"),
    "#010107": ("var(--c4)", "#9b4fb0"),
    "#010108": ("var(--c5)", "#8a7410"),
    "#010109": ("var(--c6)", "#c0356b"),
    "#01010a": ("var(--ink-3)", "#7c8785"),
    "#01010b": ("var(--card)", "#ffffff"),
    "#01010c": ("var(--ink)", "#17201f"),
}
INK, RULE, ACCENT, *SERIES, FAINT, PAPER, STRONG_INK = _COLOURS
_DASHES = ("none", "7 2.5", "2 2", "8 2 2 2", "5 2 1.5 2 1.5 2", "4 4")
_REFERENCES = {"random": "1.5 3.5", "ideal": "5 4"}
FONT_PT = 10.5
STEPS = (1, 2, 2.5, 5, 10)


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
            colour, dashes = FAINT, _REFERENCES[method.lower()]
        else:
            colour = SERIES[n_series % len(SERIES)]
            dashes = _DASHES[n_series % len(_DASHES)]
            n_series += 1
        styles[method] = LineStyle(colour=colour, css_colour=_COLOURS[colour][0], dashes=dashes)
    return styles


def chart_figure(width_in: float, height_in: float, title: str | None = None) -> tuple[Figure, Axes]:
    """An empty figure in the page's style; a title stands left above the axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    figure.set_facecolor("none")
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)
    axes.tick_params(length=0, labelsize=FONT_PT, labelcolor=INK, pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(FONT_PT)
    if title:
        axes.set_title(title, loc="left", fontsize=FONT_PT + 1.5, color=INK)
    return figure, axes


def share_axes(axes: Axes) -> None:
    """Both axes in percent, few ticks."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def short_count(value: float, _: object) -> str:
    """A tick label such as 12k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):g}{suffix}"
    return f"{value:g}"


def add_legend(axes: Axes, **where: Any) -> None:
    """A legend without a frame, in the style of the page."""
    axes.legend(frameon=False, fontsize=FONT_PT - 1.5, labelcolor=INK, **where)


def inline_svg(figure: Figure, chart_id: str, label: str) -> str:
    """The figure as an `<svg>` element for a page.

    Args:
        figure: In the colours of this module.
        chart_id: A name unique on the page; the ids inside start with it.
        label: What a screen reader says.
    """
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
    for stand_in, (css, _) in _COLOURS.items():
        body = body.replace(stand_in, css)
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)
    body = re.sub(r">\s+<", "><", body).strip()
    box = view_box.group(1) if view_box else "0 0 320 200"
    return f'<svg class="chart" viewBox="{box}" role="img" aria-label="{_attribute(label)}">{body}'


def file_svg(chart: str) -> str:
    """A chart from `inline_svg` as an SVG file: fixed colours on white, any viewer opens it."""
    for css, fixed in _COLOURS.values():
        chart = chart.replace(css, fixed)
    view_box = re.search(r'viewBox="([^"]+)"', chart)
    assert view_box is not None
    _, _, width, height = view_box.group(1).split()
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" '
        'font-family="system-ui, Segoe UI, Roboto, Noto Sans, Helvetica, Arial, sans-serif" '
    )
    body = chart.replace("<svg ", root, 1)
    start = body.index(">") + 1
    return f'{body[:start]}<rect width="100%" height="100%" fill="#ffffff"/>{body[start:]}\n'


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
