"""What every part of a report is gathered from."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.models import Model
from pipelines.run import Run
from schemas.tables import HARDNESS, IMAGES


@dataclass(frozen=True)
class ReportSource:
    """The tables of a run, seen for one cycle and model."""

    run: Run
    cycle_id: str
    model: Model
    settings: Settings

    @property
    def hardness(self) -> DataFrame:
        """The model's rows of `hardness`."""
        return self.run.store.read(HARDNESS).where(F.col("model_id") == self.model.model_id)

    @property
    def estimates(self) -> DataFrame:
        """Score sampling of the settings' queries, with the true hardness and path beside it."""
        rows = self.hardness.where(F.col("query").isin(*self.settings.score.queries))
        truth = rows.where("method = 'ground_truth'").select(
            "image_id", "query", F.col("hardness").alias("truth")
        )
        images = self.run.store.read(IMAGES).select("image_id", "path")
        estimated = rows.where(F.col("method") == self.settings.score.estimator)
        return estimated.join(truth, ["image_id", "query"], "left").join(images, "image_id")
