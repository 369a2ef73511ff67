from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pytest

from conf.errors import QuarryError
from conf.label_map import LabelMap
from udfs.labels import LABEL_SCHEMA, label_batches

LABEL_IDS = {"car": 1, "person": 2}


def _document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80, "quarry_image_id": "q-2"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30.5, 40], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": [0, 0, 5, 5]},
        ],
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "person"}],
    }


def _rows(
    uris: list[str], label_ids: dict[str, int], label_map: LabelMap | None = None
) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"uri": pa.array(uris, pa.string())})
    found = list(label_batches(iter([batch]), "coco", label_ids, label_map))
    assert all(one.schema == LABEL_SCHEMA for one in found)
    return [row for one in found for row in one.to_pylist()]


def _write(path: Path, document: dict[str, Any]) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_boxes_are_corners_with_the_model_s_labels(tmp_path: Path) -> None:
    rows = _rows([_write(tmp_path / "a.json", _document())], LABEL_IDS)
    truths = [row for row in rows if row["boxes"] is not None]
    assert [(row["file_name"], row["quarry_image_id"]) for row in truths] == [
        ("a.jpg", None),
        ("b.jpg", "q-2"),
    ]
    person, car = truths[0]["boxes"]
    assert person == {
        "label": 2,
        "label_name": "person",
        "x1": 10.0,
        "y1": 20.0,
        "x2": 40.5,
        "y2": 60.0,
        "iscrowd": False,
        "status": "labeled",
        "source": "coco",
        "detection_id": None,
    }
    assert (car["label"], car["iscrowd"]) == (1, True)
    assert truths[1]["boxes"] == []


def test_what_is_left_out_has_a_reason_and_no_boxes(tmp_path: Path) -> None:
    rows = _rows([_write(tmp_path / "a.json", _document())], LABEL_IDS)
    (rejected,) = [row for row in rows if row["boxes"] is None]
    assert rejected["item_kind"] == "annotation"
    assert "category_id 9" in rejected["reason"]
    assert rejected["file_name"] == "a.jpg"


def test_without_a_model_labels_keep_their_names_only(tmp_path: Path) -> None:
    row = next(r for r in _rows([_write(tmp_path / "a.json", _document())], {}) if r["boxes"])
    assert [(box["label"], box["label_name"]) for box in row["boxes"]] == [(None, "person"), (None, "car")]


def test_files_are_read_one_after_the_other_whatever_the_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uris = [_write(tmp_path / f"{i} %20.json", _document()) for i in range(3)]
    whole = _rows(uris, LABEL_IDS)
    monkeypatch.setattr("udfs.labels.ROWS_PER_BATCH", 2)
    assert _rows(uris, LABEL_IDS) == whole
    assert len(whole) == 9
    assert _rows([], LABEL_IDS) == []


def test_boxes_of_a_class_the_model_does_not_know_are_rejected(tmp_path: Path) -> None:
    rows = _rows([_write(tmp_path / "a.json", _document())], {"car": 1})
    reasons = [row["reason"] for row in rows if row["item_kind"] == "annotation"]
    assert "class 'person' is unknown to the model; known: car; --label-map renames classes" in reasons
    truths = [row["boxes"] for row in rows if row["boxes"] is not None]
    assert [[box["label_name"] for box in boxes] for boxes in truths] == [["car"], []]


def test_an_image_with_a_box_of_no_class_is_not_complete(tmp_path: Path) -> None:
    (of_data_set, whole) = [
        row
        for row in _rows([_write(tmp_path / "a.json", _document())], {"car": 1})
        if row["boxes"] is not None
    ]
    box = {"type": "box", "label": "person", "left": 1, "top": 2, "width": 3, "height": 4}
    answer = {"task_id": "t", "metadata": {"file_name": "a.jpg"}, "response": {"annotations": [box]}}
    batch = pa.RecordBatch.from_pydict({"uri": [_write(tmp_path / "b.json", answer)]})
    (found,) = label_batches(iter([batch]), "scale", {"car": 1})
    (of_tool,) = [row for row in found.to_pylist() if row["boxes"] is not None]
    assert (of_data_set["complete"], of_tool["complete"], of_tool["boxes"]) == (False, False, [])
    assert whole["complete"]


