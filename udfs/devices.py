"""Which device a worker runs its model on."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class TaskGpu:
    """What Spark says of a task's GPU.

    Attributes:
        address: As the discovery script reports it, a number; none where Spark manages no GPUs.
        partition: Number of the task's partition; workers that Spark gives no GPU take turns by it.
    """

    address: str | None
    partition: int


def worker_device(device: str, gpu: TaskGpu | None) -> str:
    """The torch device of this worker.

    Args:
        device: `cpu`, `cuda` or `auto`, as the settings say.
        gpu: What Spark says; none outside a task.

    Returns:
        `device` as it is without GPUs; else `cuda:<index>` of the GPU Spark assigned, or, where Spark knows
        of none (local mode), of one that this process took when it first asked.
    """
    if device == "cpu" or gpu is None:
        return device
    if gpu.address is not None:
        return f"cuda:{_visible_index(gpu.address)}"
    import torch

    n = torch.cuda.device_count()
    return f"cuda:{_turn(os.getpid(), gpu.partition) % n}" if n > 1 else device


_turns: dict[int, int] = {}


def _turn(process: int, partition: int) -> int:
    """The first partition this process saw: a model stays on the GPU it was loaded to.

    By process, since workers are forked and inherit what their parent knows.
    """
    return _turns.setdefault(process, partition)


def _visible_index(address: str) -> int:
    """torch's index of a GPU; where only some GPUs are visible, torch counts those."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible.index(address) if address in visible else int(address)
