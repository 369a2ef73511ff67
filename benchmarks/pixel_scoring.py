"""Time of pixel divergence for an image, beside direct calculations and beside the detector itself.

    python benchmarks/pixel_scoring.py
    python benchmarks/pixel_scoring.py --device cuda --rounds 20

Direct calculations, all in numpy on one thread, of the same maps resized to the same image:
- `loop`: Eq. 1-5 window by window, timed on some windows of the image and scaled up to all of them;
- `sliding`: every window at once, `sliding_window_view(...).mean()`, with all 361 additions a pixel;
- `running`: running sums by scipy's `uniform_filter`, the best that is done without touching the method.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import entr
from torch.nn.functional import interpolate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import surroundings
from conf.settings import DetectorSettings
from detectors.architectures import build_model
from detectors.load import load_detector
from detectors.outputs import Outputs, PixelScoring
from detectors.pixel_divergence import LevelMap, image_scores, pixel_divergence
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector

SEED, RADIUS_PX, REGION_PX = 2026, 9, 30
WINDOWS_TIMED = 4000
SCORING = PixelScoring(names=("pixel_divergence",))
Maps = Sequence[NDArray[np.float64]]
# Image (h, w) and its levels, as a RetinaNet or an FCOS with strides 8 to 128 at that input size has them.
CASES = {
    (480, 640): ((60, 80), (30, 40), (15, 20), (8, 10), (4, 5)),
    (720, 1280): ((90, 160), (45, 80), (23, 40), (12, 20), (6, 10)),
}


def main() -> None:
    """Prints a table of times and one line of JSON."""
    args = _arguments()
    torch.set_num_threads(1)
    direct = [_beside_direct(image_hw, levels_hw, args.rounds) for image_hw, levels_hw in CASES.items()]
    for row in direct:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    shares = [_share(name, detector, args) for name, detector in _detectors(args.device)]
    for row in shares:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps({"direct": direct, "shares": shares, "device": args.device, **surroundings()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="timings of which the median is taken")
    parser.add_argument("--device", default="cpu", help="of the detectors: cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the detectors")
    return parser.parse_args()


def _beside_direct(
    image_hw: tuple[int, int], levels_hw: Sequence[tuple[int, int]], rounds: int
) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(SEED)
    levels = [LevelMap(torch.rand(shape, generator=drawn) ** 4) for shape in levels_hw]
    big = [
        interpolate(level.probabilities[None, None].double(), image_hw, mode="bilinear")[0, 0].numpy()
        for level in levels
    ]

    def ours() -> float:
        score = partial(pixel_divergence, levels, image_hw, RADIUS_PX)
        return float(image_scores(score, image_hw, REGION_PX, torch.device("cpu"))[0])

    sliding, running = (partial(_direct, big, means) for means in (_sliding_means, _running_means))
    assert abs(ours() - sliding()) < 1e-5 and abs(sliding() - running()) < 1e-9
    ours_ms = _median_ms(ours, rounds)
    times_ms = {
        "loop": _loop_ms(big),
        "sliding": _median_ms(sliding, 1),
        "running": _median_ms(running, rounds),
    }
    return {
        "image_hw": image_hw,
        "maps": len(levels),
        "ours_ms": round(ours_ms, 1),
        **{f"{name}_ms": round(value, 1) for name, value in times_ms.items()},
        **{f"{name}_over_ours": round(value / ours_ms, 1) for name, value in times_ms.items()},
    }


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    entropy: NDArray[np.float64] = entr(p) + entr(1 - p)
    return entropy


def _direct(big: Maps, window_means: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    scores = sum(_entropy(window_means(p)) - window_means(_entropy(p)) for p in big)
    height, width = big[0].shape
    rows, columns = np.arange(0, height, REGION_PX), np.arange(0, width, REGION_PX)
    maxima = np.maximum.reduceat(np.maximum.reduceat(np.asarray(scores), rows, axis=0), columns, axis=1)
    return float(maxima.mean())


def _sliding_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    side = 2 * RADIUS_PX + 1
    padded = np.pad(values, RADIUS_PX, constant_values=np.nan)
    inside = ~np.isnan(padded)
    sums = sliding_window_view(np.where(inside, padded, 0), (side, side)).sum(axis=(2, 3))
    counts = [np.convolve(np.ones(n), np.ones(side), mode="same") for n in values.shape]
    means: NDArray[np.float64] = sums / np.outer(*counts)
    return means


def _running_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    side = 2 * RADIUS_PX + 1
    means: NDArray[np.float64] = uniform_filter(values, side, mode="constant")
    counts = [np.convolve(np.ones(n), np.ones(side), mode="same") / side for n in values.shape]
    return means / np.outer(*counts)


def _loop_ms(big: Maps) -> float:
    """Time of one window after the other, for all windows of the image."""
    height, width = big[0].shape
    places = np.random.default_rng(SEED).integers(0, (height, width), (WINDOWS_TIMED, 2)).tolist()
    start_s = time.perf_counter()
    for m, n in places:
        for p in big:
            window = p[max(m - RADIUS_PX, 0) : m + RADIUS_PX + 1, max(n - RADIUS_PX, 0) : n + RADIUS_PX + 1]
            _entropy(window.mean()) - _entropy(window).mean()
    return (time.perf_counter() - start_s) * 1000 * height * width / WINDOWS_TIMED


def _detectors(device: str) -> list[tuple[str, TorchvisionDetector]]:
    sample = load_detector(DetectorSettings(pixel_scores=("pixel_divergence",)), device)
    assert isinstance(sample, TorchvisionDetector)
    torch.manual_seed(SEED)
    large = TorchvisionDetector(
        build_model("retinanet_resnet50_fpn", n_classes=90),
        architecture="retinanet_resnet50_fpn",
        classes=[f"class_{i}" for i in range(1, 91)],
        keep=KeepThresholds(eta0=0.05, detections_per_image=300, nms_iou=0.5),
        outputs=Outputs(pixel_scores=SCORING),
        device=device,
    )
    return [("shipped", sample), ("retinanet_resnet50_fpn", large)]


def _share(name: str, detector: TorchvisionDetector, args: argparse.Namespace) -> dict[str, Any]:
    """Share of pixel scores in the time of `predict`, on batches of four images of 1280x720 px."""
    torch.set_num_threads(args.threads)
    drawn = np.random.default_rng(SEED)
    images = [drawn.integers(0, 256, (720, 1280, 3), dtype=np.uint8) for _ in range(4)]
    detector.predict(images)
    detector.clock.take()
    parts = []
    for _ in range(args.rounds):
        detector.predict(images)
        parts.append(detector.clock.take())
    stages = {stage: median(part[stage] for part in parts) * 1000 / len(images) for stage in parts[0]}
    return {
        "detector": name,
        "image_hw": (720, 1280),
        "threads": args.threads,
        **{f"{stage}_ms": round(value, 2) for stage, value in stages.items()},
        "share": round(stages["pixel_scores"] / sum(stages.values()), 3),
    }


def _median_ms(work: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        work()
        times.append((time.perf_counter() - start_s) * 1000)
    return median(times)


if __name__ == "__main__":
    main()
