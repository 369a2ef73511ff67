"""Statements end at `;`, but not inside what only looks like an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.sql_statements import split_statements

ONE_EACH = [
    "SELECT 1",
    "SELECT ';'",
    'SELECT ";"',
    "SELECT `a;b` FROM t",
    r"SELECT 'it\';s'",
    "SELECT 'it'';s'",
    r"SELECT r'\' AS x, 'a;b'",
    'SELECT r"\\" AS x, ";"',
    "SELECT 1 -- a; comment; 'with a quote",
    "SELECT /* ; ' */ 1",
    "SELECT 'a -- no comment;'",
    "SELECT '/*;', 1 - 2 / 3",
    "SELECT 'two\nlines;'",
]


@pytest.mark.parametrize("statement", ONE_EACH)
def test_quotes_and_comments_hide_the_end(statement: str) -> None:
    assert split_statements(statement) == ([], statement)
    assert split_statements(f"{statement}\n; SELECT 2") == ([statement], "SELECT 2")


@pytest.mark.parametrize("text", ["", " \n", ";", " ; ;\n", "-- only this;", "/* or; this */ ;"])
def test_space_and_comments_are_no_statement(text: str) -> None:
    assert split_statements(text) == ([], "")


@pytest.mark.parametrize(
    "opened", ["SELECT 'a;", 'SELECT "a;', "SELECT `a;", "SELECT 1 /* a;", r"SELECT 'a\';"]
)
def test_an_open_quote_waits_for_its_end(opened: str) -> None:
    assert split_statements(opened) == ([], opened)


@given(st.lists(st.sampled_from(ONE_EACH), max_size=5), st.sampled_from(["", *ONE_EACH]))
def test_statements_come_back_in_order(whole: list[str], rest: str) -> None:
    text = "".join(f"{statement}\n;\n" for statement in whole) + rest
    assert split_statements(text) == (whole, rest)


@given(st.text(alphabet="a;'\"`\\-/*r \n"))
def test_a_statement_holds_no_end(text: str) -> None:
    for statement in split_statements(text)[0]:
        assert statement in text
        assert split_statements(statement) == ([], statement)
