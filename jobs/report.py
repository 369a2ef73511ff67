"""Writes the HTML report of a cycle."""

from __future__ import annotations

import argparse
import sys

from conf.load import load_settings
from conf.settings import Settings
from jobs.command import (
    OF_CYCLE,
    Job,
    add_cycle_flag,
    add_model_flag,
    add_query_flags,
    as_settings,
    query_overrides,
)
from pipelines.cycle import cycle_row, model_of_cycle, require_cycle_name, settings_of_cycle
from pipelines.report import write_report
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="HTML file (setting report.path)")
    add_query_flags(parser)
    add_cycle_flag(parser)
    add_model_flag(parser, OF_CYCLE)


def _overrides(args: argparse.Namespace) -> list[str]:
    return [*as_settings("report", {"path": args.output}), *query_overrides(args)]


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    row = cycle_row(run, args.cycle)
    if args.config is None and args.query_file is None and row is not None:
        own = settings_of_cycle(run, row, settings).model_copy(update={"spark": settings.spark})
        settings = load_settings(overrides=[*args.set, *_overrides(args)], root=args.root, resolved=own)
    run.tell(write_report(run, args.cycle, model_of_cycle(run, args.cycle, args.model), settings))


JOB = Job(
    name="report",
    summary=(
        "Writes one self-contained HTML page: hardest images, curves, tables, selection, quarantine. Without "
        "--config the page of a cycle follows the cycle's own settings, changed by the flags given."
    ),
    example="quarry report --root tables --output report.html",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
