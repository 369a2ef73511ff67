"""What detection tasks ask Spark for, and what Spark gives them."""

from __future__ import annotations

from functools import lru_cache

from pyspark import TaskContext
from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests

from udfs.devices import TaskGpu


# One profile for all chunks of a run: Spark keeps executors, and their models, by profile.
@lru_cache(maxsize=16)
def gpu_profile(gpus_per_task: float | None) -> ResourceProfile | None:
    """The resources one detection task asks for; none: whatever the cluster gives every task.

    Several tasks share a GPU with fractions below 1 (0.5: two workers each hold a model and take turns).
    """
    if gpus_per_task is None:
        return None
    request = TaskResourceRequests().cpus(1).resource("gpu", gpus_per_task)
    return ResourceProfileBuilder().require(request).build


def task_gpu() -> TaskGpu | None:
    """The GPU of the task this is called in; none outside a task."""
    context = TaskContext.get()
    if context is None:
        return None
    gpus = context.resources().get("gpu")
    return TaskGpu(gpus.addresses[0] if gpus and gpus.addresses else None, context.partitionId())
