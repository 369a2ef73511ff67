"""Writes the built-in sample lake."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, as_settings, path_or_uri
from pipelines.run import Run
from pipelines.sample_lake import make_sample_lake


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=path_or_uri, metavar="DIR", required=True, help="where the lake goes"
    )
    parser.add_argument("--images", type=int, metavar="N", help="image files (setting sample_lake.images)")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed, another lake (sample_lake.seed)")


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("sample_lake", {"images": args.images, "seed": args.seed})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    counts = make_sample_lake(run, args.output, settings.sample_lake)
    run.tell(
        f"{counts['files']:,} images ({counts['damaged']} damaged on purpose), "
        f"{counts['boxes']:,} labeled boxes, {counts['drives']} drives in {args.output}"
    )


JOB = Job(
    name="make_sample_lake",
    summary="Writes procedural street scenes, JPEGs in dataset=/date=/vehicle= folders, with COCO truth.",
    example="quarry make_sample_lake --output my_lake --images 1000",
    work=_work,
    flags=_flags,
    overrides=_overrides,
    needs_root=False,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
