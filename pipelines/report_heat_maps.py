"""The images on which a detector contradicts itself most, with heat maps drawn on the workers."""

from __future__ import annotations

from functools import partial

from pydantic import ValidationError
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import DetectorSettings
from pipelines.hardness_rows import BASELINE
from pipelines.local_frame import local_frame
from pipelines.report_queries import case_image, first_images
from pipelines.report_source import ReportSource
from schemas.tables import IMAGES, MODELS
from udfs.box_pictures import PICTURE_SCHEMA
from udfs.heat_maps import heat_map_batches
from udfs.report_content import HeatMaps

DIVERGENCE = "pixel_divergence"
HEAT_MAPS_SHOWN = 4


def heat_maps(source: ReportSource) -> HeatMaps | None:
    """The images with the largest pixel divergence; none where the model's images were not scored so."""
    scored = source.hardness.where((F.col("query") == DIVERGENCE) & (F.col("method") == BASELINE))
    images = source.run.store.read(IMAGES).select("image_id", "path", "uri")
    scored = scored.join(images, "image_id").withColumn("truth", F.lit(None).cast("double"))
    rows = first_images(scored, F.desc("hardness"), HEAT_MAPS_SHOWN)[DIVERGENCE]
    detector = adapter_settings(source) if rows else None
    if detector is None:
        return None
    session = source.run.store.session
    wanted = local_frame(session, [(row.image_id, row.uri) for row in rows], "image_id STRING, uri STRING")
    draw = partial(
        heat_map_batches,
        detector=detector,
        model_id=source.model.model_id,
        name=DIVERGENCE,
        width_px=source.settings.report.thumbnail_px,
        max_pixels=source.settings.lake.max_pixels,
    )
    tasks = session.sparkContext.defaultParallelism
    drawn = wanted.repartition(tasks).mapInArrow(draw, from_arrow_schema(PICTURE_SCHEMA)).collect()
    return HeatMaps(
        cases=tuple(case_image(row, row.place) for row in rows),
        region_px=detector.pixel_region,
        pictures={row.image_id: bytes(row.jpeg) for row in drawn if row.jpeg is not None},
        missing={row.image_id: row.error for row in drawn if row.error is not None},
    )


def adapter_settings(source: ReportSource) -> DetectorSettings | None:
    """The settings the model was registered with; none where they are not this Quarry's, as of imports."""
    rows = source.run.store.read(MODELS).where(F.col("model_id") == source.model.model_id).collect()
    try:
        return DetectorSettings.model_validate_json(rows[0].settings) if rows else None
    except ValidationError:
        return None
