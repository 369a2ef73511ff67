from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score, roc_auc_score

from tests.udfs.detection_scenes import box, scene_batch
from udfs.evaluate import CURVE_POINTS, CURVE_SCHEMA, curve_rows, likeness_rows, precision_rows, ranking_rows
from udfs.metric_rows import METRIC_SCHEMA

FRACTIONS = (0.05, 0.25, 0.5)
CLASSES = ("car", "person")


def _images(truth: Any, **estimates: Any) -> pa.Table:
    n = len(truth)
    columns = {"query": ["total_fp"] * n, "image_id": [f"{i:03d}" for i in range(n)]}
    numbers = {"truth": truth, **estimates}
    return pa.table(columns | {name: pa.array(values, pa.float64()) for name, values in numbers.items()})


def _rows(table: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    assert table.schema == METRIC_SCHEMA
    rows = {(row["method"], row["metric"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    return rows


def _drawn(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n)
    return truth, truth + rng.random(n), rng.random(n)


def test_rows_are_the_metrics_of_the_group() -> None:
    truth, good, chance = _drawn(3, 400)
    rows = _rows(ranking_rows(_images(truth, exact=good, random=chance), FRACTIONS))
    metrics = ["ndcg", "auroc_05", "auroc_25", "auroc_50", "mauc", "area_under_curve", "spearman"]
    assert [metric for method, metric in rows if method == "random"] == ["spearman:exact", *metrics]
    gains = ["ndcg_over_random", "mauc_over_random"]
    assert [metric for method, metric in rows if method == "exact"] == ["spearman:random", *metrics, *gains]
    assert {(row["query"], row["n"]) for row in rows.values()} == {("total_fp", 400)}
    assert {row["low"] for row in rows.values()} == {None}
    for method, estimate in (("exact", good), ("random", chance)):
        values = {metric: row["value"] for (name, metric), row in rows.items() if name == method}
        assert values["ndcg"] == pytest.approx(ndcg_score([truth], [estimate]))
        assert values["spearman"] == pytest.approx(spearmanr(truth, estimate).statistic)
        aurocs = [
            roc_auc_score(truth >= np.sort(truth)[-round(400 * share)], estimate) for share in FRACTIONS
        ]
        assert [values[f"auroc_{name}"] for name in ("05", "25", "50")] == pytest.approx(aurocs)
        assert values["mauc"] == pytest.approx(np.mean(aurocs))
    assert rows["exact", "spearman:random"]["value"] == pytest.approx(spearmanr(good, chance).statistic)
    for metric, gain in zip(("ndcg", "mauc"), gains, strict=True):
        difference = rows["exact", metric]["value"] - rows["random", metric]["value"]
        assert rows["exact", gain]["value"] == pytest.approx(difference)


def test_intervals_hold_the_value_and_a_gain_is_paired() -> None:
    truth, good, chance = _drawn(5, 300)
    table = ranking_rows(
        _images(truth, good=good, random=chance, chance_again=chance), FRACTIONS, n_resamples=100, seed=1
    )
    rows = _rows(table)
    for (_, metric), row in rows.items():
        if not metric.startswith("spearman:"):
            assert row["low"] <= row["value"] <= row["high"], metric
    assert rows["good", "ndcg_over_random"]["low"] > 0.0
    # Alone, either's interval is wide; in the same resamples they never differ.
    assert rows["random", "ndcg"]["high"] - rows["random", "ndcg"]["low"] > 0.01
    assert (
        rows["chance_again", "ndcg_over_random"]["low"]
        == rows["chance_again", "mauc_over_random"]["high"]
        == 0
    )


def test_neither_the_order_of_rows_nor_other_methods_change_an_interval() -> None:
    truth, good, chance = _drawn(7, 120)
    images = _images(truth, good=good, random=chance)
    shuffled = images.take(pa.array(np.random.default_rng(0).permutation(120)))
    whole = _rows(ranking_rows(images, FRACTIONS, n_resamples=50, seed=2))
    assert whole == _rows(ranking_rows(shuffled, FRACTIONS, n_resamples=50, seed=2))
    alone = _rows(ranking_rows(images.drop(["random"]), FRACTIONS, n_resamples=50, seed=2))
    assert alone["good", "ndcg"] == whole["good", "ndcg"]
    other = _rows(ranking_rows(images, FRACTIONS, n_resamples=50, seed=3))
    assert other["good", "ndcg"]["low"] != whole["good", "ndcg"]["low"]


def test_a_method_is_judged_on_the_images_it_scored() -> None:
    truth, good, chance = _drawn(9, 100)
    part = [None] * 40 + list(good[40:])
    table = ranking_rows(
        _images(truth, part=part, nothing=[None] * 100, random=chance), FRACTIONS, n_resamples=20
    )
    rows = _rows(table)
    assert rows["part", "ndcg"]["n"] == 60 and rows["random", "ndcg"]["n"] == 100
    assert rows["part", "ndcg"]["value"] == pytest.approx(ndcg_score([truth[40:]], [good[40:]]))
    chance_there = ndcg_score([truth[40:]], [chance[40:]])
    assert rows["part", "ndcg_over_random"]["value"] == pytest.approx(
        rows["part", "ndcg"]["value"] - chance_there
    )
    assert rows["part", "spearman:random"]["n"] == 60
    assert "nothing" not in {method for method, _ in rows}


def test_undefined_metrics_are_null_and_not_a_number() -> None:
    images = _images([0.0, 0.0, 0.0], m=[0.1, 0.2, 0.3])
    rows = _rows(ranking_rows(images, FRACTIONS, n_resamples=10))
    assert all(row[name] is None for row in rows.values() for name in ("value", "low", "high"))
    assert curve_rows(images) == CURVE_SCHEMA.empty_table()


def test_likeness_of_queries_is_a_matrix_that_sql_can_pivot() -> None:
    rng = np.random.default_rng(4)
    columns = {"a": rng.random(50), "b": rng.random(50), "c": np.zeros(50)}
    table = likeness_rows(pa.table(columns)).to_pylist()
    assert {(row["method"], row["n"]) for row in table} == {("ground_truth", 50)}
    found = {(row["query"], row["metric"]): row["value"] for row in table}
    assert len(found) == 6
    assert found["a", "spearman:b"] == found["b", "spearman:a"]
    assert found["a", "spearman:b"] == pytest.approx(spearmanr(columns["a"], columns["b"]).statistic)
    assert found["c", "spearman:a"] is None
    assert likeness_rows(pa.table({"a": columns["a"]})).num_rows == 0


def test_a_curve_goes_from_nothing_to_all_and_a_perfect_one_is_known() -> None:
    rows = curve_rows(_images([3.0, 0.0, 1.0, 0.0], m=[0.9, 0.1, 0.5, 0.2], n=[None] * 4)).to_pylist()
    assert [(row["query"], row["method"]) for row in rows] == [("total_fp", "m"), ("total_fp", "ideal")]
    budget, found = np.array(rows[0]["budget"]), np.array(rows[0]["found"])
    assert (len(budget), budget[0], budget[-1], found[0], found[-1]) == (CURVE_POINTS, 0.0, 1.0, 0.0, 1.0)
    assert (np.diff(found) >= 0).all()
    # Half of the first quarter finds half of 3/4; two of four images hold everything.
    np.testing.assert_allclose(found[[0, 25, 50, 75]], [0.0, 0.75, 1.0, 1.0])
    assert rows[1]["found"] == rows[0]["found"]


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
