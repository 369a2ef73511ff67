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
from tests.small_lake import CYCLE, SMALL_LAKE, STOPPED_BEFORE_SCORE, lake_settings

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
# Two processes take files in this order, then the others, which are short: so neither waits for the other at
# the end. While the first makes `finished`, the second does files that need none.
LONGEST_FILES = (
    "jobs/test_cluster.py",
    "test_readme.py",
    "pipelines/test_cycle.py",
    "pipelines/test_labels.py",
    "pipelines/test_round_trip.py",
    "jobs/test_label_kills.py",
    "jobs/test_kills.py",
    "pipelines/test_acquire.py",
    "pipelines/test_evaluate.py",
    "pipelines/test_quality.py",
    "pipelines/test_box_answers.py",
    "pipelines/test_import_detections.py",
    "pipelines/test_detect.py",
    "pipelines/test_score.py",
    "jobs/test_bad_input.py",
    "jobs/test_thrift_server.py",
    "jobs/test_sql.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders files, not the tests in them."""
    place = {Path(__file__).parent / name: n for n, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


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
    """A complete cycle over the small lake; tests that change tables use a root of their own.

    Beside its tables lie those of a cycle that was stopped: as they were when stage `score` began.
    """

    def make(root: Path) -> None:
        def keep_before_score(line: str) -> None:
            if line.endswith("] score"):
                shutil.copytree(root / "tables", root / STOPPED_BEFORE_SCORE)

        run = Run(store=TableStore(session, f"{root}/tables"), tell=keep_before_score)
        run_cycle(run, CYCLE, lake_settings(small_lake, root))

    root = made_once("finished", make)
    return Run(store=TableStore(session, f"{root}/tables")), lake_settings(small_lake, root)
