"""Fills a folder with Delta's jars."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conf.settings import Settings
from jobs.command import Job
from jobs.progress import say
from jobs.session import DEFAULT_JARS_DIR, fetch_delta_jars


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        default=DEFAULT_JARS_DIR,
        metavar="DIR",
        help="made when absent; use it with spark.jars_dir or --jars (default: this Python environment's "
        "own, which every job uses by itself)",
    )


def _work(_: None, settings: Settings, args: argparse.Namespace) -> None:
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    jars = fetch_delta_jars(folder)
    say(f"{len(jars)} jars in {folder}")


JOB = Job(
    name="fetch_jars",
    summary="Fetches Delta's jars from Maven Central into a folder, for machines that cannot reach it.",
    example="quarry fetch_jars jars",
    work=_work,
    flags=_flags,
    needs_root=False,
    needs_spark=False,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
