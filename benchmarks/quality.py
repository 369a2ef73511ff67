"""Time of the quality gates on lakes of rising size: simulated detections and hardness, real gates.

    python benchmarks/quality.py --sizes 10000,100000,1000000

Nothing here comes from a detector: 37 boxes an image, hardness for the nine queries and three baselines of
the default settings. The gates of the smallest size run once to warm up. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.acquisition import DRIVER_MEMORY, MODEL_ID, write_tables
from benchmarks.machine import surroundings
from conf.settings import Settings, SparkSettings
from jobs.session import build_session
from pipelines.quality import judge
from pipelines.quality_rows import Gate
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema, spark_schema
from schemas.tables import DETECTIONS, HARDNESS, MODELS

BOXES = 37
STAGES = ("ingest", "detect", "score")


def main() -> None:
    """Prints a line per size and stage, and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="10000,100000,1000000", help="images, by commas")
    sizes = sorted(int(size) for size in parser.parse_args().sizes.split(","))
    conf = {"spark.sql.shuffle.partitions": "64"}
    session = build_session(SparkSettings(driver_memory=DRIVER_MEMORY, conf=conf), "quality benchmark")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n_images in sizes:
            run = Run(store=TableStore(session, f"{folder}/{n_images}"))
            write_tables(run.store, n_images)
            _write_boxes_and_hardness(run.store)
            gate = Gate(run=Run(store=run.store), cycle_id="c", model_id=MODEL_ID, settings=Settings())
            if not results:
                for stage in STAGES:
                    _measured(gate, stage, n_images)
            for stage in STAGES:
                results.append(_measured(gate, stage, n_images))
                print("  ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    print(json.dumps({"runs": results, "driver_memory": DRIVER_MEMORY, **surroundings()}))


def _write_boxes_and_hardness(store: TableStore) -> None:
    """Fills the tables of `write_tables` up to what a lake has: more boxes, all queries."""
    box = (
        "named_struct('detection_id', concat(image_id, '-', i), 'label', 1, 'label_name', 'car', "
        "'score', 1D - i / 40D, 'x1', 1D, 'y1', 1D, 'x2', 9D, 'y2', 9D, 'logits', NULL, 'feature', NULL)"
    )
    kind = spark_schema(DETECTIONS)["detections"].dataType
    boxes = F.expr(f"transform(sequence(1, {BOXES}), i -> {box})").cast(kind)
    rows = store.read(DETECTIONS, pinned=True).withColumns(
        {"detections": boxes, "n_detections": F.lit(BOXES)}
    )
    store.replace(DETECTIONS, rows, where="TRUE")
    scoring = Settings().score
    named = [("exact", name) for name in scoring.queries] + [("baseline", name) for name in scoring.baselines]
    pairs = F.array(*(F.struct(F.lit(m).alias("method"), F.lit(n).alias("query")) for m, n in named))
    one = store.read(HARDNESS, pinned=True).drop("method", "query").withColumn("name", F.explode(pairs))
    store.replace(HARDNESS, in_schema(one.select("*", "name.*"), HARDNESS), where="TRUE")
    # As `detect` registers its detectors.
    known = store.read(MODELS, pinned=True).withColumn("settings", F.lit('{"weights": "simulated"}'))
    store.replace(MODELS, known, where="TRUE")


def _measured(gate: Gate, stage: str, n_images: int) -> dict[str, Any]:
    start_s = time.perf_counter()
    findings = judge(gate, stage)
    time_s = time.perf_counter() - start_s
    assert all(finding.passed for finding in findings), [f.line() for f in findings if not f.passed]
    return {
        "images": n_images,
        "stage": stage,
        "expectations": len(findings),
        "time_s": round(time_s, 1),
        "us_per_image": round(1e6 * time_s / n_images, 1),
    }


if __name__ == "__main__":
    main()
