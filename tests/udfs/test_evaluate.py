from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score, roc_auc_score

from tests.udfs.detection_scenes import box, scene_batch
from udfs.evaluate import CURVE_POINTS, CURVE_SCHEMA, METRIC_SCHEMA, curve_rows, precision_rows, ranking_rows

FRACTIONS = (0.05, 0.25, 0.5)
CLASSES = ("car", "person")


def _pairs(truth: Any, estimate: Any) -> pa.Table:
    n = len(truth)
    return pa.table(
        {
            "query": ["total_fp"] * n,
            "method": ["exact"] * n,
            "image_id": [f"{i}" for i in range(n)],
            "estimate": pa.array(estimate, pa.float64()),
            "truth": pa.array(truth, pa.float64()),
        }
    )


def _values(table: pa.Table) -> dict[str, float | None]:
    assert table.schema == METRIC_SCHEMA
    return {row["metric"]: row["value"] for row in table.to_pylist()}


def test_rows_are_the_metrics_of_the_group() -> None:
    rng = np.random.default_rng(3)
    truth, estimate = rng.random(400), rng.random(400)
    table = ranking_rows(_pairs(truth, estimate), FRACTIONS)
    values = _values(table)
    assert list(values) == [
        "ndcg",
        "auroc_05",
        "auroc_25",
        "auroc_50",
        "mauc",
        "area_under_curve",
        "spearman",
    ]
    assert {(row["query"], row["method"], row["n"]) for row in table.to_pylist()} == {
        ("total_fp", "exact", 400)
    }
    assert values["ndcg"] == pytest.approx(ndcg_score([truth], [estimate]))
    assert values["spearman"] == pytest.approx(spearmanr(truth, estimate).statistic)
    aurocs = [
        roc_auc_score(truth >= np.sort(truth)[-round(400 * fraction)], estimate) for fraction in FRACTIONS
    ]
    assert [values[f"auroc_{name}"] for name in ("05", "25", "50")] == pytest.approx(aurocs)
    assert values["mauc"] == pytest.approx(np.mean(aurocs))


def test_undefined_metrics_are_null_and_not_a_number() -> None:
    values = _values(ranking_rows(_pairs([0.0, 0.0, 0.0], [0.1, 0.2, 0.3]), FRACTIONS))
    assert all(value is None for value in values.values())
    assert curve_rows(_pairs([0.0, 0.0], [0.1, 0.2])) == CURVE_SCHEMA.empty_table()


def test_a_curve_goes_from_nothing_to_all_and_a_perfect_one_is_known() -> None:
    (row,) = curve_rows(_pairs([3.0, 0.0, 1.0, 0.0], [0.9, 0.1, 0.5, 0.2])).to_pylist()
    budget, found = np.array(row["budget"]), np.array(row["found"])
    assert (row["query"], row["method"], len(budget)) == ("total_fp", "exact", CURVE_POINTS)
    assert (budget[0], budget[-1], found[0], found[-1]) == (0.0, 1.0, 0.0, 1.0)
    assert (np.diff(found) >= 0).all()
    # Half of the first quarter finds half of 3/4; two of four images hold everything.
    np.testing.assert_allclose(found[[0, 25, 50, 75]], [0.0, 0.75, 1.0, 1.0])


def test_average_precision_of_a_scene_known_by_hand() -> None:
    car, person, far = (0, 0, 10, 10), (20, 20, 40, 40), (60, 60, 80, 80)
    detections = [
        [box(car, 1, score=0.9), box(far, 1, score=0.8)],
        [box(car, 1, score=0.7)],
        [],
    ]
    truth = [[box(car, 1)], [box(car, 1), box(person, 2)], []]
    batch = scene_batch(detections, truth)
    table = precision_rows(pa.Table.from_batches([batch.slice(0, 1), batch.slice(1)]), CLASSES)
    assert table.schema == METRIC_SCHEMA
    rows = {(row["query"], row["metric"]): row for row in table.to_pylist()}
    assert set(rows) == {("all", "ap"), ("all", "ap50"), ("car", "ap50"), ("person", "ap50")}
    assert {(row["method"], row["n"]) for row in rows.values()} == {("detector", 3)}
    # Precision 1 up to recall 1/2 (51 of COCO's 101 levels), then 2/3.
    expected = (51 * 1.0 + 50 * 2 / 3) / 101
    assert rows["car", "ap50"]["value"] == pytest.approx(expected)
    assert rows["person", "ap50"]["value"] == 0.0
    assert rows["all", "ap50"]["value"] == pytest.approx(expected / 2)
    assert rows["all", "ap"]["value"] == pytest.approx(expected / 2)


def test_a_class_without_objects_has_no_precision() -> None:
    batch = scene_batch([[box((0, 0, 10, 10), 2, score=0.9)]], [[box((0, 0, 10, 10), 1)]])
    rows = {
        row["query"]: row["value"]
        for row in precision_rows(pa.Table.from_batches([batch]), CLASSES).to_pylist()
    }
    assert rows["person"] is None
    assert rows["car"] == 0.0


def test_crowd_boxes_and_classes_without_a_label_count_neither_way() -> None:
    detections = [[box((0, 0, 10, 10), 1, score=0.9), box((50, 50, 60, 60), 1, score=0.95)]]
    truth = [[box((0, 0, 10, 10), 1), box((40, 40, 90, 90), 1, iscrowd=True), box((1, 1, 9, 9), 0)]]
    table = precision_rows(pa.Table.from_batches([scene_batch(detections, truth)]), CLASSES)
    rows = {(row["query"], row["metric"]): row["value"] for row in table.to_pylist()}
    assert rows["car", "ap50"] == pytest.approx(1.0)
