from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from udfs.chart_svg import method_styles
from udfs.report_charts import curves_svg, histogram_svg, reliability_svg


def test_each_chart_is_small_well_formed_and_free_of_fixed_colours() -> None:
    grid = list(np.linspace(0, 1, 5000))
    wavy = [share**0.5 + 0.02 * (k % 3) for k, share in enumerate(grid)]
    styles = method_styles(["a", "random", "ideal"])
    charts = [
        histogram_svg([0, 1, 2, 3], [40_000, 2, 0], chart_id="h0", label='"<hard>"'),
        curves_svg([("a", grid, wavy), ("random", grid, grid)], styles, chart_id="c0", label="c"),
        reliability_svg([0.1, 0.9], [0.2, 0.8], [5, 50], chart_id="r0", label="r"),
    ]
    for chart in charts:
        ElementTree.fromstring(chart)
        assert len(chart) < 12_000
        assert "var(--" in chart
        assert not re.search(r"#0101[0-9a-f]{2}", chart)
        assert "http" not in chart


def test_ids_of_two_charts_differ_and_every_reference_is_defined() -> None:
    charts = [histogram_svg([0, 1, 2], [3, 4], chart_id=f"h{k}", label="h") for k in range(2)]
    ids = [set(re.findall(r'\bid="([^"]+)"', chart)) for chart in charts]
    assert ids[0]
    assert not ids[0] & ids[1]
    for chart, own in zip(charts, ids, strict=True):
        references = set(re.findall(r'(?:href="|url\()#([^")]+)', chart))
        assert references
        assert references <= own


def test_the_same_chart_twice_is_the_same_text() -> None:
    assert histogram_svg([0, 1], [3], chart_id="h", label="h") == histogram_svg(
        [0, 1], [3], chart_id="h", label="h"
    )


def test_methods_keep_one_style_and_references_are_apart() -> None:
    styles = method_styles(["a", "b", "a", "random", "c"])
    assert list(styles) == ["a", "b", "random", "c"]
    assert len({(style.colour, style.dashes) for style in styles.values()}) == 4
    assert styles["random"].css_colour == "var(--ink-3)"


def test_empty_score_bins_are_skipped() -> None:
    full = reliability_svg([0.1, 0.9], [0.2, 0.8], [5, 50], chart_id="r", label="r")
    gap = reliability_svg(
        [0.1, float("nan"), 0.9], [0.2, float("nan"), 0.8], [5, 0, 50], chart_id="r", label="r"
    )
    assert full == gap
