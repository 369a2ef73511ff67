from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from conf.errors import QuarryError
from tests.udfs.formats.hard_tasks import expected_images, hard_manifest, hard_tasks
from tests.udfs.formats.hostile_json import mutated
from udfs.formats.labelbox import (
    RIGHT_CLASS,
    labelbox_metadata,
    labelbox_ontology,
    write_labelbox,
    write_labelbox_data_rows,
)
from udfs.formats.labelbox_keys import global_key, ids_of_key
from udfs.formats.labelbox_returns import read_labelbox
from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedImage
from udfs.formats.task import QUESTIONS, LabelingTask, Manifest, TaskBox, TaskKind


def _task(*boxes: TaskBox, **changes: Any) -> LabelingTask:
    fields: dict[str, Any] = {
        "task_id": "c1/i",
        "image_id": "i",
        "uri": "https://b/dir/a.jpg",
        "file_name": "dir/a.jpg",
        "width": 640,
        "height": 480,
        "rank": 1,
        "score": 2.0,
        "strategy": "s",
        "boxes": boxes,
    }
    return LabelingTask(**{**fields, **changes})


def _box(label: str = "car", detection_id: str = "d") -> TaskBox:
    return TaskBox(detection_id=detection_id, label_name=label, score=0.62, x1=10, y1=20, x2=40, y2=60)


def _manifest(kind: TaskKind = "image") -> Manifest:
    return Manifest(
        name="c1",
        classes=("car", "bus"),
        model_version="m",
        kind=kind,
        n_tasks=1,
        last_rank=1,
        created="2026-01-01",
    )


def _lines(tasks: list[LabelingTask], manifest: Manifest) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_labelbox(stream, iter(tasks), manifest)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _rows(tasks: list[LabelingTask], manifest: Manifest) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_labelbox_data_rows(stream, iter(tasks), manifest)
    rows: list[dict[str, Any]] = json.loads(stream.getvalue())
    return rows


