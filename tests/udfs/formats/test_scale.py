from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from conf.errors import QuarryError
from tests.udfs.formats.hard_tasks import expected_images, hard_manifest, hard_tasks
from tests.udfs.formats.hostile_json import mutated
from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedImage
from udfs.formats.scale import scale_project, write_scale
from udfs.formats.scale_returns import read_scale
from udfs.formats.task import LabelingTask, Manifest, TaskBox, TaskKind

# Of a body that comes back under `params`.
_PARAMETERS = ("attachment", "attachment_type", "geometries", "annotation_attributes", "hypothesis")


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


def _manifest(kind: TaskKind = "image", n_tasks: int = 1, last_rank: int = 1) -> Manifest:
    return Manifest(
        name="c1",
        classes=("car", "bus"),
        model_version="m",
        kind=kind,
        n_tasks=n_tasks,
        last_rank=last_rank,
        created="2026-01-01",
    )


def _bodies(tasks: list[LabelingTask], manifest: Manifest) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_scale(stream, iter(tasks), manifest)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _completed(body: dict[str, Any], attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The task Scale lists once people accepted the hypothesis and gave the attributes."""
    annotations = body["hypothesis"]["annotations"]
    given = {} if attributes is None else {"attributes": attributes}
    return {
        "task_id": f"t-{body['unique_id']}",
        "unique_id": body["unique_id"],
        "created_at": "2026-06-23T09:09:34.752Z",
        "completed_at": "2026-06-24T09:09:34.752Z",
        "type": "imageannotation",
        "status": "completed",
        "project": body["project"],
        "batch": body["batch"],
        "instruction": body["instruction"],
        "params": {key: body[key] for key in _PARAMETERS},
        "metadata": body["metadata"],
        "response": {"annotations": [{**annotation, **given} for annotation in annotations]},
    }


def _read(value: Any) -> list[ReturnedImage | RejectedItem]:
    return list(read_scale(io.BytesIO(json.dumps(value).encode())))


def test_the_worked_example() -> None:
    (body,) = _bodies([_task(_box())], _manifest())
    (annotation,) = body["hypothesis"]["annotations"]
    assert annotation == {
        "uuid": annotation["uuid"],
        "type": "box",
        "label": "car",
        "left": 10,
        "top": 20,
        "width": 30,
        "height": 40,
    }
    assert (body["project"], body["batch"], body["unique_id"]) == ("c1", "c1", "c1/i")
    assert (body["attachment_type"], body["attachment"]) == ("image", "https://b/dir/a.jpg")
    assert body["geometries"] == {"box": {"objects_to_annotate": ["car", "bus"]}}
    assert body["annotation_attributes"] == {}
    assert body["metadata"]["quarry_image_id"] == "i"
    assert body["metadata"]["detection_ids"] == {annotation["uuid"]: "d"}


@pytest.mark.parametrize("lines", [True, False])
def test_every_hard_image_and_box_comes_back(*, lines: bool) -> None:
    answers = [_completed(body) for body in _bodies(hard_tasks(), hard_manifest())]
    text = "\n".join(json.dumps(answer) for answer in answers) if lines else json.dumps(answers, indent=1)
    returned = list(read_scale(io.BytesIO(text.encode())))
    expected = expected_images()
    assert len(returned) == len(expected)
    for image in returned:
        assert isinstance(image, ReturnedImage)
        wanted = expected[image.task_id or ""]
        assert image.quarry_image_id == wanted["image_id"]
        assert (image.file_name, image.width, image.height) == (
            wanted["file_name"],
            wanted["width"],
            wanted["height"],
        )
        assert (image.complete, image.annotated_at) == (True, "2026-06-24T09:09:34.752000+00:00")
        for box, sent in zip(image.boxes, wanted["boxes"], strict=True):
            assert (box.label_name, box.detection_id) == (sent["label"], sent["detection_id"])
            assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx(sent["corners"], abs=0.002)


@pytest.mark.parametrize(
    ("kind", "attributes", "status", "label"),
    [
        ("verify_box", {"answer": "yes"}, "labeled", "car"),
        ("verify_box", {"answer": "no"}, "background", "car"),
        ("verify_class", {"answer": "yes"}, "labeled", "car"),
        ("verify_class", {"answer": "no", "right_class": "bus"}, "labeled", "bus"),
        ("verify_class", {"answer": "no object"}, "background", "car"),
    ],
)
def test_answers_come_back_as_boxes_of_their_detection(
    kind: TaskKind, attributes: dict[str, str], status: str, label: str
) -> None:
    (body,) = _bodies([_task(_box(), kind=kind)], _manifest(kind))
    assert attributes["answer"] in body["annotation_attributes"]["answer"]["choices"]
    assert body["instruction"].endswith("Look at x 0 to 55 and y 0 to 80 px.")
    (image,) = _read([_completed(body, attributes)])
    assert isinstance(image, ReturnedImage)
    assert (image.complete, image.task_id) == (False, "c1/i")
    assert [(box.detection_id, box.status, box.label_name) for box in image.boxes] == [("d", status, label)]


@pytest.mark.parametrize(
    ("attributes", "n_boxes"),
    [({}, 1), ({"answer": "maybe"}, 1), ({"answer": "yes"}, 0), ({"answer": "yes"}, 2)],
)
def test_a_question_without_one_answer_is_no_answer(attributes: dict[str, str], n_boxes: int) -> None:
    (body,) = _bodies([_task(_box(), kind="verify_box")], _manifest("verify_box"))
    answer = _completed(body, attributes)
    answer["response"]["annotations"] *= n_boxes
    (item,) = _read([answer])
    assert isinstance(item, RejectedItem)
    assert "expected the" in item.reason


def test_ranks_become_priorities_first_come_highest() -> None:
    tasks = [_task(rank=rank, task_id=str(rank)) for rank in range(1, 8)]
    priorities = [body["priority"] for body in _bodies(tasks, _manifest(n_tasks=7, last_rank=7))]
    assert priorities == [30, 30, 20, 20, 10, 10, 10]
    assert _bodies([_task()], _manifest())[0]["priority"] == 10


def test_the_project_has_the_parameters_of_its_tasks() -> None:
    files = scale_project(_manifest("verify_class"))
    project, batch = json.loads(files["scale_project.json"]), json.loads(files["scale_batch.json"])
    assert (project["type"], project["name"], batch["project"]) == ("imageannotation", "c1", "c1")
    attributes = project["params"]["annotation_attributes"]
    assert attributes["right_class"]["choices"] == ["car", "bus"]
    assert attributes["right_class"]["conditions"] == {"attribute_conditions": [{"answer": "no"}]}


def test_two_tasks_and_two_boxes_of_one_id_and_local_files_are_refused() -> None:
    with pytest.raises(QuarryError, match="twice"):
        _bodies([_task(), _task()], _manifest())
    with pytest.raises(QuarryError, match="share a detection_id"):
        _bodies([_task(_box(), _box())], _manifest())
    with pytest.raises(QuarryError, match="https"):
        _bodies([_task(uri="/data/a.jpg")], _manifest())


@pytest.mark.parametrize("status", ["pending", "canceled", "error", None, 7])
def test_only_completed_tasks_count(status: Any) -> None:
    (body,) = _bodies([_task(_box())], _manifest())
    assert _read([{**_completed(body), "status": status}]) == []


def test_callbacks_and_pages_are_read_and_empty_answers_are_found_empty() -> None:
    (body,) = _bodies([_task()], _manifest())
    task = _completed(body)
    callback = {"task_id": task["task_id"], "response": task.pop("response"), "task": task}
    for value in (callback, [callback], {"docs": [callback], "next_token": None}):
        (image,) = _read(value)
        assert isinstance(image, ReturnedImage)
        assert (image.file_name, image.boxes, image.complete) == ("dir/a.jpg", (), True)
    pretty = json.dumps({"docs": [callback]}, indent=2).encode()
    assert len(list(read_scale(io.BytesIO(pretty)))) == 1


def test_a_rotated_box_becomes_the_upright_box_round_it_and_other_shapes_are_rejected() -> None:
    (body,) = _bodies([_task()], _manifest())
    answer = _completed(body)
    corners = [{"x": 50, "y": 10}, {"x": 90, "y": 50}, {"x": 50, "y": 90}, {"x": 10, "y": 50}]
    answer["response"]["annotations"] = [
        {"type": "box", "label": "car", "rotation": 0.785, "left": 22, "top": 22, "vertices": corners},
        {"type": "polygon", "label": "car", "vertices": corners, "uuid": "u"},
    ]
    rejected, image = _read([answer])
    assert isinstance(image, ReturnedImage)
    assert [(box.x1, box.y1, box.x2, box.y2) for box in image.boxes] == [(10, 10, 90, 90)]
    assert not image.complete
    assert isinstance(rejected, RejectedItem)
    assert rejected.item_id == "u"


def test_the_later_of_two_tasks_of_an_image_counts() -> None:
    (body,) = _bodies([_task(_box())], _manifest())
    first = _completed(body)
    second = {
        **_completed(body),
        "completed_at": "2026-06-24T09:09:35+00:00",
        "response": {"annotations": []},
    }
    image, older = _read([second, first])
    assert isinstance(image, ReturnedImage)
    assert image.boxes == ()
    assert isinstance(older, RejectedItem) and older.reason == IS_OLDER


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"7", b"\xff\xfe", b"<xml/>", b"[" * 100_000, b'{"docs":[', b"{\n", b"[NaN]"]
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(NotThisFormat):
        list(read_scale(io.BytesIO(data)))


def test_hostile_answers_are_rejected_item_by_item() -> None:
    kind: TaskKind = "verify_class"
    answers = [_completed(body) for body in _bodies(hard_tasks()[:3], hard_manifest())]
    answers += [
        _completed(body, {"answer": "no", "right_class": "car"})
        for body in _bodies(hard_tasks(kind)[:2], hard_manifest(kind))
    ]
    n_images = 0
    for data in mutated(answers, seed=11, n=1000):
        try:
            items = list(read_scale(io.BytesIO(data)))
        except NotThisFormat:
            continue
        assert all(isinstance(item, (ReturnedImage, RejectedItem)) for item in items)
        n_images += sum(isinstance(item, ReturnedImage) for item in items)
    assert n_images > 1000


def test_priorities_follow_ranks_of_picks_however_many_tasks_they_make() -> None:
    """Of 9 picked boxes in 3 images, and of 12 questions about the boxes of 3 images."""
    of_boxes = [_task(rank=rank, task_id=str(rank)) for rank in (1, 5, 8)]
    manifest = _manifest("boxes", n_tasks=3, last_rank=8)
    assert [body["priority"] for body in _bodies(of_boxes, manifest)] == [30, 20, 10]
    asked = [
        _task(_box(), kind="verify_box", rank=rank, task_id=f"{rank}/{number}")
        for rank in (1, 2, 3)
        for number in range(4)
    ]
    manifest = _manifest("verify_box", n_tasks=12, last_rank=3)
    assert [body["priority"] for body in _bodies(asked, manifest)] == 4 * [30] + 4 * [20] + 4 * [10]


def test_tasks_stream_one_by_one() -> None:
    stream = io.StringIO()
    sizes: list[int] = []

    def source() -> Iterator[LabelingTask]:
        for number in range(20):
            sizes.append(len(stream.getvalue()))
            yield _task(_box(), task_id=f"{number:04d}")

    counts = write_scale(stream, source(), _manifest(n_tasks=20))
    assert (counts.n_tasks, counts.n_boxes) == (20, 20)
    assert sizes == sorted(set(sizes))
    assert stream.getvalue().isascii()
