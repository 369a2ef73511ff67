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
    """One cycle: its row of `cycles`, what it sent (rows of `sent_and_back`), and the next command.

    A cycle whose stages were run by hand has no row.
    """

    cycle_id: str
    row: Row | None
    sent: tuple[Row, ...]
    next_step: str


def cycle_status(run: Run) -> list[CycleStatus]:
    """The latest cycles, oldest first, then those exported by hand; 1,000 rows of a table at most."""
    latest = run.store.read(CYCLES).orderBy(F.desc("started")).limit(MOST_CYCLES).collect()
    rows: dict[str, Row | None] = {row.cycle_id: row for row in reversed(latest)}
    sent: dict[str, list[Row]] = {}
    newest_first = sent_and_back(run).orderBy(F.desc("sent_ts"), F.desc("strategy"))
    for item in reversed(newest_first.limit(MOST_CYCLES).collect()):
        sent.setdefault(item.cycle_id, []).append(item)
        rows.setdefault(item.cycle_id, None)
    return [
        CycleStatus(
            cycle_id=cycle_id,
            row=row,
            sent=tuple(sent.get(cycle_id, ())),
            next_step=_next_step(cycle_id, row, sent.get(cycle_id, [])),
        )
        for cycle_id, row in rows.items()
    ]


def open_problems(run: Run) -> dict[str, int]:
    """What asks for a look: images in quarantine, items of label files that were rejected."""
    return {
        "images in quarantine": run.store.read(QUARANTINE).where("NOT resolved").count(),
        "rejected label items": run.store.read(LABEL_REJECTS).count(),
    }


def _next_step(cycle_id: str, row: Row | None, sent: list[Row]) -> str:
    is_out = any(item.n_back < item.n_sent for item in sent)
    import_them = f"quarry import_labels --cycle {cycle_id} --split train --labels FILE --format FORMAT"
    if row is None:
        return import_them if is_out else "none, all labels are back"
    if row.state == CLOSED:
        return "none, it is closed"
    stage = STAGES[STATES.index(row.state)]
    if stage.name == "labels" and is_out:
        return import_them
    return f"quarry run_cycle --cycle {cycle_id} (stage {stage.name})"
