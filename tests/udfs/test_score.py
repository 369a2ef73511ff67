from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from conf.errors import QuarryError
from tests.udfs.detection_scenes import (
    QUERY_NAMES,
    Box,
    box,
    crowded_detections,
    random_boxes,
    random_detections,
    scene_batch,
)
from udfs import score
from udfs.ranking_metrics import ndcg
from udfs.score import (
    HARDNESS_SCHEMA,
    MATCH_SCHEMA,
    match_batches,
    score_batches,
    supervise_batches,
)
from udfs.score_request import ScoreRequest

REQUEST = ScoreRequest(queries=QUERY_NAMES, baselines=("entropy", "margin_max"), head="softmax")
DATA = Path(os.environ.get("QUARRY_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "bccd"


def _scored(batches: list[pa.RecordBatch], request: ScoreRequest) -> pa.Table:
    return pa.Table.from_batches(score_batches(iter(batches), request), HARDNESS_SCHEMA)


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([("query", "ascending"), ("image_id", "ascending")]).combine_chunks()


def _random_batch(seed: int, n_images: int) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    scenes = [
        (random_detections, crowded_detections)[i % 2](rng, int(rng.integers(0, 16))) for i in range(n_images)
    ]
    for d in (d for scene in scenes for d in scene):
        d["score"] = float(np.float32(rng.random()))
        d["logits"] = rng.normal(0, 2, 21).tolist()
    truth = [random_boxes(rng, 4) for _ in scenes]
    return scene_batch(scenes, truth)


@pytest.mark.parametrize("estimator", ["exact", "monte_carlo"])
def test_batches_order_and_runs_change_no_bit(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _random_batch(61, 60)
    request = replace(REQUEST, estimator=estimator, max_component=2)
    whole = _sorted(_scored([batch], request))
    done = {"exact": {"exact", "mixed", "baseline"}, "monte_carlo": {"monte_carlo", "baseline"}}
    assert set(whole["estimator"].to_pylist()) == done[estimator]
    order = np.random.default_rng(62).permutation(60)
    shuffled = batch.take(pa.array(order))
    pieces = [shuffled.slice(start, 7) for start in range(0, 60, 7)]
    assert _sorted(_scored([shuffled.slice(0, 0), *pieces], request)).equals(whole)
    single = [
        _scored([batch.slice(i, 1)], replace(request, queries=(name,), baselines=()))
        for name in QUERY_NAMES
        for i in range(0, 60, 9)
    ]
    rows = {(r["query"], r["image_id"]): r for r in whole.to_pylist()}
    assert all(rows[r["query"], r["image_id"]] == r for table in single for r in table.to_pylist())
    monkeypatch.setattr(score, "_MAX_PAIRS", 1)
    assert _sorted(_scored([batch], request)).equals(whole)


def test_columns_say_what_was_done() -> None:
    logits = [0.0, 0.0]
    plain = [box((0, 0, 10, 10), score=0.75, logits=logits)]
    crowded = [box((0, 0, 10, 10), score=s, logits=logits) for s in (0.5, 0.625, 0.75)]
    batch = scene_batch([plain, crowded])
    request = ScoreRequest(queries=("total_fp",), baselines=("entropy",), max_component=2, n_samples=20)
    rows = _scored([batch], request).to_pylist()
    assert [r["image_id"] for r in rows] == ["image-0", "image-1"] * 2
    assert [r["query"] for r in rows] == ["total_fp"] * 2 + ["entropy"] * 2
    assert [r["estimator"] for r in rows] == ["exact", "mixed", "baseline", "baseline"]
    assert [r["n_samples"] for r in rows] == [None, 20, None, None]
    assert rows[0]["hardness"] == 0.25 and rows[0]["std_error"] == 0.0
    assert rows[1]["std_error"] > 0.0 and rows[2]["std_error"] is None
    single = replace(request, estimator="monte_carlo", n_samples=1, baselines=())
    assert {(r["std_error"], r["n_samples"]) for r in _scored([batch], single).to_pylist()} == {(None, 1)}


def test_fewer_samples_are_the_first_of_more() -> None:
    batch = _random_batch(63, 5)
    request = replace(REQUEST, queries=("total_fp",), baselines=(), estimator="monte_carlo")
    one, two = (_scored([batch], replace(request, n_samples=n))["hardness"].to_numpy() for n in (1, 2))
    second = 2 * two - one
    np.testing.assert_array_equal(second, np.round(second))


def test_empty_batches_keep_the_schema() -> None:
    empty = _random_batch(64, 1).slice(0, 0)
    for request in (REQUEST, replace(REQUEST, estimator="monte_carlo"), ScoreRequest(queries=())):
        batches = list(score_batches(iter([empty]), request))
        assert [b.num_rows for b in batches] == [0] and batches[0].schema == HARDNESS_SCHEMA
    assert next(supervise_batches(iter([empty]), REQUEST)).schema == HARDNESS_SCHEMA
    assert next(match_batches(iter([empty]), REQUEST)).schema == MATCH_SCHEMA
    assert list(score_batches(iter([]), REQUEST)) == []


def test_supervised_rows_and_labels() -> None:
    detections = [box((0, 0, 10, 10), 1, score=0.75), box((20, 0, 30, 10), 2, score=0.75)]
    batch = scene_batch([detections], [[box((0, 0, 10, 10), 1), box((50, 0, 60, 10), 2)]])
    request = ScoreRequest(queries=("total_fp", "total_fn"))
    rows = next(supervise_batches(iter([batch]), request)).to_pylist()
    assert [(r["query"], r["hardness"], r["estimator"]) for r in rows] == [
        ("total_fp", 1.0, "ground_truth"),
        ("total_fn", 1.0, "ground_truth"),
    ]
    assert all(r["std_error"] is None and r["n_samples"] is None for r in rows)
    only_first = next(supervise_batches(iter([batch]), replace(request, labels=(1,))))
    assert only_first["hardness"].to_pylist() == [0.0, 0.0]


def test_matches_cover_all_detections_but_those_of_crowds() -> None:
    detections = [
        box((0, 0, 10, 10), 1, score=0.0625, detection_id="low"),
        box((0, 0, 10, 10), 1, score=0.75, detection_id="high"),
        box((40, 40, 50, 50), 1, score=0.5, detection_id="in crowd"),
    ]
    truth = [box((0, 0, 10, 10), 1), box((30, 30, 60, 60), 1, iscrowd=True)]
    rows = next(match_batches(iter([scene_batch([[], detections], [[], truth])]), REQUEST)).to_pylist()
    assert [(r["image_id"], r["detection_id"], r["is_true_positive"]) for r in rows] == [
        ("image-1", "low", False),
        ("image-1", "high", True),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"queries": ("total",)},
        {"baselines": ("entropi",)},
        {"eta": 1.5},
        {"iou_threshold": 0.0},
        {"n_samples": 0},
        {"max_component": 21},
        {"matcher": "greedy"},
        {"head": "linear"},
        {"estimator": "guess"},
    ],
)
def test_bad_requests_fail_at_once(change: dict) -> None:
    with pytest.raises(QuarryError):
        replace(REQUEST, **change)


def _bccd_batch() -> pa.RecordBatch:
    pool = json.loads((DATA / "pool.json").read_text())
    detections: dict[int, list[Box]] = defaultdict(list)
    truth: dict[int, list[Box]] = defaultdict(list)
    for d in json.loads((DATA / "detections.json").read_text()):
        if d["score"] >= 0.05:
            detections[d["image_id"]].append(_corners(d, score=d["score"]))
    for g in pool["annotations"]:
        truth[g["image_id"]].append(_corners(g, iscrowd=bool(g["iscrowd"])))
    ids = [image["id"] for image in pool["images"]]
    return scene_batch(
        [detections[i] for i in ids], [truth[i] for i in ids], [str(i) for i in ids], wh_px=(640, 480)
    )


def _corners(annotation: dict, **fields: object) -> Box:
    x, y, w, h = annotation["bbox"]
    return box((x, y, x + w, y + h), annotation["category_id"], **fields)


@pytest.mark.skipif(not DATA.is_dir(), reason="set QUARRY_DATA to a folder that holds bccd/")
def test_real_blood_cells_are_ranked_as_measured_independently() -> None:
    batch = _bccd_batch()
    request = ScoreRequest(queries=QUERY_NAMES)
    estimated = next(score_batches(iter([batch]), request))["hardness"].to_numpy().reshape(9, -1)
    true = next(supervise_batches(iter([batch]), request))["hardness"].to_numpy().reshape(9, -1)
    measured = {name: ndcg(t, e) for name, t, e in zip(QUERY_NAMES, true, estimated, strict=True)}
    assert true.shape[1] == 277
    expected = {
        "total_fp": 0.823,
        "total_fn": 0.830,
        "pixel_adj_fp": 0.801,
        "pixel_adj_false": 0.819,
        "occ_aware_fp": 0.925,
        "occ_aware_false": 0.816,
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=0.005)
