"""Where a detection run's time went: rows of `metrics`."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.local_frame import local_frame
from pipelines.run import Run
from pipelines.tables import spark_schema, sql_literal
from schemas.tables import METRICS
from udfs.detection_rows import TIMINGS
from udfs.image_files import TRANSIENT_FAULTS
from udfs.metric_rows import ALL_CLASSES

DETECT = "detect"
SHORTEST_TOLD_S = 0.05


class DetectMetrics:
    """Adds up what the chunks of a run report.

    Attributes:
        detected: Images with detections in all views.
        quarantined: Images that failed.
        boxes: Detections.
        busy_s: Wall time of the chunks' inference (s).
        write_s: Wall time of the commits (s).
        last_write_s: Wall time of the latest commit (s).
        last_tried: Images of the latest chunk.
        last_unreached: Of these, images whose store did not answer.
    """

    def __init__(self) -> None:
        self.detected = self.quarantined = self.boxes = 0
        self.last_tried = self.last_unreached = 0
        self.busy_s = self.write_s = self.last_write_s = 0.0
        self._worker_s = dict.fromkeys(TIMINGS, 0.0)
        self._gpu_percents = [0.0, 0.0]

    def add(self, outcomes: DataFrame) -> None:
        """Counts one chunk's outcomes, which computes them."""
        sums = {name: F.coalesce(F.sum(name), F.lit(0.0)) for name in TIMINGS}
        sums |= {
            "tried": F.count_distinct("image_id"),
            "unreached": F.count_if(F.col("error_class").isin(*TRANSIENT_FAULTS)),
            "quarantined": F.count_distinct(F.when(F.col("error_class").isNotNull(), F.col("image_id"))),
            "boxes": F.coalesce(F.sum("n_detections"), F.lit(0)),
            "gpu_sum": F.coalesce(F.sum("gpu_percent"), F.lit(0.0)),
            "gpu_n": F.count("gpu_percent"),
        }
        row = outcomes.agg(*(column.alias(name) for name, column in sums.items())).first()
        assert row is not None
        self.detected += row.tried - row.quarantined
        self.quarantined += row.quarantined
        self.boxes += row.boxes
        for name in TIMINGS:
            self._worker_s[name] += row[name] / 1000
        self._gpu_percents = [self._gpu_percents[0] + row.gpu_sum, self._gpu_percents[1] + row.gpu_n]
        self.last_tried, self.last_unreached = row.tried, row.unreached

    def add_times(self, *, busy_s: float, write_s: float) -> None:
        """Charges a chunk's wall time (s)."""
        self.busy_s += busy_s
        self.write_s += write_s
        self.last_write_s = write_s

    @property
    def images(self) -> int:
        """Images tried."""
        return self.detected + self.quarantined

    def values(self) -> dict[str, float | None]:
        """Metric to value; seconds of stages are summed over workers, those of readers included."""
        total_s = self.busy_s + self.write_s
        busy, n = self._gpu_percents
        return {
            "images_per_s": self.images / total_s if total_s else None,
            **{name.removesuffix("_ms") + "_s": seconds for name, seconds in self._worker_s.items()},
            "write_s": self.write_s,
            "detect_s": total_s,
            "gpu_percent": busy / n if n else None,
        }

    def line(self) -> str:
        """One line for the user."""
        values = self.values()
        told = [
            f"{name.removesuffix('_ms')} {seconds:.1f}"
            for name, seconds in self._worker_s.items()
            if seconds >= SHORTEST_TOLD_S
        ]
        gpu = "" if values["gpu_percent"] is None else f"; GPU {values['gpu_percent']:.0f} % busy"
        return (
            f"{values['images_per_s'] or 0:.1f} images/s; worker seconds: {', '.join(told)}; "
            f"commits {self.write_s:.1f} s{gpu}"
        )

    def write(self, run: Run, cycle_id: str, model_id: str) -> None:
        """Puts the figures into `metrics`; a later run of the same cycle and model replaces them."""
        rows = [
            (cycle_id, model_id, metric, ALL_CLASSES, DETECT, value, None, None, self.images)
            for metric, value in self.values().items()
        ]
        frame = local_frame(run.store.session, rows, spark_schema(METRICS))
        key = {"cycle_id": cycle_id, "model_id": model_id, "method": DETECT}
        where = " AND ".join(f"{column} = {sql_literal(value)}" for column, value in key.items())
        run.store.replace(METRICS, frame, where=where)
