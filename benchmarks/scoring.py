"""Time of scoring through Spark beside a job that does nothing and beside a plain COCOeval loop.

    python benchmarks/scoring.py --images 100000 [--estimator monte_carlo] [--sizes 10000,100000,1000000]

All three read the same simulated detections (`generated_detections`). The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cocoeval_loop import plain_loop_seconds, trimmed_loop_seconds
from benchmarks.generated_detections import COLUMNS_DDL, write_detections
from benchmarks.machine import cores, surroundings
from benchmarks.worker_memory import WorkerMemory
from conf.load import load_settings
from conf.settings import ScoreSettings
from jobs.session import build_session
from pipelines.score import add_hardness
from udfs.score import HARDNESS_SCHEMA
from udfs.score_request import ScoreRequest

QUERIES = ScoreSettings().queries
COLUMNS = ("image_id", "width", "height", "detections")
WARM_UP_RUNS = 5  # of small jobs, until Java has compiled what they use
MOST_GENERATED = 1_000_000
Step = Callable[[DataFrame], DataFrame]


def do_nothing_batches(batches: Iterable[pa.RecordBatch], n_queries: int) -> Iterator[pa.RecordBatch]:
    """As many rows of the same types as scoring makes: real ids, all else constant."""
    constants = {pa.string(): "constant", pa.float64(): 0.5, pa.int32(): 1}
    for batch in batches:
        yield pa.RecordBatch.from_arrays(
            [
                pa.concat_arrays([batch.column(field.name)] * n_queries)
                if field.name in batch.schema.names
                else pa.repeat(pa.scalar(constants[field.type], field.type), batch.num_rows * n_queries)
                for field in HARDNESS_SCHEMA
            ],
            schema=HARDNESS_SCHEMA,
        )


def with_nothing_done(detections: DataFrame) -> DataFrame:
    """What `add_hardness` reads and writes, without its calculation."""
    work = partial(do_nothing_batches, n_queries=len(QUERIES))
    return detections.select(*COLUMNS).mapInArrow(work, from_arrow_schema(HARDNESS_SCHEMA))


def job_seconds(session: SparkSession, source: Path, step: Step) -> float:
    """Seconds from Parquet through one Arrow function to Parquet."""
    start_s = time.perf_counter()
    detections = session.read.schema(COLUMNS_DDL).parquet(str(source))
    detections.transform(step).write.mode("overwrite").parquet(f"{source}-hardness")
    return time.perf_counter() - start_s


def paired_runs(session: SparkSession, lake: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Do-nothing job, scoring and loops in turn, `args.repeats` times; medians and their ratios."""
    score = _scoring(args)
    subset = next(pq.ParquetFile(next(iter(sorted(lake.glob("*.parquet"))))).iter_batches(args.loop_images))
    images = pa.Table.from_batches([subset])
    loops = {"plain": plain_loop_seconds, "trimmed": trimmed_loop_seconds}
    cold_s = job_seconds(session, lake, score)
    for step in (with_nothing_done, score, with_nothing_done):
        job_seconds(session, lake, step)
    runs = []
    for turn in range(args.repeats):
        order = [("noop", with_nothing_done), ("score", score)]
        run = {name: job_seconds(session, lake, step) for name, step in order[:: 1 if turn % 2 else -1]}
        for name, loop in loops.items():
            run[name] = loop(images, QUERIES, n_samples=args.samples, seed=turn) / images.num_rows
        print(json.dumps({name: round(seconds, 4) for name, seconds in run.items()}), file=sys.stderr)
        runs.append(run)
    per_core = cores() / args.images
    return {
        "ratio_to_noop": round(median(run["noop"] / run["score"] for run in runs), 3),
        "ratio_to_cocoeval_loop": round(median(run["plain"] / (run["score"] * per_core) for run in runs)),
        "ratio_to_trimmed_loop": round(median(run["trimmed"] / (run["score"] * per_core) for run in runs)),
        "images": args.images,
        "images_per_second": round(args.images / median(run["score"] for run in runs)),
        "noop_images_per_second": round(args.images / median(run["noop"] for run in runs)),
        "loop_ms_per_image": round(1e3 * median(run["plain"] for run in runs), 1),
        "trimmed_loop_ms_per_image": round(1e3 * median(run["trimmed"] for run in runs), 1),
        "first_run_s": round(cold_s, 2),
    }


def sizes_compared(session: SparkSession, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time per image and worker memory of scoring for every size, rising, `args.repeats` times in turn.

    `fixed_s`, the time of the same job on one image, is taken off `net_us_per_image` and left in
    `us_per_image`. Sizes above `MOST_GENERATED` read the files of that many images again and again, under
    other names. Memory is that of the first turn: reused workers carry later turns' memory along.
    """
    score = _scoring(args)
    sizes = sorted(args.sizes)
    for size in (1, *sizes):
        write_detections(session, folder / f"size-{size}", min(size, MOST_GENERATED), args.seed)
        repeat_files(folder / f"size-{size}", size // MOST_GENERATED)
    for _ in range(WARM_UP_RUNS):
        job_seconds(session, folder / f"size-{sizes[0]}", score)
    runs: dict[int, list[float]] = {size: [] for size in (1, *sizes)}
    peak_mib: dict[int, float] = {}
    for _ in range(args.repeats):
        for size, times_s in runs.items():
            with WorkerMemory() as memory:
                times_s.append(job_seconds(session, folder / f"size-{size}", score))
            peak_mib.setdefault(size, memory.peak_mib)
    fixed_s = median(runs.pop(1))
    return [
        {
            "images": size,
            "us_per_image": round(1e6 * median(times_s) / size, 2),
            "net_us_per_image": round(1e6 * (median(times_s) - fixed_s) / size, 2),
            "fixed_s": round(fixed_s, 3),
            "peak_worker_mib": round(peak_mib[size]),
        }
        for size, times_s in runs.items()
    ]


def repeat_files(lake: Path, times: int) -> None:
    """Hard links every file of a folder until each is there `times` times."""
    for file in sorted(lake.glob("*.parquet")):
        for turn in range(1, times):
            os.link(file, file.with_name(f"{turn}-{file.name}"))


def main() -> None:
    """Runs the benchmark and prints its line of JSON."""
    args = _arguments()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # of the workers
    start_s = time.perf_counter()
    session = build_session(load_settings("local").spark, "quarry scoring benchmark")
    started_s = time.perf_counter() - start_s
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        result: dict[str, Any] = {}
        if args.images:
            lake = Path(name, "lake")
            write_detections(session, lake, args.images, args.seed)
            result |= paired_runs(session, lake, args)
        if args.sizes:
            result["sizes"] = sizes_compared(session, Path(name), args)
    session.stop()
    result |= {"estimator": args.estimator, "repeats": args.repeats, "session_start_s": round(started_s, 1)}
    print(json.dumps(result | surroundings()))


def _scoring(args: argparse.Namespace) -> Step:
    request = ScoreRequest(queries=QUERIES, estimator=args.estimator, n_samples=args.samples, seed=args.seed)
    return partial(add_hardness, request=request)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000, help="0 leaves the paired runs out")
    parser.add_argument("--sizes", type=_sizes, default=(), help="sizes to compare, e.g. 10000,100000")
    parser.add_argument("--estimator", choices=("exact", "monte_carlo"), default="exact")
    parser.add_argument("--samples", type=int, default=10, help="samples of Monte Carlo and of the loops")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loop-images", type=int, default=10, help="images the loops work on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where the data lies while it runs; none: the temporary folder")
    return parser.parse_args()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(float(size)) for size in text.split(","))


if __name__ == "__main__":
    main()
