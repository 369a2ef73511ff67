from __future__ import annotations

import math

import pytest

from conf.errors import QuarryError
from udfs.formats.task import LabelingTask, TaskBox, UniqueNames, class_indices, clipped_box


def _image(width: int = 640, height: int = 480) -> LabelingTask:
    return LabelingTask(
        task_id="i",
        image_id="i",
        uri="/i.jpg",
        file_name="i.jpg",
        width=width,
        height=height,
        rank=1,
        score=1.0,
        strategy="s",
    )


def _box(x1: float, y1: float, x2: float, y2: float) -> TaskBox:
    return TaskBox(detection_id="d", label_name="car", score=0.5, x1=x1, y1=y1, x2=x2, y2=y2)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((10, 20, 40, 60), (10, 20, 40, 60)),
        ((-5, -5, 700, 500), (0, 0, 640, 480)),
        ((639.5, 0, 641, 1), (639.5, 0, 640, 1)),
        ((640, 0, 650, 10), None),
        ((-10, 0, 0, 10), None),
        ((5, 5, 5, 9), None),
    ],
)
def test_a_box_is_cut_to_its_image(
    corners: tuple[float, float, float, float], expected: tuple[float, float, float, float] | None
) -> None:
    assert clipped_box(_box(*corners), _image()) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_coordinate_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(QuarryError, match=r"'d' of image 'i'.*finite"):
        clipped_box(_box(0, 0, bad, 10), _image())


@pytest.mark.parametrize("classes", [[], ["car", "car"], ["car", ""]])
def test_classes_must_be_distinct_and_named(classes: list[str]) -> None:
    with pytest.raises(QuarryError, match="distinct"):
        class_indices(classes)


def test_a_name_given_twice_is_refused_even_when_it_is_no_valid_unicode() -> None:
    names = UniqueNames("file name")
    names.add("a/1.jpg", "one")
    names.add("\udcff.jpg", "two")
    with pytest.raises(QuarryError, match=r"'three'.*'a/1.jpg'"):
        names.add("a/1.jpg", "three")
