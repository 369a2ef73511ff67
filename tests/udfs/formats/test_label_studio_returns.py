from __future__ import annotations

import io
import json
import random
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from udfs.formats.label_studio import write_label_studio
from udfs.formats.label_studio_returns import read_label_studio
from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedImage
from udfs.formats.task import LabelingTask, Manifest, TaskBox, TaskKind

NAMES = ["a/b/c/1.jpg", "a/b/d/1.jpg", "with space & 'quote\".jpg", "日本/ö.png", "back\\slash.jpg"]
CLASSES = ("car", 'say "hi"', "Fußgänger 行人")
NOON, LATER = "2026-01-01T12:00:00.000000Z", "2026-01-01T14:30:00.000000+02:00"
NOON_UTC, LATER_UTC = "2026-01-01T12:00:00.000000+00:00", "2026-01-01T12:30:00.000000+00:00"


def _sent(tasks: list[LabelingTask], kind: TaskKind = "image") -> list[dict[str, Any]]:
    manifest = Manifest(
        name="c",
        classes=CLASSES,
        model_version="m",
        kind=kind,
        n_tasks=len(tasks),
        last_rank=len(tasks),
        created="2026-01-01T00:00:00Z",
    )
    stream = io.StringIO()
    write_label_studio(stream, tasks, manifest)
    document: list[dict[str, Any]] = json.loads(stream.getvalue())
    return document


def _exported(sent: list[dict[str, Any]], *answers: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool's export after every task was opened and submitted as it was, `answers` given to each."""
    return [
        {
            "id": number,
            "data": task["data"],
            "annotations": [
                _annotation(*(p for one in task["predictions"] for p in one["result"]), *answers)
            ],
            "drafts": [],
            "predictions": [number],
            "meta": {},
        }
        for number, task in enumerate(sent, start=1)
    ]


def _annotation(*result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": 9,
        "completed_by": 3,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-01-01T11:00:00Z",
        "updated_at": NOON,
        "result": [{"origin": "prediction", **part} for part in result],
        **changes,
    }


def _answer(control: str, value: str) -> dict[str, Any]:
    return {
        "id": "x",
        "from_name": control,
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [value]},
        "origin": "manual",
    }


def _read(document: Any) -> list[ReturnedImage | RejectedItem]:
    return list(read_label_studio(io.BytesIO(json.dumps(document).encode())))


def _image(document: Any) -> ReturnedImage:
    (image,) = _read(document)
    assert isinstance(image, ReturnedImage)
    return image


def _rejected(document: Any) -> RejectedItem:
    (item,) = _read(document)
    assert isinstance(item, RejectedItem)
    return item


def _task(*boxes: TaskBox, kind: TaskKind = "image", name: str = "dir/a.jpg") -> LabelingTask:
    return LabelingTask(
        task_id=f"cycle/{name}",
        image_id=f"id {name}",
        uri=f"https://host/{name}?signature=1",
        file_name=name,
        width=640,
        height=480,
        rank=1,
        score=1.5,
        strategy="total_fn",
        boxes=boxes,
        kind=kind,
    )


CAR = TaskBox(detection_id="d", label_name="car", score=0.62, x1=10, y1=20, x2=40, y2=60)


