"""A detection run chunk by chunk: infer, commit, and choose how long the next chunk shall be."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.settings import DetectorSettings, DetectSettings
from pipelines.detect_metrics import DetectMetrics
from pipelines.gpu import gpu_profile, task_gpu
from pipelines.pending_images import WORK_COLUMNS, without_views_seen
from pipelines.quarantine import record_outcomes
from pipelines.run import Run
from pipelines.tables import sql_literal, utc_timestamp
from pipelines.work_queue import WorkQueue
from schemas.tables import DETECTIONS
from udfs.detect import detect_batches
from udfs.detection_rows import DETECT_SCHEMA

if TYPE_CHECKING:
    from detectors.detector import DetectorCard

STAGE = "detect"
ROW_ORDER = ("view", "sequence_id", "frame_index", "image_id")
IMAGES_PER_FILE = 5_000
# A commit costs more as the table grows; chunks become longer with it, so that it stays a small share.
CHUNK_OVER_COMMIT = 20
MOST_GROWTH = 16


@dataclass(frozen=True, kw_only=True)
class DetectJob:
    """What one detection run does.

    Attributes:
        card: The detector's identity.
        detector: What runs.
        settings: How it runs.
        max_pixels: Larger images are quarantined.
        retry_quarantined: Try all images in quarantine once more.
    """

    card: DetectorCard
    detector: DetectorSettings
    settings: DetectSettings
    max_pixels: int
    retry_quarantined: bool = False


class DetectChunks:
    """Works through a queue of images; make it before the queue, so that no commit of others is missed.

    Args:
        run: The run.
        job: What to do.

    Attributes:
        metrics: What was done so far.
    """

    def __init__(self, run: Run, job: DetectJob) -> None:
        self.metrics = DetectMetrics()
        self._run = run
        self._job = job
        run.store.create(DETECTIONS)
        self._first_version = run.store.version(DETECTIONS)
        self._others_at_work = False

    def work_through(self, queue: WorkQueue) -> None:
        """Detects every image of the queue and commits after each chunk."""
        for start, stop in self._bounds(len(queue)):
            self._run.goal.begin_step(done=self.metrics.images, step=stop - start, total=len(queue))
            chunk = queue.slice(
                start, stop, self._job.settings.images_per_task, keep=self._not_done_by_others
            )
            self._detect(chunk)
            if self.metrics.images < len(queue):
                self._run.tell(self._run.goal.line(self.metrics.images))

    def _bounds(self, n: int) -> Iterator[tuple[int, int]]:
        """First and last place of every chunk: from a place of this run's own round the queue to it again.

        Chunks are whole tasks, so that the same images share a batch however long the chunks are: sums of
        floats depend on their order.
        """
        per_task = self._job.settings.images_per_task
        smallest = tasks = self._run.store.session.sparkContext.defaultParallelism
        n_tasks = -(-n // per_task)
        first = random.Random(self._run.run_id).randrange(n_tasks) if n_tasks > smallest else 0
        for start, stop in ((first, n_tasks), (0, first)):
            while start < stop:
                end = min(start + tasks, stop)
                yield start * per_task, min(end * per_task, n)
                start = end
                tasks = max(smallest, min(self._paying_size() // per_task, MOST_GROWTH * tasks))

    def _paying_size(self) -> int:
        """Images of a chunk that lasts as long as asked for, and long beside its commit."""
        asked_s = self._job.settings.commit_every_s
        lasting_s = max(asked_s, CHUNK_OVER_COMMIT * self.metrics.last_write_s) if asked_s else 0.0
        return int(lasting_s * self.metrics.images / self.metrics.busy_s)

    def _not_done_by_others(self, chunk: DataFrame) -> DataFrame:
        """The chunk without images and views another run has committed since the queue was made."""
        if not self._others_at_work:
            return chunk
        others = F.col("run_id") != self._run.run_id
        rows = self._run.store.read(DETECTIONS, pinned=True).where(others)
        return without_views_seen(chunk, rows.where(F.col("model_id") == self._job.card.model_id))

    def _detect(self, chunk: DataFrame) -> None:
        start_s = time.perf_counter()
        outcomes = chunk.transform(run_detector, self._job).persist(StorageLevel.DISK_ONLY)
        self.metrics.add(outcomes)
        computed_s = time.perf_counter()
        self._commit(outcomes)
        outcomes.unpersist()
        self.metrics.add_times(busy_s=computed_s - start_s, write_s=time.perf_counter() - computed_s)
        self._require_store()

    def _require_store(self) -> None:
        """Stop where nothing of a chunk could be reached: the next ones would fare no better.

        Raises:
            QuarryError: Says how many images, and what to look at.
        """
        tried, unreached = self.metrics.last_tried, self.metrics.last_unreached
        if unreached == tried >= self._job.settings.images_per_task:
            raise QuarryError(
                f"none of the last {tried:,} images could be reached (table quarantine tells why): see that "
                "the store answers and credentials are valid, then run the same command again"
            )

    def _commit(self, outcomes: DataFrame) -> None:
        run = self._run
        stamps = {"run_id": F.lit(run.run_id), "ts": utc_timestamp(run.started_s)}
        run.store.append_new(
            DETECTIONS,
            outcomes.where("error_class IS NULL").withColumns(stamps),
            only=f"model_id = {sql_literal(self._job.card.model_id)}",
            order=ROW_ORDER,
            files=1 + self.metrics.last_tried // IMAGES_PER_FILE,
            note=run.run_id,
        )
        self._others_at_work = self._others_at_work or run.store.others_appended(
            DETECTIONS, self._first_version, run.run_id
        )
        # Quarantine last: a run that dies before it finds the image still to do.
        record_outcomes(outcomes, STAGE, run)


def run_detector(images: DataFrame, job: DetectJob) -> DataFrame:
    """A row per image and view: detections, or the fault. Paths go to the workers, never pixels."""
    worker = partial(
        _detect_on_gpu,
        detector=job.detector,
        run=job.settings,
        max_pixels=job.max_pixels,
        model_id=job.card.model_id,
    )
    return images.select(*WORK_COLUMNS).mapInArrow(
        worker, from_arrow_schema(DETECT_SCHEMA), profile=gpu_profile(job.settings.gpus_per_task)
    )


def _detect_on_gpu(
    batches: Iterator[pa.RecordBatch],
    detector: DetectorSettings,
    run: DetectSettings,
    max_pixels: int,
    model_id: str,
) -> Iterator[pa.RecordBatch]:
    return detect_batches(batches, detector, run, max_pixels, model_id, gpu=task_gpu())
