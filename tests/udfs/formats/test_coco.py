from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from conf.errors import QuarryError
from udfs.formats.coco import coco_truths, write_coco
from udfs.formats.returned import RejectedItem, ReturnedImage
from udfs.formats.task import LabelingTask, Manifest, TaskBox

CLASSES = ["car", 'say "hi"', "Fußgänger 行人"]
NAMES = ["a/b/c/1.jpg", "a/b/d/1.jpg", "with space & 'quote\".jpg", "日本/ö.png", "back\\slash.jpg"]


def _manifest(classes: list[str]) -> Manifest:
    return Manifest(
        name="c",
        classes=tuple(classes),
        model_version="m",
        n_tasks=1,
        last_rank=1,
        created="2026-01-01T00:00:00Z",
    )


def _images(seed: int = 5) -> list[LabelingTask]:
    rng = np.random.default_rng(seed)
    images = []
    for rank, name in enumerate(NAMES, start=1):
        width, height = int(rng.integers(50, 2000)), int(rng.integers(50, 2000))
        boxes = []
        for k in range(6):
            x1, y1 = rng.uniform(0, width - 10), rng.uniform(0, height - 10)
            x2, y2 = (width, height) if k == 0 else (rng.uniform(x1 + 1, width), rng.uniform(y1 + 1, height))
            boxes.append(
                TaskBox(
                    detection_id=f"{rank}-{k}",
                    label_name=CLASSES[k % 3],
                    score=0.5,
                    x1=float(x1),
                    y1=float(y1),
                    x2=float(x2),
                    y2=float(y2),
                )
            )
        images.append(
            LabelingTask(
                task_id=f"id-{rank}",
                image_id=f"id-{rank}",
                uri=f"s3://bucket/{name}",
                file_name=name,
                width=width,
                height=height,
                rank=rank,
                score=1.5,
                strategy="total_fn",
                boxes=tuple(boxes),
            )
        )
    return images


def _one(*boxes: TaskBox, file_name: str = "dir/a.jpg") -> LabelingTask:
    return LabelingTask(
        task_id="i",
        image_id="i",
        uri="/a",
        file_name=file_name,
        width=640,
        height=480,
        rank=1,
        score=2.0,
        strategy="s",
        boxes=boxes,
    )


def _box(x1: float, y1: float, x2: float, y2: float, label: str = "car") -> TaskBox:
    return TaskBox(detection_id="d", label_name=label, score=0.62, x1=x1, y1=y1, x2=x2, y2=y2)


def _written(images: list[LabelingTask], classes: list[str]) -> dict[str, Any]:
    stream = io.StringIO()
    write_coco(stream, iter(images), _manifest(classes))
    document: dict[str, Any] = json.loads(stream.getvalue())
    return document


def test_the_worked_example() -> None:
    document = _written([_one(_box(10, 20, 40, 60))], ["truck", "car"])
    (annotation,) = document["annotations"]
    assert annotation["bbox"] == [10, 20, 30, 40]
    assert (annotation["area"], annotation["iscrowd"], annotation["segmentation"]) == (1200, 0, [])
    assert (annotation["id"], annotation["image_id"], annotation["category_id"]) == (1, 1, 2)
    assert document["categories"][1] == {"id": 2, "name": "car", "supercategory": ""}
    assert document["images"][0]["quarry_image_id"] == "i"
    assert document["images"][0]["rank"] == 1


def test_boxes_come_back_within_half_a_pixel() -> None:
    images = _images()
    truths = list(coco_truths(_written(images, CLASSES)))
    assert len(truths) == len(images)
    for image, truth in zip(images, truths, strict=True):
        assert isinstance(truth, ReturnedImage)
        assert (truth.file_name, truth.quarry_image_id) == (image.file_name, image.image_id)
        assert (truth.width, truth.height) == (image.width, image.height)
        for sent, back in zip(image.boxes, truth.boxes, strict=True):
            assert sent.label_name == back.label_name
            for side in ("x1", "y1", "x2", "y2"):
                assert abs(getattr(sent, side) - getattr(back, side)) < 0.5


def test_pycocotools_loads_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    with path.open("w", encoding="utf-8") as stream:
        counts = write_coco(stream, _images(), _manifest(CLASSES))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == NAMES
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == CLASSES
    assert len(coco.getAnnIds()) == counts.n_boxes == 30
    assert all(len(coco.getAnnIds(imgIds=[image_id])) == 6 for image_id in coco.getImgIds())


def test_empty_boxes_are_dropped_and_counted_and_others_cut() -> None:
    stream = io.StringIO()
    image = _one(_box(-5, -5, 10, 10), _box(640, 0, 700, 10), _box(3, 3, 3, 8))
    counts = write_coco(stream, [image], _manifest(["car"]))
    assert (counts.n_tasks, counts.n_boxes, counts.n_dropped_boxes) == (1, 1, 2)
    assert json.loads(stream.getvalue())["annotations"][0]["bbox"] == [0, 0, 10, 10]


def test_no_image_gives_a_valid_file() -> None:
    assert _written([], ["car"])["images"] == []


