"""What counts of all that was said of an image: the newest, whole or in part, in whatever order it came."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.current_labels import current_labels
from pipelines.tables import in_schema, spark_schema
from schemas.tables import GROUND_TRUTH_HISTORY

CYCLE, IMAGE = "c1", "i"
WHOLE = f"{CYCLE}/{IMAGE}"
SURE, DOUBT = f"{WHOLE}/boxes/sure", f"{WHOLE}/boxes/doubt"


def _day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=timezone.utc)


def _box(left: float, status: str = "labeled", detection_id: str | None = None) -> tuple[Any, ...]:
    return (1, "car", float(left), 0.0, left + 10.0, 10.0, False, status, "coco", detection_id)


def _answer(said: int | None, came: int, *boxes: tuple[Any, ...], **given: Any) -> dict[str, Any]:
    """An answer that was given on one day and imported on another."""
    usual = {"image_id": IMAGE, "cycle_id": CYCLE, "split": "train", "complete": False, "task_id": None}
    times = {"annotated_ts": None if said is None else _day(said), "ts": _day(came), "import_id": f"i{came}"}
    return dict.fromkeys(GROUND_TRUTH_HISTORY.column_names) | usual | times | {"boxes": list(boxes)} | given


def _current(session: SparkSession, *answers: dict[str, Any]) -> tuple[bool, list[tuple[float, str]], Any]:
    """Whether the image is complete, left side and status of its boxes, and the whole row."""
    schema = spark_schema(GROUND_TRUTH_HISTORY)
    frame = session.createDataFrame([tuple(a[name] for name in schema.names) for a in answers], schema)
    (row,) = in_schema(frame, GROUND_TRUTH_HISTORY).transform(current_labels).collect()
    assert row.n_answers == len(answers)
    return row.complete, [(box.x1, box.status) for box in row.boxes], row


def test_parts_count_on_top_of_the_whole_in_whatever_order_they_are_imported(session: SparkSession) -> None:
    said = [
        (5, {"boxes": [_box(0), _box(20), _box(40)], "complete": True, "task_id": WHOLE, "annotator": "ann"}),
        (7, {"boxes": [_box(21, "background"), _box(60)], "task_id": SURE, "annotator": "bob"}),
        (3, {"boxes": [_box(80)], "task_id": DOUBT, "annotator": "eve"}),
    ]
    for order in itertools.permutations(said):
        answers = [_answer(day, 10 + came) | given for came, (day, given) in enumerate(order)]
        complete, boxes, row = _current(session, *answers)
        assert complete and boxes == [
            (0.0, "labeled"),
            (40.0, "labeled"),
            (21.0, "background"),
            (60.0, "labeled"),
        ]
        assert row.annotator == "ann, bob" and row.annotated_ts.day == 7


def test_a_correction_is_of_its_task_and_of_the_box_it_answers_for(session: SparkSession) -> None:
    wrong = _answer(3, 10, _box(0), _box(55, detection_id="d"), task_id=SURE)
    right = _answer(4, 11, _box(0), _box(20, detection_id="d"), task_id=SURE)
    assert _current(session, wrong, right)[1] == [(0.0, "labeled"), (20.0, "labeled")]
    # What another strategy heard of the same box, which was moved far.
    other = _answer(5, 12, _box(90, detection_id="d"), task_id=DOUBT)
    assert _current(session, wrong, right, other)[1] == [(0.0, "labeled"), (90.0, "labeled")]
    # The correction of one answer comes after another one about the same box was imported.
    doubt = _answer(3, 10, _box(0, "background"), task_id=DOUBT)
    late = _answer(6, 13, _box(1), task_id=SURE)
    assert _current(session, wrong, doubt, late)[1] == [(1.0, "labeled")]
    for answers in ((wrong, right), (right, wrong)):
        assert _current(session, *answers)[1] == [(0.0, "labeled"), (20.0, "labeled")]


def test_a_whole_image_replaces_all_before_it_and_questions_stand_side_by_side(session: SparkSession) -> None:
    asked = [
        _answer(n, 10, _box(30 * n, detection_id=f"d{n}"), task_id=f"{WHOLE}/d{n}/verify_box") for n in (1, 2)
    ]
    assert _current(session, *asked)[1] == [(30.0, "labeled"), (60.0, "labeled")]
    whole = _answer(8, 11, _box(5), task_id=WHOLE, complete=True)
    assert _current(session, *asked, whole)[:2] == (True, [(5.0, "labeled")])
    nothing = _answer(9, 12, task_id=WHOLE, complete=True)
    assert _current(session, *asked, whole, nothing)[:2] == (True, [])
    unfinished = _answer(9, 12, _box(70), task_id=WHOLE)
    assert _current(session, whole, unfinished)[:2] == (False, [(70.0, "labeled")]), "it was corrected"
    others = _answer(9, 12, _box(70))
    assert _current(session, whole, others)[:2] == (True, [(5.0, "labeled"), (70.0, "labeled")])


def test_the_latest_import_says_whether_an_image_is_held_out(session: SparkSession) -> None:
    held_out = _answer(None, 10, _box(0), split="eval", complete=True, cycle_id="manual")
    part = _answer(5, 11, _box(40), task_id=SURE)
    complete, boxes, row = _current(session, held_out, part)
    assert (complete, boxes, row.split) == (False, [(40.0, "labeled")], "train")
    back = _answer(None, 12, _box(1), split="eval", complete=True, cycle_id="manual")
    complete, boxes, row = _current(session, held_out, part, back)
    assert (complete, boxes, row.split, row.cycle_id) == (True, [(1.0, "labeled")], "eval", "manual")


@pytest.mark.parametrize("wrong_clock", [20, 31])
def test_a_time_after_the_import_is_the_import_s(session: SparkSession, wrong_clock: int) -> None:
    ahead = _answer(wrong_clock, 10, _box(0), complete=True)
    later = _answer(11, 12, _box(1), complete=True)
    assert _current(session, ahead, later)[1] == [(1.0, "labeled")]
