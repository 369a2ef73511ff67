"""What every group of settings and every definition in YAML is built on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


# A variable, ${NAME}, stands for a secret, and so may {key}, which is part of a template.
_PASSWORD = re.compile(r"://[^/?#@\s]*:(?!\$\{)[^/?#@\s]+@")
_SECRET_FIELD = re.compile(
    r"(?i)[?&]([\w.%-]*(?:sig|signature|token|secret|password|passwd|pwd|auth|credential"
    r"|(?:access|account|api|secret)[-_]?key))=(?!\$?\{)[^&#]+"
)


def secret_in(uri: str) -> str | None:
    """What in a URI is a secret written out: a password, a query field by name; None where nothing is."""
    field = _SECRET_FIELD.search(uri)
    return "password" if _PASSWORD.search(uri) else f"query field {field.group(1)!r}" if field else None


def require_no_secret(uri: str) -> None:
    """Fails where a URI holds a secret.

    Raises:
        ValueError: Says what to do instead.
    """
    if secret := secret_in(uri):
        raise ValueError(
            f"a {secret} in a path would be kept in tables and reports: give it to Spark and to the storage "
            "(settings spark.conf, environment variables) instead"
        )


def location(uri: str) -> str:
    """A path as every process sees it: relative ones count from here; URIs stay as they are.

    Raises:
        ValueError: It is empty, as an unset shell variable is, or holds a password, which tables would keep.
    """
    if not uri.strip():
        raise ValueError("expected a path or URI, got an empty one")
    require_no_secret(uri)
    return uri if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) else os.path.abspath(Path(uri).expanduser())


Location = Annotated[str, AfterValidator(location)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1)]
