"""From all tables to one HTML page: bounded extracts, pictures drawn on the workers, the page published."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import Settings
from pipelines.evaluate import detection_matches, held_out_truth, ranking_pairs, reliability_bins
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score import BASELINE, score_request
from schemas.tables import (
    ACQUISITION,
    DETECTIONS,
    GROUND_TRUTH,
    HARDNESS,
    IMAGES,
    MANIFESTS,
    METRICS,
    QUARANTINE,
)
from udfs.box_pictures import PICTURE_SCHEMA, picture_batches
from udfs.detect import ORIGINAL_VIEW
from udfs.evaluate import CURVE_SCHEMA, IDEAL, curve_rows
from udfs.published_file import published
from udfs.report_page import (
    CaseImage,
    CurvePanel,
    CycleReport,
    HardnessCurve,
    Histogram,
    ManifestFile,
    MethodTable,
    QuarantineRow,
    QuerySection,
    Reliability,
    ReportCounts,
    SelectionArm,
    SqlExample,
    render_report,
)

HISTOGRAM_BINS = 24
MOST_QUARANTINE_ROWS = 200
PICKS_SHOWN = 6
METHOD_ORDER = (
    "score_sampling",
    "score_sampling_mc",
    "entropy",
    "dempster_shafer",
    "max_uncertainty",
    "random",
)
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
METRIC_TITLES = {"ndcg": "nDCG", "mauc": "mAUC"}


@dataclass(frozen=True)
class Gather:
    """What every part of the report is gathered from."""

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


def write_report(run: Run, cycle_id: str, model: Model, settings: Settings) -> str:
    """Writes the report of a cycle.

    Args:
        run: The run.
        cycle_id: The cycle.
        model: Its detector.
        settings: All settings; they are shown.

    Returns:
        Path of the HTML file.
    """
    gather = Gather(run, cycle_id, model, settings)
    path = settings.report.path or f"{run.store.root.rstrip('/')}/reports/{cycle_id}.html"
    queries = query_sections(gather)
    selection = selection_arms(gather)
    shown = {case.image_id for query in queries for case in (*query.hardest, *query.easiest)}
    shown |= {case.image_id for arm in selection for case in arm.cases}
    has_truth = not run.store.read(GROUND_TRUTH).isEmpty()
    pictures = picture_rows(gather, shown)
    report = CycleReport(
        cycle_id=cycle_id,
        model=f"{model.name} ({model.model_id})",
        dataset=dataset_line(gather),
        created=datetime.datetime.fromtimestamp(run.started_s, datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M UTC"
        ),
        counts=report_counts(gather),
        eta=settings.score.eta,
        queries=queries,
        pictures={row.image_id: bytes(row.jpeg) for row in pictures if row.jpeg is not None},
        missing_pictures={row.image_id: row.error for row in pictures if row.error is not None},
        curves=curve_panels(gather) if has_truth else (),
        tables=method_tables(gather),
        reliability=reliability(gather) if has_truth else None,
        selection=selection,
        manifests=manifest_files(gather),
        quarantine=quarantine_rows(gather),
        settings=tuple(_flat(settings.model_dump(mode="json"))),
        sql=sql_examples(settings),
        truth_hint=f"quarry import_labels --root {run.store.root} --labels coco.json, then quarry evaluate",
        pictures_show_truth=has_truth,
    )
    with published(path) as stream:
        stream.write(render_report(report))
    return path


def dataset_line(gather: Gather) -> str:
    """Names of the datasets in the lake, the largest first."""
    rows = (
        gather.run.store.read(IMAGES).groupBy("dataset").count().orderBy(F.desc("count"), "dataset").limit(4)
    )
    return ", ".join(f"{row.dataset} ({row['count']:,})" for row in rows.collect())


def report_counts(gather: Gather) -> ReportCounts:
    """The numbers in the header."""
    store = gather.run.store
    detections = store.read(DETECTIONS).where(F.col("model_id") == gather.model.model_id)
    boxes = detections.agg(F.coalesce(F.sum("n_detections"), F.lit(0)).alias("n")).first()
    selected = store.read(ACQUISITION).where(F.col("cycle_id") == gather.cycle_id)
    assert boxes is not None
    return ReportCounts(
        n_images=store.read(IMAGES).count(),
        n_detections=int(boxes.n),
        n_quarantined=store.read(QUARANTINE).where("NOT resolved").count(),
        n_labeled=store.read(GROUND_TRUTH).where("complete AND split <> 'train'").count() or None,
        n_selected=selected.select("image_id").distinct().count() or None,
    )


def query_sections(gather: Gather) -> tuple[QuerySection, ...]:
    """Hardest and easiest images and the distribution of every query; the acquired query comes first."""
    settings = gather.settings
    hardest = first_images(gather.estimates, F.desc("hardness"), settings.report.hardest)
    easiest = first_images(gather.estimates, F.asc("hardness"), settings.report.easiest)
    n_images = {row["query"]: row["count"] for row in gather.estimates.groupBy("query").count().collect()}
    histograms = query_histograms(gather)
    return tuple(
        QuerySection(
            name=query,
            title=query_text(query)[0],
            description=query_text(query)[1],
            hardest=tuple(_case(row, row.place) for row in hardest[query]),
            easiest=tuple(_case(row, n_images[query] - row.place + 1) for row in easiest[query]),
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


def query_histograms(gather: Gather) -> dict[str, Histogram]:
    """Images per bin of hardness, HISTOGRAM_BINS bins from 0 to the largest value."""
    rows = gather.estimates
    widest = rows.groupBy("query").agg(F.max("hardness").alias("top"))
    share = F.when(F.col("top") > 0, F.col("hardness") / F.col("top")).otherwise(0.0)
    index = F.least(F.floor(share * HISTOGRAM_BINS), F.lit(HISTOGRAM_BINS - 1)).cast("int")
    counted = (
        rows.join(F.broadcast(widest), "query").groupBy("query", "top", index.alias("bin")).count().collect()
    )
    histograms = {}
    for query in {row["query"] for row in counted}:
        counts = {row.bin: row["count"] for row in counted if row["query"] == query}
        top = next(row.top for row in counted if row["query"] == query) or 1.0
        edges = tuple(top * i / HISTOGRAM_BINS for i in range(HISTOGRAM_BINS + 1))
        histograms[query] = Histogram(
            edges=edges, counts=tuple(counts.get(i, 0) for i in range(HISTOGRAM_BINS))
        )
    return histograms


def picture_rows(gather: Gather, image_ids: Iterable[str]) -> list[Row]:
    """JPEGs with boxes of the images shown, drawn on the workers; bounded by what one page shows."""
    store, settings = gather.run.store, gather.settings
    wanted = store.session.createDataFrame([(i,) for i in sorted(image_ids)], "image_id STRING")
    detections = store.read(DETECTIONS).where(
        (F.col("model_id") == gather.model.model_id) & (F.col("view") == ORIGINAL_VIEW)
    )
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


def curve_panels(gather: Gather) -> tuple[CurvePanel, ...]:
    """Cumulative hardness curves of every query: each method, and the ideal ranking."""
    scoring = gather.settings.score
    queries = scoring.queries
    truth = held_out_truth(gather.run, gather.model)
    pairs = ranking_pairs(gather.run, truth, gather.model, scoring, gather.settings.seed)
    ideal = pairs.where("method = 'random'").withColumns({"method": F.lit(IDEAL), "estimate": F.col("truth")})

    def curve_group(table: pa.Table) -> pa.Table:
        return curve_rows(table)

    curves = (
        pairs.unionByName(ideal)
        .groupBy("query", "method")
        .applyInArrow(curve_group, from_arrow_schema(CURVE_SCHEMA))
    )
    rows = curves.collect()
    order = {name: i for i, name in enumerate((*METHOD_ORDER, IDEAL))}
    panels = []
    for query in queries:
        mine = sorted(
            (r for r in rows if r["query"] == query), key=lambda r: (order.get(r.method, 99), r.method)
        )
        lines = tuple(
            HardnessCurve(method=r.method, budget=tuple(r.budget), found=tuple(r.found)) for r in mine
        )
        if lines:
            panels.append(CurvePanel(query=query, curves=lines))
    return tuple(panels)


def method_tables(gather: Gather) -> tuple[MethodTable, ...]:
    """nDCG and mAUC of every query and method."""
    metrics = gather.run.store.read(METRICS).where(
        (F.col("cycle_id") == gather.cycle_id) & (F.col("model_id") == gather.model.model_id)
    )
    rows = (
        metrics.where(F.col("metric").isin(*METRIC_TITLES))
        .select("metric", "query", "method", "value")
        .collect()
    )
    tables = []
    for metric, title in METRIC_TITLES.items():
        values = {(r["query"], r.method): r.value for r in rows if r.metric == metric}
        methods = sorted(
            {m for _, m in values}, key=lambda m: (METHOD_ORDER.index(m) if m in METHOD_ORDER else 99, m)
        )
        queries = tuple(q for q in gather.settings.score.queries if any((q, m) in values for m in methods))
        if queries:
            grid = tuple(tuple(values.get((q, m)) for m in methods) for q in queries)
            tables.append(MethodTable(metric=title, queries=queries, methods=tuple(methods), values=grid))
    return tuple(tables)


def reliability(gather: Gather) -> Reliability | None:
    """The reliability diagram of the detector's scores."""
    settings = gather.settings
    request = score_request(gather.model, settings.score, settings.seed)
    matches = held_out_truth(gather.run, gather.model).transform(detection_matches, request)
    rows = matches.transform(reliability_bins, settings.evaluate.calibration_bins).collect()
    total = sum(row.n for row in rows)
    if not total:
        return None
    return Reliability(
        scores=tuple(row.mean_score for row in rows),
        precisions=tuple(row.precision for row in rows),
        counts=tuple(row.n for row in rows),
        ece=sum(abs(row.precision - row.mean_score) * row.n for row in rows) / total,
    )


