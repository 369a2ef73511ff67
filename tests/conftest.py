"""One Spark session a process, and one small finished cycle that all tests which need it share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from pyspark.sql import SparkSession

from conf.load import load_settings
from conf.settings import Settings
from jobs.session import build_session
from pipelines.cycle import run_cycle
from pipelines.run import Run
from pipelines.sample_lake import make_sample_lake
from pipelines.tables import TableStore
from tests.small_lake import CYCLE, SMALL_LAKE, lake_settings

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    """The demo profile's session: two cores, two shuffle partitions (a toy table in 200 takes minutes)."""
    session = build_session(load_settings("demo").spark, "quarry tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> MadeOnce:
    """Makes a folder for all processes of a test run: the first to ask makes it, the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # pytest-xdist gives each process a folder of its own below
        base = base.parent

    def folder_made_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return folder_made_once


@pytest.fixture(scope="session")
def small_lake(session: SparkSession, made_once: MadeOnce) -> Path:
    """A sample lake of 72 images with damaged files and an unseen domain; nothing may write to it."""
    run = Run(store=TableStore(session, ""))
    return made_once("small_lake", lambda lake: make_sample_lake(run, str(lake), SMALL_LAKE))


@pytest.fixture(scope="session")
def finished(session: SparkSession, small_lake: Path, made_once: MadeOnce) -> tuple[Run, Settings]:
    """A complete cycle over the small lake; tests that change tables use a root of their own."""

    def make(root: Path) -> None:
        run_cycle(Run(store=TableStore(session, f"{root}/tables")), CYCLE, lake_settings(small_lake, root))

    root = made_once("finished", make)
    return Run(store=TableStore(session, f"{root}/tables")), lake_settings(small_lake, root)
