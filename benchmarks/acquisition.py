"""Time and memory of picking from lakes of rising size: simulated scores, real tables, the real stage.

    python benchmarks/acquisition.py --sizes 100000,1000000,10000000

Nothing here comes from a detector: videos of 200 frames whose hardness and picture drift together, one
detection an image. Every size gets tables of its own under a temporary folder (about 1.5 GB for 10^7 images)
and one warm-up run of its strategies on the smallest size. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import surroundings
from benchmarks.worker_memory import WorkerMemory
from conf.acquisition_spec import StrategySpec
from conf.settings import AcquireSettings, ScoreSettings, SparkSettings
from jobs.session import build_session
from pipelines.acquire import acquire
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.table import Table
from schemas.tables import DETECTIONS, HARDNESS, IMAGES, MODELS

MODEL_ID, QUERY, SEED = "simulated", "total_false", 2026
FRAMES_PER_SEQUENCE = 200
DRIVER_MEMORY = "2g"
# 60 % hard, 40 % random, no two near-duplicates: all there is but k-center, which `kcenter.py` times.
MIXTURE = {
    "mixture": [{"share": 0.6, "strategy": "hardest_in_videos"}, {"share": 0.4, "strategy": "random"}],
    "near_duplicates": {"max_hamming": 4},
}


def main() -> None:
    """Prints a line per size and strategy, and one line of JSON."""
    args = _arguments()
    conf = {"spark.sql.shuffle.partitions": "64"}
    session = build_session(SparkSettings(driver_memory=DRIVER_MEMORY, conf=conf), "acquisition benchmark")
    session.sparkContext.setLogLevel("ERROR")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n_images in sorted(args.sizes):
            run = Run(store=TableStore(session, f"{folder}/{n_images}"))
            start_s = time.perf_counter()
            write_tables(run.store, n_images)
            print(f"{n_images:,} images written in {time.perf_counter() - start_s:.0f} s", file=sys.stderr)
            if not results:
                for strategy in args.strategies:
                    _measured(run, strategy, args.budget, n_images)
            for strategy in args.strategies:
                results.append(_measured(run, strategy, args.budget, n_images))
                print("  ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    print(json.dumps({"runs": results, "driver_memory": DRIVER_MEMORY, **surroundings()}))


def write_tables(store: TableStore, n_images: int) -> None:
    """`images`, `models`, `detections` and `hardness` of a simulated lake; the same for the same size."""
    model = {"model_id": MODEL_ID, "name": MODEL_ID, "uri": "none", "head": "softmax", "settings": "{}"}
    one = store.session.range(1).withColumns({name: F.lit(value) for name, value in model.items()})
    classes = F.create_map(F.lit(1), F.lit("car"))
    _write(store, MODELS, one.withColumns({"classes": classes, "created_ts": F.current_timestamp()}))
    now = F.current_timestamp()
    frames = _frames(store.session, n_images)
    uri = F.concat(F.lit("file:/simulated/"), "image_id")
    places = {"uri": uri, "path": F.col("image_id"), "dataset": F.lit("simulated"), "ingest_ts": now}
    _write(store, IMAGES, frames.withColumns(places | {"partitions": F.expr("map('date', 'none')")}))
    numbers = "1 AS label, 'car' AS label_name, 0.6D AS score, 1D AS x1, 1D AS y1, 9D AS x2, 9D AS y2"
    box = f"struct(image_id AS detection_id, {numbers}, NULL AS logits, NULL AS feature)"
    seen = {"model_id": F.lit(MODEL_ID), "view": F.lit("original"), "run_id": F.lit("simulated"), "ts": now}
    found = {
        "width": F.lit(10),
        "height": F.lit(10),
        "detections": F.expr(f"array({box})").cast(spark_schema(DETECTIONS)["detections"].dataType),
    }
    _write(store, DETECTIONS, frames.withColumns(seen | found | {"n_detections": F.lit(1)}))
    values = {
        "query": QUERY,
        "method": "exact",
        "estimator": "exact",
        "query_hash": "q",
        "settings_hash": "s",
    }
    named = {name: F.lit(value) for name, value in values.items()}
    _write(
        store, HARDNESS, frames.withColumns(seen | named | {"eta": F.lit(0.5), "ts": F.current_timestamp()})
    )


def _frames(session: SparkSession, n_images: int) -> DataFrame:
    sequence, frame = F.expr(f"id DIV {FRAMES_PER_SEQUENCE}"), F.expr(f"id % {FRAMES_PER_SEQUENCE}")
    drawn = F.pmod(F.xxhash64(F.lit(SEED), sequence), F.lit(10_000)) / 1e4
    noise = F.pmod(F.xxhash64(F.lit(SEED), F.col("id")), F.lit(10_000)) / 1e4
    # Ten neighbours look the same.
    scene = F.xxhash64(sequence, F.expr(f"(id % {FRAMES_PER_SEQUENCE}) DIV 10"))
    return session.range(n_images).select(
        F.format_string("simulated-%09d", "id").alias("image_id"),
        F.format_string("sequence-%07d", sequence).alias("sequence_id"),
        frame.cast("int").alias("frame_index"),
        (drawn + 0.1 * noise).alias("hardness"),
        scene.alias("image_hash"),
    )


def _write(store: TableStore, table: Table, rows: DataFrame) -> None:
    store.create(table)
    store.replace(table, in_schema(rows, table), where="TRUE")


def _measured(run: Run, strategy: str, budget: int, n_images: int) -> dict[str, Any]:
    settings = AcquireSettings(
        strategies=(strategy,),
        define={"mixture": StrategySpec.model_validate(MIXTURE)},
        query=QUERY,
        budget=budget,
    )
    model = model_named(run, None)
    with WorkerMemory() as memory:
        start_s = time.perf_counter()
        counts = acquire(run, strategy, model, settings, ScoreSettings(), SEED)
        time_s = time.perf_counter() - start_s
    assert sum(counts.values()) == budget, counts
    return {
        "images": n_images,
        "strategy": strategy,
        "picks": budget,
        "time_s": round(time_s, 1),
        "us_per_image": round(1e6 * time_s / n_images, 1),
        "worker_peak_mib": round(memory.peak_mib),
        "driver_python_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[100_000, 1_000_000, 10_000_000],
    )
    parser.add_argument("--budget", type=int, default=2_000, help="images to pick")
    parser.add_argument(
        "--strategies",
        type=lambda text: text.split(","),
        default=["hardest", "random", "hardest_in_videos", "mixture"],
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
