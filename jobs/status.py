"""Shows where each cycle stands."""

from __future__ import annotations

import argparse
import sys

from pyspark.sql import Row

from conf.acquisition_spec import S_PER_HOUR
from conf.settings import Settings
from jobs.command import Job
from jobs.tables_shown import tell_table
from pipelines.run import Run
from pipelines.status import CycleStatus, cycle_status, open_problems


def _work(run: Run, _: Settings, __: argparse.Namespace) -> None:
    cycles = cycle_status(run)
    if not cycles:
        run.tell(
            f"no cycle and no manifest under {run.store.root} yet: start with `quarry run_cycle` or "
            "`quarry acquire` and `quarry export_manifest`"
        )
        return
    for status in cycles:
        _tell_cycle(run, status)
    for what, number in open_problems(run).items():
        if number:
            run.tell(f"{number:,} {what}")


def _tell_cycle(run: Run, status: CycleStatus) -> None:
    run.tell(f"{status.cycle_id}: {_state(status.row)}")
    if status.sent:
        header = ["strategy", "tasks", "sent to", "sent", "back", "out"]
        header += ["hours", "hours out", "money", "money out"]
        cells = [
            [
                sent.strategy,
                sent.kind or "-",
                ", ".join(sent.vendors),
                f"{sent.n_sent:,}",
                f"{sent.n_back:,}",
                f"{sent.n_sent - sent.n_back:,}",
                *_prices(sent.cost_s, sent.cost_s_out, S_PER_HOUR, 1),
                *_prices(sent.cost_money, sent.cost_money_out, 1.0, 2),
            ]
            for sent in status.sent
        ]
        tell_table(run, header, cells)
    run.tell(f"next: {status.next_step}\n")


def _state(row: Row | None) -> str:
    if row is None:
        return "made job by job"
    origin = f", from {row.parent}" if row.parent else ""
    return f"{row.state} (model {row.model_id}, started {row.started:%Y-%m-%d %H:%M}{origin})"


def _prices(price: float | None, out: float | None, unit: float, decimals: int) -> list[str]:
    """The price of all and of what is out; none of it is known, or both are."""
    values = [price, None if price is None else out or 0.0]
    return ["-" if value is None else f"{value / unit:,.{decimals}f}" for value in values]


JOB = Job(
    name="status",
    summary="Shows where each cycle stands, what is out for labeling and costs, and what to do next.",
    example="quarry status --root tables",
    work=_work,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
