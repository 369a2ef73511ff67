"""The hardest and the easiest images of every query, with their pictures, and how hardness is distributed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import partial

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from pipelines.local_frame import local_frame
from pipelines.report_source import ReportSource
from pipelines.score_inputs import detections_of
from schemas.tables import GROUND_TRUTH, IMAGES
from udfs.box_pictures import PICTURE_SCHEMA, picture_batches
from udfs.report_content import CaseImage, Histogram, QuerySection

HISTOGRAM_BINS = 24
MEASURES = {
    "total": ("Total", "counted one by one"),
    "pixel_adj": ("Area", "weighted by their share of the image"),
    "occ_aware": ("Occluded", "weighted by how much they overlap objects that were found"),
}
ERRORS = {
    "fp": ("false positives", "Detections of objects that are not there"),
    "fn": ("missed objects", "Objects that the detector did not report"),
    "false": ("all errors", "False positives and missed objects together"),
}


def query_sections(source: ReportSource) -> tuple[QuerySection, ...]:
    """Hardest and easiest images and the distribution of every query; the acquired query comes first."""
    settings = source.settings
    hardest = first_images(source.estimates, F.desc("hardness"), settings.report.hardest)
    easiest = first_images(source.estimates, F.asc("hardness"), settings.report.easiest)
    n_images = {row["query"]: row["count"] for row in source.estimates.groupBy("query").count().collect()}
    histograms = query_histograms(source)
    return tuple(
        QuerySection(
            name=query,
            title=query_text(query)[0],
            description=query_text(query)[1],
            hardest=tuple(case_image(row, row.place) for row in hardest[query]),
            easiest=tuple(case_image(row, n_images[query] - row.place + 1) for row in easiest[query]),
            histogram=histograms.get(query),
        )
        for query in sorted(settings.score.queries, key=lambda name: name != settings.acquire.query)
    )


def first_images(estimates: DataFrame, order: Column, n: int) -> dict[str, list[Row]]:
    """The first `n` images of every query; each partition sends its own first `n` only."""
    place = F.row_number().over(Window.partitionBy("query").orderBy(order, F.xxhash64("image_id")))
    rows = estimates.withColumn("place", place).where(F.col("place") <= n).collect()
    found: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda one: int(one.place)):
        found[row["query"]].append(row)
    return found


def query_text(query: str) -> tuple[str, str]:
    """A query's title and one sentence on what it measures; a query of the user's own keeps its name."""
    measure, _, errors = query.rpartition("_")
    if measure not in MEASURES or errors not in ERRORS:
        return query, ""
    title, weighting = MEASURES[measure]
    kind, sentence = ERRORS[errors]
    return f"{title}: {kind}", f"{sentence}, {weighting}."


def query_histograms(source: ReportSource) -> dict[str, Histogram]:
    """Images per bin of estimated and true hardness, HISTOGRAM_BINS bins from 0 to the largest value."""
    kinds = F.array(
        F.struct(F.lit(False).alias("is_truth"), F.col("hardness").alias("value")),
        F.struct(F.lit(True).alias("is_truth"), F.col("truth").alias("value")),
    )
    rows = source.estimates.select("query", F.inline(kinds)).where("value IS NOT NULL")
    widest = rows.groupBy("query").agg(F.max("value").alias("top"))
    share = F.when(F.col("top") > 0, F.col("value") / F.col("top")).otherwise(0.0)
    index = F.least(F.floor(share * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int").alias("bin")
    groups = rows.join(F.broadcast(widest), "query").groupBy("query", "top", "is_truth", index)
    counted = groups.count().collect()
    found = {(row["query"], row.is_truth, row.bin): row["count"] for row in counted}
    histograms = {}
    for query, top in {row["query"]: row.top or 1.0 for row in counted}.items():
        counts_of = {
            is_truth: tuple(found.get((query, is_truth, i), 0) for i in range(HISTOGRAM_BINS))
            for is_truth in (False, True)
        }
        histograms[query] = Histogram(
            edges=tuple(top * i / HISTOGRAM_BINS for i in range(HISTOGRAM_BINS + 1)),
            counts=counts_of[False],
            truth_counts=counts_of[True] if any(counts_of[True]) else (),
        )
    return histograms


def picture_rows(source: ReportSource, image_ids: Iterable[str]) -> list[Row]:
    """JPEGs with boxes of the images shown, drawn on the workers; bounded by what one page shows."""
    store, settings = source.run.store, source.settings
    shown = [(image_id,) for image_id in sorted(image_ids)]
    if not shown:  # perhaps nothing was detected yet
        return []
    wanted = local_frame(store.session, shown, "image_id STRING")
    detections = detections_of(source.run, source.model)
    rows = wanted.join(store.read(IMAGES).select("image_id", "uri"), "image_id")
    rows = rows.join(detections.select("image_id", "detections"), "image_id")
    truth = store.read(GROUND_TRUTH).select("image_id", F.col("boxes").alias("truths"))
    rows = rows.join(truth, "image_id", "left")
    draw = partial(
        picture_batches,
        width_px=settings.report.thumbnail_px,
        eta=settings.score.eta,
        max_pixels=settings.lake.max_pixels,
    )
    tasks = store.session.sparkContext.defaultParallelism
    return rows.repartition(tasks).mapInArrow(draw, from_arrow_schema(PICTURE_SCHEMA)).collect()


def case_image(row: Row, rank: int) -> CaseImage:
    """A row of `ReportSource.estimates` as the report shows it."""
    return CaseImage(
        image_id=row.image_id, rank=rank, hardness=row.hardness, path=row.path, truth_hardness=row.truth
    )
