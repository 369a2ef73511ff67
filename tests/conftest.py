"""One Spark session and one small finished cycle, shared by all tests that need them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.load import load_settings
from conf.settings import Settings
from jobs.session import build_session
from pipelines.cycle import run_cycle
from pipelines.run import Run
from pipelines.sample_lake import make_sample_lake
from pipelines.tables import TableStore
from tests.small_lake import CYCLE, SMALL_LAKE, lake_settings


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    """The demo profile's session: two cores, two shuffle partitions (a toy table in 200 takes minutes)."""
    session = build_session(load_settings("demo").spark, "quarry tests")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def small_lake(session: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample lake of 72 images with damaged files and an unseen domain; nothing may write to it."""
    lake = tmp_path_factory.mktemp("small_lake")
    make_sample_lake(Run(store=TableStore(session, "")), str(lake), SMALL_LAKE)
    return lake


@pytest.fixture(scope="session")
def finished(
    session: SparkSession, small_lake: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Settings]:
    """A complete cycle over the small lake; tests that change tables use a root of their own."""
    root = tmp_path_factory.mktemp("finished")
    settings = lake_settings(small_lake, root)
    run = Run(store=TableStore(session, str(root / "tables")))
    run_cycle(run, CYCLE, settings)
    return run, settings
