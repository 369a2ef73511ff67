"""Hints at what a name may have meant."""

from __future__ import annotations

from conf.errors import nearest


def test_near_names_are_told_else_all_else_that_there_is_none() -> None:
    assert nearest("hardst", ["hardest", "random"]) == "did you mean 'hardest'?"
    assert nearest("x", ["random", "hardest"]) == "known: hardest, random"
    assert nearest("x", []) == "known: none"
