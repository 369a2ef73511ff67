from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from udfs.report_page import (
    CaseImage,
    CurvePanel,
    CycleReport,
    HardnessCurve,
    Histogram,
    ManifestFile,
    MethodTable,
    QuarantineRow,
    QuerySection,
    Reliability,
    ReportCounts,
    SelectionArm,
    SqlExample,
    render_report,
)

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


def _full() -> CycleReport:
    curve = HardnessCurve(method="entropy", budget=(0.0, 1.0), found=(0.0, 1.0))
    return dataclasses.replace(
        _bare(),
        queries=(_query("q1"), _query("q2")),
        pictures=PICTURES,
        curves=(CurvePanel(query="q1", curves=(curve,)), CurvePanel(query="q2", curves=(curve,))),
        tables=(
            MethodTable(
                metric="nDCG",
                queries=("q1", "q2"),
                methods=("one", "two", "three"),
                values=((0.5, 0.9, None), (0.75, 0.25, 0.125)),
            ),
        ),
        reliability=Reliability(scores=(0.2, 0.8), precisions=(0.1, 0.7), counts=(4, 5), ece=0.1),
        selection=(
            SelectionArm(name="pick", n_images=2, n_boxes=5, mean_hardness=6.0, cases=(_case("b"),)),
            SelectionArm(name="random", n_images=2, n_boxes=3, mean_hardness=1.5, is_control=True),
        ),
        manifests=(ManifestFile(vendor="COCO", path="/m/coco.json", n_images=2, n_boxes=5),),
        quarantine=(QuarantineRow(path="/d/x.jpg", stage="read", reason="FileNotFoundError: gone"),),
        settings=(("seed", "17"),),
        sql=(SqlExample(title="Hardest", sql="SELECT 1 < 2"),),
    )


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


def test_each_picture_shown_is_embedded_once() -> None:
    text = render_report(_full())
    for key, times in (("a", 1), ("b", 1), ("unused", 0)):
        assert text.count(base64.b64encode(PICTURES[key]).decode("ascii")) == times
    assert text.count('href="#p0"') == 5


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
        tables=(MethodTable(metric=NASTY, queries=(NASTY,), methods=(NASTY,), values=((0.5,),)),),
        selection=(SelectionArm(name=NASTY, n_images=1, n_boxes=1, cases=(case,)),),
        manifests=(ManifestFile(vendor=NASTY, path=NASTY, n_images=1, n_boxes=1),),
        quarantine=(QuarantineRow(path=NASTY, stage=NASTY, reason=NASTY),),
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
        ("tables", "Methods compared"),
        ("curves", "Hardness found for the images looked at"),
        ("reliability", "Can the scores be trusted?"),
        ("quarantine", 'id="quarantine"'),
        ("settings", 'id="settings"'),
        ("sql", 'id="sql"'),
        ("manifests", "Files for the labeling tools"),
    ],
)
def test_a_section_without_data_is_left_out(name: str, heading: str) -> None:
    full, bare = _full(), _bare()
    assert heading in render_report(full)
    assert heading not in render_report(dataclasses.replace(full, **{name: getattr(bare, name)}))


def test_without_ground_truth_the_page_says_how_to_get_the_numbers() -> None:
    text = render_report(_bare())
    assert "No ground truth yet" in text
    assert "run the import" in text
    assert "No ground truth yet" not in render_report(_full())


def test_the_best_method_of_each_row_is_marked_and_a_gap_has_no_mean() -> None:
    text = render_report(_full())
    assert re.findall(r'class="num best">([^<]+)<', text) == ["0.900", "0.750", "0.625"]
    mean = text[text.index('<tr class="mean">') :]
    assert re.findall(r'<td class="num[^"]*">([^<]+)<', mean[: mean.index("</tr>")]) == [
        "0.625",
        "0.575",
        "\N{EN DASH}",
    ]


def test_the_pick_is_compared_with_its_control() -> None:
    assert "<b>4 times</b>" in render_report(_full())
    alone = dataclasses.replace(_full(), selection=_full().selection[:1])
    assert "times</b>" not in render_report(alone)


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
