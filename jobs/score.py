"""Scores the hardness of every image."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, add_model_flag, add_query_flags, as_settings, listed, query_overrides
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.score import score


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--estimator", choices=("exact", "monte_carlo"), help="setting score.estimator")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="Monte Carlo samples (setting score.samples)"
    )
    add_query_flags(parser)
    parser.add_argument(
        "--committee", metavar="a,b", help="models that stand for ground truth (setting score.committee)"
    )
    parser.add_argument(
        "--committee-truth",
        choices=("score_sampled", "uniform"),
        help="a member's detections by their scores, or its confirmed ones (setting score.committee_truth)",
    )
    add_model_flag(parser)


def _overrides(args: argparse.Namespace) -> list[str]:
    given = {"estimator": args.estimator, "samples": args.samples, "committee_truth": args.committee_truth}
    given["committee"] = None if args.committee is None else listed(args.committee)
    return [*as_settings("score", given), *query_overrides(args)]


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    counts = score(run, model_named(run, args.model), settings.score, settings.calibration, settings.seed)
    run.tell(f"{counts['images']:,} images scored, {counts['rows']:,} rows of hardness written")


JOB = Job(
    name="score",
    summary="Scores how hard every image is for the chosen queries, from detections alone, without labels.",
    example="quarry score --root tables --estimator exact --queries total_fn,pixel_adj_false",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