def selection_arms(gather: Gather) -> tuple[SelectionArm, ...]:
    """What each strategy picked, with its mean estimated and true hardness."""
    query = gather.settings.acquire.query
    picked = gather.run.store.read(ACQUISITION).where(F.col("cycle_id") == gather.cycle_id)
    detail = picked.join(gather.estimates.where(F.col("query") == query).drop("query"), "image_id", "left")
    n_boxes = gather.run.store.read(MANIFESTS).where(F.col("cycle_id") == gather.cycle_id)
    boxes = {r.strategy: r.n for r in n_boxes.groupBy("strategy").agg(F.max("n_boxes").alias("n")).collect()}
    arms = (
        detail.groupBy("strategy")
        .agg(F.count("*").alias("n"), F.avg("hardness").alias("mean"), F.avg("truth").alias("truth"))
        .orderBy("strategy")
        .collect()
    )
    first = (
        detail.where(F.col("rank") <= PICKS_SHOWN)
        .where("hardness IS NOT NULL")
        .orderBy("strategy", "rank")
        .collect()
    )
    return tuple(
        SelectionArm(
            name=arm.strategy,
            n_images=arm.n,
            n_boxes=boxes.get(arm.strategy, 0),
            mean_hardness=arm["mean"],
            truth_hardness=arm.truth,
            is_control=arm.strategy == "random",
            cases=tuple(_case(row, row["rank"]) for row in first if row.strategy == arm.strategy),
        )
        for arm in arms
    )


