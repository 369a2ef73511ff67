"""The same cycle on a real Spark standalone cluster gives the same tables as in local mode."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest

from conf.settings import Settings
from jobs.session import DEFAULT_JARS_DIR, DELTA_PACKAGE, JVM_FOR_SHORT_JOBS
from pipelines.run import Run
from tests.small_lake import CYCLE, rows

ROOT = Path(__file__).parents[2]
SPARK_HOME = Path(pyspark.__file__).parent
READY_S = 60
# A cluster as it is installed: Spark generates code and changes plans as it runs, unlike in the other tests.
OWN_DEFAULTS = {name: value for name, value in os.environ.items() if name != "SPARK_CONF_DIR"}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A master and two one-core workers on this machine; yields the master's URL."""
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    daemon = [str(SPARK_HOME / "bin" / "spark-class")]
    environment = {**OWN_DEFAULTS, "SPARK_HOME": str(SPARK_HOME), "SPARK_LOCAL_IP": "127.0.0.1"}
    commands = [
        [
            "org.apache.spark.deploy.master.Master",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--webui-port",
            "0",
        ]
    ]
    for number in range(2):
        folder = tmp_path / f"worker-{number}"
        commands.append(
            ["org.apache.spark.deploy.worker.Worker", "--cores", "1", "--memory", "2g", "--host", "127.0.0.1"]
            + ["--webui-port", "0", "--work-dir", str(folder), master]
        )
    log = (tmp_path / "cluster.log").open("w")
    processes = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen([*daemon, *command], env=environment, stdout=log, stderr=subprocess.STDOUT)
            )
            time.sleep(1)
        wait_until_registered(tmp_path / "cluster.log", workers=2)
        yield master
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
        log.close()


def wait_until_registered(log: Path, workers: int) -> None:
    """Waits until the master has seen all workers."""
    deadline = time.monotonic() + READY_S
    while log.read_text().count("Successfully registered with master") < workers:
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.5)


@pytest.mark.timeout(1800)
def test_a_standalone_cluster_gives_the_same_tables(
    cluster: str, finished: tuple[Run, Settings], small_lake: Path, tmp_path: Path
) -> None:
    run, settings = finished
    jars = ",".join(str(jar) for jar in sorted(DEFAULT_JARS_DIR.glob("*.jar")))
    delta = ["--jars", jars] if jars else ["--packages", DELTA_PACKAGE]
    conf = [
        "spark.executor.memory=1g",
        "spark.sql.shuffle.partitions=3",
        "spark.sql.codegen.cache.maxEntries=1000",
        f"spark.driver.extraJavaOptions={JVM_FOR_SHORT_JOBS}",
        f"spark.executor.extraJavaOptions={JVM_FOR_SHORT_JOBS}",
        "spark.databricks.delta.snapshotPartitions=2",
    ]
    conf += ["spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1", "spark.ui.enabled=false"]
    flags = [flag for item in conf for flag in ("--conf", item)]
    job = ["--config", "demo", "--root", f"{tmp_path}/tables", "--cycle", CYCLE]
    for item in (
        f"lake.uri={small_lake}/images",
        f"lake.labels={small_lake}/labels",
        f"export.folder={tmp_path}/manifests",
        f"report.path={tmp_path}/report.html",
        "acquire.budget=10",
        "detect.images_per_task=16",
    ):
        job += ["--set", item]
    submit = [str(SPARK_HOME / "bin" / "spark-submit"), "--master", cluster, *delta, *flags]
    environment = {**OWN_DEFAULTS, "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [*submit, str(ROOT / "jobs" / "run_cycle.py"), *job],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert (tmp_path / "report.html").stat().st_size > 50_000
    for table in (
        "images",
        "models",
        "detections",
        "quarantine",
        "ground_truth",
        "hardness",
        "acquisition",
        "metrics",
    ):
        mine, theirs = rows(f"{tmp_path}/tables", table), rows(run.store.root, table)
        assert mine == theirs, table
    shutil.rmtree(tmp_path / "tables")
