"""Where every cycle stands, what is out for labeling, what it costs, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Row
from pyspark.sql import functions as F

from pipelines.cycle_stages import CLOSED, STAGES, STATES
from pipelines.outstanding import sent_and_back
from pipelines.run import Run
from schemas.tables import CYCLES, LABEL_REJECTS, QUARANTINE

MOST_CYCLES = 1_000


@dataclass(frozen=True, kw_only=True)
class CycleStatus:
    """One cycle: its row of `cycles`, what it sent (rows of `sent_and_back`), and the next command."""

    row: Row
    sent: tuple[Row, ...]
    next_step: str


def cycle_status(run: Run) -> list[CycleStatus]:
    """The latest cycles, oldest first; a table of 1,000 is read at most."""
    rows = run.store.read(CYCLES).orderBy(F.desc("started")).limit(MOST_CYCLES).collect()
    sent: dict[str, list[Row]] = {}
    for row in sent_and_back(run).orderBy("strategy").limit(MOST_CYCLES).collect():
        sent.setdefault(row.cycle_id, []).append(row)
    return [
        CycleStatus(row=row, sent=tuple(sent.get(row.cycle_id, ())), next_step=_next_step(row, sent))
        for row in reversed(rows)
    ]


def open_problems(run: Run) -> dict[str, int]:
    """What asks for a look: images in quarantine, items of label files that were rejected."""
    return {
        "images in quarantine": run.store.read(QUARANTINE).where("NOT resolved").count(),
        "rejected label items": run.store.read(LABEL_REJECTS).count(),
    }


def _next_step(row: Row, sent: dict[str, list[Row]]) -> str:
    if row.state == CLOSED:
        return "none, it is closed"
    stage = STAGES[STATES.index(row.state)]
    again = f"quarry run_cycle --cycle {row.cycle_id} (stage {stage.name})"
    out = sum(item.n_sent - item.n_back for item in sent.get(row.cycle_id, ()))
    if stage.name == "labels" and out:
        return f"quarry import_labels --cycle {row.cycle_id} --split train --labels FILE --format FORMAT"
    return again
