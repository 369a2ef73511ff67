"""Runs a detector over the images."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, add_cycle_flag, as_settings
from pipelines.detect import detect, detect_job
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="FILE", help="checkpoint or weights name (setting detector.weights)"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name people know the model by (setting detector.name)"
    )
    parser.add_argument(
        "--retry-quarantined", action="store_true", help="try all images that are in quarantine once more"
    )
    add_cycle_flag(parser)


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("detector", {"weights": args.weights, "name": args.name})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    job = detect_job(settings, retry_quarantined=args.retry_quarantined)
    counts = detect(run, args.cycle, job)
    run.tell(
        f"{counts['detected']:,} images detected, {counts['boxes']:,} boxes, "
        f"{counts['quarantined']:,} quarantined"
    )


JOB = Job(
    name="detect",
    summary="Runs a detector over the images it has not seen; images that cannot be read go to quarantine.",
    example="quarry detect --root tables --weights my_model.pt --name night-v2",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
