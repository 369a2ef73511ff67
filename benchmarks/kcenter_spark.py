"""The two rounds of k-center on a local Spark session, features made in the workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.machine import cores
from benchmarks.worker_memory import WorkerMemory
from conf.load import load_settings
from jobs.session import build_session
from pipelines.k_center import k_center

SEED = 2026
CLUSTERS = 200
ROWS_A_BATCH = 2000


def two_rounds(n_points: int, d: int, k: int, max_rows: int) -> dict[str, Any]:
    """Time, memory of the largest Python worker, radius and proven factor of one run."""
    settings = load_settings("local", [f"spark.master=local[{cores()}]"]).spark
    session = build_session(settings, "k-center benchmark")

    def features(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Clustered points, drawn where they are used."""
        middles = 3.0 * np.random.default_rng(SEED).standard_normal((CLUSTERS, d), dtype=np.float32)
        for batch in batches:
            for block in batch.column("block").to_pylist():
                draws = np.random.default_rng([SEED, block])
                n = min(ROWS_A_BATCH, n_points - block * ROWS_A_BATCH)
                points = 0.5 * draws.standard_normal((n, d), dtype=np.float32)
                points += middles[draws.integers(0, CLUSTERS, n)]
                ids = [f"image-{block * ROWS_A_BATCH + i}" for i in range(n)]
                lists = pa.ListArray.from_arrays(
                    pa.array(np.arange(0, n * d + 1, d), pa.int32()), points.ravel()
                )
                yield pa.RecordBatch.from_arrays([pa.array(ids), lists], names=["id", "feature"])

    n_blocks = -(-n_points // ROWS_A_BATCH)
    blocks = session.range(0, n_blocks, 1, min(n_blocks, 8 * cores())).withColumnRenamed("id", "block")
    points = blocks.mapInArrow(features, "id STRING, feature ARRAY<FLOAT>")
    with WorkerMemory() as memory:
        start = time.perf_counter()
        picks = k_center(points, k=k, seed=SEED, max_rows_per_task=max_rows)
        time_s = time.perf_counter() - start
        n_picks = picks.rows.count()
    session.stop()
    assert n_picks == k
    return {
        "points": n_points,
        "dims": d,
        "picks": k,
        "max_rows_per_task": max_rows,
        "groups": picks.groups,
        "time_s": round(time_s, 1),
        "worker_peak_mib": round(memory.peak_mib),
        "input_mib": round(n_points * d * 4 / 2**20),
        "radius": round(picks.radius, 4),
        "lower_bound": round(picks.lower_bound, 4),
        "factor": round(picks.factor, 3),
    }
