"""Exports, imports and cycles killed with SIGKILL at random moments, and run again.

`QUARRY_LABEL_KILLS=20 pytest tests/jobs/test_label_kills.py` kills each as often; `make test` once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from conf.settings import Settings
from jobs.quarry import main
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


def _killed_and_finished(
    log: Path, chance: random.Random, check: object, *flags: str, after: Sequence[str] = (STARTED,)
) -> None:
    """Kills the job `KILLS` times, checks what it left each time, and lets it finish.

    Each kill comes within seconds of one of the lines `after` in what the job tells.
    """
    assert callable(check)
    for _ in range(KILLS):
        process, line = _begun(log, *flags), chance.choice(after)
        while line not in log.read_text() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, LONGEST_S))
        with suppress(ProcessLookupError):  # it was done before
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        check()
    assert _begun(log, *flags).wait(timeout=600) == 0, log.read_text()[-3000:]
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
            assert main([*flags, "--config", "demo"]) == 0
        results.append({table: rows(str(tables), table) for table in TRUTH if (tables / table).exists()})
    assert results[0] == results[1] and all(row["split"] == "train" for row in results[0]["ground_truth"])


def test_a_killed_cycle_goes_on_and_sends_each_task_once(
    finished: tuple[Run, Settings], small_lake: Path, tmp_path: Path
) -> None:
    tables, out, budget = tmp_path / "tables", tmp_path / "manifests", int(finished[1].acquire.budget)
    shutil.copytree(finished[0].store.root, tables)

    def check() -> None:
        states = [row["state"] for row in rows(str(tables), "cycles") if row["cycle_id"] == "killed"]
        assert len(states) <= 1
        for folder in (out / "killed").glob("[!.]*.label_studio") if out.exists() else ():
            assert sum(len(json.loads(file.read_text())) for file in folder.glob("tasks-*.json")) == budget

    flags = ["run_cycle", "--root", str(tables), "--cycle", "killed"]
    flags += ["--from-cycle", CYCLE, "--from-stage", "acquire"]
    for item in (
        f"lake.uri={small_lake}/images",
        f"lake.labels={small_lake}/labels",
        f"export.folder={out}",
        f"report.path={tmp_path}/report.html",
        f"acquire.budget={budget}",
    ):
        flags += ["--set", item]
    stages = ("[6/11] acquire", "[7/11] export_manifest", "[8/11] report", "[9/11] labels")
    _killed_and_finished(tmp_path / "log", random.Random(33), check, *flags, after=stages)
    (row,) = [row for row in rows(str(tables), "cycles") if row["cycle_id"] == "killed"]
    assert row["state"] == "reported" and row["parent"] == CYCLE and (tmp_path / "report.html").exists()
    picks = [
        (r["strategy"], r["rank"]) for r in rows(str(tables), "acquisition") if r["cycle_id"] == "killed"
    ]
    assert len(picks) == len(set(picks)) == 2 * budget
    files = [row for row in rows(str(tables), "manifests") if row["cycle_id"] == "killed"]
    assert sum(row["n_tasks"] for row in files) == 2 * 2 * budget, "two formats, two strategies"
    for row in files:
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"]
