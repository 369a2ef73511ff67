"""Shows where each cycle stands."""

from __future__ import annotations

import argparse
import sys

from conf.settings import Settings
from jobs.command import Job
from jobs.tables_shown import tell_table
from pipelines.run import Run
from pipelines.status import CycleStatus, cycle_status, open_problems

SECONDS_PER_HOUR = 3_600.0


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
    run.tell(f"{status.cycle_id}: {_state(status)}")
    if status.sent:
        header = ["strategy", "tasks", "sent to", "sent", "back", "out", "hours", "hours out", "money out"]
        cells = [
            [
                sent.strategy,
                sent.tasks or "image",
                ", ".join(sent.vendors),
                f"{sent.n_sent:,}",
                f"{sent.n_back:,}",
                f"{sent.n_sent - sent.n_back:,}",
                _hours(sent.cost_s),
                _hours(sent.cost_s_out),
                "-" if sent.cost_money is None else f"{sent.cost_money_out or 0:,.2f}",
            ]
            for sent in status.sent
        ]
        tell_table(run, header, cells)
    run.tell(f"next: {status.next_step}\n")


def _state(status: CycleStatus) -> str:
    row = status.row
    if row is None:
        return "exported by hand, not by run_cycle"
    origin = f", from {row.parent}" if row.parent else ""
    return f"{row.state} (model {row.model_id}, started {row.started:%Y-%m-%d %H:%M}{origin})"


def _hours(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / SECONDS_PER_HOUR:,.1f}"


JOB = Job(
    name="status",
    summary="Shows where each cycle stands, what is out for labeling and costs, and what to do next.",
    example="quarry status --root tables",
    work=_work,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
