"""What a table recorded has no code run unless somebody gives it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from conf.code_settings import CodeSetting, code_settings, require_given
from conf.errors import QuarryError
from conf.load import load_settings
from conf.settings import Settings

COMMAND = ["export.uri_command=sign.py --days 30"]
ALL = [
    *COMMAND,
    "detector.plugin=team.detectors:make",
    "score.define.mine.python=team.queries:mine",
    "export.uri_template=https://x/{path}?sig=${SIGNATURE}",
    "score.define.other.errors=fp",
]


def asked_for(recorded: Settings, *overrides: str) -> str:
    """What a person reads who goes on with such a cycle."""
    with pytest.raises(QuarryError) as refused:
        require_given(recorded, load_settings(overrides=overrides), "a")
    return str(refused.value)


def described(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting with its description; a name that a team chooses is `*`."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        named = get_args(kind)[1] if get_origin(kind) is dict else kind
        key = f"{prefix}{name}" + (".*" if named is not kind else "")
        inner = [k for k in (named, *get_args(named)) if isinstance(k, type) and issubclass(k, BaseModel)]
        if inner:
            yield from described(inner[0], f"{key}.")
        else:
            yield key, field.description or ""


def test_every_setting_that_says_it_runs_code_is_known() -> None:
    says_so = re.compile(r"module:function|program|environment")
    found = {key for key, text in described(Settings) if says_so.search(text)}
    known = {re.sub(r"define\.\w+", "define.*", one.key) for one in code_settings(load_settings(None, ALL))}
    assert found == known


def test_a_program_must_be_named_again() -> None:
    recorded = load_settings(None, COMMAND)
    assert asked_for(recorded) == (
        "cycle 'a' was started with export.uri_command 'sign.py --days 30', which runs a program; say so "
        "again, or give its --config: --set 'export.uri_command=sign.py --days 30'"
    )
    assert "sign.py --days 30" in asked_for(recorded, "export.uri_command=sign.py --days 3")
    require_given(recorded, recorded, "a")


def test_what_the_message_says_is_enough() -> None:
    recorded = load_settings(None, ALL)
    message = asked_for(recorded)
    for effect in ("imports code, and with", "sends what the environment holds", "runs a program"):
        assert effect in message
    flags = shlex.split(message.partition("--config: ")[2])
    assert flags[::2] == ["--set"] * 4
    require_given(recorded, load_settings(overrides=flags[1::2]), "a")
    message = asked_for(recorded, *COMMAND)
    assert "uri_command" not in message and "team.queries:mine" in message


def test_settings_that_run_nothing_need_no_word() -> None:
    harmless = ["export.uri_template=https://x/{path}", "score.define.other.errors=fp", "score.eta=0.6"]
    require_given(load_settings(None, harmless), Settings(), "a")
    assert code_settings(load_settings(None, harmless)) == ()


@pytest.mark.parametrize(
    "value",
    [
        "sign.py",
        "sh -c 'curl x | sh' \"$HOME\" `id`",
        "{uri}?${KEY}",
        "a: b # c",
        "12",
        "true",
        "line\nbreak \x1b[2K",
        "sign\u202eyp.exe",
        "é {} ü",
    ],
)
def test_flags_give_the_very_value_whatever_is_in_it(value: str) -> None:
    setting = CodeSetting("export.uri_command", value, "")
    item = setting.flags[1]
    assert item.isprintable()
    assert load_settings(overrides=[item]).export.uri_command == value
