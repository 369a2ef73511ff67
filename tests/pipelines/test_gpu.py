"""What a detection task asks Spark for, and what it is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyspark import TaskContext

from pipelines.gpu import gpu_profile, task_gpu
from udfs.devices import TaskGpu

DISCOVERY = Path(__file__).parents[2] / "jobs" / "find_gpus.sh"


def _in_task(monkeypatch: pytest.MonkeyPatch, addresses: list[str], partition: int = 0) -> None:
    resources = {"gpu": SimpleNamespace(addresses=addresses)} if addresses else {}
    context = SimpleNamespace(resources=lambda: resources, partitionId=lambda: partition)
    monkeypatch.setattr(TaskContext, "get", lambda: context)


def test_a_task_tells_the_gpu_spark_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _in_task(monkeypatch, ["3"], partition=7)
    assert task_gpu() == TaskGpu("3", 7)
    _in_task(monkeypatch, [], partition=7)
    assert task_gpu() == TaskGpu(None, 7)
    monkeypatch.setattr(TaskContext, "get", lambda: None)
    assert task_gpu() is None


def test_a_fraction_of_a_gpu_is_asked_for() -> None:
    assert gpu_profile(None) is None
    profile = gpu_profile(0.5)
    assert profile is not None
    assert profile.taskResources["gpu"].amount == 0.5
    assert profile.taskResources["cpus"].amount == 1
    assert gpu_profile(0.5) is profile


def test_the_discovery_script_lists_the_gpus(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    told = subprocess.run(["bash", str(DISCOVERY)], env={"PATH": path}, capture_output=True, check=True)
    assert json.loads(told.stdout) == {"name": "gpu", "addresses": ["0", "1"]}


def test_without_a_driver_the_discovery_script_says_so(tmp_path: Path) -> None:
    tools = {"PATH": str(tmp_path)}
    told = subprocess.run(
        ["/bin/bash", str(DISCOVERY)], env=tools, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and "nvidia-smi is not on the PATH" in told.stderr
