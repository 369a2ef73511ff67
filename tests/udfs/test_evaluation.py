from __future__ import annotations

import dataclasses
import random
import xml.etree.ElementTree as ElementTree

import pytest

from udfs.evaluation import MOST_CLASSES, Evaluation, MetricRow, evaluation_of
from udfs.evaluation_files import evaluation_files
from udfs.report_content import CurvePanel, HardnessCurve, Histogram


def _row(
    metric: str, query: str, method: str, value: float | None, n: int = 9, **interval: float
) -> MetricRow:
    return MetricRow(metric=metric, query=query, method=method, value=value, n=n, **interval)


def _ranked(query: str, method: str, ndcg: float | None) -> list[MetricRow]:
    return [_row(metric, query, method, ndcg) for metric in ("ndcg", "mauc", "spearman")]


def _rows() -> list[MetricRow]:
    rows = [
        *_ranked("a", "random", 0.5),
        *_ranked("a", "zebra", 0.6),
        *_ranked("a", "score_sampling", 0.9004),
        *_ranked("b", "random", 0.4),
        *_ranked("b", "zebra", 0.7),
        *_ranked("b", "score_sampling", 0.7),
        _row("ndcg_over_random", "a", "zebra", 0.1, low=-0.1, high=0.3),
        _row("ndcg_over_random", "b", "zebra", 0.3, low=0.1, high=0.5),
        _row("spearman:b", "a", "ground_truth", -0.25),
        _row("spearman:a", "b", "ground_truth", -0.25),
        _row("spearman:zebra", "a", "score_sampling", 0.5),
        _row("spearman:score_sampling", "a", "zebra", 0.5),
        _row("ap50", "all", "detector", 0.5),
    ]
    for name, n in (("all", 30), ("car", 10), ("bus", 20)):
        rows.append(_row("ece", name, "detector", 0.125, n))
        for number in ("00", "03"):
            rows.append(_row(f"precision_bin_{number}", name, "detector", 0.25, n // 2))
            rows.append(_row(f"mean_score_bin_{number}", name, "detector", 0.5, n // 2))
    for size in (1, 10, 2):
        for kind in ("ndcg", "spearman_to_exact", "error_to_exact"):
            rows.append(_row(f"{kind}:{size}_samples", "a", "score_sampling_mc", 1.0 / size))
    return [*rows, _row("ndcg:exact", "a", "score_sampling", 0.95, 500)]


def test_tables_mark_the_best_as_printed_and_what_is_no_better_than_random() -> None:
    table, other = evaluation_of(_rows(), ("b",)).tables
    assert (table.metric, other.metric) == ("nDCG", "mAUC")
    assert table.queries == ("b", "a")
    assert table.methods == ("score_sampling", "zebra", "random")
    assert [[cell.value for cell in cells] for cells in table.rows] == [[0.7, 0.7, 0.4], [0.9004, 0.6, 0.5]]
    assert [[cell.is_best for cell in cells] for cells in table.rows] == [
        [True, True, False],
        [True, False, False],
    ]
    assert [[cell.no_better_than_random for cell in cells] for cells in table.rows] == [
        [False, False, False],
        [False, True, False],
    ]
    assert [cell.value for cell in table.means] == pytest.approx([0.8002, 0.65, 0.45])
    assert not any(cell.no_better_than_random for cells in other.rows for cell in cells)


def test_a_method_that_misses_a_query_has_a_gap_and_no_mean() -> None:
    rows = [*_rows(), *_ranked("a", "late", 0.99)]
    table = evaluation_of(rows).tables[0]
    place = table.methods.index("late")
    assert [cells[place].value for cells in table.rows] == [0.99, None]
    assert table.means[place].value is None and table.means[0].is_best
    assert table.rows[0][place].is_best and not table.rows[1][place].is_best


def test_matrices_have_ones_on_the_diagonal_and_truth_beside_the_methods() -> None:
    evaluation = evaluation_of(_rows())
    assert evaluation.between_queries is not None
    assert evaluation.between_queries.values == ((1.0, -0.25), (-0.25, 1.0))
    first = evaluation.between_methods[0]
    assert first.names == ("ground_truth", "score_sampling", "zebra", "random")
    assert first.values[0] == (1.0, 0.9004, 0.6, 0.5)
    assert first.values[1] == (0.9004, 1.0, 0.5, None)


def test_reliability_has_all_classes_first_and_then_the_most_detected() -> None:
    parts = evaluation_of(_rows()).reliability
    assert [part.name for part in parts] == ["all", "bus", "car"]
    assert (parts[1].counts, parts[1].scores, parts[1].precisions) == ((10, 10), (0.5, 0.5), (0.25, 0.25))
    many = [_row("ece", f"class {i}", "detector", 0.1, i + 1) for i in range(30)]
    names = [part.name for part in evaluation_of([*many, *_rows()]).reliability]
    assert len(names) == MOST_CLASSES + 1 and names[:2] == ["all", "class 29"]


def test_sensitivity_is_by_rising_number_of_samples() -> None:
    (part,) = evaluation_of(_rows()).sensitivity
    assert (part.query, part.n_images, part.exact_ndcg) == ("a", 500, 0.95)
    assert part.n_samples == (1, 2, 10) and part.ndcg == part.error_to_exact == (1.0, 0.5, 0.1)


def test_the_order_of_rows_does_not_matter_and_no_row_is_no_evaluation() -> None:
    rows = _rows()
    random.Random(3).shuffle(rows)
    assert evaluation_of(rows) == evaluation_of(_rows())
    assert evaluation_of([]) == Evaluation()
    partial = evaluation_of(row for row in rows if row.method == "detector")
    assert partial == Evaluation(reliability=evaluation_of(rows).reliability)


def test_every_chart_becomes_a_file_that_any_viewer_reads() -> None:
    evaluation = evaluation_of(
        [dataclasses.replace(row, query=row.query.replace("car", "c/ar")) for row in _rows()]
    )
    curve = HardnessCurve(method="zebra", budget=(0.0, 1.0), found=(0.0, 1.0))
    histogram = Histogram(edges=(0.0, 1.0, 2.0), counts=(3, 1), truth_counts=(1, 0))
    files = evaluation_files(evaluation, [CurvePanel(query="a", curves=(curve,))], {"a": histogram})
    assert set(files) == {
        "ndcg.svg",
        "mauc.svg",
        "curves-a.svg",
        "hardness-a.svg",
        "spearman-queries.svg",
        "spearman-a.svg",
        "spearman-b.svg",
        "reliability-all.svg",
        "reliability-bus.svg",
        "reliability-c-ar.svg",
        "samples-ndcg.svg",
        "samples-spearman_to_exact.svg",
        "samples-error_to_exact.svg",
    }
    for text in files.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("width", "0pt")[:-2]) > 100
        assert "var(--" not in text and "#0101" not in text
    assert (
        "zebra" in files["ndcg.svg"]
        and "zebra" in files["curves-a.svg"]
        and "true" in files["hardness-a.svg"]
    )
    assert evaluation_files(Evaluation(), (), {}) == {}


def test_undefined_values_leave_gaps_in_charts() -> None:
    rows = [dataclasses.replace(row, value=None) for row in _rows() if row.metric != "ece"]
    files = evaluation_files(evaluation_of(rows), (), {})
    assert {"ndcg.svg", "spearman-a.svg", "samples-ndcg.svg"} <= set(files)
