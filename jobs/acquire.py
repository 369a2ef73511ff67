"""Picks images for labeling under a budget."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job, add_cycle_flag, add_model_flag, as_settings
from pipelines.acquire import acquire
from pipelines.cycle import require_cycle_name
from pipelines.models import model_named
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--query", metavar="NAME", help="rank by this query (setting acquire.query)")
    parser.add_argument(
        "--method", metavar="NAME", help="exact, monte_carlo, calibrated, ... (setting acquire.method)"
    )
    parser.add_argument("--budget", type=int, metavar="N", help="images (setting acquire.budget_images)")
    add_cycle_flag(parser)
    add_model_flag(parser)


def _overrides(args: argparse.Namespace) -> list[str]:
    return as_settings("acquire", {"query": args.query, "method": args.method, "budget_images": args.budget})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    model = model_named(run, args.model)
    picked = acquire(run, args.cycle, model, settings.acquire, settings.seed, settings.score.estimator)
    for strategy, n_images in picked.items():
        run.tell(f"{n_images:,} images picked by {strategy}")


JOB = Job(
    name="acquire",
    summary="Picks the hardest images for a query under an image budget, and a random control of equal size.",
    example="quarry acquire --root tables --query pixel_adj_fn --budget 500",
    work=_work,
    flags=_flags,
    overrides=_overrides,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
