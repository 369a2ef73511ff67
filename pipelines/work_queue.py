"""Work in a fixed order, handed out a chunk at a time, so that each chunk can be committed by itself."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

ROWS_PER_PART = 50_000
MOST_PARTS = 1_000
# monotonically_increasing_id: the partition above this bit, the row in it below.
PARTITION_BIT = 33


class WorkQueue:
    """Rows sorted and kept on the executors' disks until closed.

    Args:
        rows: What there is to do.
        order: Columns that sort it; the last one tells rows apart.
        most_rows: No more rows than this; decides how finely the queue is cut.
    """

    def __init__(self, rows: DataFrame, order: Sequence[str], most_rows: int) -> None:
        parts = min(MOST_PARTS, 1 + most_rows // ROWS_PER_PART)
        ordered = rows.repartitionByRange(parts, *order) if parts > 1 else rows.repartition(1)
        ordered = ordered.sortWithinPartitions(*order).withColumn("_id", F.monotonically_increasing_id())
        self._rows = ordered.persist(StorageLevel.DISK_ONLY)
        part = F.shiftright("_id", PARTITION_BIT).alias("part")
        sizes = {row.part: row["count"] for row in self._rows.groupBy(part).count().collect()}
        # At most MOST_PARTS numbers: where each partition's rows begin in the queue.
        self._starts: list[int] = [0, *accumulate(int(sizes.get(i, 0)) for i in range(parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def slice(
        self, start: int, stop: int, rows_per_task: int, keep: Callable[[DataFrame], DataFrame]
    ) -> DataFrame:
        """Rows `start` to `stop` of the queue, in order, one task for every `rows_per_task` of them.

        Args:
            start: First place.
            stop: Place after the last.
            rows_per_task: Rows of a task, less those that `keep` leaves out.
            keep: Leaves out or changes rows; it must hand every column on.
        """
        ids = F.col("_id")
        chunk = keep(self._rows.where((ids >= self._id(start)) & (ids < self._id(stop))))
        starts = F.array(*map(F.lit, self._starts))
        part = F.shiftright(ids, PARTITION_BIT).cast("int")
        place = F.get(starts, part) + ids.bitwiseAND((1 << PARTITION_BIT) - 1)
        task = F.floor((place - start) / rows_per_task).cast("int")
        n_tasks = -(-(stop - start) // rows_per_task)
        return chunk.repartitionById(n_tasks, task).sortWithinPartitions("_id").drop("_id")

    def close(self) -> None:
        """Frees the disks."""
        self._rows.unpersist()

    def _id(self, place: int) -> int:
        """The lowest row id at or after a place in the queue."""
        part = bisect_right(self._starts, place) - 1
        return (part << PARTITION_BIT) + place - self._starts[part]
