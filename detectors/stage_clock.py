"""Where a detector's time goes: seconds a stage, measured on the device that does the work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageClock:
    """Adds up the seconds of named stages until they are taken.

    On CUDA the end of a stage waits for the device, else a stage would be charged with what earlier ones
    only queued.

    Args:
        device: Where the stages run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charges what happens inside to `name`."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start_s

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last call; the clock starts anew."""
        taken, self._seconds = self._seconds, {}
        return taken
