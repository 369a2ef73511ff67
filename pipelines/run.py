"""What every stage needs to know about the run it is part of."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.tables import TableStore


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One invocation of a job.

    Attributes:
        store: The tables.
        tell: Shows the user one line of progress.
        run_id: Written beside every row the run makes.
        started_s: Epoch seconds; the time stamp of all rows of the run.
    """

    store: TableStore
    tell: Callable[[str], None] = _silent
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started_s: float = field(default_factory=time.time)
