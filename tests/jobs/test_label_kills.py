"""Exports and imports killed with SIGKILL at random moments, and run again.

`QUARRY_LABEL_KILLS=20 pytest tests/jobs/test_label_kills.py` kills each as often; `make test` once.
"""

from __future__ import annotations

import json
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
from tests.small_lake import CYCLE, rows

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("QUARRY_LABEL_KILLS", "1"))
STARTED = "WARNING: Using incubator modules"  # the first line of the JVM
LONGEST_S = 12.0
TRUTH = ("ground_truth", "ground_truth_history", "label_imports", "label_rejects")


def _begun(log: Path, *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs.quarry", *flags, "--config", "demo"]
    return subprocess.Popen(
        command,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def _killed_and_finished(log: Path, chance: random.Random, check: object, *flags: str) -> None:
    """Kills the job `KILLS` times, checks what it left each time, and lets it finish."""
    assert callable(check)
    for _ in range(KILLS):
        process = _begun(log, *flags)
        while STARTED not in log.read_text() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, LONGEST_S))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        check()
    assert _begun(log, *flags).wait(timeout=300) == 0, log.read_text()[-3000:]
    check()


def test_a_killed_export_leaves_manifests_whole_or_absent(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    tables, out = tmp_path / "tables", tmp_path / "manifests"
    shutil.copytree(finished[0].store.root, tables)
    shutil.rmtree(tables / "manifests")
    n_picked = int(finished[1].acquire.budget)

    def check() -> None:
        for folder in (out / CYCLE).glob("[!.]*.label_studio") if out.exists() else ():
            tasks = [t for file in folder.glob("tasks-*.json") for t in json.loads(file.read_text())]
            assert len(tasks) == len({t["data"]["task_id"] for t in tasks}) == n_picked
            assert (folder / "label_studio_config.xml").is_file()

    flags = ("export_manifest", "--root", str(tables), "--folder", str(out), "--cycle", CYCLE)
    split = ("--formats", "label_studio", "--set", "export.tasks_per_file=3")
    _killed_and_finished(tmp_path / "log", random.Random(31), check, *flags, *split)
    recorded = rows(str(tables), "manifests")
    assert {Path(row["path"]) for row in recorded} == set((out / CYCLE).glob("*.label_studio/tasks-*.json"))
    assert sum(row["n_tasks"] for row in recorded) == 2 * n_picked


def test_a_killed_import_loses_and_doubles_nothing(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    results = []
    for name, kills in (("undisturbed", False), ("killed", True)):
        tables = tmp_path / name
        shutil.copytree(finished[0].store.root, tables)
        labels = str(finished[1].lake.labels)
        flags = (
            "import_labels",
            "--root",
            str(tables),
            "--labels",
            labels,
            "--split",
            "train",
            "--cycle",
            "c",
        )

        def check(tables: Path = tables) -> None:
            truth = [row["image_id"] for row in rows(str(tables), "ground_truth")]
            assert len(truth) == len(set(truth)), "an image has one truth"

        if kills:
            _killed_and_finished(tmp_path / "log", random.Random(32), check, *flags)
        else:
            assert _begun(tmp_path / "log", *flags).wait(timeout=300) == 0
        results.append({table: rows(str(tables), table) for table in TRUTH if (tables / table).exists()})
    assert results[0] == results[1] and all(row["split"] == "train" for row in results[0]["ground_truth"])
