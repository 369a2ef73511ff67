"""Picks images for labeling under a budget."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from conf.strategy import presets
from jobs.command import OF_CYCLE, Job, add_cycle_flag, add_model_flag, as_settings, listed
from pipelines.acquire import acquire
from pipelines.cycle import model_of_cycle, require_cycle_name
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategies",
        metavar="a,b",
        help="of those below, or your own (setting acquire.strategies)",
    )
    parser.add_argument("--query", metavar="NAME", help="rank by this query (setting acquire.query)")
    parser.add_argument(
        "--method", metavar="NAME", help="exact, monte_carlo, calibrated, ... (setting acquire.method)"
    )
    parser.add_argument(
        "--budget", type=float, metavar="N", help="for each strategy (setting acquire.budget)"
    )
    parser.add_argument(
        "--in",
        dest="unit",
        metavar="UNIT",
        help="images, boxes, seconds or money (setting acquire.budget_in)",
    )
    parser.add_argument(
        "--replace-exported",
        action="store_true",
        help="pick anew although manifests of this cycle were written",
    )
    add_cycle_flag(parser)
    add_model_flag(parser, OF_CYCLE)


def _notes() -> str:
    """The shipped strategies and what each is for."""
    width = max(map(len, presets()))
    return "\n".join(["strategies:", *(f"  {n:{width}}  {s.description}" for n, s in presets().items())])


def _overrides(args: argparse.Namespace) -> list[str]:
    given = {"query": args.query, "method": args.method, "budget": args.budget, "budget_in": args.unit}
    names = None if args.strategies is None else listed(args.strategies)
    return as_settings("acquire", given | {"strategies": names})


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    model = model_of_cycle(run, args.cycle, args.model)
    picked = acquire(
        run,
        args.cycle,
        model,
        settings.acquire,
        settings.score,
        settings.seed,
        replace_exported=args.replace_exported,
    )
    for strategy, n_rows in picked.items():
        run.tell(f"{n_rows:,} picked by {strategy}")


JOB = Job(
    name="acquire",
    summary="Picks images or boxes for labeling under a budget, by one strategy or several side by side.",
    example="quarry acquire --root tables --strategies mixed,random --query pixel_adj_fn --budget 500",
    work=_work,
    flags=_flags,
    overrides=_overrides,
    notes=_notes,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
