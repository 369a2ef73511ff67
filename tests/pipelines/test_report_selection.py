"""What the report says that a budget buys, on made-up picks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines.hardness_rows import query_digest
from pipelines.models import Model
from pipelines.report_queries import picture_rows
from pipelines.report_selection import manifest_folders, selection_arms
from pipelines.report_source import ReportSource
from pipelines.report_spending import spending_curves
from pipelines.run import Run
from pipelines.tables import TableStore, spark_schema
from schemas.table import Table
from schemas.tables import ACQUISITION, DETECTIONS, HARDNESS, IMAGES, MANIFESTS, METRICS
from tests.small_lake import detections_row

QUERY = "pixel_adj_false"
ESTIMATES = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
TRUTH = {"a": 1.0, "b": 7.0, "c": 0.0, "d": 2.0}
HOUR_S = 3600.0


def write(run: Run, table: Table, given: list[dict[str, Any]], *times: str, **columns: Column) -> None:
    """Rows of a table: what is not given is null, empty text or 0; the times are now."""
    columns |= {name: F.current_timestamp() for name in times}
    zeros = {"STRING": "", "INT": 0, "BIGINT": 0, "DOUBLE": 0.0}
    blank = {c.name: zeros.get(c.ddl_type) for c in table.columns if not c.nullable and c.ddl_type in zeros}
    frame = run.store.session.createDataFrame(
        [
            {c.name: (blank | row).get(c.name) for c in table.columns if c.name not in columns}
            for row in given
        ],
        _without(table, *columns),
    )
    run.store.merge(table, frame.withColumns(columns))


def _without(table: Table, *names: str) -> Any:
    schema = spark_schema(table)
    return type(schema)([field for field in schema.fields if field.name not in names])


def write_hardness(run: Run, method: str, values: dict[str, float], query: str = QUERY) -> None:
    row = {"model_id": "m", "query": query, "method": method, "estimator": method}
    rows = [row | {"image_id": image_id, "hardness": value} for image_id, value in values.items()]
    digest = query_digest(Settings().score, is_baseline=method == "baseline")
    write(run, HARDNESS, rows, "ts", query_hash=digest)


def pick(strategy: str, rank: int, image_id: str, box: str | None = None) -> dict[str, Any]:
    """Images take an hour, boxes a half; an hour costs 8."""
    cost_s = HOUR_S if box is None else HOUR_S / 2
    return {
        "cycle_id": "c",
        "strategy": strategy,
        "unit": "image" if box is None else "box",
        "rank": rank,
        "image_id": image_id,
        "detection_id": box,
        "cost_s": cost_s,
        "cost_money": 8 * cost_s / HOUR_S,
    }


@pytest.fixture
def source(session: SparkSession, tmp_path: Path) -> ReportSource:
    run = Run(store=TableStore(session, str(tmp_path)))
    images = [{"image_id": i, "partitions": {}, "path": i} for i in ESTIMATES]
    write(run, IMAGES, images, "ingest_ts")
    seen = [detections_row(image_id=i, model_id="m") for i in ESTIMATES]
    write(run, DETECTIONS, seen, "ts")
    write_hardness(run, "exact", ESTIMATES)
    picks = [pick("whole", 1, "a"), pick("whole", 2, "d")]
    picks += [pick("boxes", rank, image, f"{image}{rank}") for rank, image in enumerate("bbc", start=1)]
    write(run, ACQUISITION, picks)
    model = Model(model_id="m", name="m", head="softmax", classes={1: "car"})
    return ReportSource(run, "c", model, Settings())


def test_curves_rise_by_the_hardness_of_images_each_counted_once(source: ReportSource) -> None:
    boxes, whole = spending_curves(source)
    assert (whole.strategy, whole.query, whole.is_truth) == ("whole", QUERY, False)
    assert (whole.cost_h, whole.captured) == ((0.0, 1.0, 2.0), (0.0, 0.4, 0.5))
    assert (boxes.cost_h, boxes.captured) == ((0.0, 0.5, 1.0, 1.5), (0.0, 0.3, 0.3, 0.5))


def test_what_a_baseline_ranked_is_measured_by_that_baseline(source: ReportSource) -> None:
    write_hardness(source.run, "baseline", {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, "entropy")
    acquire = source.settings.acquire.model_copy(update={"query": "entropy"})
    settings = source.settings.model_copy(update={"acquire": acquire})
    asked = ReportSource(source.run, "c", source.model, settings)
    boxes, whole = spending_curves(asked)
    assert (whole.query, whole.captured) == ("entropy", (0.0, 0.1, 0.5))
    assert boxes.captured[-1] == 0.5


def test_truth_counts_where_all_images_have_it_and_not_before(source: ReportSource) -> None:
    few = {image: TRUTH[image] for image in "bc"}
    write_hardness(source.run, "ground_truth", few)
    assert [curve.captured[-1] for curve in spending_curves(source)] == [0.5, 0.5]
    write_hardness(source.run, "ground_truth", TRUTH)
    boxes, whole = spending_curves(source)
    assert whole.is_truth and whole.captured == (0.0, 0.1, 0.3)
    assert boxes.captured == (0.0, 0.7, 0.7, 0.7)


def test_a_budget_buys_images_boxes_hours_and_money(source: ReportSource) -> None:
    boxes, whole = selection_arms(source)
    assert (whole.n_images, whole.n_boxes, whole.cost_s, whole.cost_money) == (2, None, 2 * HOUR_S, 16.0)
    assert (boxes.n_images, boxes.n_boxes, boxes.cost_s, boxes.cost_money) == (2, 3, 1.5 * HOUR_S, 12.0)


def test_the_radius_of_k_center_stands_beside_its_bound(source: ReportSource) -> None:
    row = {"cycle_id": "c", "model_id": "m", "query": "whole", "method": "k_center", "n": 4}
    values = {"k_center_radius": 3.0, "k_center_lower_bound": 2.0}
    write(source.run, METRICS, [row | {"metric": name, "value": value} for name, value in values.items()])
    boxes, whole = selection_arms(source)
    assert (whole.radius, whole.least_radius, boxes.radius) == (3.0, 2.0, None)


def test_files_of_one_format_and_strategy_are_one_row(source: ReportSource) -> None:
    names = ("cycle_id", "strategy", "vendor", "path", "n_tasks", "n_boxes")
    files = [
        ("c", "whole", vendor, f"s3://b/c/whole.{vendor}/tasks-{number}.json", number, 10)
        for vendor in ("coco", "scale")
        for number in (1, 2, 3)
    ]
    files += [("c", "random", "coco", "s3://b/c/random.coco/tasks-1.json", 4, 0)]
    files += [("other", "whole", "coco", "s3://b/other/whole.coco/tasks-1.json", 9, 9)]
    write(source.run, MANIFESTS, [dict(zip(names, file, strict=True)) for file in files], "ts")
    assert [tuple(vars(folder).values()) for folder in manifest_folders(source)] == [
        ("coco", "random", "s3://b/c/random.coco", 1, 4, 0),
        ("coco", "whole", "s3://b/c/whole.coco", 3, 6, 30),
        ("scale", "whole", "s3://b/c/whole.scale", 3, 6, 30),
    ]
    boxes, whole = selection_arms(source)
    assert (boxes.n_boxes, whole.n_boxes) == (3, 30), "two formats hold the same boxes"


def test_before_any_detection_a_report_has_no_pictures(source: ReportSource) -> None:
    assert picture_rows(source, ()) == []
