from __future__ import annotations

import io
import json
import weakref
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from conf.errors import QuarryError
from tests.udfs.formats.sent_tasks import CLASSES, HOSTILE, example, manifest, questions, tasks
from udfs.formats.ground_truth import whole_px, write_ground_truth
from udfs.formats.ground_truth_returns import read_ground_truth
from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.registry import FORMATS
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage
from udfs.formats.task import LabelingTask, Manifest, TaskKind, clipped_box

SCHEMAS = Path(__file__).parents[2] / "foreign" / "schemas"
LATER = "2026-11-22T10:00:00.123456"
Line = dict[str, Any]


def _lines(sent: list[LabelingTask], about: Manifest | None = None) -> list[Line]:
    stream = io.StringIO()
    write_ground_truth(stream, iter(sent), about or manifest())
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _adjusted(line: Line, edit: Callable[[Line], None] = lambda value: None, name: str = "adjusted") -> Line:
    """What an adjustment job writes: every key of the line, and a label attribute of its own."""
    value, metadata = deepcopy(line["pred"]), deepcopy(line["pred-metadata"])
    edit(value)
    status = "unadjusted" if value == line["pred"] else "adjusted"
    metadata |= {"human-annotated": "yes", "creation-date": LATER, "adjustment-status": status}
    metadata |= {"class-map": {str(k): label for k, label in enumerate(CLASSES)}}
    return {**line, name: value, f"{name}-metadata": {**metadata, "job-name": "labeling-job/adjust"}}


def _verified(line: Line, answer: str) -> Line:
    metadata = {
        "class-name": answer,
        "confidence": 0.93,
        "type": "groundtruth/label-verification",
        "job-name": "verify",
        "human-annotated": "yes",
        "creation-date": LATER,
        "worker-feedback": [{"comment": "too wide"}],
    }
    return {**line, "verified": "1", "verified-metadata": metadata}