def manifest_files(gather: Gather) -> tuple[ManifestFile, ...]:
    """Files written for labeling tools."""
    rows = (
        gather.run.store.read(MANIFESTS)
        .where(F.col("cycle_id") == gather.cycle_id)
        .orderBy("vendor", "strategy")
    )
    return tuple(
        ManifestFile(vendor=row.vendor, path=row.path, n_images=row.n_images, n_boxes=row.n_boxes)
        for row in rows.collect()
    )


def quarantine_rows(gather: Gather) -> tuple[QuarantineRow, ...]:
    """Images nobody could use, the latest first, at most MOST_QUARANTINE_ROWS."""
    store = gather.run.store
    rows = (
        store.read(QUARANTINE)
        .where("NOT resolved")
        .join(store.read(IMAGES).select("image_id", "path"), "image_id")
    )
    rows = rows.orderBy(F.desc("last_ts"), "path").limit(MOST_QUARANTINE_ROWS)
    return tuple(
        QuarantineRow(path=r.path, stage=r.stage, reason=f"{r.error_class}: {r.message}", attempts=r.attempts)
        for r in rows.collect()
    )


def sql_examples(settings: Settings) -> tuple[SqlExample, ...]:
    """Statements that work on the tables of this report, through `quarry sql`."""
    query = settings.acquire.query
    method = BASELINE if query in settings.score.baselines else settings.score.estimator
    return (
        SqlExample(
            title="The hardest images of a query, where they are",
            sql=(
                "SELECT path, round(hardness, 4) AS hardness FROM hardness JOIN images USING (image_id) "
                f"WHERE query = '{query}' AND method = '{method}' "
                "ORDER BY hardness DESC LIMIT 10"
            ),
        ),
        SqlExample(
            title="Mean hardness by dataset",
            sql=(
                f"SELECT dataset, count(*) AS images, round(avg({query}), 4) AS mean_hardness "
                "FROM hardness_wide JOIN images USING (image_id) "
                "GROUP BY dataset ORDER BY mean_hardness DESC"
            ),
        ),
        SqlExample(
            title="Why images are in quarantine",
            sql=(
                "SELECT stage, error_class, count(*) AS images FROM quarantine "
                "WHERE NOT resolved GROUP BY ALL"
            ),
        ),
    )


def _case(row: Row, rank: int) -> CaseImage:
    return CaseImage(
        image_id=row.image_id, rank=rank, hardness=row.hardness, path=row.path, truth_hardness=row.truth
    )


def _flat(values: dict[str, Any], prefix: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, (*prefix, key))
        else:
            yield ".".join((*prefix, key)), str(value)
