"""Trains a small detector from COCO annotations."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from conf.settings import Settings
from jobs.command import Job, as_settings
from jobs.progress import say
from pipelines.train import train


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="folder that the labels' file names start from"
    )
    parser.add_argument(
        "--labels", metavar="COCO", required=True, help="COCO JSON: a file, a folder of them, or a glob"
    )
    parser.add_argument("--output", metavar="FILE", required=True, help="checkpoint to write")
    parser.add_argument(
        "--start-from", metavar="FILE", help="checkpoint to fine-tune instead of random weights"
    )
    parser.add_argument("--classes", metavar="a,b", help="class names in label order (default: as annotated)")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the images (setting train.epochs)"
    )


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("train", {"epochs": args.epochs})


def _work(_: None, settings: Settings, args: argparse.Namespace) -> None:
    report = train(
        settings.train,
        labels=args.labels,
        images=args.images,
        output=args.output,
        seed=settings.seed,
        tell=say,
        classes=args.classes.split(",") if args.classes else None,
        start_from=args.start_from,
    )
    say(f"trained on {report.n_train_images:,} images in {report.seconds / 60:.1f} min")
    if report.ap is not None and report.ap50 is not None:
        say(f"held out {report.n_validation_images:,} images: AP {report.ap:.3f}, AP50 {report.ap50:.3f}")
        for name, value in report.ap50_per_class.items():
            say(f"  AP50 {name}: " + ("no such object" if value is None else f"{value:.3f}"))
    if Path(args.output).is_file():
        content = Path(args.output).read_bytes()
        say(f"{args.output}: {len(content) / 1e6:.2f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


JOB = Job(
    name="train",
    summary="Trains a small detector from scratch, or fine-tunes one, from COCO labels; writes a checkpoint.",
    example="quarry train --images my_lake/images --labels my_lake/labels --output my_model.pt",
    work=_work,
    flags=_flags,
    overrides=_overrides,
    needs_root=False,
    needs_spark=False,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