def _one(*regions: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """The export of the worked example's task with other regions or another annotation."""
    document = _exported(_sent([_task()]))
    document[0]["annotations"] = [_annotation(*regions, **changes)]
    return document


def _rectangle(**changes: Any) -> dict[str, Any]:
    (task,) = _sent([_task(CAR)])
    (region,) = task["predictions"][0]["result"]
    value = {key: changes.pop(key) for key in list(changes) if key in region["value"]}
    return {**region, "value": {**region["value"], **value}, **changes}


def test_the_worked_example() -> None:
    image = _image(_exported(_sent([_task(CAR)])))
    assert (image.file_name, image.width, image.height) == ("dir/a.jpg", 640, 480)
    assert (image.quarry_image_id, image.task_id) == ("id dir/a.jpg", "cycle/dir/a.jpg")
    assert (image.annotator, image.annotated_at, image.complete) == ("3", NOON_UTC, True)
    (box,) = image.boxes
    np.testing.assert_allclose((box.x1, box.y1, box.x2, box.y2), (10, 20, 40, 60), atol=1e-4)
    assert (box.label_name, box.status, box.detection_id) == ("car", "labeled", "d")


def test_what_is_submitted_unchanged_comes_back() -> None:
    rng = np.random.default_rng(5)
    tasks = []
    for name in NAMES:
        width, height = int(rng.integers(1, 30_000)), int(rng.integers(1, 30_000))
        corners = [(0.0, 0.0, float(width), float(height)), (width - 1.0, height - 1.0, width, height)]
        for _ in range(20):
            (x1, x2), (y1, y2) = (np.sort(rng.uniform(0, side, 2)) for side in (width, height))
            corners.append((x1, y1, x2, y2))
        boxes = [
            TaskBox(detection_id=f"{k}", label_name=CLASSES[k % 3], score=0.5, x1=x1, y1=y1, x2=x2, y2=y2)
            for k, (x1, y1, x2, y2) in enumerate(corners)
        ]
        tasks.append(replace(_task(*boxes, name=name), width=width, height=height))
    items = _read(_exported(_sent(tasks)))
    assert len(items) == len(tasks)
    for task, image in zip(tasks, items, strict=True):
        assert isinstance(image, ReturnedImage)
        assert (image.file_name, image.task_id, image.complete) == (task.file_name, task.task_id, True)
        assert (image.width, image.height) == (task.width, task.height)
        for sent, back in zip(task.boxes, image.boxes, strict=True):
            assert (sent.label_name, sent.detection_id) == (back.label_name, back.detection_id)
            for side in ("x1", "y1", "x2", "y2"):
                assert abs(getattr(sent, side) - getattr(back, side)) < 0.05


def test_a_drawn_box_answers_for_no_detection() -> None:
    (box,) = _image(_one(_rectangle(id="Dx_aB91ISN", origin="manual"))).boxes
    assert box.detection_id is None


def test_a_copy_of_a_sent_box_answers_for_no_detection() -> None:
    copied = _rectangle(id="nhhjmCyRzo", x=50.0)
    boxes = _image(_one(_rectangle(), copied, prediction={"id": 1, "result": [_rectangle()]})).boxes
    assert [box.detection_id for box in boxes] == ["d", None]
    odd = {"result": [None, {"id": ["d"]}, _rectangle()]}
    assert [box.detection_id for box in _image(_one(_rectangle(), prediction=odd)).boxes] == ["d"]


def test_a_submitted_task_without_boxes_is_an_image_found_empty() -> None:
    image = _image(_one())
    assert (image.boxes, image.complete, image.width, image.height) == ((), True, 640, 480)


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": []},
        {"annotations": [], "drafts": [{"result": [_rectangle()]}]},
        {"annotations": [_annotation(_rectangle(), was_cancelled=True)]},
        {"annotations": [], "predictions": [{"result": [_rectangle()]}]},
    ],
    ids=["open", "draft", "skipped", "prediction"],
)
def test_what_nobody_submitted_is_no_label(changes: dict[str, Any]) -> None:
    assert _read([{**_one()[0], **changes}]) == []


def test_of_several_annotations_the_newest_counts() -> None:
    document = _one()
    document[0]["annotations"] = [
        _annotation(_rectangle(), updated_at=LATER, completed_by={"id": 4, "email": "b@c.org"}),
        _annotation(updated_at="2026-01-01T12:29:59Z"),
        _annotation(updated_at="2027-01-01T12:29:59Z", was_cancelled=True),
    ]
    image, older = _read(document)
    assert isinstance(image, ReturnedImage)
    assert (len(image.boxes), image.annotator, image.annotated_at) == (1, "b@c.org", LATER_UTC)
    assert isinstance(older, RejectedItem) and older.reason == IS_OLDER


def test_of_a_task_imported_twice_the_newest_counts() -> None:
    (first,) = _one(_rectangle(), updated_at=NOON)
    (again,) = _one(updated_at=LATER)
    (unlabeled,) = _exported(_sent([_task()]))
    unlabeled["annotations"] = []
    for document in ([first, again, unlabeled], [unlabeled, again, first]):
        older, image = sorted(_read(document), key=lambda item: isinstance(item, ReturnedImage))
        assert isinstance(image, ReturnedImage) and image.boxes == ()
        assert isinstance(older, RejectedItem) and older.reason == IS_OLDER