def _export(
    tasks: list[LabelingTask], manifest: Manifest, answers: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """What Labelbox exports once a person submitted the boxes, each with the answer at its place."""
    objects: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(_lines(tasks, manifest)):
        objects.setdefault(line["dataRow"]["globalKey"], []).append(
            {
                "feature_id": f"f{number}",
                "feature_schema_id": "s",
                "name": line["name"],
                "value": line["name"].lower(),
                "annotation_kind": "ImageBoundingBox",
                "classifications": [answers[number]] if answers else [],
                "bounding_box": line["bbox"],
            }
        )
    return [
        {
            "data_row": {
                "id": f"row{number}",
                "global_key": row["global_key"],
                "external_id": row["external_id"],
                "row_data": row["row_data"],
            },
            "media_attributes": {"width": task.width, "height": task.height, "mime_type": "image/jpeg"},
            "projects": {
                "p1": {
                    "name": manifest.name,
                    "labels": [
                        {
                            "label_kind": "Default",
                            "version": "1.0.0",
                            "id": f"label{number}",
                            "label_details": {
                                "created_at": "2026-04-08T16:21:26.000+00:00",
                                "updated_at": "2026-04-08T16:34:02.000+00:00",
                                "created_by": "ann@example.com",
                            },
                            "annotations": {
                                "objects": objects.get(row["global_key"], []),
                                "classifications": [],
                                "relationships": [],
                            },
                        }
                    ],
                    "project_details": {"workflow_status": "DONE"},
                }
            },
        }
        for number, (task, row) in enumerate(zip(tasks, _rows(tasks, manifest), strict=True))
    ]


def _answer(answer: str, right_class: str | None = None, kind: TaskKind = "verify_class") -> dict[str, Any]:
    nested = (
        []
        if right_class is None
        else [{"name": RIGHT_CLASS, "radio_answer": {"name": right_class, "classifications": []}}]
    )
    return {"name": QUESTIONS[kind], "radio_answer": {"name": answer, "classifications": nested}}


def _read(items: Any) -> list[ReturnedImage | RejectedItem]:
    text = "\n".join(json.dumps(item) for item in items)
    return list(read_labelbox(io.BytesIO(text.encode())))


def test_the_worked_example() -> None:
    (line,) = _lines([_task(_box())], _manifest())
    assert line == {
        "uuid": line["uuid"],
        "name": "car",
        "dataRow": {"globalKey": "quarry:image:i"},
        "classifications": [],
        "bbox": {"top": 20, "left": 10, "height": 40, "width": 30},
        "confidence": 0.62,
    }
    assert str(uuid.UUID(line["uuid"])) == line["uuid"]
    (row,) = _rows([_task(_box())], _manifest())
    assert row == {
        "row_data": "https://b/dir/a.jpg",
        "global_key": "quarry:image:i",
        "external_id": "dir/a.jpg",
        "media_type": "IMAGE",
        "metadata_fields": [{"name": "quarry_rank", "value": 1}, {"name": "quarry_strategy", "value": "s"}],
    }


def test_every_hard_image_and_box_comes_back() -> None:
    expected = {image["image_id"]: image for image in expected_images().values()}
    returned = _read(_export(hard_tasks(), hard_manifest()))
    assert len(returned) == len(expected)
    for image in returned:
        assert isinstance(image, ReturnedImage)
        wanted = expected[image.quarry_image_id or ""]
        assert (image.file_name, image.width, image.height) == (
            wanted["file_name"],
            wanted["width"],
            wanted["height"],
        )
        assert (image.annotator, image.annotated_at) == (
            "ann@example.com",
            "2026-04-08T16:34:02.000000+00:00",
        )
        assert image.complete
        assert [box.label_name for box in image.boxes] == [box["label"] for box in wanted["boxes"]]
        for box, sent in zip(image.boxes, wanted["boxes"], strict=True):
            assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx(sent["corners"], abs=0.002)


@pytest.mark.parametrize("kind", ["verify_box", "verify_class"])
def test_answers_come_back_as_boxes_of_their_detection(kind: TaskKind) -> None:
    tasks = hard_tasks(kind)
    no = "no" if kind == "verify_box" else "no object"
    answers = [_answer("yes" if number % 2 else no, kind=kind) for number in range(len(tasks))]
    returned = _read(_export(tasks, hard_manifest(kind), answers))
    assert len(returned) == len(tasks)
    for number, (task, image) in enumerate(zip(tasks, returned, strict=True)):
        assert isinstance(image, ReturnedImage)
        assert not image.complete
        assert (image.task_id, image.file_name) == (task.task_id, task.file_name)
        (box,) = image.boxes
        assert (box.detection_id, box.label_name) == (task.boxes[0].detection_id, task.boxes[0].label_name)
        assert box.status == ("labeled" if number % 2 else "background")


def test_the_right_class_replaces_the_wrong_one() -> None:
    task = _task(_box(), kind="verify_class")
    (image,) = _read(_export([task], _manifest("verify_class"), [_answer("no", "bus")]))
    assert isinstance(image, ReturnedImage)
    assert [(box.label_name, box.status) for box in image.boxes] == [("bus", "labeled")]


@pytest.mark.parametrize("spoil", ["deleted", "two", "unanswered", "no class"])
def test_a_question_without_one_answer_is_no_answer(spoil: str) -> None:
    task = _task(_box(), kind="verify_class")
    (row,) = _export([task], _manifest("verify_class"), [_answer("no")])
    objects = row["projects"]["p1"]["labels"][0]["annotations"]["objects"]
    if spoil == "deleted":
        objects.clear()
    elif spoil == "two":
        objects.append(objects[0])
    elif spoil == "unanswered":
        objects[0]["classifications"] = []
    (item,) = _read([row])
    assert isinstance(item, RejectedItem)
    assert "expected the" in item.reason


def test_two_cycles_share_a_data_row_and_ask_their_own_questions() -> None:
    first, second = (_task(_box(), task_id=f"c{cycle}/i") for cycle in (1, 2))
    assert global_key(first) == global_key(second)
    assert _lines([first], _manifest())[0]["uuid"] != _lines([second], _manifest())[0]["uuid"]
    asked = [_task(_box(), task_id=f"c{cycle}/i/d/verify_box", kind="verify_box") for cycle in (1, 2)]
    assert global_key(asked[0]) != global_key(asked[1])


@pytest.mark.parametrize("image_id", ["Ab", "ab", "日本/ö:1 ", "a=b", "=61", " x", "%41"])
def test_keys_are_plain_lower_case_and_give_the_id_back(image_id: str) -> None:
    key = global_key(_task(image_id=image_id))
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789._/-=:")
    assert ids_of_key(key) == (image_id, None, None)


@pytest.mark.parametrize(
    "key", [None, 7, "", "dir/a.jpg", "quarry:image:=ff", "quarry:box:=ff:d", "quarry:image:A"]
)
def test_keys_of_others_hold_no_id(key: Any) -> None:
    assert ids_of_key(key) == (None, None, None)


def test_a_key_that_is_too_long_is_refused() -> None:
    with pytest.raises(QuarryError, match="at most 200 characters, got 213"):
        _rows([_task(image_id="x" * 200)], _manifest())


@pytest.mark.parametrize("uri", ["/data/a.jpg", "file:///data/a.jpg", "a.jpg", "C:\\a.jpg"])
def test_an_image_no_service_can_fetch_is_refused(uri: str) -> None:
    with pytest.raises(QuarryError, match=r"'i'.*https"):
        _rows([_task(uri=uri)], _manifest())


def test_a_uri_that_is_refused_may_be_signed_and_is_not_told() -> None:
    with pytest.raises(QuarryError, match="got a path") as caught:
        _rows([_task(uri="cdn.example/a.jpg?sig=hush-hush")], _manifest())
    assert "hush-hush" not in str(caught.value)


def test_two_images_and_two_boxes_of_one_id_are_refused() -> None:
    with pytest.raises(QuarryError, match="twice"):
        _rows([_task(), _task()], _manifest())
    with pytest.raises(QuarryError, match="twice"):
        _lines([_task(), _task()], _manifest())
    with pytest.raises(QuarryError, match="share the detection_id 'd'"):
        _lines([_task(_box(), _box())], _manifest())


def test_the_ontology_asks_the_question_on_each_box() -> None:
    text = labelbox_ontology(_manifest())["labelbox_ontology.json"]
    assert [tool["name"] for tool in json.loads(text)["tools"]] == ["car", "bus"]
    assert all(tool["classifications"] == [] for tool in json.loads(text)["tools"])
    text = labelbox_ontology(_manifest("verify_class"))["labelbox_ontology.json"]
    for tool in json.loads(text)["tools"]:
        (question,) = tool["classifications"]
        yes, no, nothing = question["options"]
        assert (yes["value"], no["value"], nothing["value"]) == ("yes", "no", "no object")
        assert question["required"]
        assert [option["value"] for option in no["options"][0]["options"]] == ["car", "bus"]


def test_metadata_fields_are_those_of_the_rows() -> None:
    (text,) = labelbox_metadata(_manifest()).values()
    (row,) = _rows([_task()], _manifest())
    assert [field["name"] for field in json.loads(text)] == [
        field["name"] for field in row["metadata_fields"]
    ]


def test_the_newest_of_several_labels_counts_and_a_tie_is_turned_down() -> None:
    (row,) = _export([_task(_box())], _manifest())
    label = row["projects"]["p1"]["labels"][0]
    older = json.loads(json.dumps(label))
    older["label_details"]["updated_at"] = "2026-04-08T16:34:01.000Z"
    older["annotations"]["objects"] = []
    row["projects"]["p0"] = {"labels": [older]}
    left_out, image = sorted(_read([row]), key=lambda item: isinstance(item, ReturnedImage))
    assert isinstance(image, ReturnedImage)
    assert len(image.boxes) == 1
    assert isinstance(left_out, RejectedItem) and left_out.reason == IS_OLDER
    older["label_details"] = label["label_details"]
    items = _read([row])
    assert len(items) == 2
    assert all(isinstance(item, RejectedItem) and "labeled 2 times" in item.reason for item in items)


def test_unfinished_rows_are_no_answer_and_an_empty_label_is_one() -> None:
    (row,) = _export([_task()], _manifest())
    (image,) = _read([row])
    assert isinstance(image, ReturnedImage)
    assert (image.boxes, image.complete) == ((), True)
    project = row["projects"]["p1"]
    for status in ("TO_LABEL", "To label", "InRework", "SKIPPED"):
        project["project_details"]["workflow_status"] = status
        assert _read([row]) == []
    project["project_details"] = None
    project["labels"][0]["performance_details"] = {"skipped": True}
    assert _read([row]) == []
    project["labels"] = []
    assert _read([row]) == []


def test_a_turned_image_has_the_frame_labelers_saw() -> None:
    (row,) = _export([_task(_box())], _manifest())
    row["media_attributes"]["exif_rotation"] = "6"
    (image,) = _read([row])
    assert isinstance(image, ReturnedImage)
    assert (image.width, image.height) == (None, None)


@pytest.mark.parametrize("side", [None, "7", True, float("nan"), -5, 0])
def test_a_box_without_sound_sides_is_rejected(side: Any) -> None:
    (row,) = _export([_task(_box())], _manifest())
    row["projects"]["p1"]["labels"][0]["annotations"]["objects"][0]["bounding_box"]["width"] = side
    rejected, image = _read([row])
    assert isinstance(rejected, RejectedItem)
    assert "expected a box" in rejected.reason
    assert isinstance(image, ReturnedImage)
    assert image.boxes == ()


def test_other_shapes_are_rejected_and_the_boxes_stay() -> None:
    (row,) = _export([_task(_box())], _manifest())
    row["projects"]["p1"]["labels"][0]["annotations"]["objects"].append(
        {"feature_id": "f9", "name": "car", "annotation_kind": "ImagePolygon", "polygon": []}
    )
    rejected, image = _read([row])
    assert isinstance(rejected, RejectedItem)
    assert (rejected.item_id, rejected.reason) == ("f9", "expected a bounding box, got 'ImagePolygon'")
    assert isinstance(image, ReturnedImage)
    assert (len(image.boxes), image.complete) == (1, False)


def test_arrays_and_rows_of_others_are_read() -> None:
    rows = [
        {
            "data_row": {"id": folder, "external_id": "a.jpg", "global_key": f"{folder}/a.jpg"},
            "projects": {"p": {"labels": [{"annotations": {"objects": []}}]}},
        }
        for folder in ("front", "rear")
    ]
    items = list(read_labelbox(io.BytesIO(b"\xef\xbb\xbf \n " + json.dumps(rows).encode())))
    names = [(item.file_name, item.quarry_image_id) for item in items if isinstance(item, ReturnedImage)]
    assert names == [("front/a.jpg", None), ("rear/a.jpg", None)]


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"<xml/>", b"[" * 100_000, b'{"a":' * 100_000, b"[1,", b"NaN"],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(NotThisFormat):
        list(read_labelbox(io.BytesIO(data)))


