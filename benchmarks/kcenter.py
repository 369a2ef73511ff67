"""Time and memory of greedy k-center beside a numpy loop and a scikit-learn loop on the same features.

    python benchmarks/kcenter.py                                   # 100,000 x 256, 1,000 picks
    python benchmarks/kcenter.py --spark --points 1000000 --picks 10000   # two rounds on Spark

Every run is a process of its own, one after the other in turn, all with the same threads. The last line is
JSON. `peak_over_input` is the peak resident memory of a whole process from before its features exist, less
what it held then (interpreter and libraries), over the size of the features: the input is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import cores, surroundings
from udfs.k_center import greedy_k_center

SEED = 2026
CLUSTERS = 200
Features = NDArray[np.float32]


def main() -> None:
    """Measures every way on both kinds of data, prints one table and one line of JSON."""
    args = _arguments()
    if args.one is not None:
        print(json.dumps(_measured_here(args)))
        return
    if args.spark:
        from benchmarks.kcenter_spark import two_rounds

        print(json.dumps({**two_rounds(args.points, args.dims, args.picks, args.max_rows), **surroundings()}))
        return
    results = {data: _compared(args, data) for data in args.data}
    _print_table(results)
    worst = {
        name: (max if name == "peak_over_input" else min)(result[name] for result in results.values())
        for name in next(iter(results.values()))
        if "ratio_to_" in name or name == "peak_over_input"
    }
    sizes = {"points": args.points, "dims": args.dims, "picks": args.picks, "threads": cores()}
    print(json.dumps({**sizes, **worst, "data": results, **surroundings()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="runs of ours; median")
    parser.add_argument("--loop-repeats", type=int, default=1, help="runs of each loop, all picks; median")
    parser.add_argument("--device", default="cpu", help="of ours: cpu or a torch device")
    parser.add_argument("--spark", action="store_true", help="two rounds on Spark in place of the comparison")
    parser.add_argument("--max-rows", type=int, default=200_000, help="rows a Spark task may hold")
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=tuple(DATA))
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS, help="what ours stands beside")
    parser.add_argument("--one", choices=tuple(WAYS), help=argparse.SUPPRESS)
    return parser.parse_args()


def gaussian(n: int, d: int) -> Features:
    """Points without structure: all are about as far from each other."""
    return np.random.default_rng(SEED).standard_normal((n, d), dtype=np.float32)


def clustered(n: int, d: int) -> Features:
    """Points about `CLUSTERS` middles, six times as far apart as the points of one cluster."""
    draws = np.random.default_rng(SEED)
    middles = 3.0 * draws.standard_normal((CLUSTERS, d), dtype=np.float32)
    points = draws.standard_normal((n, d), dtype=np.float32)
    points *= 0.5
    for row, cluster in enumerate(draws.integers(0, CLUSTERS, n)):  # without a second array of this size
        points[row] += middles[cluster]
    return points


def quarry(features: Features, k: int, device: str) -> list[int]:
    """The product's function."""
    return [int(row) for row in greedy_k_center(features, k, device=device).order]


def numpy_loop(features: Features, k: int, _: str) -> list[int]:
    """What selection code commonly does: one norm over all points and one minimum a pick."""
    order = [0]
    gaps = np.linalg.norm(features - features[0], axis=1)
    while len(order) < k:
        order.append(int(np.argmax(gaps)))
        gaps = np.minimum(gaps, np.linalg.norm(features - features[order[-1]], axis=1))
    return order


def scikit_learn_loop(features: Features, k: int, _: str) -> list[int]:
    """As public core-set code does it: scikit-learn's distances to each new center."""
    from sklearn.metrics import pairwise_distances

    order = [0]
    gaps = pairwise_distances(features, features[:1])[:, 0]
    while len(order) < k:
        order.append(int(np.argmax(gaps)))
        gaps = np.minimum(gaps, pairwise_distances(features, features[order[-1:]])[:, 0])
    return order


DATA: dict[str, Callable[[int, int], Features]] = {"gaussian": gaussian, "clustered": clustered}
WAYS = {"quarry": quarry, "numpy_loop": numpy_loop, "scikit_learn_loop": scikit_learn_loop}
LOOPS = tuple(WAYS)[1:]


def _compared(args: argparse.Namespace, data: str) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("quarry", *args.loops)}
    for repeat in range(max(args.repeats, args.loop_repeats)):
        for name in runs:
            if repeat < (args.repeats if name == "quarry" else args.loop_repeats):
                runs[name].append(_child(args, name, data))
                print(f"{data} {name}: {runs[name][-1]['time_s']:.2f} s", file=sys.stderr, flush=True)
    time_s, cpu_s = (
        {name: median(run[clock] for run in found) for name, found in runs.items()}
        for clock in ("time_s", "cpu_s")
    )
    picks = {name: found[0]["picks"] for name, found in runs.items()}
    return {
        "time_s": {name: round(value, 3) for name, value in time_s.items()},
        "cpu_s": {name: round(value, 3) for name, value in cpu_s.items()},
        **{f"ratio_to_{loop}": round(time_s[loop] / time_s["quarry"], 1) for loop in args.loops},
        # Other programs on the machine change this one less.
        **{f"cpu_ratio_to_{loop}": round(cpu_s[loop] / cpu_s["quarry"], 1) for loop in args.loops},
        "peak_over_input": round(max(run["peak_over_input"] for run in runs["quarry"]), 3),
        "loop_peak_over_input": {loop: round(runs[loop][0]["peak_over_input"], 3) for loop in args.loops},
        # The loops round distances to float32, so nearly equal ones may change places.
        "picks_shared": {loop: _shared(picks["quarry"], picks[loop]) for loop in args.loops},
    }


def _shared(ours: list[int], others: list[int]) -> float:
    return round(len(set(ours) & set(others)) / len(ours), 4)


def _child(args: argparse.Namespace, name: str, data: str) -> dict[str, Any]:
    sizes = ["--points", str(args.points), "--dims", str(args.dims), "--picks", str(args.picks)]
    command = [sys.executable, __file__, "--one", name, "--data", data, "--device", args.device, *sizes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured_here(args: argparse.Namespace) -> dict[str, Any]:
    way = WAYS[args.one]
    way(gaussian(2000, args.dims), 40, args.device)  # libraries loaded, threads started
    before_mib = _status_mib("VmRSS")
    _forget_peak()
    features = DATA[args.data[0]](args.points, args.dims)
    start, cpu_start = time.perf_counter(), time.process_time()
    picks = way(features, args.picks, args.device)
    time_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    over_input = (_status_mib("VmHWM") - before_mib) * 2**20 / features.nbytes
    return {"time_s": time_s, "cpu_s": cpu_s, "peak_over_input": over_input, "picks": picks}


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def _forget_peak() -> None:
    """VmHWM starts again from what is resident now."""
    with open(f"/proc/{os.getpid()}/clear_refs", "w") as control:
        control.write("5")


def _print_table(results: dict[str, dict[str, Any]]) -> None:
    for data, result in results.items():
        print(f"{data}: peak {result['peak_over_input']:.2f} of the input, itself in it")
        for name, time_s in result["time_s"].items():
            print(f"  {name:18} {time_s:9.2f} s")


if __name__ == "__main__":
    main()