@pytest.mark.parametrize("times", [{"updated_at": None, "created_at": "yesterday"}, {"updated_at": NOON}])
def test_of_annotations_whose_order_is_not_known_none_counts(times: dict[str, Any]) -> None:
    document = _one()
    document[0]["annotations"] = [_annotation(), _annotation(**times)]
    rejected = _rejected(document)
    assert "annotated 2 times, at the same or an unknown time" in rejected.reason
    assert (rejected.item_id, rejected.file_name) == ("task 1", "dir/a.jpg")


def test_a_single_annotation_needs_no_time() -> None:
    assert _image(_one(updated_at="10000-01-01", created_at=7)).annotated_at is None
    assert _image(_one(updated_at=None)).annotated_at == "2026-01-01T11:00:00.000000+00:00"
    document = _one(updated_at="0001-01-01T00:00:00+23:59", created_at=None)
    assert _image(document).annotated_at is None


@pytest.mark.parametrize(
    ("completed_by", "annotator"),
    [(3, "3"), ({"id": 4, "email": "b@c.org"}, "b@c.org"), ({"id": 4}, "4"), ("b@c.org", "b@c.org")]
    + [(wrong, None) for wrong in (None, True, 10**400, {}, [3], {"email": {"email": "b@c.org"}})],
)
def test_who_labeled(completed_by: Any, annotator: str | None) -> None:
    assert _image(_one(completed_by=completed_by)).annotator == annotator


def test_a_rotated_box_becomes_the_one_around_it() -> None:
    # 100 x 50 px, turned by 90 degrees clockwise round its corner (320, 240): it hangs down to the left.
    region = _rectangle(x=50, y=50, width=100 / 6.4, height=50 / 4.8, rotation=90)
    (box,) = _image(_one(region)).boxes
    np.testing.assert_allclose((box.x1, box.y1, box.x2, box.y2), (270, 240, 320, 340), atol=1e-6)
    # By 30 degrees: cos 0.866, sin 0.5; right end 320 + 86.6, left end 320 - 25, down 50 + 43.3.
    (box,) = _image(_one(_rectangle(x=50, y=50, width=100 / 6.4, height=50 / 4.8, rotation=30))).boxes
    np.testing.assert_allclose((box.x1, box.y1, box.x2, box.y2), (295, 240, 406.603, 333.301), atol=1e-3)


def test_a_box_on_an_image_turned_in_the_tool_is_one_of_the_image_as_it_is() -> None:
    # Drawn over x 260-300, y 100-180 of the 640 x 384 px image as it looked after a turn to the right.
    sizes = {"original_width": 640, "original_height": 384, "image_rotation": 90}
    region = _rectangle(x=15.625, y=21.875, width=12.5, height=10.416667, **sizes)
    (box,) = _image(_one(region)).boxes
    np.testing.assert_allclose((box.x1, box.y1, box.x2, box.y2), (100, 84, 180, 124), atol=1e-4)


def test_a_box_over_the_border_stays_as_it_was_drawn() -> None:
    (box,) = _image(_one(_rectangle(x=-10, width=200))).boxes
    assert (box.x1, box.x2) == (-64, 1216)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": "polygonlabels"}, "got the type 'polygonlabels'"),
        ({"type": ["choices"]}, "got the type"),
        ({"type": "rectangle"}, "expected a rectangle with a label"),
        ({"value": None}, "expected a rectangle"),
        ({"rectanglelabels": []}, "one label"),
        ({"rectanglelabels": ["car", "bus"]}, "one label"),
        ({"rectanglelabels": ["\udc80"]}, "one label"),
        ({"x": float("nan")}, "finite"),
        ({"y": 10**400}, "finite"),
        ({"width": True}, "finite"),
        ({"height": "5"}, "finite"),
        ({"rotation": float("inf")}, "finite"),
        ({"width": 0}, "above 0"),
        ({"height": -3, "rotation": 30}, "above 0"),
        ({"x": 100}, "outside"),
        ({"original_width": 0}, "another region of it says (640, 480)"),
    ],
)
def test_a_faulty_region_is_rejected_and_its_image_is_not_complete(
    changes: dict[str, Any], reason: str
) -> None:
    items = _read(_one(_rectangle(), _rectangle(id="bad", **changes)))
    (rejected,) = (item for item in items if isinstance(item, RejectedItem))
    (image,) = (item for item in items if isinstance(item, ReturnedImage))
    assert reason in rejected.reason
    assert (rejected.kind, rejected.item_id, rejected.file_name) == ("annotation", "bad", "dir/a.jpg")
    assert (len(image.boxes), image.complete) == (1, False)


