from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conf.errors import QuarryError
from udfs.coco_results import coco_image_list, coco_result_batches
from udfs.imported_detections import FOUND_SCHEMA

CATEGORIES = {3: "cell", 90: "dot"}
IMAGE = {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}


def _result(
    image_id: Any = 7, category_id: Any = 3, bbox: Any = (10, 5, 20, 10), score: Any = 0.5
) -> dict[str, Any]:
    bbox = list(bbox) if isinstance(bbox, tuple) else bbox
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def _rows(
    folder: Path, content: Any, categories: dict[int, str] = CATEGORIES, eta0: float = 0.05
) -> list[dict[str, Any]]:
    path = folder / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    batch = pa.RecordBatch.from_pydict({"uri": pa.array([str(path)])})
    found = list(coco_result_batches(iter([batch]), categories, eta0))
    assert all(one.schema == FOUND_SCHEMA for one in found)
    return [row for one in found for row in one.to_pylist()]


def test_a_box_is_corners_as_they_were_given(tmp_path: Path) -> None:
    (row,) = _rows(tmp_path, [_result(bbox=(229.72, 91.07, 108.99, 84.56), score=0.7, category_id=90)])
    (box,) = row["detections"]
    assert (box["x1"], box["y1"], box["x2"], box["y2"]) == (229.72, 91.07, 229.72 + 108.99, 91.07 + 84.56)
    assert (box["score"], box["label_name"], box["label"], box["logits"]) == (0.7, "dot", None, None)
    assert (row["source_id"], row["n_given"], row["n_below"], row["fault"]) == ("7", 1, 0, None)


def test_images_keep_their_boxes_in_any_order_and_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [_result(image_id=i % 3, score=(i * 7 % 11) / 10) for i in range(11)]
    whole = _rows(tmp_path, results)
    for row in whole:
        mine = [one["score"] for one in results if str(one["image_id"]) == row["source_id"]]
        assert [box["score"] for box in row["detections"]] == sorted(
            (score for score in mine if score >= 0.05), reverse=True
        )
        assert (row["n_given"], row["n_below"]) == (len(mine), sum(score < 0.05 for score in mine))
    monkeypatch.setattr("udfs.coco_results.ITEMS_PER_BLOCK", 2)
    monkeypatch.setattr("udfs.coco_results.IMAGES_PER_BATCH", 2)
    assert _rows(tmp_path, results) == whole


def test_numbers_and_texts_are_different_images_and_whole_floats_are_numbers(tmp_path: Path) -> None:
    rows = _rows(tmp_path, [_result(1), _result("1"), _result(1.0, category_id=3.0)])
    assert [(row["source_id"], row["n_given"]) for row in rows] == [("1", 2), ('"1"', 1)]
    assert rows[0]["fault"] is None


def test_without_categories_a_class_is_its_id(tmp_path: Path) -> None:
    (row,) = _rows(tmp_path, [_result(category_id=12)], categories={})
    assert row["detections"][0]["label_name"] == "12"


@pytest.mark.parametrize(
    ("bad", "fault", "told"),
    [
        ({"score": math.nan}, "score", "score nan: expected a number from 0 to 1"),
        ({"score": 1.01}, "score", "score 1.01"),
        ({"score": -0.1}, "score", "score -0.1"),
        ({"score": "0.9"}, "score", "score '0.9'"),
        ({"score": True}, "score", "score True"),
        ({"score": None}, "score", "score None"),
        ({"score": 10**400}, "score", "score 1000"),
        ({"bbox": (1, 2, math.inf, 4)}, "coordinates", r"bbox \[1.0, 2.0, inf, 4.0\]"),
        ({"bbox": (math.nan, 2, 3, 4)}, "coordinates", "4 finite numbers"),
        ({"bbox": (0, 0, 1e300, 4)}, "coordinates", "below 1e.09 px"),
        ({"bbox": (1, 2, 3)}, "coordinates", r"bbox \[1, 2, 3\]"),
        ({"bbox": ("1", 2, 3, 4)}, "coordinates", r"bbox \['1', 2, 3, 4\]"),
        ({"bbox": None}, "coordinates", "bbox None"),
        ({"bbox": (1, 2, -3, 4)}, "negative size", r"bbox \[1.0, 2.0, -3.0, 4.0\]: expected x2 >= x1"),
        ({"category_id": 4}, "class", "category_id 4: expected a class of the source"),
        ({"category_id": True}, "class", "category_id True"),
        ({"category_id": "3"}, "class", "category_id '3'"),
        ({"category_id": [3]}, "class", r"category_id \[3\]"),
    ],
)
def test_an_image_with_a_bad_detection_has_its_fault_and_no_other_image_does(
    tmp_path: Path, bad: dict[str, Any], fault: str, told: str
) -> None:
    rows = _rows(tmp_path, [_result(8), _result(), _result(**bad), _result(score=0.01), _result(9)])
    assert [row["source_id"] for row in rows if row["fault"]] == ["7"]
    row = rows[1]
    assert row["fault"] == fault and row["detections"] == []
    assert re.search(told, row["message"])
    assert row["message"].endswith("1 of the image's 3 detections are bad")
    assert [len(row["detections"]) for row in rows] == [1, 0, 1]


