from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from conf.errors import QuarryError
from udfs.formats.label_studio import write_label_studio
from udfs.formats.task import LabelingTask, Manifest, TaskBox, TaskKind

CLASSES = ["car", 'a "b" & <c>', "日本"]
MANIFEST = Manifest(
    name="c",
    classes=tuple(CLASSES),
    model_version="m1",
    n_tasks=1,
    last_rank=1,
    created="2026-01-01T00:00:00Z",
)


def _box(x1: float, y1: float, x2: float, y2: float, key: str = "d", label: str = "car") -> TaskBox:
    return TaskBox(detection_id=key, label_name=label, score=0.62, x1=x1, y1=y1, x2=x2, y2=y2)


def _image(*boxes: TaskBox, image_id: str = "i", width: int = 640, height: int = 480) -> LabelingTask:
    return LabelingTask(
        task_id=image_id,
        image_id=image_id,
        uri="s3://b/ä dir/a 'b\".jpg",
        file_name="ä dir/a 'b\".jpg",
        width=width,
        height=height,
        rank=4,
        score=2.5,
        strategy="total_fn",
        boxes=boxes,
    )


def _tasks(images: list[LabelingTask], kind: TaskKind = "image") -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_label_studio(stream, iter(images), replace(MANIFEST, kind=kind))
    tasks: list[dict[str, Any]] = json.loads(stream.getvalue())
    return tasks


def test_the_worked_example() -> None:
    (task,) = _tasks([_image(_box(10, 20, 40, 60))])
    assert task["data"]["image"] == "s3://b/ä dir/a 'b\".jpg"
    assert (task["data"]["image_id"], task["data"]["rank"], task["data"]["query_score"]) == ("i", 4, 2.5)
    assert (task["data"]["width"], task["data"]["height"], task["data"]["kind"]) == (640, 480, "image")
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("m1", 0.62)
    (region,) = prediction["result"]
    assert (region["id"], region["type"], region["from_name"]) == ("d", "rectanglelabels", "label")
    assert region["score"] == 0.62
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (640, 480, 0)
    value = region["value"]
    assert [value[side] for side in ("x", "y", "width", "height")] == [1.5625, 4.166667, 4.6875, 8.333333]
    assert value["rectanglelabels"] == ["car"]


def test_boxes_come_back_within_half_a_pixel_on_a_large_image() -> None:
    rng = np.random.default_rng(11)
    width, height = 30_000, 20_000
    boxes = [_box(0, 0, width, height, "all"), _box(width - 2, height - 2, width, height, "corner")]
    for k in range(200):
        x1, y1 = rng.uniform(0, width - 5), rng.uniform(0, height - 5)
        x2, y2 = float(rng.uniform(x1 + 1, width)), float(rng.uniform(y1 + 1, height))
        boxes.append(_box(float(x1), float(y1), x2, y2, f"d{k}"))
    (task,) = _tasks([_image(*boxes, width=width, height=height)])
    (prediction,) = task["predictions"]
    for box, region in zip(boxes, prediction["result"], strict=True):
        value = region["value"]
        x1, y1 = value["x"] * width / 100, value["y"] * height / 100
        back = (x1, y1, x1 + value["width"] * width / 100, y1 + value["height"] * height / 100)
        np.testing.assert_allclose(back, (box.x1, box.y1, box.x2, box.y2), atol=0.5, rtol=0)
        assert value["x"] + value["width"] <= 100.00001


def test_all_boxes_are_in_one_prediction_and_no_box_gives_none() -> None:
    tasks = _tasks([_image(_box(0, 0, 9, 9, "a"), _box(1, 1, 9, 9, "b", "日本")), _image(image_id="j")])
    assert [len(task["predictions"]) for task in tasks] == [1, 0]
    assert len(tasks[0]["predictions"][0]["result"]) == 2


def test_boxes_outside_are_dropped_and_counted() -> None:
    image = _image(_box(-9, 0, 0, 9, "a"), _box(-9, 0, 5, 9, "b"))
    counts = write_label_studio(io.StringIO(), [image], MANIFEST)
    assert (counts.n_tasks, counts.n_boxes, counts.n_dropped_boxes) == (1, 1, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([_image(), _image()], "'i' is in this manifest twice"),
        ([_image(_box(0, 0, 9, 9), _box(1, 1, 9, 9))], "share a detection_id"),
        ([_image(_box(0, 0, 9, 9, label="bus"))], "'bus' is not a class"),
        ([replace(_image(_box(0, 0, 9, 9)), kind="verify_box")], "a manifest for each"),
    ],
)
def test_what_the_tool_would_refuse_or_hide_is_refused(images: list[LabelingTask], message: str) -> None:
    with pytest.raises(QuarryError, match=message):
        _tasks(images)


def test_no_image_is_an_empty_array() -> None:
    assert _tasks([]) == []


@pytest.mark.parametrize("kind", ["verify_box", "verify_class"])
def test_a_question_shows_its_box_and_twice_as_much_around_it(kind: TaskKind) -> None:
    (task,) = _tasks([replace(_image(_box(10, 20, 40, 60)), kind=kind)], kind)
    assert (task["data"]["kind"], task["data"]["detection_id"]) == (kind, "d")
    assert (task["data"]["label_name"], task["data"]["box"]) == ("car", [10, 20, 40, 60])
    (prediction,) = task["predictions"]
    box, region = prediction["result"]
    assert (region["from_name"], region["readonly"], region["id"]) == ("region", True, "d-region")
    # Twice 30 x 40 around (25, 40) would begin at (-5, 0): 0, 0 to 55, 80 px of 640 x 480.
    assert [region["value"][side] for side in ("x", "y", "width", "height")] == [0, 0, 8.59375, 16.666667]
    assert (box["from_name"], box["id"], box["value"]["x"]) == ("label", "d", 1.5625)
    assert "readonly" not in box
    assert prediction["score"] == 0.62


@pytest.mark.parametrize(
    "boxes", [(), (_box(-9, 0, 0, 9),), (_box(0, 0, 9, 9, "a"), _box(1, 1, 9, 9, "b"))], ids=len
)
def test_a_question_is_about_one_box_inside_its_image(boxes: tuple[TaskBox, ...]) -> None:
    with pytest.raises(QuarryError, match="expected one box inside the image"):
        _tasks([replace(_image(*boxes), kind="verify_box")], "verify_box")


def test_tasks_stream_one_by_one() -> None:
    stream = io.StringIO()
    sizes: list[int] = []

    def source() -> Iterator[LabelingTask]:
        for number in range(20):
            sizes.append(len(stream.getvalue()))
            yield _image(_box(1, 1, 5, 5), image_id=str(number))

    write_label_studio(stream, source(), MANIFEST)
    assert all(later > earlier for earlier, later in pairwise(sizes[1:]))


def test_the_same_tasks_give_the_same_ascii() -> None:
    texts = []
    for _ in range(2):
        stream = io.StringIO()
        write_label_studio(stream, [_image(_box(1, 1, 5, 5, label="日本"))], MANIFEST)
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]
    assert texts[0].isascii()
