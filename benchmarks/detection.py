"""Time of detection through Spark beside plain PyTorch loops over the same images, model, batch and threads.

    python benchmarks/detection.py --images 600
    python benchmarks/detection.py --images 2000 --device cuda --architecture retinanet_resnet50_fpn \
        --min-size 800 --batch-size 16 --width 1280 --precisions float32,bfloat16

Without pyspark (a GPU machine without Java) the worker stands for the Spark path. The last line is JSON. Its
ratios leave out `fixed_s`, the same job on one image a worker, which does not grow with the lake; one ratio
has it in.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.detection_loops import VARIANTS, Bench
from benchmarks.machine import cores, surroundings
from conf.settings import DetectorSettings
from detectors.architectures import build_model
from detectors.checkpoint import Checkpoint, save_checkpoint
from udfs.sample_lake import write_drive
from udfs.street.world import StreetSettings

SEED = 2026
COCO_CLASSES = 90


def main() -> None:
    """Measures every variant in turn, prints one table and one line of JSON."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        uris = written_images(Path(folder), args.images, args.width)
        results = [_measured(args, uris, Path(folder), precision) for precision in args.precisions.split(",")]
    for result in results:
        _print_table(result)
    line = dict(results[0])
    line["others"] = results[1:]
    print(json.dumps({**line, **surroundings()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--architecture", help="torchvision name, random weights; none: the shipped detector")
    parser.add_argument("--min-size", type=int, help="shorter side fed to the model (px)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=cores(), help="CPU threads in all")
    parser.add_argument("--readers", type=int, default=2, help="threads that read ahead")
    parser.add_argument(
        "--width", type=int, help="width of the images (px); none: as the sample lake makes them"
    )
    parser.add_argument("--precisions", default="float32", help="float32,bfloat16,float16")
    parser.add_argument("--no-spark", action="store_true", help="leave the Spark path out")
    return parser.parse_args()


def written_images(folder: Path, n: int, width_px: int | None) -> list[str]:
    """JPEG files of the procedural street lake, none damaged, perhaps enlarged."""
    street = StreetSettings(damaged_share=0.0, rotated_share=0.0)
    drives = (write_drive(str(folder / "lake"), drive, SEED, street) for drive in range(n))
    names = (row["path"] for drive in drives for row in drive)
    uris = [str(folder / "lake" / name) for name in islice(names, n)]
    for uri in uris if width_px else ():
        with Image.open(uri) as image:
            size = (width_px, round(image.height * width_px / image.width))
            image.resize(size, Image.Resampling.LANCZOS).save(uri, quality=88)
    kept = set(uris)
    for extra in (folder / "lake" / "images").rglob("*.jpg"):
        if str(extra) not in kept:
            extra.unlink()
    return uris


def _measured(args: argparse.Namespace, uris: Sequence[str], folder: Path, precision: str) -> dict[str, Any]:
    bench = Bench(
        uris=uris,
        detector=_detector(args, folder).model_copy(update={"precision": precision}),
        batch_size=args.batch_size,
        threads=args.threads,
        readers=args.readers,
        device=args.device,
    )
    variants: dict[str, Callable[[], float]] = {
        name: partial(seconds, bench) for name, seconds in VARIANTS.items()
    }
    path = "worker"
    if not args.no_spark and find_spec("pyspark") is not None:
        from benchmarks.detection_spark import SparkPath

        path = "spark"
        spark = SparkPath(bench, folder)
        variants = {"spark": spark.seconds, "spark_fixed": spark.fixed_seconds, **variants}
    for measure in VARIANTS.values():
        measure(_few(bench))
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(args.repeats):
        for name, measure in variants.items():
            seconds[name].append(measure())
            print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    return _summary(args, precision, path, seconds)


def _few(bench: Bench) -> Bench:
    """A warm-up: kernels chosen, memory pools filled, worker's model loaded."""
    return replace(bench, uris=bench.uris[: 2 * bench.batch_size])


def _summary(
    args: argparse.Namespace, precision: str, path: str, seconds: dict[str, list[float]]
) -> dict[str, Any]:
    fixed_s = median(seconds.pop("spark_fixed", [0.0]))

    def ratio(name: str, left_out_s: float = 0.0) -> float:
        pairs = zip(seconds[name], seconds[path], strict=True)
        return round(median(other / (ours - left_out_s) for other, ours in pairs), 3)

    return {
        "images": args.images,
        "architecture": args.architecture or "shipped",
        "precision": precision,
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "batch_size": args.batch_size,
        "threads": args.threads,
        "path": path,
        "fixed_s": round(fixed_s, 2),
        "ratio_to_bare_loop": ratio("bare_loop", fixed_s),
        "ratio_to_single_image_loop": ratio("single_image_loop", fixed_s),
        "share_of_model_alone": ratio("model_alone", fixed_s),
        "ratio_to_bare_loop_with_fixed": ratio("bare_loop"),
        "images_per_s": {name: round(args.images / median(values), 2) for name, values in seconds.items()},
    }


def _detector(args: argparse.Namespace, folder: Path) -> DetectorSettings:
    if args.architecture is None:
        return DetectorSettings(min_size=args.min_size)
    file = folder / "random.pt"
    if not file.exists():
        torch.manual_seed(SEED)
        model = build_model(args.architecture, n_classes=COCO_CLASSES)
        save_checkpoint(
            Checkpoint(
                architecture=args.architecture,
                classes=tuple(f"class_{i}" for i in range(1, COCO_CLASSES + 1)),
                head="",
                min_size=0,
                max_size=0,
                weights=model.state_dict(),
            ),
            str(file),
            half=False,
        )
    return DetectorSettings(weights=str(file), architecture=args.architecture, min_size=args.min_size)


def _print_table(result: dict[str, Any]) -> None:
    print(
        f"{result['architecture']}, {result['precision']}, batch {result['batch_size']}, {result['device']}"
    )
    for name, rate in result["images_per_s"].items():
        print(f"  {name:18} {rate:9.2f} images/s")


if __name__ == "__main__":
    main()