def _data(lines: list[Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _read(lines: list[Any]) -> list[ReturnedImage | RejectedItem]:
    return list(read_ground_truth(io.BytesIO(_data(lines))))


def _images(lines: list[Line]) -> list[ReturnedImage]:
    items = _read(lines)
    assert all(isinstance(item, ReturnedImage) for item in items), items
    return [item for item in items if isinstance(item, ReturnedImage)]


def test_the_worked_example() -> None:
    stream = io.StringIO()
    form = FORMATS["ground_truth"]
    assert form.write is not None
    form.write(stream, [example()], replace(manifest(), name="cycle-3"))
    line = json.loads(stream.getvalue())
    assert line.pop("quarry") == {
        "task_id": "t1",
        "image_id": "i1",
        "file_name": "dir/a.jpg",
        "kind": "image",
        "rank": 1,
        "score": 1.5,
        "strategy": "s",
        "region": [0.0, 0.0, 640.0, 480.0],
        "detection_ids": ["d1"],
    }
    assert line == {
        "source-ref": "s3://b/dir/a.jpg",
        "pred": {
            "image_size": [{"width": 640, "height": 480, "depth": 3}],
            "annotations": [{"class_id": 0, "left": 10, "top": 20, "width": 30, "height": 40}],
        },
        "pred-metadata": {
            "objects": [{"confidence": 0.62}],
            "class-map": {"0": "car"},
            "type": "groundtruth/object-detection",
            "human-annotated": "no",
            "creation-date": "2026-11-21T00:00:00",
            "job-name": "cycle-3",
        },
    }


@pytest.mark.parametrize("kind", ["image", "verify_box", "verify_class"])
def test_what_is_written_is_what_the_documentation_describes(kind: TaskKind) -> None:
    sent = tasks() if kind == "image" else questions(kind)
    line_schema = json.loads((SCHEMAS / "ground_truth_line.json").read_text())
    for line in _lines(sent, manifest(kind)):
        jsonschema.validate(line, line_schema)
        jsonschema.validate(_adjusted(line), line_schema)
    companions = FORMATS["ground_truth"].companions(manifest(kind))
    categories = json.loads(companions["ground_truth_labels.json"])
    jsonschema.validate(categories, json.loads((SCHEMAS / "ground_truth_labels.json").read_text()))
    names = [category["label"] for category in categories["labels"]]
    assert names == (["yes", "no"] if kind == "verify_box" else list(CLASSES))


def test_boxes_that_nobody_changed_come_back() -> None:
    sent = tasks()
    returned = _images([_adjusted(line) for line in _lines(sent)])
    assert len(returned) == len(sent)
    for task, image in zip(sent, returned, strict=True):
        assert (image.file_name, image.task_id) == (task.file_name, task.task_id)
        assert (image.quarry_image_id, image.complete) == (task.image_id, True)
        assert (image.width, image.height) == (task.width, task.height)
        assert (image.annotator, image.annotated_at) == (None, "2026-11-22T10:00:00.123456+00:00")
        for box, back in zip(task.boxes, image.boxes, strict=True):
            assert (back.label_name, back.detection_id) == (box.label_name, box.detection_id)
            corners = clipped_box(box, task)
            assert corners is not None
            assert np.allclose(corners, (back.x1, back.y1, back.x2, back.y2), atol=0.5, rtol=0)


def test_whole_px_stay_inside_and_keep_an_area() -> None:
    rng = np.random.default_rng(3)
    task = replace(example(), width=100, height=50)
    for _ in range(2_000):
        x1, y1 = rng.uniform(0, 99.9), rng.uniform(0, 49.9)
        x2, y2 = min(x1 + rng.exponential(3), 100.0), min(y1 + rng.exponential(3), 50.0)
        left, top, width, height = whole_px((x1, y1, x2, y2), task)
        assert left >= 0 and top >= 0 and width >= 1 and height >= 1
        assert left + width <= 100 and top + height <= 50
        if x2 - x1 >= 1:
            assert abs(left - x1) <= 0.5 and abs(left + width - x2) <= 0.5
    assert whole_px((99.7, 10.2, 100.0, 10.4), task) == (99, 10, 1, 1)


def test_changed_boxes_come_back_without_an_id_and_the_others_with_theirs() -> None:
    def edit(value: Line) -> None:
        boxes = value["annotations"]
        boxes[0]["class_id"] = 1
        boxes[1]["left"] -= 1
        del boxes[2]
        boxes.append({"class_id": 0, "left": 1, "top": 2, "width": 3, "height": 4})

    line = _lines(tasks()[:1])[0]
    (image,) = _images([_adjusted(line, edit)])
    assert [box.detection_id for box in image.boxes] == [None, None, *(f"1/{k}" for k in range(3, 9)), None]
    assert image.boxes[0].label_name == CLASSES[1]


def test_the_newest_label_of_humans_counts_whatever_its_name() -> None:
    line = _lines([example()])[0]
    assert _read([line]) == []

    def remove(value: Line) -> None:
        value["annotations"].clear()

    twice = _adjusted(_adjusted(line, name="first"), remove, name="a second")
    twice["first-metadata"]["creation-date"] = "2026-11-22T09:59:59"
    assert _images([twice])[0].boxes == ()
    twice["a second-metadata"]["human-annotated"] = "no"
    assert len(_images([twice])[0].boxes) == 1
    twice["a second-metadata"] |= {"human-annotated": "yes", "creation-date": "2026-11-22T09:59:59Z"}
    (rejected,) = _read([twice])
    assert isinstance(rejected, RejectedItem) and "2 labels with the creation-date" in rejected.reason


def test_a_job_that_writes_over_our_attribute_keeps_no_ids() -> None:
    line = _lines([example()])[0]
    (image,) = _images([_adjusted(line, name="pred")])
    assert (len(image.boxes), image.boxes[0].detection_id) == (1, None)


def test_a_manifest_of_others_is_read_under_its_uri() -> None:
    metadata = {
        "objects": [{"confidence": 1}],
        "class-map": {"0": "Echo", "7": "Echo Dot"},
        "type": "groundtruth/object-detection",
        "human-annotated": "yes",
        "creation-date": "2013-11-18T02:53:27",
        "job-name": "my job",
    }
    boxes = [{"class_id": 7, "top": 251, "left": 399, "width": 155, "height": 101}]
    value = {"image_size": [{"width": 640, "height": 480, "depth": 3}], "annotations": boxes}
    (image,) = _images([{"source-ref": "s3://b/x.png", "bb": value, "bb-metadata": metadata}])
    assert (image.file_name, image.task_id, image.quarry_image_id) == ("s3://b/x.png", None, None)
    assert image.boxes == (ReturnedBox(label_name="Echo Dot", x1=399, y1=251, x2=554, y2=352),)


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [
        ("verify_box", "yes", "labeled"),
        ("verify_box", "no", "background"),
        ("verify_class", "yes", "labeled"),
        ("verify_class", "no", "names no other one"),
        ("verify_box", "bad", "yes or no"),
    ],
)
def test_answers_of_a_verification_job(kind: TaskKind, answer: str, expected: str) -> None:
    (item,) = _read([_verified(_lines([example(kind)], manifest(kind))[0], answer)])
    if isinstance(item, RejectedItem):
        assert expected in item.reason
        return
    (box,) = item.boxes
    assert (item.complete, item.task_id, item.width) == (False, "t1", 640)
    assert (box.status, box.detection_id, box.x2, box.label_name) == (expected, "d1", 40.0, "car")


@pytest.mark.parametrize("kind", ["verify_box", "verify_class"])
def test_an_adjustment_of_the_one_box_answers_for_it(kind: TaskKind) -> None:
    def move(value: Line) -> None:
        value["annotations"][0] |= {"class_id": 2, "left": 12}

    line = _lines([example(kind)], manifest(kind))[0]
    (moved,) = _images([_adjusted(line, move)])
    assert (moved.complete, moved.boxes[0].label_name, moved.boxes[0].x1) == (False, CLASSES[2], 12.0)
    assert (moved.boxes[0].status, moved.boxes[0].detection_id) == ("labeled", "d1")
    (removed,) = _images([_adjusted(line, lambda value: value["annotations"].clear())])
    assert (removed.boxes[0].status, removed.boxes[0].detection_id) == ("background", "d1")


def test_a_verification_of_a_whole_image_is_no_label() -> None:
    (rejected,) = _read([_verified(_lines([example()])[0], "yes")])
    assert isinstance(rejected, RejectedItem) and "label-verification" in rejected.reason


def test_lines_and_boxes_that_cannot_be_used_are_rejected_and_the_rest_goes_on() -> None:
    sound = _lines([example()])[0]
    failed = {**sound, "adjusted-metadata": {"failure-reason": "ClientError: no such key"}}
    other_type = _adjusted(sound)
    other_type["adjusted-metadata"]["type"] = "groundtruth/image-classification"

    def spoil(value: Line) -> None:
        boxes = value["annotations"]
        boxes += [{**boxes[0], "class_id": 9}, {**boxes[0], "left": 700}, {**boxes[0], "width": 0}]
        boxes += [{**boxes[0], "top": True}, {**boxes[0], "left": None}, 5, {**boxes[0], "class_id": 1e300}]

    lines = [failed, other_type, _adjusted(sound, spoil), 7, {}, {"source-ref": 7}]
    items = _read(lines)
    reasons = [(item.kind, item.item_id, item.reason) for item in items if isinstance(item, RejectedItem)]
    expected = [
        ("image", "line 1", "no such key"),
        ("image", "line 2", "image-classification"),
        ("annotation", "line 3, box 2", "class_id 9"),
        ("annotation", "line 3, box 3", "outside"),
        ("annotation", "line 3, box 4", "positive size"),
        ("annotation", "line 3, box 5", "finite px"),
        ("annotation", "line 3, box 6", "finite px"),
        ("annotation", "line 3, box 7", "class_id None"),
        ("annotation", "line 3, box 8", "class-map"),
        ("image", "line 4", "source-ref"),
        ("image", "line 5", "source-ref"),
        ("image", "line 6", "source-ref"),
    ]
    assert [reason[:2] for reason in reasons] == [reason[:2] for reason in expected]
    assert all(want[2] in got[2] for want, got in zip(expected, reasons, strict=True))
    (image,) = [item for item in items if isinstance(item, ReturnedImage)]
    assert len(image.boxes) == 1


def test_a_task_labeled_twice_counts_by_its_newest_time() -> None:
    line = _adjusted(_lines([example()])[0])
    older = deepcopy(line)
    older["adjusted-metadata"]["creation-date"] = "2026-11-22T09:00:00"
    older["adjusted"]["annotations"].clear()
    items = _read([older, line, older])
    assert [len(item.boxes) for item in items if isinstance(item, ReturnedImage)] == [1]
    assert [item.reason for item in items if isinstance(item, RejectedItem)] == [IS_OLDER] * 2
    first, second = _read([line, line])
    assert isinstance(first, RejectedItem) and isinstance(second, RejectedItem)


@pytest.mark.parametrize("data", [b"[]\n", b"{}", b"\xff\xfe\n", b'{"images":[]}\n', b"[" * 100_000])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(NotThisFormat, match="source-ref"):
        list(read_ground_truth(io.BytesIO(data)))


def _fails(sent: list[LabelingTask], about: Manifest, *texts: str) -> None:
    with pytest.raises(QuarryError) as error:
        _lines(sent, about)
    assert all(text in str(error.value) for text in texts), error.value


def test_what_ground_truth_would_refuse_or_mix_up_is_refused() -> None:
    task = example()
    _fails([replace(task, uri="/lake/dir/a.jpg")], manifest(), "i1", "s3://", "a path")
    signed = replace(task, uri="https://cdn.example/a.jpg?sig=hush-hush")
    with pytest.raises(QuarryError, match="one that begins with https://") as caught:
        _lines([signed])
    assert "hush-hush" not in str(caught.value)
    _fails([task, replace(task, image_id="i2")], manifest(), "i2", "t1", "twice")
    _fails([task], manifest(classes=("truck",)), "i1", "'car'")
    _fails([replace(task, boxes=(replace(task.boxes[0], y2=float("inf")),))], manifest(), "d1", "finite")


def test_empty_boxes_are_dropped_and_counted_and_ids_stay_with_theirs() -> None:
    (box,) = example().boxes
    gone = replace(box, detection_id="gone", x1=700, x2=710)
    task = replace(example(), boxes=(gone, box))
    counts = write_ground_truth(io.StringIO(), [task], manifest())
    assert (counts.n_tasks, counts.n_boxes, counts.n_dropped_boxes) == (1, 1, 1)
    (image,) = _images([_adjusted(_lines([task])[0])])
    assert [box.detection_id for box in image.boxes] == ["d1"]


def test_tasks_are_written_one_by_one_in_ascii() -> None:
    alive: list[weakref.ref[LabelingTask]] = []
    most = 0

    def source() -> Iterator[LabelingTask]:
        nonlocal most
        for number in range(200):
            task = replace(example(), task_id=f"{number} ö 行")
            alive.append(weakref.ref(task))
            most = max(most, sum(ref() is not None for ref in alive))
            yield task

    stream = io.StringIO()
    assert write_ground_truth(stream, source(), manifest()).n_tasks == 200
    assert most <= 2
    assert stream.getvalue().isascii()


def _spoil(value: Any, rng: np.random.Generator) -> None:
    """Replaces or removes one value somewhere below."""
    hostile: list[Any] = [
        *HOSTILE,
        None,
        True,
        -1,
        1e308,
        10**400,
        [],
        {},
        [[]],
        {"a": 1},
        float("nan"),
        "\ud800",
    ]
    while isinstance(value, (dict, list)) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(rng.integers(len(keys)))]
        inner = value[key]
        if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.15:
            if rng.random() < 0.2:
                del value[key]
            else:
                value[key] = hostile[int(rng.integers(len(hostile)))]
            return
        value = inner


def test_no_hostile_file_gets_through() -> None:
    rng = np.random.default_rng(5)
    asked = _lines(questions("verify_box")[:6], manifest("verify_box"))
    sound = [_adjusted(line) for line in _lines(tasks()[:4])] + [_verified(line, "yes") for line in asked]
    kinds = {ReturnedImage: 0, RejectedItem: 0}
    for _ in range(400):
        lines = deepcopy(sound)
        for _ in range(int(rng.integers(1, 12))):
            _spoil(lines, rng)
        data = bytearray(_data(lines))
        if rng.random() < 0.3:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        for item in read_ground_truth(io.BytesIO(bytes(data))):
            kinds[type(item)] += 1
            for box in item.boxes if isinstance(item, ReturnedImage) else ():
                assert isinstance(box, ReturnedBox) and box.x2 > box.x1 and box.y2 > box.y1
    assert min(kinds.values()) > 400
