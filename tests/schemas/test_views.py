from __future__ import annotations

import re

import pytest

from schemas.table import View
from schemas.tables import TABLES
from schemas.views import hardness_wide_view, views

ALL = views(("total_fp",))


@pytest.mark.parametrize("view", ALL, ids=lambda view: view.name)
def test_a_view_reads_tables_and_views_before_it(view: View) -> None:
    earlier = [other.name for other in ALL[: ALL.index(view)]]
    known = {table.name for table in TABLES} | set(earlier)
    read = set(re.findall(r"\b(?:FROM|JOIN) (\w+)", view.sql))
    assert read and read <= known
    assert view.name not in known and view.comment


def test_a_query_s_name_cannot_leave_its_quotes() -> None:
    sql = hardness_wide_view(("it's", "back\\", "tick`")).sql
    assert "query = 'it\\'s'" in sql
    assert "query = 'back\\\\'" in sql
    assert "AS `tick```" in sql


def test_names_that_sql_cannot_tell_apart_become_one_column() -> None:
    sql = hardness_wide_view(("Total_FP", "IMAGE_ID", "total_fp", "other")).sql
    assert re.findall(r"AS `(\w+)`", sql) == ["Total_FP", "other"]
