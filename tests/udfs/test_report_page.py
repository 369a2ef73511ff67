from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from udfs.evaluation import Evaluation, MetricRow, evaluation_of
from udfs.report_content import (
    CaseImage,
    CurvePanel,
    CycleReport,
    HardnessCurve,
    HeatMaps,
    Histogram,
    ManifestFolder,
    QualityFailure,
    QualityGate,
    QuarantineRow,
    QuerySection,
    ReportCounts,
    SelectionArm,
    SpendingCurve,
    SqlExample,
)
from udfs.report_page import render_report

NASTY = "<script>alert('x')</script>\"&"
VOID = {"meta", "input", "link", "img", "br", "hr"}


def _jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 36), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


PICTURES = {"a": _jpeg(10), "b": _jpeg(90), "unused": _jpeg(200)}


def _case(image_id: str, rank: int = 1, truth: float | None = None) -> CaseImage:
    return CaseImage(
        image_id=image_id, rank=rank, hardness=3.25, truth_hardness=truth, path=f"/d/{image_id}.jpg"
    )


def _query(name: str, title: str = "Total") -> QuerySection:
    return QuerySection(
        name=name,
        title=title,
        hardest=(_case("a", truth=4.0), _case("b", 2)),
        easiest=(_case("a", 9),),
        histogram=Histogram(edges=(0.0, 1.0, 2.0), counts=(5, 2)),
    )


def _bare() -> CycleReport:
    return CycleReport(
        cycle_id="cycle-3",
        model="m",
        dataset="d",
        created="2026-11-21",
        counts=ReportCounts(n_images=4812, n_detections=9, n_quarantined=0),
        truth_hint="run the import",
    )


def _evaluation(query: str = "q1", method: str = "two") -> Evaluation:
    values = {
        ("q1", "one"): 0.5,
        (query, method): 0.9,
        ("q2", "one"): 0.75,
        ("q2", "two"): 0.25,
        ("q2", "three"): 0.125,
    }
    rows = [
        MetricRow(metric=metric, query=q, method=m, value=value, n=7, low=value - 0.0625, high=value + 0.0625)
        for metric in ("ndcg", "mauc", "spearman")
        for (q, m), value in values.items()
    ]
    rows += [
        MetricRow(metric="ndcg_over_random", query="q1", method="one", value=0.1, n=7, low=-0.1, high=0.3),
        MetricRow(metric="spearman:q2", query="q1", method="ground_truth", value=0.5, n=7),
        MetricRow(metric="ndcg:exact", query="q2", method="score_sampling", value=0.9, n=7),
    ]
    for name in ("all", query):
        rows.append(MetricRow(metric="ece", query=name, method="detector", value=0.1, n=9))
        for kind in ("precision_bin_01", "mean_score_bin_01"):
            rows.append(MetricRow(metric=kind, query=name, method="detector", value=0.5, n=9))
    for kind in ("ndcg", "spearman_to_exact", "error_to_exact"):
        rows.append(
            MetricRow(metric=f"{kind}:5_samples", query="q2", method="score_sampling_mc", value=0.5, n=7)
        )
    return evaluation_of(rows, ("q1", "q2"))


def _full() -> CycleReport:
    curve = HardnessCurve(method="entropy", budget=(0.0, 1.0), found=(0.0, 1.0))
    return dataclasses.replace(
        _bare(),
        queries=(_query("q1"), _query("q2")),
        pictures=PICTURES,
        curves=(CurvePanel(query="q1", curves=(curve,)), CurvePanel(query="q2", curves=(curve,))),
        evaluation=_evaluation(),
        heat_maps=HeatMaps(
            cases=(_case("a"), _case("b", 2)),
            region_px=30,
            pictures={"a": _jpeg(30)},
            missing={"b": "QuarryError: other weights"},
        ),
        selection=(
            SelectionArm(
                name="pick",
                n_images=2,
                n_boxes=5,
                mean_hardness=6.0,
                cost_s=720.0,
                cost_money=1.75,
                radius=0.123,
                least_radius=0.0456,
                cases=(_case("b"),),
            ),
            SelectionArm(name="random", n_images=2, n_boxes=None, mean_hardness=1.5, is_control=True),
        ),
        spending=(
            SpendingCurve(
                strategy="pick", query="q1", cost_h=(0.0, 0.1, 0.2), captured=(0.0, 0.3, 0.5), is_truth=True
            ),
            SpendingCurve(strategy="random", query="q1", cost_h=(0.0, 0.1, 0.2), captured=(0.0, 0.1, 0.2)),
        ),
        manifests=(
            ManifestFolder(
                vendor="coco", strategy="pick", path="/m/pick.coco", n_files=1_234, n_tasks=2, n_boxes=5
            ),
        ),
        quarantine=(QuarantineRow(path="/d/x.jpg", stage="read", reason="FileNotFoundError: gone"),),
        quality=(
            QualityGate(stage="ingest", n_expectations=5),
            QualityGate(
                stage="detect",
                n_expectations=17,
                failures=(
                    QualityFailure(
                        name="detections.class_shares_stable",
                        description="as before",
                        observed="0.41",
                        is_warning=True,
                        rows=("cycle_before=week-46", "more"),
                    ),
                ),
            ),
        ),
        settings=(("seed", "17"),),
        sql=(SqlExample(title="Hardest", sql="SELECT 1 < 2"),),
    )


