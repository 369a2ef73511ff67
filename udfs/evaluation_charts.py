"""The charts of an evaluation: methods compared, rankings alike, and what more samples buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from udfs.chart_svg import (
    ACCENT,
    FAINT,
    FONT_PT,
    INK,
    PAPER,
    RULE,
    SERIES,
    STRONG_INK,
    LineStyle,
    add_legend,
    chart_figure,
    inline_svg,
)
from udfs.evaluation import Matrix, MethodTable, Sensitivity

_MOST_TICK_CHARACTERS = 20
# What can be drawn of a Sensitivity, and its heading.
SENSITIVITY_TITLES = {
    "ndcg": "nDCG, less that of exact",
    "spearman_to_exact": "Rank correlation with exact",
    "error_to_exact": "Mean error, mean hardness = 100 %",
}


def methods_svg(
    table: MethodTable,
    styles: Mapping[str, LineStyle],
    *,
    chart_id: str,
    label: str,
    title: str | None = None,
) -> str:
    """One measure of every query and method as dots with their 95 % intervals.

    Args:
        table: nDCG or mAUC.
        styles: From `method_styles`.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, with a legend, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    step = min(0.15, 0.8 / max(len(table.methods), 1))
    figure, axes = chart_figure(
        6.4 if title else 4.9, 0.7 + len(table.queries) * (0.22 + 0.062 * len(table.methods)), title
    )
    for place, method in enumerate(table.methods):
        offset = (place - (len(table.methods) - 1) / 2) * step
        colour = styles[method].colour
        values: list[float] = []
        heights: list[float] = []
        for height, row in enumerate(table.rows):
            cell = row[place]
            if cell.value is not None:
                values.append(cell.value)
                heights.append(height + offset)
            if cell.low is not None and cell.high is not None:
                bounds = ([cell.low, cell.high], [height + offset] * 2)
                axes.plot(*bounds, color=colour, linewidth=1.6, alpha=0.55)
        axes.plot(values, heights, "o", color=colour, markersize=4.6, label=method)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=RULE, linewidth=0.8)
    for k in range(1, len(table.queries)):
        axes.axhline(k - 0.5, color=RULE, linewidth=0.8)
    axes.set(ylim=(len(table.queries) - 0.5, -0.5), xlabel=table.metric)
    axes.set_yticks(range(len(table.queries)), [_tick_text(query) for query in table.queries])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    if title:
        add_legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return inline_svg(figure, chart_id, label)


def matrix_svg(matrix: Matrix, *, chart_id: str, label: str, title: str | None = None) -> str:
    """Rank correlations as a heat map with their numbers; columns are numbered as the rows are.

    Args:
        matrix: Values -1..1.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    n = len(matrix.names)
    figure, axes = chart_figure(1.7 + 0.37 * n, 0.45 + 0.31 * n, title)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    for i, row in enumerate(matrix.values):
        for j, value in enumerate(row):
            if value is None:
                continue
            colour = ACCENT if value >= 0 else SERIES[1]
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=colour, alpha=value**2, linewidth=0))
            ink = PAPER if abs(value) > 0.8 else STRONG_INK
            text = f"{value:.2f}".replace("0.", ".").replace("1.00", "1")
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=FONT_PT - 1.5)
    names = [f"{_tick_text(name)}  {i + 1}" for i, name in enumerate(matrix.names)]
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axes.set_yticks(range(n), names)
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.xaxis.tick_top()
    return inline_svg(figure, chart_id, label)


def sensitivity_svg(
    queries: Sequence[Sensitivity], measure: str, *, chart_id: str, label: str, title: str | None = None
) -> str:
    """A measure of Monte Carlo against its number of samples: a faint line a query, their mean bold.

    Args:
        queries: Measured at the same numbers of samples.
        measure: `ndcg` (shown less that of the exact value), `spearman_to_exact` or `error_to_exact`.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = chart_figure(3.7, 2.9, title)
    sizes = queries[0].n_samples
    lines = []
    for query in queries:
        values = getattr(query, measure)
        base = query.exact_ndcg if measure == "ndcg" else 0.0
        if base is not None and None not in values:
            lines.append([value - base for value in values])
            axes.plot(sizes, lines[-1], color=FAINT, linewidth=1.0, alpha=0.7)
    means = [sum(column) / len(column) for column in zip(*lines, strict=True)]
    axes.plot(sizes[: len(means)], means, color=ACCENT, linewidth=2.4, marker="o", markersize=4.5, zorder=3)
    if measure == "ndcg":
        axes.axhline(0.0, color=INK, linewidth=1.0, dashes=(4, 3))
    if measure == "error_to_exact":
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set(xscale="log", xlabel="samples per image")
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(size) for size in sizes])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return inline_svg(figure, chart_id, label)


def _tick_text(name: str) -> str:
    # A long name would leave its chart no room.
    return name if len(name) <= _MOST_TICK_CHARACTERS else f"{name[: _MOST_TICK_CHARACTERS - 1]}\u2026"
