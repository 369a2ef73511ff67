"""The server and what is sent to it, once for all tests here: see `make test-label-studio`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.run import Run
from pipelines.tables import TableStore
from tests.hard_lake import NAMES, hard_lake, pick
from tests.label_studio.cycles import (
    BOXES,
    DRAFT,
    NON_ASCII,
    PICKED_BOXES,
    QUESTIONS,
    SKIPPED,
    WHOLE,
    export_tasks,
)
from tests.label_studio.server import LabelStudio, label_studio


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--label-studio", required=True, metavar="PROGRAM", help="the server's program")


@pytest.fixture(scope="session")
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    program = Path(request.config.getoption("--label-studio")).absolute()
    with label_studio(program, tmp_path_factory.mktemp("studio")) as server:
        yield server


@pytest.fixture(scope="session")
def sent(session: SparkSession, studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and manifests of all that is asked here, as their users export them."""
    folder = tmp_path_factory.mktemp("sent")
    run = Run(store=TableStore(session, str(folder / "tables")))
    ids = hard_lake(run, studio.documents / "images", (*NAMES, SKIPPED, DRAFT))
    pick(run, *WHOLE[:2], ((ids[name], None) for name in (*NAMES, SKIPPED, DRAFT)))
    pick(run, *BOXES[:2], ((ids[name], f"{ids[name]}-{n}") for name, n in PICKED_BOXES))
    for asked in QUESTIONS.values():
        pick(run, *asked[:2], ((ids[NON_ASCII], f"{ids[NON_ASCII]}-{n}") for n in range(4)))
    for cycle, _, kind in (WHOLE, *QUESTIONS.values()):
        export_tasks(folder / "tables", folder / "manifests", cycle, kind)
    return folder


@pytest.fixture
def root(sent: Path, tmp_path: Path) -> Path:
    """Tables of a test's own."""
    return Path(shutil.copytree(sent / "tables", tmp_path / "tables"))