@pytest.mark.parametrize("part", [{"type": "relation", "from_id": "a"}, _answer("quality", "blurred")])
def test_what_draws_nothing_is_left_out(part: dict[str, Any]) -> None:
    image = _image(_one(_rectangle(), part))
    assert (len(image.boxes), image.complete) == (1, True)


def test_a_project_that_is_not_ours_is_read_by_its_image() -> None:
    region = _rectangle()
    for data in ({"image": "/data/upload/1/a.jpg", "note": "x"}, {"photo": "/data/upload/1/a.jpg", "n": 3}):
        image = _image([{"id": 5, "data": data, "annotations": [_annotation(region)]}])
        assert (image.file_name, image.task_id, image.quarry_image_id) == ("/data/upload/1/a.jpg", None, None)
        assert image.boxes[0].detection_id is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": {"front": "a.jpg", "rear": "b.jpg"}}, "`data` with the image"),
        ({"data": None}, "`data` with the image"),
        ({"annotations": "none"}, "`annotations` as an array"),
        ({"annotations": [3]}, "an annotation as an object, got 3"),
        ({"annotations": [_annotation() | {"result": ""}]}, "`result` as an array"),
        ({"annotations": [_annotation() | {"result": ["x"]}]}, "`result` as an array"),
    ],
)
def test_a_faulty_task_is_rejected(changes: dict[str, Any], reason: str) -> None:
    (sound,) = _exported(_sent([_task(name="b.jpg")]))
    items = _read([{**_one()[0], **changes}, sound])
    assert sum(isinstance(item, ReturnedImage) for item in items) == 1
    (rejected,) = (item for item in items if isinstance(item, RejectedItem))
    assert reason in rejected.reason
    assert (rejected.kind, rejected.item_id) == ("image", "task 1")


def test_labels_of_an_image_of_unknown_size_are_rejected() -> None:
    region = _rectangle(original_width=None, original_height="480")
    document = [{"data": {"image": "a"}, "annotations": [_annotation(region)]}]
    assert "original_width" in _rejected(document).reason
    (empty,) = _read([{"data": {"image": "a"}, "annotations": [_annotation()]}])
    assert isinstance(empty, ReturnedImage)
    assert (empty.width, empty.height) == (None, None)


def _question(kind: TaskKind, *answers: dict[str, Any]) -> list[dict[str, Any]]:
    return _exported(_sent([_task(CAR, kind=kind)], kind), *answers)


@pytest.mark.parametrize(
    ("kind", "answers", "status", "label"),
    [
        ("verify_box", ["yes"], "labeled", "car"),
        ("verify_box", ["no"], "background", "car"),
        ("verify_class", ["yes"], "labeled", "car"),
        ("verify_class", ["no", CLASSES[2]], "labeled", CLASSES[2]),
        ("verify_class", ["no object"], "background", "car"),
    ],
)
def test_an_answer_becomes_the_box_it_was_asked_about(
    kind: TaskKind, answers: list[str], status: str, label: str
) -> None:
    chosen = [_answer(*pair) for pair in zip(("answer", "class"), answers, strict=False)]
    image = _image(_question(kind, *chosen))
    (box,) = image.boxes
    assert (box.status, box.label_name, box.detection_id) == (status, label, "d")
    assert (image.complete, image.task_id) == (False, "cycle/dir/a.jpg")
    np.testing.assert_allclose((box.x1, box.y1, box.x2, box.y2), (10, 20, 40, 60), atol=1e-4)


def test_a_box_that_was_moved_comes_back_where_it_is_now_or_as_it_was_sent_if_there_is_no_object() -> None:
    for answer, left in (("yes", 64.0), ("no", 10.0)):
        document = _question("verify_box", _answer("answer", answer))
        document[0]["annotations"][0]["result"][0]["value"]["x"] = 10
        assert _image(document).boxes[0].x1 == left


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_a_box_drawn_beside_the_question_is_kept(answer: str) -> None:
    document = _question("verify_box", _answer("answer", answer))
    document[0]["annotations"][0]["result"].append(_rectangle(id="new", origin="manual", x=50))
    asked, drawn = _image(document).boxes
    assert (asked.detection_id, drawn.detection_id, drawn.status, drawn.x1) == ("d", None, "labeled", 320)