def test_a_fault_in_a_later_block_is_told_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udfs.coco_results.ITEMS_PER_BLOCK", 2)
    fine = [_result()] * 3
    assert _rows(tmp_path, [*fine, _result(8, score="0.9")])[1]["message"].startswith("score '0.9'")
    with pytest.raises(QuarryError, match="result 4: expected image_id .* got None"):
        _rows(tmp_path, [*fine, _result(None)])
    with pytest.raises(QuarryError, match="result 4 has no 'image_id'"):
        _rows(tmp_path, [*fine, 5])


def test_a_box_without_area_is_sound(tmp_path: Path) -> None:
    (row,) = _rows(tmp_path, [_result(bbox=(5, 5, 0, 0)), _result(bbox=(-5, -5, 500, 500))])
    assert row["fault"] is None
    assert [box["x2"] for box in row["detections"]] == [5.0, 495.0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "0 bytes"),
        (b"{", "holds an object.*--images"),
        (b'"x"', "not a JSON list: expecting"),
        (b"[] x", "expecting nothing more"),
        (b'[{"image_id": 1', "not a JSON list"),
        (b'[{"image_id": 1} {', "expecting ','"),
        (b"[" * 100_000, "not a JSON list"),
        (b"\xff\xfe\x00", "not a JSON list"),
        ([3], "result 1 has no 'image_id'"),
        ([_result(), {"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}], "result 2 has no 'category_id'"),
        ([_result(image_id=True)], "result 1: expected image_id as an integer or a string, got True"),
        ([_result(image_id=None)], "got None"),
        ([_result(image_id=1.5)], "got 1.5"),
    ],
)
def test_a_file_that_is_no_list_of_results_is_named(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(QuarryError, match=rf"results\.json: .*{told}"):
        _rows(tmp_path, content)


def test_an_empty_list_holds_no_image(tmp_path: Path) -> None:
    assert _rows(tmp_path, b" [ ] \n") == []
    assert len(_rows(tmp_path, b"\xef\xbb\xbf" + json.dumps([_result()]).encode())) == 1


def _list(folder: Path, document: Any) -> tuple[pa.Table, dict[int, str]]:
    path = folder / "images.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return coco_image_list(str(path))


def test_the_image_list_keeps_what_an_import_needs(tmp_path: Path) -> None:
    other = {"id": "x", "file_name": "b.jpg", "width": 2**31 - 1, "height": 1, "coco_url": "http://b"}
    images, categories = _list(
        tmp_path,
        {"images": [IMAGE, other], "categories": [{"id": 90, "name": "dot"}, {"id": 3, "name": "cell"}]},
    )
    assert list(categories.items()) == [(90, "dot"), (3, "cell")]
    assert images.to_pylist() == [
        {"source_id": "7", "file_name": "a.jpg", "quarry_image_id": None, "coco_url": None}
        | {"width": 100, "height": 50},
        {"source_id": '"x"', "file_name": "b.jpg", "quarry_image_id": None, "coco_url": "http://b"}
        | {"width": 2**31 - 1, "height": 1},
    ]
    assert _list(tmp_path, {"images": [IMAGE]})[1] == {}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("{", "not JSON"),
        ([IMAGE], "expected a COCO object.*got list"),
        ({"images": []}, "non-empty array `images`"),
        ({"annotations": []}, "non-empty array `images`"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b"}]}, "2 of 2 images.*id 7 is used by 2 images"),
        ({"images": [IMAGE, {**IMAGE, "id": 8}]}, "file_name 'a.jpg' is used by 2 images"),
        ({"images": [{**IMAGE, "id": True}]}, "expected an id .*got True"),
        ({"images": [{**IMAGE, "width": 2**31}]}, "expected width in whole px"),
        ({"images": [{**IMAGE, "width": None}]}, "expected width"),
        ({"images": [{**IMAGE, "file_name": "\ud800"}]}, "expected a file_name"),
        ({"images": [IMAGE], "categories": [{"id": True, "name": "x"}]}, "distinct integer ids"),
        ({"images": [IMAGE], "categories": [{"id": 1, "name": ""}]}, "distinct integer ids"),
    ],
)
def test_a_bad_image_list_is_refused_by_name(tmp_path: Path, document: Any, told: str) -> None:
    with pytest.raises(QuarryError, match=rf"images\.json: .*{told}"):
        _list(tmp_path, document)
