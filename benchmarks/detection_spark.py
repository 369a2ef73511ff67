"""Detection through Spark, timed from the call of the pipeline to its last commit."""

from __future__ import annotations

import shutil
import time
from itertools import count
from pathlib import Path

from benchmarks.detection_loops import MAX_PIXELS, Bench
from conf.load import load_settings
from conf.settings import DetectSettings, LakeSettings
from jobs.session import build_session
from pipelines.detect import detect, known_detector
from pipelines.detect_chunks import DetectJob
from pipelines.ingest import ingest
from pipelines.run import Run
from pipelines.tables import TableStore
from schemas.tables import IMAGES

WARM_UP_RUNS = 3  # until Java has compiled what a run uses


class SparkPath:
    """A session with warm workers, and the images ingested; every measurement fills a root of its own.

    One worker process a core, each with one thread for the model, so that no more threads work than in the
    loops.

    Args:
        bench: What is compared.
        folder: With the images below `lake/images`.
    """

    def __init__(self, bench: Bench, folder: Path) -> None:
        spark = load_settings("demo").spark.model_copy(update={"master": f"local[{bench.threads}]"})
        self._session = build_session(spark, "benchmark detection")
        self._bench = bench
        self._folder = folder
        self._numbers = count()
        self._images = str(folder / "ingested")
        lake = LakeSettings(uri=str(folder / "lake" / "images"))
        if not Path(self._images).exists():
            ingest(Run(store=TableStore(self._session, self._images)), lake)
        on_gpu = bench.device.startswith("cuda")
        self._job = DetectJob(
            card=known_detector(bench.detector),
            detector=bench.detector,
            settings=DetectSettings(
                device="cuda" if on_gpu else "cpu",
                batch_size=bench.batch_size,
                threads=1,
                reader_threads=bench.readers if on_gpu else 1,
            ),
            max_pixels=MAX_PIXELS,
        )
        for _ in range(WARM_UP_RUNS):
            self.fixed_seconds()

    def seconds(self) -> float:
        """Wall time (s) of detecting all images: queue, inference, commits."""
        root = self._root()
        shutil.copytree(f"{self._images}/images", root / "images")
        return self._seconds(root, len(self._bench.uris))

    def fixed_seconds(self) -> float:
        """Wall time (s) of the same job with one image a worker: what does not grow with the lake."""
        root = self._root()
        few = TableStore(self._session, self._images).read(IMAGES).limit(self._bench.threads)
        TableStore(self._session, str(root)).merge(IMAGES, few)
        return self._seconds(root, self._bench.threads)

    def _root(self) -> Path:
        return self._folder / f"tables-{next(self._numbers)}"

    def _seconds(self, root: Path, n_images: int) -> float:
        start_s = time.perf_counter()
        counts = detect(Run(store=TableStore(self._session, str(root))), "benchmark", self._job)
        seconds = time.perf_counter() - start_s
        assert counts["detected"] == n_images, counts
        shutil.rmtree(root)
        return seconds
