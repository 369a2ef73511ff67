"""The charts of a report that show images and curves: histograms, hardness found, reliability."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from udfs.chart_svg import (
    ACCENT,
    FAINT,
    INK,
    SERIES,
    STEPS,
    LineStyle,
    add_legend,
    chart_figure,
    inline_svg,
    share_axes,
    short_count,
)


def histogram_svg(
    edges: Sequence[float],
    counts: Sequence[int],
    truth_counts: Sequence[int] = (),
    *,
    chart_id: str,
    label: str,
    title: str | None = None,
) -> str:
    """How many images have which hardness (score_sampling, Figure 13).

    Args:
        edges: Bin edges, rising, one more than `counts`.
        counts: Images per bin of estimated hardness.
        truth_counts: Labeled images per bin of true hardness; both are then shown as shares of their images.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, with a legend, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = chart_figure(4.5, 2.7, title)
    widths = [high - low for low, high in pairwise(edges)]
    heights: Sequence[float] = counts
    if truth_counts:
        heights = [count / max(sum(counts), 1) for count in counts]
        shares = [count / max(sum(truth_counts), 1) for count in truth_counts]
        axes.stairs(shares, edges, color=INK, linewidth=1.5, label="true")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(short_count))
    bar_widths = [0.9 * width for width in widths]
    axes.bar(edges[:-1], heights, width=bar_widths, align="edge", color=ACCENT, label="estimated", alpha=0.75)
    axes.set(xlim=(edges[0], edges[-1]), xlabel="hardness", ylabel="images")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=not truth_counts, steps=STEPS))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    if title and truth_counts:
        add_legend(axes, loc="upper right")
    return inline_svg(figure, chart_id, label)


def curves_svg(
    curves: Iterable[tuple[str, Sequence[float], Sequence[float]]],
    styles: dict[str, LineStyle],
    *,
    chart_id: str,
    label: str,
    title: str | None = None,
) -> str:
    """Share of hardness found against share of images looked at, one line a method.

    Args:
        curves: Method, budget shares (0..1, rising), found shares (0..1); long curves are thinned to 80
            points.
        styles: From `method_styles`, so that all panels agree.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, with a legend, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = chart_figure(5.4 if title else 3.7, 2.9, title)
    _draw_lines(axes, curves, styles)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="images looked at", ylabel="hardness found")
    share_axes(axes)
    if title:
        add_legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return inline_svg(figure, chart_id, label)


def spending_svg(
    curves: Iterable[tuple[str, Sequence[float], Sequence[float]]],
    styles: dict[str, LineStyle],
    *,
    chart_id: str,
    label: str,
) -> str:
    """Share of hardness captured against hours of labeling, one line a strategy, with a legend.

    Args:
        curves: Strategy, hours (rising), captured shares (0..1); long curves are thinned to 80 points.
        styles: From `method_styles`.
        chart_id: A name unique on the page.
        label: What a screen reader says.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = chart_figure(7.4, 2.9)
    _draw_lines(axes, curves, styles)
    axes.set(xlabel="labeling time, h", ylabel="hardness captured")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    add_legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return inline_svg(figure, chart_id, label)


def _draw_lines(
    axes: Axes,
    curves: Iterable[tuple[str, Sequence[float], Sequence[float]]],
    styles: dict[str, LineStyle],
) -> None:
    for name, across, up in curves:
        style = styles[name]
        step = max(1, -(-len(across) // 80))
        keep = sorted({*range(0, len(across), step), len(across) - 1}) if across else []
        faint = style.colour == FAINT
        (line,) = axes.plot(
            [across[i] for i in keep],
            [up[i] for i in keep],
            color=style.colour,
            linewidth=1.3 if faint else 2.0,
            zorder=2 if faint else 3,
            label=name,
        )
        if style.dashes != "none":
            line.set_dashes([float(part) / line.get_linewidth() for part in style.dashes.split()])


def reliability_svg(
    scores: Sequence[float],
    precisions: Sequence[float],
    counts: Sequence[int],
    *,
    chart_id: str,
    label: str,
    title: str | None = None,
) -> str:
    """Share of correct detections against their score; the diagonal is a perfectly calibrated detector.

    Args:
        scores: Mean score of each bin, 0..1.
        precisions: Share of correct detections in each bin, 0..1.
        counts: Detections in each bin; empty bins are skipped. The area of a point grows with it.
        chart_id: A name unique on the page.
        label: What a screen reader says.
        title: Drawn above, where the chart stands alone.

    Returns:
        An inline `<svg>` element.
    """
    figure, axes = chart_figure(4.3, 3.9, title)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.3, dashes=(4, 3))
    filled = [i for i, count in enumerate(counts) if count > 0]
    largest = max((counts[i] for i in filled), default=1)
    for i in filled:
        axes.plot([scores[i]] * 2, [scores[i], precisions[i]], color=SERIES[1], linewidth=4, alpha=0.55)
    xs, ys = [scores[i] for i in filled], [precisions[i] for i in filled]
    axes.plot(xs, ys, color=ACCENT, linewidth=1.6)
    axes.scatter(
        xs, ys, s=[18 + 130 * counts[i] / largest for i in filled], color=ACCENT, zorder=4, clip_on=False
    )
    axes.set(
        xlim=(0, 1), ylim=(0, 1.03), xlabel="score given by the detector", ylabel="share that is correct"
    )
    share_axes(axes)
    return inline_svg(figure, chart_id, label)