def test_the_box_as_sent_is_scaled_to_the_image_the_tool_saw() -> None:
    document = _question("verify_box", _answer("answer", "no"))
    for region in document[0]["annotations"][0]["result"][:2]:
        region |= {"original_width": 320, "original_height": 120}
    image = _image(document)
    (box,) = image.boxes
    assert (image.width, image.height) == (320, 120)
    assert (box.x1, box.y1, box.x2, box.y2) == (5, 5, 20, 15)


def test_no_with_the_box_deleted_is_background() -> None:
    document = _question("verify_box", _answer("answer", "no"))
    del document[0]["annotations"][0]["result"][:2]
    (box,) = _image(document).boxes
    assert (box.status, box.x1, box.y2) == ("background", 10, 60)


@pytest.mark.parametrize(
    ("kind", "answers", "gone", "reason"),
    [
        ("verify_box", [], False, "expected an answer"),
        ("verify_box", ["maybe"], False, "got 'maybe'"),
        ("verify_box", ["yes", "no"], False, "expected an answer"),
        ("verify_box", ["yes"], True, "not there any more"),
        ("verify_class", ["no"], False, "right class was not chosen"),
    ],
)
def test_a_question_without_a_usable_answer_is_rejected(
    kind: TaskKind, answers: list[str], gone: bool, reason: str
) -> None:
    document = _question(kind, *(_answer("answer", answer) for answer in answers))
    if gone:
        del document[0]["annotations"][0]["result"][:2]
    assert reason in _rejected(document).reason


@pytest.mark.parametrize(
    ("document", "got"),
    [
        ({"images": [], "annotations": []}, "images"),
        ([1], "1"),
        ("text", "text"),
        (_sent([_task(CAR)]), "data"),
        ([{"id": 1, "image": "a", "label": [], "annotator": 1, "annotation_id": 2}], "annotator"),
    ],
    ids=["coco", "numbers", "text", "tasks as sent", "JSON-MIN"],
)
def test_another_file_is_refused_with_the_remedy(document: Any, got: str) -> None:
    with pytest.raises(NotThisFormat, match=f"(?s){got}.*export the project as JSON"):
        _read(document)


@pytest.mark.parametrize("data", [b"", b"\xff[]", b"[" * 100_000, b"[1e", b"[" + b"9" * 5000 + b"]"])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(NotThisFormat):
        list(read_label_studio(io.BytesIO(data)))


def test_an_export_of_no_task_holds_nothing() -> None:
    assert _read([]) == []


HOSTILE: list[Any] = [
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**400, "", "x", "\udc80", "../../etc/passwd",
    [], [[]], [None], {}, {"choices": [[]]}, {"id": 10**400, "email": []}, [1, 2, 3, 4], ["yes"],
]  # fmt: skip


def test_a_file_with_anything_in_it_is_read_or_refused() -> None:
    """Values replaced and keys removed, up to five at once, anywhere in a sound file."""
    rng = random.Random(7)
    sound = [
        *_exported(_sent([_task(CAR), _task(name="b.jpg")])),
        *_question("verify_box", _answer("answer", "no")),
        *_question("verify_class", _answer("answer", "no"), _answer("class", "car")),
    ]
    for number, task in enumerate(sound):
        task["data"]["task_id"] = str(number)
    text = json.dumps(sound)
    n_images = n_refused = 0
    for _ in range(2_000):
        document = json.loads(text)
        for _ in range(rng.randint(1, 5)):
            _damage(document, rng)
        try:
            items = _read(document)
        except NotThisFormat:
            n_refused += 1
            continue
        # Tables hold no half characters and labels no NaN.
        for item in items:
            json.dumps(asdict(item), ensure_ascii=False, allow_nan=False).encode("utf-8")
        n_images += sum(isinstance(item, ReturnedImage) for item in items)
    assert n_images > 2_000
    assert n_refused > 10


def _damage(document: Any, rng: random.Random) -> None:
    place = document
    while isinstance(place, (list, dict)) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not isinstance(inner, (list, dict)) or not inner or rng.random() < 0.1:
            if rng.random() < 0.3:
                del place[key]
            else:
                place[key] = deepcopy(rng.choice(HOSTILE))
            return
        place = inner
