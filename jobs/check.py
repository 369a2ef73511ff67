"""Judges the tables of a cycle as they are."""

from __future__ import annotations

import argparse
import sys

from conf.errors import QuarryError
from conf.settings import Settings
from jobs.command import OF_CYCLE, Job, add_cycle_flag, add_model_flag
from jobs.tables_shown import tell_table
from pipelines.cycle import cycle_row, model_of_cycle, require_cycle_name, settings_of_cycle
from pipelines.quality import Finding, judge, judged_stages
from pipelines.quality_rows import Gate
from pipelines.run import Run


def _flags(parser: argparse.ArgumentParser) -> None:
    add_cycle_flag(parser)
    add_model_flag(parser, OF_CYCLE)


def _work(run: Run, settings: Settings, args: argparse.Namespace) -> None:
    require_cycle_name(args.cycle)
    row = cycle_row(run, args.cycle)
    model = model_of_cycle(run, args.cycle, args.model)
    asked = settings_of_cycle(run, row, settings).model_copy(update={"quality": settings.quality})
    # A cycle is not to blame for images that came after it began; what it ingested then bears that time.
    due_s = row.started.timestamp() if row else None
    gate = Gate(run=run, cycle_id=args.cycle, model_id=model.model_id, settings=asked, due_s=due_s)
    findings = [finding for stage in judged_stages(gate) for finding in judge(gate, stage)]
    header = ["stage", "table", "expectation", "result", "observed"]
    tell_table(
        run, header, [[f.stage, f.table_name, f.expectation, _result(f), f.observed] for f in findings]
    )
    failed = [finding for finding in findings if not finding.passed]
    for finding in failed:
        run.tell(f"\n{finding.severity}: {finding.line()}")
    stopping = sum(finding.stops for finding in failed)
    if stopping:
        raise QuarryError(f"cycle {args.cycle!r}: {stopping} of {len(findings)} quality expectations failed")


def _result(finding: Finding) -> str:
    if finding.passed:
        return "passed"
    return "FAILED" if finding.stops else "warning"


JOB = Job(
    name="check",
    summary=(
        "Judges all tables of a cycle as they are, by the expectations that a cycle's gates use, and exits "
        "with 2 when one fails. What the cycle asked for is in its own settings; one made by hand is judged "
        "by the settings given."
    ),
    example="quarry check --root tables --cycle cycle-1",
    work=_work,
    flags=_flags,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
