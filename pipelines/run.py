"""What every stage needs to know about the run it is part of."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.tables import TableStore


@dataclass
class Goal:
    """How far a run is with work that takes many Spark stages; progress lines read it.

    Attributes:
        total: Units of the whole work; 0: there is no such work.
        done: Units of finished steps.
        step: Units of the step under way.
    """

    total: int = 0
    done: int = 0
    step: int = 0
    unit: str = "images"
    _began_s: float = 0.0

    def begin_step(self, *, done: int, step: int, total: int) -> None:
        """A step of `step` units begins; the clock starts with the first one."""
        if not self.total:
            self._began_s = time.monotonic()
        self.done, self.step, self.total = done, step, total

    def end(self) -> None:
        """The work is over."""
        self.total = 0

    def line(self, done: float) -> str:
        """How far the work is, how fast it goes and how long it may still take; empty without any."""
        total = self.total  # another thread may end the work now
        if not total:
            return ""
        rate = done / max(time.monotonic() - self._began_s, 1e-9)
        left = f", about {_duration((total - done) / rate)} left" if done else ""
        return f"{done:,.0f} of {total:,} {self.unit} ({100 * done / total:.0f} %), {rate:.1f}/s{left}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _silent(_: str) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One invocation of a job.

    Attributes:
        store: The tables.
        tell: Shows the user one line of progress.
        goal: How far the stage under way is, where one Spark stage does not tell.
        run_id: Written beside every row the run makes.
        started_s: Epoch seconds; the time stamp of all rows of the run.
    """

    store: TableStore
    tell: Callable[[str], None] = _silent
    goal: Goal = field(default_factory=Goal)
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    started_s: float = field(default_factory=time.time)
