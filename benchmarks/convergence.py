"""Draws docs/monte_carlo.svg: how Monte Carlo score sampling closes in on the exact value of one image.

python benchmarks/convergence.py [--out docs/monte_carlo.svg]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generated_detections import detections_batch
from udfs.boxes import FloatArray
from udfs.detection_batch import DetectionBatch
from udfs.exact_score_sampling import exact_hardness
from udfs.monte_carlo_score_sampling import sampled_values
from udfs.queries import queries_named

QUERIES = {"total_false": "errors", "occ_aware_false": "shared area / own area, summed"}
IMAGE, SHOWN_RUNS, RUNS, SAMPLES = 3, 6, 200, 300
INK, BAND, EXACT_LINE = "#31708e", "#cfe0ea", "#c0392b"


def samples_of_runs(image: DetectionBatch) -> FloatArray:
    """(queries, runs, samples): values on random pseudo ground truth, a seed for every run."""
    queries = queries_named(list(QUERIES))
    options: dict[str, Any] = {"eta": 0.5, "iou_threshold": 0.5, "matcher": "coco", "n_samples": SAMPLES}
    runs = [sampled_values(image, queries, **options, seed=seed)[:, :, 0] for seed in range(RUNS)]
    return np.stack(runs).transpose(2, 0, 1)


def convergence_figure() -> Figure:
    """Running means of single runs, the band around the exact value, and the exact value, per query."""
    image = DetectionBatch.from_arrow(detections_batch(0, IMAGE + 1)).images(IMAGE, IMAGE + 1)
    exact = exact_hardness(image, queries_named(list(QUERIES)), eta=0.5, iou_threshold=0.5).value[:, 0]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = zip(figure.subplots(1, 2), QUERIES.items(), exact, samples_of_runs(image), strict=True)
    for axes, (query, unit), value, samples in panels:
        draw_query(axes, value, samples)
        axes.set_title(f"{query}: one sample scatters by σ = {samples.std():.2f}", fontsize=10)
        axes.set_ylabel(f"hardness ({unit})")
    title = f"One simulated image of {len(image.scores)} detections: Monte Carlo and the exact value"
    figure.suptitle(title, fontsize=11)
    return figure


def draw_query(axes: Axes, exact: float, samples: FloatArray) -> None:
    """One panel; samples is (runs, samples)."""
    n = np.arange(1, SAMPLES + 1)
    means = np.cumsum(samples, axis=1) / n
    reach = 1.96 * samples.std() / np.sqrt(n)
    inside = (np.abs(means - exact) <= reach).mean(axis=0)
    axes.fill_between(n, exact - reach, exact + reach, color=BAND, label="exact ± 1.96 σ / √N")
    axes.plot(n, means[:SHOWN_RUNS].T, color=INK, linewidth=0.8, alpha=0.75)
    axes.plot([], color=INK, linewidth=0.8, label=f"{SHOWN_RUNS} of {RUNS} Monte Carlo runs")
    axes.axhline(exact, color=EXACT_LINE, linewidth=1.6, label=f"exact, no samples: {exact:.3f}")
    axes.axvline(10, color="0.4", linewidth=0.8, linestyle=":")
    note = f" N = 10: {inside[9]:.0%} of\n runs in the band"
    axes.annotate(note, (10, 0.02), xycoords=("data", "axes fraction"), fontsize=9, color="0.3")
    axes.set(xscale="log", xlim=(1, SAMPLES), xlabel="samples N")
    axes.set_xticks([1, 3, 10, 30, 100, 300], ["1", "3", "10", "30", "100", "300"])
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "monte_carlo.svg")
    out = parser.parse_args().out
    matplotlib.rcParams["svg.hashsalt"] = "quarry"
    convergence_figure().savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=110)
    print(out)


if __name__ == "__main__":
    main()