def test_images_stream_one_by_one() -> None:
    stream = io.StringIO()
    sizes: list[int] = []

    def source() -> Iterator[LabelingTask]:
        for number in range(20):
            sizes.append(len(stream.getvalue()))
            yield _one(_box(1, 1, 5, 5), file_name=f"{number}.jpg")

    write_coco(stream, source(), _manifest(["car"]))
    assert all(later > earlier for earlier, later in pairwise(sizes[1:]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([_one(_box(0, 0, 5, 5, "cat"))], "'cat' is not a class"),
        ([_one(), _one()], "'dir/a.jpg' is in this manifest twice"),
        ([_one(_box(0, 0, math.nan, 5))], "finite"),
    ],
)
def test_what_importers_would_mix_up_is_refused(images: list[LabelingTask], message: str) -> None:
    with pytest.raises(QuarryError, match=message):
        write_coco(io.StringIO(), images, _manifest(["car"]))


def _document(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10], "iscrowd": 1}],
        "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
    }
    document["annotations"][0].update(changes)
    return document


def test_category_gaps_and_crowds_are_read() -> None:
    (truth,) = coco_truths(_document())
    assert isinstance(truth, ReturnedImage)
    (box,) = truth.boxes
    assert (box.label_name, box.iscrowd, box.x1, box.y1, box.x2, box.y2) == (
        "toothbrush",
        True,
        10,
        5,
        30,
        15,
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"category_id": 2}, "category_id 2"),
        ({"bbox": [0, 0, math.nan, 5]}, "finite"),
        ({"bbox": [0, 0, math.inf, 5]}, "finite"),
        ({"bbox": [0, 0, 10**400, 5]}, "finite"),
        ({"bbox": [0, 0, -3, 5]}, "positive size"),
        ({"bbox": [0, 0, 3, 0]}, "positive size"),
        ({"bbox": [100, 0, 3, 5]}, "outside"),
        ({"bbox": [-3, 0, 3, 5]}, "outside"),
        ({"bbox": [0, 50, 3, 5]}, "outside"),
        ({"bbox": [0, -5, 3, 5]}, "outside"),
        ({"bbox": [10, 5, 9e8, 9e8]}, "reaches far beyond"),
        ({"bbox": [10, -51, 5, 60]}, "reaches far beyond"),
        ({"bbox": [1, 2, 3]}, "4 finite numbers"),
        ({"bbox": "1234"}, "4 finite numbers"),
        ({"iscrowd": "no"}, "iscrowd"),
        ({"image_id": 8}, "no image has this id"),
    ],
)
def test_a_faulty_annotation_is_rejected_and_its_image_kept(changes: dict[str, Any], reason: str) -> None:
    items = list(coco_truths(_document(**changes)))
    (rejected,) = [item for item in items if isinstance(item, RejectedItem)]
    (truth,) = [item for item in items if isinstance(item, ReturnedImage)]
    assert reason in rejected.reason
    assert (rejected.kind, rejected.item_id) == ("annotation", "1")
    assert truth.boxes == ()


def test_a_box_over_the_border_stays_as_it_was_drawn() -> None:
    (truth,) = coco_truths(_document(bbox=[-10.5, -10, 200, 100]))
    assert isinstance(truth, ReturnedImage)
    (box,) = truth.boxes
    assert (box.x1, box.y1, box.x2, box.y2) == (-10.5, -10, 189.5, 90)


def test_true_is_no_id() -> None:
    document = _document(image_id=True)
    document["images"][0]["id"] = 1
    items = list(coco_truths(document))
    assert [item.boxes for item in items if isinstance(item, ReturnedImage)] == [()]
    (rejected,) = [item for item in items if isinstance(item, RejectedItem)]
    assert rejected.reason == "image_id True: no image has this id"
    document["categories"][0]["id"] = True
    with pytest.raises(QuarryError, match="distinct integer ids"):
        coco_truths(document)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (
            [
                {"id": 7, "file_name": "a", "width": 9, "height": 9},
                {"id": 7, "file_name": "b", "width": 9, "height": 9},
            ],
            "used by 2",
        ),
        (
            [
                {"id": 7, "file_name": "a", "width": 9, "height": 9},
                {"id": 8, "file_name": "a", "width": 9, "height": 9},
            ],
            "used by 2",
        ),
        ([{"id": 7, "file_name": "a", "width": 0, "height": 9}], "width"),
        ([{"id": 7, "file_name": "a", "width": 10**400, "height": 9}], "width"),
        ([{"id": 7, "file_name": "\udc80", "width": 9, "height": 9}], "file_name"),
        ([{"id": True, "file_name": "a", "width": 9, "height": 9}], "an id"),
        ([{"id": 7, "file_name": "a", "width": 9}], "height"),
        ([{"id": 7, "width": 9, "height": 9}], "file_name"),
        ([{"file_name": "a", "width": 9, "height": 9}], "an id"),
        (["a.jpg"], "an object"),
    ],
)
def test_faulty_images_are_rejected_with_their_boxes(images: list[Any], reason: str) -> None:
    items = list(coco_truths({**_document(), "images": images}))
    assert all(isinstance(item, RejectedItem) for item in items)
    rejected = [item for item in items if isinstance(item, RejectedItem)]
    assert sum(item.kind == "image" for item in rejected) == len(images)
    assert sum(item.kind == "annotation" for item in rejected) == 1
    assert reason in rejected[0].reason


@pytest.mark.parametrize("name", ["images", "annotations", "categories"])
def test_a_file_that_is_not_coco_is_refused(name: str) -> None:
    document = _document()
    del document[name]
    with pytest.raises(QuarryError, match=f"not a COCO annotation file.*'{name}'"):
        coco_truths(document)


def test_a_category_given_twice_is_refused() -> None:
    document = _document()
    document["categories"].append({"id": 90, "name": "other"})
    with pytest.raises(QuarryError, match="distinct integer ids"):
        coco_truths(document)
