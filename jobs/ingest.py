"""Finds the images of a lake."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, as_settings
from pipelines.ingest import ingest
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lake", metavar="DIR", help="root folder of the images (setting lake.uri)")
    parser.add_argument(
        "--listing", metavar="FILE", help="Parquet or CSV with a column uri (setting lake.listing)"
    )


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("lake", {"uri": args.lake, "listing": args.listing})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    counts = ingest(run, settings.lake)
    run.tell(
        f"{counts['files']:,} files, {counts['new_or_changed']:,} new or changed, "
        f"{counts['unreadable']:,} unreadable (see table quarantine)"
    )


JOB = Job(
    name="ingest",
    summary="Finds new and changed images of a lake, reads their headers, quarantines what is unreadable.",
    example="quarry ingest --root tables --lake my_lake/images",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
