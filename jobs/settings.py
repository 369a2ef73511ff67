"""Lists every setting and its meaning."""

from __future__ import annotations

import argparse
import sys

from pydantic import BaseModel

from conf.settings import Settings
from jobs.command import Job
from jobs.progress import say


def _work(_: None, settings: Settings, args: argparse.Namespace) -> None:
    say("# resolved settings; each value may be set in a YAML file or with --set section.key=value")
    _list(settings, "")


def _list(section: BaseModel, prefix: str) -> None:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            say(f"\n{prefix}{name}:  # {(type(value).__doc__ or '').splitlines()[0]}")
            _list(value, f"{prefix}{name}.")
        else:
            say(f"  {prefix}{name} = {value!r}\n      {field.description}")


JOB = Job(
    name="settings",
    summary="Lists every setting with its value in a profile and its meaning.",
    example="quarry settings --config demo",
    work=_work,
    needs_root=False,
    needs_spark=False,
)

if __name__ == "__main__":
    sys.exit(JOB.main())
