"""What every part of a report is gathered from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.hardness_rows import BASELINE, query_hash_meant, since_detection
from pipelines.models import Model
from pipelines.run import Run
from schemas.tables import HARDNESS, IMAGES


@dataclass(frozen=True)
class ReportSource:
    """The tables of a run, seen for one cycle and model; closed when the report is made."""

    run: Run
    cycle_id: str
    model: Model
    settings: Settings

    @property
    def hardness(self) -> DataFrame:
        """The model's rows of `hardness` that mean what the settings ask for, and are not out of date."""
        rows = self.run.store.read(HARDNESS).where(F.col("model_id") == self.model.model_id)
        rows = rows.where(F.col("query_hash") == query_hash_meant(self.settings.score))
        return rows.transform(since_detection, self.run, self.model.model_id)

    @cached_property
    def estimates(self) -> DataFrame:
        """What ranks images for the settings' queries, with the true hardness and path beside it.

        So does a baseline that `acquire.query` names, such as entropy or pixel divergence.
        Most parts of a report begin with them: they are joined once and kept on the executors' disks.
        """
        queries = self.settings.score.queries
        is_baseline = (F.col("query") == self.settings.acquire.query) & (F.col("method") == BASELINE)
        rows = self.hardness.where(F.col("query").isin(*queries) | is_baseline)
        truth = rows.where("method = 'ground_truth'").select(
            "image_id", "query", F.col("hardness").alias("truth")
        )
        images = self.run.store.read(IMAGES).select("image_id", "path")
        is_ranking = F.col("query").isin(*queries) & (F.col("method") == self.settings.ranking_method)
        estimated = rows.where(is_ranking | is_baseline)
        rows = estimated.join(truth, ["image_id", "query"], "left").join(images, "image_id")
        return rows.persist(StorageLevel.DISK_ONLY)

    def close(self) -> None:
        """Frees the disks."""
        if "estimates" in vars(self):
            self.estimates.unpersist()
