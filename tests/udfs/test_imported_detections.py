from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from udfs.detection_rows import DETECTION_TYPE, detection_id
from udfs.imported_detections import NAMED_SCHEMA, GivenDetections, found_rows, named_batches, table_batches

TABLE_SCHEMA = pa.schema(
    [
        ("source_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION_TYPE)),
    ]
)


def _box(**changes: Any) -> dict[str, Any]:
    box: dict[str, Any] = {"label_name": "cell", "score": 0.5, "x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    return {**dict.fromkeys(DETECTION_TYPE.names), **box, **changes}


def _table(*lists: list[dict[str, Any] | None] | None) -> pa.RecordBatch:
    rows = [
        {"source_id": f"{i}.jpg", "width": 10, "height": 20, "detections": boxes}
        for i, boxes in enumerate(lists)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=TABLE_SCHEMA)


def _found(
    batch: pa.RecordBatch, categories: dict[int, str] | None = None, eta0: float = 0.05
) -> list[dict[str, Any]]:
    return [row for one in table_batches(iter([batch]), categories, eta0) for row in one.to_pylist()]


@pytest.mark.parametrize("seed", range(20))
def test_grouping_equals_a_loop_over_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_images, n = int(rng.integers(1, 6)), int(rng.integers(0, 40))
    index, scores = rng.integers(0, n_images, n), rng.integers(-1, 12, n) / 10
    boxes = rng.normal(size=(n, 4))
    boxes[:, 2:] += boxes[:, :2] + 5
    given = GivenDetections(
        source_ids=pa.array([str(i) for i in range(n_images)]),
        image_index=index,
        boxes_xyxy=boxes,
        scores=scores,
        names=pa.array([f"c{i}" for i in range(n)], pa.string()),
        shown=lambda i, fault: f"{fault} {i}",
    )
    found = found_rows(given, 0.3).to_pylist()
    for image, row in enumerate(found):
        mine = [i for i in range(n) if index[i] == image]
        bad = [i for i in mine if not 0 <= scores[i] <= 1]
        kept = [] if bad else sorted((i for i in mine if scores[i] >= 0.3), key=lambda i: -scores[i])
        assert [box["label_name"] for box in row["detections"]] == [f"c{i}" for i in kept]
        assert [box["x2"] for box in row["detections"]] == [boxes[i, 2] for i in kept]
        assert row["n_given"] == len(mine)
        assert row["n_below"] == (0 if bad else len(mine) - len(kept))
        assert (row["message"] or "").startswith(f"score {bad[0]}: " if bad else "")
        assert bool(row["fault"]) == bool(bad)
        assert not bad or f"{len(bad)} of the image's {len(mine)} detections" in row["message"]


def test_a_table_s_rows_keep_ids_and_logits_and_sizes() -> None:
    boxes = [_box(score=0.2), _box(score=0.9, detection_id="mine", logits=[0.5, 1.5])]
    row, empty, null = _found(_table(boxes, [], None))
    assert [box["detection_id"] for box in row["detections"]] == ["mine", None]
    assert row["detections"][0]["logits"] == [0.5, 1.5]
    assert (row["source_id"], row["width"], row["height"]) == ("0.jpg", 10, 20)
    assert empty["detections"] == null["detections"] == [] and null["fault"] is None


def test_a_slice_of_a_batch_is_read_as_that_slice() -> None:
    whole = _table([_box(score=0.1)], [_box(score=0.2), _box(score=0.3)], [_box(score=0.4)])
    assert _found(whole.slice(1, 2)) == _found(whole)[1:]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (None, r"x1, y1, x2, y2 \[None, None, None, None\]: expected 4 finite"),
        (_box(x1=None), r"\[None, 2.0, 3.0, 4.0\]"),
        (_box(x2=0.5), r"\[1.0, 2.0, 0.5, 4.0\]: expected x2 >= x1"),
        (_box(score=None), "score None"),
        (_box(label_name=None), "label_name None, label None: expected a class"),
    ],
)
def test_what_a_table_lacks_is_told(bad: dict[str, Any] | None, told: str) -> None:
    fine, row = _found(_table([_box()], [_box(), bad]))
    assert fine["fault"] is None and row["detections"] == []
    assert re.search(f"{told}.*1 of the image's 2 detections", row["message"])


def test_labels_stand_for_categories_where_names_are_missing() -> None:
    categories = {90: "dot", 3: "cell"}
    by_label, named, unknown, wrong = _found(
        _table(
            [_box(label_name=None, label=90)],
            [_box(label_name="dot", label=7)],
            [_box(label_name=None, label=7)],
            [_box(label_name="cat")],
        ),
        categories,
    )
    assert by_label["detections"][0]["label_name"] == named["detections"][0]["label_name"] == "dot"
    assert unknown["fault"] == wrong["fault"] == "class"
    assert wrong["message"].startswith("label_name 'cat', label None")


def test_names_become_the_model_s_and_dropped_classes_leave() -> None:
    lists = [
        [
            _box(label_name="van", score=0.9),
            _box(label_name="cone", score=0.8),
            _box(label_name="car", score=0.7),
        ],
        [],
        [_box(label_name="walker", score=0.6, detection_id="mine"), _box(label_name="van", score=0.5)],
    ]
    columns = [
        pa.array(["i0", "i1", "i2"]),
        pa.array(["u0", "u1", "u2"]),
        pa.array([10] * 3, pa.int32()),
        pa.array([20] * 3, pa.int32()),
        pa.array(lists, pa.list_(DETECTION_TYPE)),
        pa.array([4, 5, 6], pa.int64()),
        pa.array([None, "score", None], pa.string()),
        pa.array([None, "told", None], pa.string()),
    ]
    names = [name for name in NAMED_SCHEMA.names if name not in ("n_detections", "n_dropped")]
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    targets = {"car": "vehicle", "van": "vehicle", "cone": None, "walker": "pedestrian"}
    (named,) = named_batches(iter([batch]), "m", targets, {"vehicle": 1, "pedestrian": 2})
    assert named.schema == NAMED_SCHEMA
    rows = named.to_pylist()
    counts = [(row["n_detections"], row["n_dropped"], row["n_below"]) for row in rows]
    assert counts == [(2, 1, 4), (0, 0, 5), (2, 0, 6)]
    kept = [row["detections"] for row in rows]
    assert [[(box["label"], box["label_name"], box["score"]) for box in boxes] for boxes in kept] == [
        [(1, "vehicle", 0.9), (1, "vehicle", 0.7)],
        [],
        [(2, "pedestrian", 0.6), (1, "vehicle", 0.5)],
    ]
    assert [[box["detection_id"] for box in boxes] for boxes in kept] == [
        [detection_id("i0", "m", "original", 0), detection_id("i0", "m", "original", 1)],
        [],
        ["mine", detection_id("i2", "m", "original", 1)],
    ]
    assert (rows[1]["fault"], rows[1]["message"], rows[1]["uri"]) == ("score", "told", "u1")
    assert list(named_batches(iter([]), "m", {}, {})) == []