@pytest.fixture(scope="module")
def full_text() -> str:
    """The page of the full report; drawing its charts takes most of a test."""
    return render_report(_full())


class _Page(HTMLParser):
    """Checks that tags nest, and gathers what a browser would load and link to."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def _take(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                (self.targets if (value or "").startswith("#") else self.loads).append(value or "")
            if name in ("for", "popovertarget", "aria-labelledby"):
                self.targets.append("#" + (value or ""))


def _page(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("report", [_bare(), _full()], ids=["bare", "full"])
def test_the_page_is_whole_and_loads_nothing(report: CycleReport) -> None:
    text = render_report(report)
    page = _page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert all(load.startswith("data:image/jpeg;base64,") for load in page.loads)
    assert not re.search(r"https?://|@import|url\((?!#)|=[\"']//", text)
    assert "script" not in page.tags
    assert len(set(page.ids)) == len(page.ids)
    assert {target[1:] for target in page.targets} <= set(page.ids)


def test_each_picture_shown_is_embedded_once(full_text: str) -> None:
    text = full_text
    for key, times in (("a", 1), ("b", 1), ("unused", 0)):
        assert text.count(base64.b64encode(PICTURES[key]).decode("ascii")) == times
    assert text.count('href="#p0"') == 6


def test_what_a_budget_buys_stands_beside_each_strategy(full_text: str) -> None:
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>.*?</tr>", full_text)]
    (head,) = [row for row in cells if row[0] == "group"]
    assert head[-5:-2] == ["hardness captured, %", "labeling time, h", "cost, money"]
    assert head[-2:] == ["k-center radius", "least possible, at least"]
    (pick,) = [row for row in cells if row[0] == "pick"]
    assert pick[1:3] == ["2", "5"] and pick[-5:] == ["50", "0.200", "1.75", "0.123", "0.046"]
    (control,) = [row for row in cells if row[0].startswith("random ")]
    assert control[1:3] == ["2", "\u2013"] and control[-5:] == ["20", *["\u2013"] * 4]
    assert "ground-truth hardness (q1) of all detected images" in full_text


def test_names_are_escaped_everywhere() -> None:
    case = CaseImage(image_id="gone", rank=1, hardness=1.0, path=NASTY)
    report = dataclasses.replace(
        _full(),
        cycle_id=NASTY,
        model=NASTY,
        dataset=NASTY,
        created=NASTY,
        queries=(
            QuerySection(
                name=NASTY,
                title=NASTY,
                description=NASTY,
                hardest=(case,),
                histogram=Histogram(edges=(0.0, 1.0), counts=(1,)),
            ),
        ),
        missing_pictures={"gone": NASTY},
        curves=(CurvePanel(query=NASTY, curves=(HardnessCurve(method=NASTY, budget=(0, 1), found=(0, 1)),)),),
        evaluation=_evaluation(NASTY, NASTY),
        selection=(SelectionArm(name=NASTY, n_images=1, n_boxes=1, cases=(case,)),),
        spending=(SpendingCurve(strategy=NASTY, query=NASTY, cost_h=(0.0, 1.0), captured=(0.0, 0.1)),),
        manifests=(
            ManifestFolder(vendor=NASTY, strategy=NASTY, path=NASTY, n_files=1, n_tasks=1, n_boxes=1),
        ),
        quarantine=(QuarantineRow(path=NASTY, stage=NASTY, reason=NASTY),),
        quality=(
            QualityGate(
                stage=NASTY,
                n_expectations=1,
                failures=(QualityFailure(name=NASTY, description=NASTY, observed=NASTY, rows=(NASTY,)),),
            ),
        ),
        settings=((NASTY, NASTY),),
        sql=(SqlExample(title=NASTY, sql=NASTY),),
        truth_hint=NASTY,
    )
    text = render_report(report)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "script" not in _page(text).tags


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("queries", 'id="hardest"'),
        ("evaluation", "Methods compared"),
        ("evaluation", "How alike the rankings are"),
        ("evaluation", "What more Monte Carlo samples buy"),
        ("curves", "Hardness found for the images looked at"),
        ("evaluation", "Can the scores be trusted?"),
        ("heat_maps", "Where the detector contradicts itself"),
        ("quarantine", 'id="quarantine"'),
        ("quality", 'id="quality"'),
        ("settings", 'id="settings"'),
        ("sql", 'id="sql"'),
        ("manifests", "Files for the labeling tools"),
    ],
)
def test_a_section_without_data_is_left_out(name: str, heading: str, full_text: str) -> None:
    bare = _bare()
    assert heading in full_text
    light = dataclasses.replace(_full(), evaluation=Evaluation())
    assert heading not in render_report(dataclasses.replace(light, **{name: getattr(bare, name)}))


def test_without_ground_truth_the_page_says_how_to_get_the_numbers(full_text: str) -> None:
    text = render_report(_bare())
    assert "No ground truth yet" in text
    assert "run the import" in text
    assert "No ground truth yet" not in full_text


def test_files_for_labeling_tools_are_told_by_folder(full_text: str) -> None:
    table = full_text[full_text.index('aria-label="Manifests"') :]
    table = table[: table.index("</table>")]
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", table)
    assert cells[:6] == ["format", "group", "folder", "files", "tasks", "boxes"]
    assert cells[6:] == ["coco", "pick", "/m/pick.coco", "1,234", "2", "5"]


def test_a_table_marks_the_best_shows_intervals_and_what_is_no_better_than_random(full_text: str) -> None:
    text = full_text
    table = text[text.index('<th scope="col">nDCG</th>') :]
    table = table[: table.index("</table>")]
    assert re.findall(r'class="num best">([^<]+)<', table) == ["0.900", "0.750", "0.625"]
    assert re.findall(r">([^<]+)<small>[^<]+</small><small class=\"chance\">no better", table) == ["0.500"]
    assert "<small>0.838 \N{EN DASH} 0.963</small>" in table
    mean = table[table.index('<tr class="mean">') :]
    assert re.findall(r'<td class="num[^"]*">([^<]+)<', mean) == ["0.625", "\N{EN DASH}", "0.575"]


def test_the_pick_is_compared_with_its_control(full_text: str) -> None:
    assert "<b>4 times</b>" in full_text
    alone = dataclasses.replace(_full(), selection=_full().selection[:1])
    assert "times</b>" not in render_report(alone)


def test_heat_maps_stand_beside_their_pictures(full_text: str) -> None:
    section = full_text[full_text.index('id="divergence"') :]
    section = section[: section.index("</section>")]
    assert re.findall(r'href="#([a-z]\d)"', section) == ["p0", "d0", "p1"]
    assert "no heat map: QuarryError: other weights" in section
    assert "30 by 30 px" in section


def test_the_page_shows_what_the_budget_buys(full_text: str) -> None:
    part = full_text.split("What the budget buys")[1].split("</div>")[0]
    assert "<svg" in part and "labeling time, h" in part and "ground-truth hardness" in part
    assert "What the budget buys" not in render_report(_bare())


def test_the_page_shows_what_the_quality_gates_found(full_text: str) -> None:
    assert "<dt>ingest</dt><dd>5 of 5 met</dd>" in full_text
    assert "<dt>detect</dt><dd>16 of 17 met</dd>" in full_text
    row = full_text[full_text.index("detections.class_shares_stable") :]
    row = row[: row.index("</tr>")]
    assert all(part in row for part in ("warning", "as before", "0.41", "cycle_before=week-46<br>more"))


def test_a_picture_that_is_missing_says_why() -> None:
    report = dataclasses.replace(_full(), pictures={}, missing_pictures={"a": "OSError: truncated"})
    assert "no picture: OSError: truncated" in render_report(report)


def test_the_page_stays_small() -> None:
    queries = tuple(_query(f"q{k}") for k in range(9))
    curve = tuple(k / 9999 for k in range(10_000))
    panels = tuple(
        CurvePanel(
            query=f"q{k}",
            curves=tuple(HardnessCurve(method=f"m{j}", budget=curve, found=curve) for j in range(6)),
        )
        for k in range(9)
    )
    text = render_report(dataclasses.replace(_full(), queries=queries, curves=panels))
    assert len(text) < 300_000
