"""From all tables to one HTML page: bounded extracts, pictures drawn on the workers, the page published."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from pyspark.sql import functions as F

from conf.errors import QuarryError, nearest
from conf.settings import NOT_KEPT, Settings
from pipelines.hardness_rows import BASELINE
from pipelines.models import Model
from pipelines.report_evaluation import curve_panels, read_evaluation
from pipelines.report_heat_maps import heat_maps
from pipelines.report_quality import quality_gates
from pipelines.report_queries import picture_rows, query_sections
from pipelines.report_selection import manifest_folders, quarantine_rows, selection_arms
from pipelines.report_source import ReportSource
from pipelines.report_spending import spending_curves
from pipelines.run import Run
from pipelines.tables import sql_literal
from schemas.tables import (
    ACQUISITION,
    CYCLES,
    DETECTIONS,
    GROUND_TRUTH,
    IMAGES,
    MANIFESTS,
    METRICS,
    QUARANTINE,
)
from udfs.published_file import published
from udfs.report_content import CycleReport, ReportCounts, SqlExample
from udfs.report_page import render_report


def write_report(run: Run, cycle_id: str, model: Model, settings: Settings) -> str:
    """Writes the report of a cycle.

    Args:
        run: The run.
        cycle_id: The cycle.
        model: Its detector.
        settings: All settings; they are shown.

    Returns:
        Path of the HTML file.

    Raises:
        QuarryError: No row of any table belongs to such a cycle, but to others.
    """
    require_known_cycle(run, cycle_id)
    path = settings.report.path or f"{run.store.root.rstrip('/')}/reports/{cycle_id}.html"
    with closing(ReportSource(run, cycle_id, model, settings)) as source, published(path) as stream:
        stream.write(render_report(cycle_report(source)))
    return path


def cycle_report(source: ReportSource) -> CycleReport:
    """Everything the page shows."""
    run, model, settings = source.run, source.model, source.settings
    queries = query_sections(source)
    selection = selection_arms(source)
    shown = {case.image_id for query in queries for case in (*query.hardest, *query.easiest)}
    contradictions = heat_maps(source)
    shown |= {case.image_id for case in (contradictions.cases if contradictions else ())}
    shown |= {case.image_id for arm in selection for case in arm.cases}
    pictures = picture_rows(source, shown)
    evaluation = read_evaluation(run, source.cycle_id, model.model_id, settings.score)
    started = datetime.datetime.fromtimestamp(run.started_s, datetime.timezone.utc)
    return CycleReport(
        cycle_id=source.cycle_id,
        model=f"{model.name} ({model.model_id})",
        dataset=dataset_line(source),
        created=started.strftime("%Y-%m-%d %H:%M UTC"),
        counts=report_counts(source),
        eta=settings.score.eta,
        queries=queries,
        pictures={row.image_id: bytes(row.jpeg) for row in pictures if row.jpeg is not None},
        missing_pictures={row.image_id: row.error for row in pictures if row.error is not None},
        heat_maps=contradictions,
        curves=curve_panels(source) if evaluation.tables else (),
        evaluation=evaluation,
        selection=selection,
        spending=spending_curves(source),
        manifests=manifest_folders(source),
        quarantine=quarantine_rows(source),
        quality=quality_gates(source),
        settings=tuple(_flat(settings.model_dump(mode="json", exclude=NOT_KEPT))),
        sql=sql_examples(settings, model.model_id),
        truth_hint=f"quarry import_labels --root {run.store.root} --labels coco.json, then quarry evaluate",
        pictures_show_truth=not run.store.read(GROUND_TRUTH).isEmpty(),
    )


def require_known_cycle(run: Run, cycle_id: str) -> None:
    """Fails when cycles left rows but none is called so; tables scored by hand have no cycle yet.

    Raises:
        QuarryError: Lists the known ones.
    """
    found: set[str] = set()
    for table in (CYCLES, METRICS, ACQUISITION, MANIFESTS, GROUND_TRUTH):
        found |= {row.cycle_id for row in run.store.read(table).select("cycle_id").distinct().collect()}
    if found and cycle_id not in found:
        raise QuarryError(f"no cycle {cycle_id!r} under {run.store.root}; {nearest(cycle_id, found)}")


def dataset_line(source: ReportSource) -> str:
    """Names of the datasets in the lake, the largest first."""
    rows = (
        source.run.store.read(IMAGES).groupBy("dataset").count().orderBy(F.desc("count"), "dataset").limit(4)
    )
    return ", ".join(f"{row.dataset} ({row['count']:,})" for row in rows.collect())


def report_counts(source: ReportSource) -> ReportCounts:
    """The numbers in the header."""
    store = source.run.store
    detections = store.read(DETECTIONS).where(F.col("model_id") == source.model.model_id)
    boxes = detections.agg(F.coalesce(F.sum("n_detections"), F.lit(0)).alias("n")).first()
    selected = store.read(ACQUISITION).where(F.col("cycle_id") == source.cycle_id)
    assert boxes is not None
    return ReportCounts(
        n_images=store.read(IMAGES).count(),
        n_detections=int(boxes.n),
        n_quarantined=store.read(QUARANTINE).where("NOT resolved").count(),
        n_labeled=store.read(GROUND_TRUTH).where("complete AND split <> 'train'").count() or None,
        n_selected=selected.select("image_id").distinct().count() or None,
    )


def sql_examples(settings: Settings, model_id: str) -> tuple[SqlExample, ...]:
    """Statements about a model that work on the tables of this report, through `quarry sql`."""
    of_model = f"model_id = {sql_literal(model_id)}"
    query = settings.acquire.query
    method = (
        BASELINE
        if query in (*settings.score.baselines, *settings.detector.pixel_scores)
        else settings.ranking_method
    )
    return (
        SqlExample(
            title="The hardest images of a query, where they are",
            sql=(
                "SELECT path, round(hardness, 4) AS hardness FROM hardness JOIN images USING (image_id) "
                f"WHERE query = {sql_literal(query)} AND method = {sql_literal(method)} AND {of_model} "
                "ORDER BY hardness DESC LIMIT 10"
            ),
        ),
        SqlExample(
            title="Mean hardness by dataset",
            sql=(
                f"SELECT dataset, count(*) AS images, round(avg({query}), 4) AS mean_hardness "
                f"FROM hardness_wide JOIN images USING (image_id) WHERE {of_model} "
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


def _flat(values: dict[str, Any], prefix: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, (*prefix, key))
        else:
            yield ".".join((*prefix, key)), str(value)
