"""The settings that have code run. A table may remind people of them, but never has a say of its own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from conf.errors import QuarryError
from conf.settings import Settings


@dataclass(frozen=True)
class CodeSetting:
    """A setting that has code run, or hands on what the environment holds.

    Attributes:
        key: As in `--set`.
        value: What it is set to.
        effect: What that does, after "which".
    """

    key: str
    value: str
    effect: str

    @property
    def flags(self) -> tuple[str, str]:
        """What gives it on a command line; characters that cannot be seen are escaped."""
        is_plain = self.value.isprintable() and _read(self.value) == self.value
        return ("--set", f"{self.key}={self.value if is_plain else json.dumps(self.value)}")


def code_settings(settings: Settings) -> tuple[CodeSetting, ...]:
    """All that are set, in the order of the sections."""
    return tuple(_code_settings(settings))


def require_given(recorded: Settings, given: Settings, cycle_id: str) -> None:
    """Fails where a cycle's record would have code run that nobody asked for now.

    Whoever can write to the tables could have their code run by the next person who goes on with a cycle.

    Args:
        recorded: What the cycle would go on with.
        given: What the command line says.
        cycle_id: The cycle.

    Raises:
        QuarryError: Names every such setting, and the flags that give it again.
    """
    known = {(one.key, one.value) for one in code_settings(given)}
    lacking = [one for one in code_settings(recorded) if (one.key, one.value) not in known]
    if lacking:
        named = ", and with ".join(f"{one.key} {one.value!r}, which {one.effect}" for one in lacking)
        flags = shlex.join(flag for one in lacking for flag in one.flags)
        raise QuarryError(
            f"cycle {cycle_id!r} was started with {named}; say so again, or give its --config: {flags}"
        )


def _code_settings(settings: Settings) -> Iterator[CodeSetting]:
    if settings.detector.plugin is not None:
        yield CodeSetting("detector.plugin", settings.detector.plugin, "imports code")
    for name, query in settings.score.define.items():
        if query.python is not None:
            yield CodeSetting(f"score.define.{name}.python", query.python, "imports code")
    template = settings.export.uri_template
    if template is not None and "${" in template:
        yield CodeSetting("export.uri_template", template, "sends what the environment holds")
    if settings.export.uri_command is not None:
        yield CodeSetting("export.uri_command", settings.export.uri_command, "runs a program")


def _read(text: str) -> object:
    """The value that `--set` would read."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
