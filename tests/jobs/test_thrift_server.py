"""One real server, asked by a real beeline and a real DB-API client while another process writes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from impala.dbapi import connect
from impala.error import Error

from schemas.tables import HARDNESS, MANIFESTS, QUARANTINE
from tests.jobs.test_sql import CHANGES, blocks, files
from tests.sql_tables import ODD_QUERY, append, hardness_row, write_tables

ROOT = Path(__file__).parents[2]
READY_S = 120
SEEN_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs; its tables are in `my tables`."""
    folder = tmp_path_factory.mktemp("thrift")
    write_tables(folder / "my tables")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port."""
    command = [sys.executable, "-m", "jobs.quarry", "thrift_server", "--config", "demo"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with (folder.parent / "server.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--root", "my tables", "--port", "0"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
        )
        try:
            yield process, _port(process, Path(log.name))
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    deadline = time.monotonic() + READY_S
    while (found := re.search(r"jdbc:hive2://localhost:(\d+)", log.read_text())) is None:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    return int(found[1])


def ask(port: int, statement: str, **configuration: str) -> list[tuple[Any, ...]]:
    """The rows a DB-API client gets in a session of its own."""
    with connect("localhost", port, auth_mechanism="PLAIN") as connection:
        cursor = connection.cursor(configuration=configuration or None)
        cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows


def test_a_db_api_client_reads_and_sees_what_jobs_write(server: tuple[Any, int], folder: Path) -> None:
    _, port = server
    page: dict[str, Any] = {}
    exec(blocks("python")[0].replace("10000", str(port)), page)
    assert page["rows"] == [("harbor/h1.jpg",), ("harbor/h2.jpg",), ("harbor/h3.jpg",)]
    with connect("localhost", port, auth_mechanism="PLAIN") as connection:
        columns = connection.cursor().get_table_schema("manifests", "default")
    assert [name for name, _ in columns] == list(MANIFESTS.column_names)
    assert ask(port, "SELECT count(*) FROM hardness TIMESTAMP AS OF '2026-03-05'") == [(10,)]
    latest = "SELECT hardness FROM latest_hardness WHERE image_id = 'h3' AND query = 'total_fn'"
    assert ask(port, latest) == [(3.0,)]
    append(folder / "my tables", HARDNESS, [hardness_row("h3", "m2", "total_fn", 8.0)])
    append(folder / "my tables", QUARANTINE, [{"image_id": "t2"}])
    assert ask(port, latest) == [(8.0,)]
    deadline = time.monotonic() + SEEN_S
    while not ask(port, "SELECT image_id FROM quarantine"):
        assert time.monotonic() < deadline
        time.sleep(1)


def test_no_client_can_change_anything(server: tuple[Any, int], folder: Path) -> None:
    _, port = server
    before, new = files(folder), folder / "new"
    for statement in CHANGES:
        with pytest.raises(
            Error, match="read only: |reflect|java_method|run SQL on files|UNSUPPORTED|NOT_FOUND"
        ):
            ask(port, statement.format(root=folder / "my tables", new=new))
    for file in ("text.`/etc/hostname`", f"delta.`{folder}/my tables/images`"):
        with pytest.raises(Error):
            ask(port, f"SELECT * FROM {file}", **{"spark.sql.runSQLOnFiles": "true"})
    assert files(folder) == before and not new.exists()


def test_beeline_reads_and_a_query_s_name_stays_data(server: tuple[Any, int], folder: Path) -> None:
    _, port = server
    literal = ODD_QUERY.replace("\\", "\\\\").replace("'", "\\'")
    statements = [f"SELECT query, hardness FROM hardness WHERE query = '{literal}'", "DROP TABLE images"]
    beeline = [str(Path(sys.executable).with_name("beeline")), "-u", f"jdbc:hive2://localhost:{port}"]
    done = subprocess.run(
        [*beeline, "--silent=true", "--outputformat=tsv2", *(part for s in statements for part in ("-e", s))],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{ODD_QUERY}\t6.0" in done.stdout, done.stdout + done.stderr
    assert done.returncode != 0 and "read only: " in done.stderr


def test_interrupt_stops_it_and_leaves_nothing_behind(server: tuple[Any, int], folder: Path) -> None:
    process, port = server
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    log = (folder.parent / "server.log").read_text()
    assert log.rstrip().endswith("stopped") and "Traceback" not in log and "Exception" not in log
    assert [path.name for path in folder.iterdir()] == ["my tables"]
    with pytest.raises(OSError):
        socket.create_connection(("localhost", port), timeout=5)
