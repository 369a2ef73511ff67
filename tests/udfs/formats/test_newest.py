from __future__ import annotations

from typing import Any

import pytest

from udfs.formats.newest import iso_time, newest_of_each
from udfs.formats.returned import RejectedItem, ReturnedBox, ReturnedImage


def _image(name: str, time: str | None, n_boxes: int = 0) -> ReturnedImage:
    box = ReturnedBox(label_name="car", x1=0, y1=0, x2=1, y2=1)
    return ReturnedImage(file_name=name, width=9, height=9, boxes=(box,) * n_boxes, annotated_at=time)


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-08T16:34:02Z",
        "2026-04-08T16:34:02.5Z",
        "2026-04-08T16:34:02.123456789+05:30",
        "2026-04-08 16:34:02",
        "2026-04-08T16:34:02-0800",
    ],
)
def test_times_of_iso_8601_pass_unchanged(text: str) -> None:
    assert iso_time(text) == text


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "2026-04-08",
        "2026-13-08T16:34:02Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-04-08T16:34:02+99:99",
        "٢٠٢٦-04-08T16:34:02Z",
        "2026-04-08T16:34:02Z; DROP TABLE x",
    ],
)
def test_other_values_are_no_time(value: Any) -> None:
    assert iso_time(value) is None


def test_the_newest_of_each_key_stays_in_order_of_the_keys() -> None:
    items = [
        ("b", _image("b", "2026-04-08T10:00:00+02:00", 1)),
        ("a", _image("a", None)),
        ("b", _image("b", "2026-04-08T08:00:01Z", 2)),
        ("b", _image("b", "2026-04-08T07:59:59.999Z", 3)),
    ]
    assert list(newest_of_each(items)) == [items[2][1], items[1][1]]


@pytest.mark.parametrize(
    "times", [(None, "2026-04-08T08:00:00Z"), ("2026-04-08T08:00:00Z",) * 2, (None, None)]
)
def test_labels_without_a_newest_one_are_turned_down(times: tuple[str | None, str | None]) -> None:
    items = [("a", _image("a", time, n)) for n, time in enumerate(times)]
    (item,) = newest_of_each(items)
    assert isinstance(item, RejectedItem)
    assert "no time that says which is the newest" in item.reason


def test_the_same_label_twice_is_one_label() -> None:
    image = _image("a", None, 2)
    assert list(newest_of_each([("a", image), ("a", image)])) == [image]
