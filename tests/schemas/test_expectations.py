"""The suites are sound as data, and the page about them lists them all."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.expectations import SUITES
from schemas.tables import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"


def test_names_are_words_and_unique_for_a_stage_and_table() -> None:
    keys = [(suite.stage, suite.table, e.name) for suite in SUITES for e in suite.expectations]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z_]+", name) for key in keys for name in key)
    assert len({suite.name for suite in SUITES}) == len(SUITES)
    assert {suite.table for suite in SUITES} <= {table.name for table in TABLES}


def test_every_table_that_a_stage_appends_to_is_judged() -> None:
    unjudged = {table.name for table in TABLES} - {suite.table for suite in SUITES}
    assert unjudged == {"cycles", "quality"}


def test_the_page_lists_every_expectation() -> None:
    listed: set[tuple[str, str, str]] = set()
    stage = ""
    for first, table, names in re.findall(r"^\| (?:`(\w+)` )?\| `(\w+)` \| (.+) \|$", PAGE.read_text(), re.M):
        stage = first or stage
        listed |= {(stage, table, name) for name in re.findall(r"`(\w+)`", names)}
    keys = {"keys_not_null", "keys_unique"}
    assert listed == {
        (s.stage, s.table, e.name) for s in SUITES for e in s.expectations if e.name not in keys
    }
