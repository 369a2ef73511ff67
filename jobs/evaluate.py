"""Compares rankings with ground truth."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from conf.errors import QuarryError
from conf.settings import Settings
from jobs.command import (
    OF_CYCLE,
    Job,
    add_cycle_flag,
    add_model_flag,
    add_query_flags,
    path_or_uri,
    query_overrides,
)
from jobs.tables_shown import show_evaluation
from pipelines.cycle import model_of_cycle, require_cycle_name
from pipelines.evaluate import evaluate
from pipelines.report_evaluation import write_pictures
from pipelines.report_source import ReportSource
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    add_cycle_flag(parser)
    add_model_flag(parser, OF_CYCLE)
    add_query_flags(parser)
    parser.add_argument(
        "--pictures", metavar="DIR", type=path_or_uri, help="also write every chart there, as SVG files"
    )


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    if args.pictures is not None and Path(args.pictures).is_file():
        raise QuarryError(f"--pictures {args.pictures}: expected a folder, got a file")
    model = model_of_cycle(run, args.cycle, args.model)
    evaluate(run, args.cycle, model, settings.score, settings.evaluate, settings.seed)
    show_evaluation(run, args.cycle, model.model_id, settings.score)
    if args.pictures is not None:
        with closing(ReportSource(run, args.cycle, model, settings)) as source:
            n_files = write_pictures(source, args.pictures)
        run.tell(f"\n{n_files} pictures in {args.pictures}")


JOB = Job(
    name="evaluate",
    summary=(
        "Measures how well every ranking finds truly hard images, with intervals: nDCG, AUROC, mAUC; how "
        "alike rankings are, what more Monte Carlo samples buy, AP and calibration."
    ),
    example="quarry evaluate --root tables --pictures charts",
    work=_work,
    flags=_flags,
    overrides=query_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
