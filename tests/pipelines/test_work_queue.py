"""Chunks of a queue hold every row once, in order, in tasks of the size asked for."""

from __future__ import annotations

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines import work_queue
from pipelines.work_queue import WorkQueue


def _queue(session: SparkSession, n: int) -> WorkQueue:
    numbers = session.range(n).select((F.lit(n - 1) - F.col("id")).alias("number")).repartition(3)
    return WorkQueue(numbers, ("number",), most_rows=n)


def _tasks(chunk: DataFrame) -> list[list[int]]:
    parts = chunk.withColumn("task", F.spark_partition_id()).collect()
    tasks: dict[int, list[int]] = {}
    for row in parts:
        tasks.setdefault(row.task, []).append(row.number)
    return [tasks[task] for task in sorted(tasks)]


def _all(chunk: DataFrame) -> DataFrame:
    return chunk


@pytest.mark.parametrize("rows_per_part", [50_000, 7])
def test_slices_are_in_order_and_miss_nothing(
    session: SparkSession, monkeypatch: pytest.MonkeyPatch, rows_per_part: int
) -> None:
    monkeypatch.setattr(work_queue, "ROWS_PER_PART", rows_per_part)
    queue = _queue(session, 50)
    assert len(queue) == 50
    assert _tasks(queue.slice(0, 20, 8, _all)) == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert _tasks(queue.slice(20, 50, 16, _all)) == [list(range(20, 36)), list(range(36, 50))]
    queue.close()


def test_rows_left_out_do_not_move_the_others(session: SparkSession) -> None:
    queue = _queue(session, 30)
    odd = queue.slice(10, 30, 10, lambda chunk: chunk.where("number % 2 = 1"))
    assert _tasks(odd) == [[11, 13, 15, 17, 19], [21, 23, 25, 27, 29]]
    queue.close()


def test_an_empty_queue_is_empty(session: SparkSession) -> None:
    queue = _queue(session, 0)
    assert len(queue) == 0
    queue.close()
