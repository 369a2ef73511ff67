"""Queries in YAML: what is wrong is named with file, key and the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import QuarryError
from conf.load import load_settings

BAD = {
    "{errors: fn, where: {clases: [car]}}": "q.where.clases: unknown setting; did you mean 'classes'",
    "{errors: fx}": "q.errors: Input should be 'fp', 'fn' or 'false', got 'fx'",
    "{errors: fn, weight: {prise: {car: 1}}}": "q.weight.prise: unknown setting; did you mean 'price'",
    "{compare: {left: {errors: fn}, op: '=', value: 3}}": "q.compare.op: Input should be '>'",
    "{compare: {left: {errors: fn}, op: '>'}}": "exactly one of right and value",
    "{compare: {left: {reduce: sum}, op: '>', value: 1}}": "left and right need errors",
    "{errors: fp, python: 'a:b'}": "exactly one of errors, compare and python",
    "{python: \"__import__('os').system('x')\"}": "expected module:function",
    "{python: 'a:b', reduce: max}": "where, weight and reduce go with errors, not with python",
    "{errors: fn, where: {score: {min: 0.3}}}": "where.score needs errors: fp",
    "{errors: fn, where: {area: {min: 0.5, max: 0.1}}}": "q.where.area: min must be at most max",
    "{errors: fn, where: {area: {}}}": "expected min, max or both",
    "{errors: fn, where: {region: [0.5, 0, 0.2, 1]}}": "expected x1 < x2",
    "{errors: fn, weight: {area: 1}, reduce: count}": "weight has no use with reduce: count",
    "{errors: fn, weight: {price: {car: -1}}}": "greater than or equal to 0",
    "{errors: fn, weight: {area: .nan}}": "finite",
}


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "queries.yaml"
    path.write_text(text)
    return f"score.query_file={path}"


@pytest.mark.parametrize("query", BAD)
def test_a_bad_query_names_file_key_and_reason(query: str, tmp_path: Path) -> None:
    with pytest.raises(QuarryError) as caught:
        load_settings(overrides=[_file(tmp_path, f"q: {query}")])
    assert f"{tmp_path}/queries.yaml: score.define.q" in str(caught.value)
    assert BAD[query] in str(caught.value)


def test_all_bad_queries_are_told_at_once(tmp_path: Path) -> None:
    text = "\n".join(f"q{i}: {query}" for i, query in enumerate(BAD))
    with pytest.raises(QuarryError) as caught:
        load_settings(overrides=[_file(tmp_path, text)])
    assert all(f"score.define.q{i}" in str(caught.value) for i in range(len(BAD)))


@pytest.mark.parametrize("name", ["total_fp", "Total_FP", "image_id", "bad name", "1st"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match=repr(name)):
        load_settings(overrides=[_file(tmp_path, f"'{name}': {{errors: fn}}")])


def test_shipped_queries_join_the_built_in_ones(tmp_path: Path) -> None:
    settings = load_settings(overrides=["score.query_file=street"]).score
    assert len(settings.queries) == 9 + len(settings.define) == 14
    assert settings.define["priced_errors"].errors == "false"
    chosen = load_settings(overrides=["score.query_file=street", "score.queries=[total_fp]"]).score
    assert chosen.queries == ("total_fp",)
    with pytest.raises(QuarryError, match="no such file; shipped ones: street"):
        load_settings(overrides=["score.query_file=streat"])
    with pytest.raises(QuarryError, match="'q' is written twice, again in line 2"):
        load_settings(overrides=[_file(tmp_path, "q: {errors: fn}\nq: {errors: fp}")])


def test_one_name_has_one_definition(tmp_path: Path) -> None:
    with pytest.raises(QuarryError, match="'q' is defined in score.define too"):
        load_settings(overrides=[_file(tmp_path, "q: {errors: fn}"), "score.define={q: {errors: fp}}"])