def test_a_file_to_import_is_no_export() -> None:
    with pytest.raises(NotThisFormat, match="a file to import has no labels"):
        _read(_lines([_task(_box())], _manifest()))


def test_hostile_exports_are_rejected_item_by_item() -> None:
    kind: TaskKind = "verify_class"
    rows = _export(hard_tasks()[:3], hard_manifest())
    rows += _export(hard_tasks(kind)[:2], hard_manifest(kind), [_answer("no", "bus"), _answer("yes")])
    n_images = 0
    for data in mutated(rows, seed=7, n=1000):
        try:
            items = list(read_labelbox(io.BytesIO(data)))
        except NotThisFormat:
            continue
        assert all(isinstance(item, (ReturnedImage, RejectedItem)) for item in items)
        n_images += sum(isinstance(item, ReturnedImage) for item in items)
    assert n_images > 1000


@pytest.mark.parametrize("write", [write_labelbox, write_labelbox_data_rows])
def test_tasks_stream_one_by_one(write: Any) -> None:
    stream = io.StringIO()
    sizes: list[int] = []

    def source() -> Iterator[LabelingTask]:
        for number in range(20):
            sizes.append(len(stream.getvalue()))
            yield _task(_box(), image_id=f"{number:04d}", task_id=f"{number:04d}")

    counts = write(stream, source(), _manifest())
    assert counts.n_tasks == 20
    assert sizes == sorted(set(sizes))
    assert stream.getvalue().isascii()
