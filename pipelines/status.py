"""Where every cycle stands, what is out for labeling, what it costs, and what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyspark.sql import Row
from pyspark.sql import functions as F

from conf.code_settings import code_settings
from conf.errors import QuarryError
from conf.settings import Settings
from pipelines.cycle import recorded_settings
from pipelines.cycle_stages import CLOSED, STAGES, STATES
from pipelines.outstanding import Awaited, awaited, export_command, import_command, sent_and_back
from pipelines.run import Run
from schemas.tables import CYCLES, LABEL_REJECTS, QUARANTINE

MOST_CYCLES = 1_000


@dataclass(frozen=True, kw_only=True)
class CycleStatus:
    """One cycle: its row of `cycles`, what it sent (rows of `sent_and_back`), and the next command.

    A cycle that was made job by job, without `run_cycle`, has no row and no state.
    """

    cycle_id: str
    row: Row | None
    sent: tuple[Row, ...]
    next_step: str


def cycle_status(run: Run) -> list[CycleStatus]:
    """Cycles made job by job, then the latest others, oldest first; 1,000 rows are read at most."""
    rows = run.store.read(CYCLES).orderBy(F.desc("started")).limit(MOST_CYCLES).collect()
    by_id: dict[str, Row | None] = {row.cycle_id: row for row in reversed(rows)}
    sent: dict[str, list[Row]] = {}
    newest_first = sent_and_back(run).orderBy(F.desc("sent_ts"), F.desc("strategy")).limit(MOST_CYCLES)
    for row in reversed(newest_first.collect()):
        sent.setdefault(row.cycle_id, []).append(row)
    by_hand: dict[str, Row | None] = {cycle_id: None for cycle_id in sent if cycle_id not in by_id}
    return [
        CycleStatus(
            cycle_id=cycle_id,
            row=row,
            sent=tuple(sent.get(cycle_id, ())),
            next_step=_next_step(run, cycle_id, row, sent.get(cycle_id, [])),
        )
        for cycle_id, row in (by_hand | by_id).items()
    ]


def open_problems(run: Run) -> dict[str, int]:
    """What asks for a look: images in quarantine, items of label files that were rejected."""
    return {
        "images in quarantine": run.store.read(QUARANTINE).where("NOT resolved").count(),
        "rejected label items": run.store.read(LABEL_REJECTS).count(),
    }


def _next_step(run: Run, cycle_id: str, row: Row | None, sent: list[Row]) -> str:
    """A command that works as it stands but for the FILE of labels, or why there is none."""
    if row is not None and row.state == CLOSED:
        return "none, it is closed"
    settings = None if row is None else _settings(row)
    stage = None if row is None else STAGES[STATES.index(row.state)].name
    if stage in ("labels", None):
        awaits = Awaited(cycle_id, sent) if sent else awaited(run, cycle_id)
        if awaits.unrecorded:
            return f"{export_command(run.store.root, awaits)}  # its tasks are not recorded"
        if not awaits.is_enough(1.0 if settings is None else settings.cycle.labels_wanted):
            return import_command(run.store.root, awaits)
    if row is None:
        return "none, its labels are back"
    again = () if settings is None else code_settings(settings)
    flags = [flag for setting in again for flag in setting.flags]
    command = shlex.join(["quarry", "run_cycle", "--root", run.store.root, "--cycle", cycle_id, *flags])
    return f"{command}  # " + ", ".join([f"stage {stage}", *(f"{one.key} {one.effect}" for one in again)])


def _settings(row: Row) -> Settings | None:
    """What the cycle was started with; none where another Quarry ran it: `run_cycle` says more."""
    try:
        return recorded_settings(row)
    except QuarryError:
        return None
