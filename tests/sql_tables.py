"""A root of small hand-made tables with answers that can be worked out by hand."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from schemas.table import Table
from schemas.tables import (
    ACQUISITION,
    DETECTIONS,
    GROUND_TRUTH,
    GROUND_TRUTH_HISTORY,
    HARDNESS,
    IMAGES,
    MANIFESTS,
    MODELS,
    SENT_TASKS,
)
from tests.schemas.test_tables import arrow_type

# A query's name as someone hostile, or only careless, would choose it.
ODD_QUERY = 'it\'s "odd" \\ `x`; DROP TABLE images --'
Row = dict[str, Any]


def day(number: int) -> datetime:
    """A day of March 2026, UTC."""
    return datetime(2026, 3, number, tzinfo=timezone.utc)


def append(root: Path, table: Table, rows: list[Row], mode: str = "append") -> None:
    """Writes rows in one commit; required columns that they lack are empty, 0 or day 1."""
    fields = [pa.field(c.name, arrow_type(c.ddl_type), c.nullable) for c in table.columns]
    usual = {c.name: None if c.nullable else _USUAL.get(c.ddl_type) for c in table.columns}
    data = pa.Table.from_pylist([usual | row for row in rows], schema=pa.schema(fields))
    partitions = list(table.partition_by) or None
    # Delta's history, a year by default in our tables, must reach back to the days above.
    kept = {f"delta.{name}RetentionDuration": "interval 36500 days" for name in ("log", "deletedFile")}
    write_deltalake(f"{root}/{table.name}", data, mode=mode, partition_by=partitions, configuration=kept)


_USUAL = {"STRING": "", "INT": 0, "BIGINT": 0, "DOUBLE": 0.0, "BOOLEAN": False, "TIMESTAMP": day(1)}


def hardness_row(image: str, model: str, query: str, value: float, method: str = "exact") -> Row:
    """A row of `hardness`."""
    return {
        "image_id": image,
        "model_id": model,
        "query": query,
        "hardness": value,
        "method": method,
        "estimator": method,
    }


def write_tables(root: Path) -> None:
    """Five images of two datasets, two models, three versions of `hardness`, and cycle 3 half returned."""
    _write_images_and_models(root)
    _write_hardness(root)
    _write_boxes(root)
    _write_cycles(root)


def _write_images_and_models(root: Path) -> None:
    places = {
        "h1": ("harbor", 1),
        "h2": ("harbor", 1),
        "h3": ("harbor", 2),
        "t1": ("town", 2),
        "t2": ("town", 2),
    }
    images = [
        {
            "image_id": i,
            "path": f"{dataset}/{i}.jpg",
            "dataset": dataset,
            "partitions": [("date", f"2026-03-0{n}")],
        }
        for i, (dataset, n) in places.items()
    ]
    append(root, IMAGES, images)
    usual = {"classes": [(0, "car"), (1, "person")], "head": "softmax"}
    models = [{"model_id": "m1", "name": "street-1", "created_ts": day(1)}]
    models += [{"model_id": "m2", "name": "street-2", "created_ts": day(10)}]
    append(root, MODELS, [row | usual for row in models])


def _write_hardness(root: Path) -> None:
    misses = {"h1": 1.0, "h2": 2.0, "h3": 3.0, "t1": 4.0, "t2": 5.0}
    alarms = {"h1": 0.1, "h2": 0.2, "h3": 0.3, "t1": 0.4, "t2": 0.5}
    first = [hardness_row(i, "m1", "total_fn", value) for i, value in misses.items()]
    first += [hardness_row(i, "m1", "total_fp", value) for i, value in alarms.items()]
    append(root, HARDNESS, [{**first[0], "hardness": 0.5}, *first[1:]])
    append(root, HARDNESS, first, mode="overwrite")
    second = [
        hardness_row(i, "m2", "total_fn", v) for i, v in {"h1": 2.5, "h2": 0.7, "t1": 1.0, "t2": 1.5}.items()
    ]
    second += [hardness_row("h1", "m2", "total_fn", 9.0, "monte_carlo")]
    second += [hardness_row("h2", "m2", "total_fn", 7.0, "ground_truth")]
    second += [hardness_row("h1", "m2", ODD_QUERY, 6.0)]
    append(root, HARDNESS, second)
    for version, written in enumerate((day(1), day(8), day(11))):
        log = root / "hardness" / "_delta_log" / f"{version:020}.json"
        os.utime(log, (written.timestamp(), written.timestamp()))


def _box(name: str, x1: float, y1: float, x2: float, y2: float, **more: Any) -> Row:
    return {"label_name": name, "x1": x1, "y1": y1, "x2": x2, "y2": y2} | more


def _detections(image: str, model: str, boxes: list[Row], view: str = "original") -> Row:
    return {
        "image_id": image,
        "model_id": model,
        "view": view,
        "detections": boxes,
        "n_detections": len(boxes),
    }


def _write_boxes(root: Path) -> None:
    person = (20, 20, 30, 40)
    seen_on_h1 = [
        _box("car", 0, 0, 10, 8, score=0.9),  # IoU 0.8 with the car
        _box("car", 0, 0, 10, 10, score=0.3),
        _box("car", *person, score=0.95),  # another class
        _box("person", 20, 20, 30, 29, score=0.8),  # IoU 0.45
    ]
    seen_on_h2 = [
        _box("person", 0, 0, 10, 10, score=0.4),
        _box("car", 50, 50, 60, 55, score=0.6),
    ]  # IoU 1, 0.5
    rows = [_detections("h1", "m2", seen_on_h1), _detections("h2", "m2", seen_on_h2)]
    rows += [_detections("h1", "m2", [_box("person", *person, score=0.99)], view="hflip")]
    rows += [_detections("h1", "m1", []), _detections("t2", "m2", [])]
    append(root, DETECTIONS, rows)
    drawn = {"iscrowd": False, "status": "labeled"}
    on_h1 = [_box("car", 0, 0, 10, 10, **drawn), _box("person", *person, **drawn)]
    on_h1 += [_box("car", 60, 60, 90, 90, iscrowd=True, status="labeled")]
    on_h1 += [_box("car", 70, 0, 80, 10, iscrowd=False, status="background")]
    on_h2 = [_box("person", 0, 0, 10, 10, **drawn), _box("car", 50, 50, 60, 60, **drawn)]
    truth = [
        {"image_id": "h1", "boxes": on_h1, "cycle_id": "cycle-3"},
        {"image_id": "h2", "boxes": on_h2, "cycle_id": "cycle-3"},
    ]
    truth += [{"image_id": "t1", "boxes": [_box("car", 0, 0, 1, 1, **drawn)], "cycle_id": "cycle-2"}]
    rows = [{"complete": True, "split": "train", "ts": day(20), "import_id": "a"} | row for row in truth]
    append(root, GROUND_TRUTH, rows)
    append(root, GROUND_TRUTH_HISTORY, rows)


def _write_cycles(root: Path) -> None:
    picks = {("cycle-3", "hardest"): "h1 h2 t1", ("cycle-3", "random"): "t1 t2", ("cycle-2", "hardest"): "h3"}
    append(
        root,
        ACQUISITION,
        [
            {"cycle_id": cycle, "strategy": strategy, "unit": "image", "rank": rank, "image_id": image}
            for (cycle, strategy), images in picks.items()
            for rank, image in enumerate(images.split(), start=1)
        ],
    )
    tasks = [
        {"cycle_id": cycle, "strategy": strategy, "task_id": f"{cycle}/{image}", "kind": "image"}
        | {"image_id": image, "rank": rank}
        for (cycle, strategy), images in picks.items()
        for rank, image in enumerate(images.split(), start=1)
    ]
    append(root, SENT_TASKS, tasks)
    files = [("cycle-3", "label_studio", "hardest", 3, 30.0), ("cycle-3", "label_studio", "random", 2, 20.0)]
    files += [("cycle-3", "coco", "hardest", 3, 30.0), ("cycle-2", "coco", "hardest", 1, 10.0)]
    names = ("cycle_id", "vendor", "strategy", "n_tasks", "cost_s")
    append(root, MANIFESTS, [dict(zip(names, file, strict=True)) | {"ts": day(15)} for file in files])
