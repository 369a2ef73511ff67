"""Shows how far Spark's tasks are while a stage runs, and what a stage did when it ends."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from pyspark import SparkContext

from pipelines.run import Goal

POLL_S = 1.0
LINE_EVERY_S = 10.0


def say(line: str) -> None:
    """One line for the user, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class TaskProgress:
    """While active, tells on stderr how many tasks of the largest active Spark stage are done.

    On a terminal the line is redrawn in place; elsewhere a line is written every 10 s.

    Args:
        context: Whose stages are watched.
        title: What is running.
        goal: Where the work spans many stages, how far it is.
    """

    def __init__(self, context: SparkContext, title: str, goal: Goal) -> None:
        self._goal = goal
        self._context = context
        self._title = title
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._shown = False

    def __enter__(self) -> TaskProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._shown and sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def _watch(self) -> None:
        tracker = self._context.statusTracker()
        began: dict[int, float] = {}
        said_s = time.monotonic()
        while not self._done.wait(POLL_S):
            stages = [tracker.getStageInfo(i) for i in tracker.getActiveStageIds()]
            running = [s for s in stages if s is not None and s.numTasks > 1]
            if not running:
                continue
            stage = max(running, key=lambda s: s.numTasks)
            now_s = time.monotonic()
            since_s = now_s - began.setdefault(stage.stageId, now_s)
            if sys.stderr.isatty():
                sys.stderr.write("\r\033[K" + self._line(stage.numCompletedTasks, stage.numTasks, since_s))
                sys.stderr.flush()
                self._shown = True
            elif now_s - said_s >= LINE_EVERY_S:
                said_s = now_s
                sys.stderr.write(self._line(stage.numCompletedTasks, stage.numTasks, since_s) + "\n")
                sys.stderr.flush()

    def _line(self, done: int, total: int, since_s: float) -> str:
        whole = self._goal.line(self._goal.done + self._goal.step * done / total)
        if whole:
            return f"  {self._title}: {whole}"
        left = f", about {since_s / done * (total - done):.0f} s left" if done else ""
        return f"  {self._title}: {done}/{total} tasks ({100 * done // total} %){left}"
