"""What stands beside every timing: machine, cores, load, commit and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("pyspark", "pyarrow", "numpy", "pycocotools", "torch", "torchvision")


def surroundings() -> dict[str, Any]:
    """Machine, cores, load average, commit and versions, ready for JSON."""
    return {
        "machine": _machine(),
        "cores": cores(),
        "load_average": round(os.getloadavg()[0], 2),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
    }


def cores() -> int:
    """Cores this process, and so a local session, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _machine() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = Path("/proc/meminfo")
    total = memory.read_text().split()[1] if memory.exists() else None
    size = f", {int(total) / 2**20:.0f} GiB" if total else ""
    return f"{names[0] if names else platform.processor()}, {platform.system()}{size}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return f"{commit} with uncommitted changes" if git("status", "--porcelain") else commit
