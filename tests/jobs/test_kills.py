"""Detection runs killed with SIGKILL at random moments, driver or worker, and run again.

`QUARRY_KILLS=24 pytest tests/jobs/test_kills.py` does as many kills as it says; `make test` does a few.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from conf.settings import Settings
from pipelines.run import Run
from tests.small_lake import assert_same_detections, rows

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("QUARRY_KILLS", "2"))
SEED = int(os.environ.get("QUARRY_KILLS_SEED", "20"))
BEGUN = "images to detect"


class Job:
    """One `quarry detect` in a process group of its own, committing every few images."""

    def __init__(self, root: Path, log: Path) -> None:
        command = [sys.executable, "-m", "jobs.quarry", "detect", "--config", "demo", "--root", str(root)]
        for item in ("detect.commit_every_s=0", "detect.images_per_task=8", "detect.batch_size=4"):
            command += ["--set", item]
        self.log = log
        self.process = subprocess.Popen(
            command,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def wait_until_it_detects(self) -> None:
        """Returns once the queue stands, or the job is over."""
        while BEGUN not in self.log.read_text() and self.process.poll() is None:
            time.sleep(0.05)

    def kill_driver(self) -> None:
        """Driver, JVM and workers at once, as a machine that loses power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def kill_worker(self, random_: random.Random) -> bool:
        """One Python worker, as the kernel does when memory runs out; Spark tries its task again.

        Returns:
            Whether there was one before the job was over.
        """
        while self.process.poll() is None:
            if workers := python_workers(self.process.pid):
                os.kill(random_.choice(workers), signal.SIGKILL)
                return True
            time.sleep(0.05)
        return False

    def finish(self) -> None:
        """Waits for the end, which must be a good one."""
        assert self.process.wait(timeout=300) == 0, self.log.read_text()[-3000:]


def python_workers(group: int) -> list[int]:
    """Process ids of the group's Python workers: forked from Spark's daemon."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes()
            parent = (Path("/proc") / fields[1] / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == group and b"pyspark.daemon" in command and b"pyspark.daemon" in parent:
            found.append(int(entry.name))
    return found


def assert_sound(root: Path) -> None:
    """No image twice, none both detected and in quarantine."""
    detected = [row["image_id"] for row in detections(root)]
    assert len(detected) == len(set(detected))
    failed = {row["image_id"] for row in rows(str(root), "quarantine") if not row["resolved"]}
    assert not failed & set(detected)


def detections(root: Path) -> list[dict[str, object]]:
    """Rows of `detections`; none before the table is made."""
    return rows(str(root), "detections") if (root / "detections" / "_delta_log").exists() else []


def test_killed_runs_lose_and_repeat_nothing(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    undisturbed = Path(finished[0].store.root)
    chance = random.Random(SEED)
    kills = {"driver": 0, "worker": 0}
    number = 0
    while sum(kills.values()) < KILLS:
        number += 1
        root = tmp_path / f"tables-{number}"
        for table in ("images", "quarantine"):
            shutil.copytree(undisturbed / table, root / table)
        while True:
            job = Job(root, tmp_path / "log.txt")
            job.wait_until_it_detects()
            time.sleep(chance.uniform(0.0, 8.0))
            victim = ("driver", "worker")[sum(kills.values()) % 2] if sum(kills.values()) < KILLS else None
            if victim == "driver" and job.process.poll() is None:
                job.kill_driver()
                kills["driver"] += 1
                assert_sound(root)
                continue
            kills["worker"] += victim == "worker" and job.kill_worker(chance)
            job.finish()
            break
        assert_sound(root)
        assert_same_detections(str(root), str(undisturbed))
    assert min(kills.values()) > 0
