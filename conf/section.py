"""What every group of settings and every definition in YAML is built on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Section(BaseModel):
    """A frozen group of settings; unknown keys fail."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def require_names(names: Iterable[str]) -> None:
    """Fails where a name a team gave could not be a column.

    Raises:
        ValueError: Names the first one.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: expected up to 64 letters, digits and _, not starting with a digit")