@pytest.mark.parametrize("spoiled", [{"category_id": 8}, {"bbox": [0, 0, -4, 5]}])
def test_an_answer_of_which_a_box_was_rejected_is_not_complete(
    tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    document = _document()
    document["categories"].append({"id": 8, "name": "Car"})
    box = {"id": 4, "image_id": 2, "category_id": 3, "bbox": [0, 0, 5, 5]}
    document["annotations"].append(box | spoiled)
    rows = _rows([_write(tmp_path / "a.json", document)], LABEL_IDS)
    (image,) = [row for row in rows if row["file_name"] == "b.jpg" and row["boxes"] is not None]
    assert (image["boxes"], image["complete"]) == ([], False)


def test_whatever_a_file_holds_a_table_and_a_line_can_hold_it(tmp_path: Path) -> None:
    document = _document()
    document["images"][1]["file_name"] = "\ud800.jpg"
    document["categories"][1]["name"] = "x" * 100_000
    rows = _rows([_write(tmp_path / "a.json", document)], LABEL_IDS)
    reasons = [row["reason"] for row in rows if row["reason"]]
    assert any("\\ud800" in reason for reason in reasons) and any("xxx" in reason for reason in reasons)
    assert max(map(len, reasons)) < 300


def test_a_label_map_renames_classes_and_drops_boxes(tmp_path: Path) -> None:
    uri = _write(tmp_path / "a.json", _document())
    two = LabelMap("two.yaml", {"person": "walker", "car": None})
    truths = [row["boxes"] for row in _rows([uri], {"walker": 5}, two) if row["boxes"] is not None]
    assert [[(box["label"], box["label_name"]) for box in boxes] for boxes in truths] == [[(5, "walker")], []]
    rows = _rows([uri], {}, LabelMap("two.yaml", {"car": None}))
    assert any("label map two.yaml: class 'person' is not mentioned" in (row["reason"] or "") for row in rows)


def test_a_box_that_is_there_twice_is_kept_once_and_told(tmp_path: Path) -> None:
    document = _document()
    document["annotations"].append(dict(document["annotations"][0], id=9))
    rows = _rows([_write(tmp_path / "a.json", document)], LABEL_IDS)
    assert [len(row["boxes"]) for row in rows if row["boxes"] is not None] == [2, 0]
    (twice,) = [row for row in rows if row["reason"] == "the same box is there twice"]
    assert (twice["file_name"], twice["item_id"]) == ("a.jpg", "person 10, 20, 40.5, 60")


def test_a_sent_box_and_its_copy_at_the_same_place_are_one(tmp_path: Path) -> None:
    document = _document()
    sent = document["annotations"][0]
    document["annotations"] = [{**sent, "quarry_detection_id": "d"}, {**sent, "id": 9}]
    rows = _rows([_write(tmp_path / "a.json", document)], LABEL_IDS)
    assert [box["detection_id"] for row in rows for box in row["boxes"] or ()] == ["d"]
    assert [row["reason"] for row in rows if row["reason"]] == ["the same box is there twice"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected an object with the array"),
        (b'{"images": []}', "annotations"),
    ],
)
def test_a_file_that_is_not_coco_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(QuarryError, match=message) as caught:
        _rows([str(path)], LABEL_IDS)
    assert "bad.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match=r"label file .*absent\.json"):
        _rows([str(tmp_path / "absent.json")], LABEL_IDS)


def test_files_are_read_by_lines_and_out_of_archives(tmp_path: Path) -> None:
    label = {"image_size": [{"width": 9, "height": 9, "depth": 3}], "annotations": []}
    metadata = {"type": "groundtruth/object-detection", "human-annotated": "yes"}
    lines = tmp_path / "output.manifest"
    line = {"source-ref": "s3://b/a.jpg", "label": label, "label-metadata": metadata}
    lines.write_text(json.dumps(line) + "\n")
    archive = tmp_path / "export.zip"
    xml = '<annotations><meta/><image id="0" name="b.jpg" width="9" height="9"/></annotations>'
    with ZipFile(archive, "w") as stream:
        stream.writestr("annotations.xml", xml)
    for form, path, name in (("ground_truth", lines, "s3://b/a.jpg"), ("cvat", archive, "b.jpg")):
        batch = pa.RecordBatch.from_pydict({"uri": [str(path)]})
        (found,) = label_batches(iter([batch]), form, {}, None)
        assert [row["file_name"] for row in found.to_pylist()] == [name]
