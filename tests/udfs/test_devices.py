"""Which GPU a worker takes."""

from __future__ import annotations

import os

import pytest
import torch

from udfs import devices
from udfs.devices import TaskGpu, worker_device


def test_the_address_spark_assigned_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    given = TaskGpu("3", 0)
    assert worker_device("auto", given) == worker_device("cuda", given) == "cuda:3"
    assert worker_device("cpu", given) == "cpu"


def test_an_address_is_counted_among_the_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    found = [worker_device("auto", TaskGpu(address, 0)) for address in ("2", "5", "1")]
    assert found == ["cuda:0", "cuda:1", "cuda:1"]


def test_workers_that_spark_gives_no_gpu_take_turns_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for process, partition in ((11, 4), (12, 5), (13, 6)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        assert worker_device("auto", TaskGpu(None, partition)) == f"cuda:{partition % 2}"
        assert worker_device("auto", TaskGpu(None, partition + 1)) == f"cuda:{partition % 2}"
    monkeypatch.setattr(devices, "_turns", {})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert worker_device("auto", TaskGpu(None, 1)) == "auto"


def test_outside_a_task_the_setting_stays() -> None:
    assert worker_device("auto", None) == "auto"
