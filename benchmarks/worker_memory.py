"""Memory of Spark's Python workers, read from /proc while a job runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

PERIOD_S = 0.02


class WorkerMemory:
    """Watches the Python workers of this process's local session inside a `with` block.

    Attributes:
        peak_mib: Largest resident set (VmRSS) of any one worker seen in the block, MiB, sampled every
            `PERIOD_S`; libraries that workers share are counted in each. 0 without /proc.
    """

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> WorkerMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        workers: list[Path] = []
        rounds = 0
        while not self._done.wait(PERIOD_S):
            if rounds % 10 == 0:  # to look for new processes costs more than to look at known ones
                workers = _workers()
            rounds += 1
            self.peak_mib = max(self.peak_mib, *map(_resident_mib, workers), 0.0)


def _workers() -> list[Path]:
    parents, daemons = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The name in brackets may hold spaces; the parent is the second field after it.
            parents[process.name] = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if b"pyspark.daemon" in (process / "cmdline").read_bytes():
                daemons.append(process)
        except OSError:  # it has ended
            continue
    return [process for process in daemons if _descends(process.name, str(os.getpid()), parents)]


def _descends(process: str, ancestor: str, parents: dict[str, str]) -> bool:
    while process in parents and process != ancestor:
        process = parents[process]
    return process == ancestor


def _resident_mib(process: Path) -> float:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
