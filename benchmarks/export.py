"""Time and memory of manifests of rising size: simulated picks, real tables, the real stage.

    python benchmarks/export.py --sizes 100000,1000000

Beside it, in the same run, the same files written by the driver from rows it is handed one partition at a
time. Nothing here comes from a detector: every image has one box. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.acquisition import DRIVER_MEMORY, write_tables
from benchmarks.machine import surroundings
from benchmarks.worker_memory import WorkerMemory
from conf.acquisition_spec import PriceList
from conf.export_settings import ExportSettings
from conf.settings import SparkSettings
from jobs.session import build_session
from pipelines.export import export_manifests
from pipelines.labeling_tasks import labeling_tasks
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema
from schemas.tables import ACQUISITION, IMAGES
from udfs.formats.registry import FORMATS
from udfs.formats.task import LabelingTask, Manifest, TaskBox

CYCLE, STRATEGY = "cycle", "all"


def main() -> None:
    """Prints a line per size and way, and one line of JSON."""
    args = _arguments()
    conf = {"spark.sql.shuffle.partitions": "64"}
    session = build_session(SparkSettings(driver_memory=DRIVER_MEMORY, conf=conf), "export benchmark")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for n_tasks in sorted(args.sizes):
            runs[n_tasks] = run = Run(store=TableStore(session, f"{folder}/{n_tasks}"))
            write_tables(run.store, n_tasks)
            _pick_all(run)
        _by_tasks(runs[min(runs)], args, f"{folder}/warm-up")
        for way in (_by_tasks, _by_driver):  # the driver's way last: a process's peak never falls
            for n_tasks, run in runs.items():
                with WorkerMemory() as memory:
                    start_s = time.perf_counter()
                    n_bytes = way(run, args, f"{folder}/out")
                    time_s = time.perf_counter() - start_s
                results.append(
                    {
                        "way": way.__name__.strip("_"),
                        "tasks": n_tasks,
                        "format": args.format,
                        "mb": round(n_bytes / 1e6),
                        "time_s": round(time_s, 1),
                        "us_per_task": round(1e6 * time_s / n_tasks, 1),
                        "worker_peak_mib": round(memory.peak_mib),
                        "driver_python_peak_mib": round(_peak_mib()),
                    }
                )
                print("  ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    print(json.dumps({"runs": results, "driver_memory": DRIVER_MEMORY, **surroundings()}))


def _pick_all(run: Run) -> None:
    values = {"cycle_id": CYCLE, "strategy": STRATEGY, "unit": "image", "score": 0.5, "settings_hash": "s"}
    images = run.store.read(IMAGES).select("image_id")
    rank = (F.regexp_extract("image_id", "([0-9]+)", 1).cast("int") + 1).alias("rank")
    picks = images.select("image_id", rank).withColumns(
        {name: F.lit(value) for name, value in values.items()}
    )
    run.store.create(ACQUISITION)
    run.store.replace(ACQUISITION, in_schema(picks.withColumn("cost_s", F.lit(346.0)), ACQUISITION), "TRUE")


def _by_tasks(run: Run, args: argparse.Namespace, folder: str) -> int:
    settings = ExportSettings(formats=(args.format,), folder=folder, uri_prefix="s3://bucket/lake")
    counts = export_manifests(Run(store=run.store), CYCLE, model_named(run, None), settings, PriceList())
    return _written_bytes(folder, counts["tasks"])


def _by_driver(run: Run, args: argparse.Namespace, folder: str) -> int:
    settings = ExportSettings(formats=(args.format,), folder=folder)
    model = model_named(run, None)
    rows = labeling_tasks(run.store.read(ACQUISITION), run, model, settings, PriceList())
    n_tasks = rows.count()
    manifest = Manifest(
        name=CYCLE,
        classes=tuple(model.classes.values()),
        model_version=model.name,
        n_tasks=n_tasks,
        last_rank=n_tasks,
        created="2026-01-01T00:00:00Z",
    )

    def tasks() -> Iterator[LabelingTask]:
        for row in rows.orderBy("rank").toLocalIterator():
            yield LabelingTask(
                task_id=row.task_id,
                image_id=row.image_id,
                uri=f"s3://bucket/lake/{row.path}",
                file_name=row.path,
                width=row.width,
                height=row.height,
                rank=row["rank"],
                score=row.score,
                strategy=row.strategy,
                boxes=tuple(TaskBox(**box.asDict()) for box in row.boxes),
            )

    Path(folder).mkdir()
    write = FORMATS[args.format].write
    assert write is not None
    with Path(folder, "tasks.json").open("w", encoding="utf-8") as stream:
        counts = write(stream, tasks(), manifest)
    return _written_bytes(folder, counts.n_tasks)


def _written_bytes(folder: str, n_tasks: int) -> int:
    assert n_tasks > 0
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return size


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[100_000, 1_000_000]
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="label_studio")
    return parser.parse_args()


if __name__ == "__main__":
    main()
