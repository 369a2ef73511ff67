"""Compares rankings with ground truth."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, add_cycle_flag, add_model_flag
from jobs.tables_shown import show_evaluation
from pipelines.cycle import require_cycle_name
from pipelines.evaluate import evaluate
from pipelines.models import model_named
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    add_cycle_flag(parser)
    add_model_flag(parser)


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    model = model_named(run, args.model)
    evaluate(run, args.cycle, model, settings.score, settings.evaluate, settings.seed)
    show_evaluation(run, args.cycle, model.model_id)


JOB = Job(
    name="evaluate",
    summary="Measures how well every ranking finds truly hard images: nDCG, AUROC, mAUC, AP, calibration.",
    example="quarry evaluate --root tables",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
