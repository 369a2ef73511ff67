"""Functions of a team's own code, named `module:function`."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

from conf.errors import QuarryError

MODULE_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@lru_cache(maxsize=64)
def imported_function(function: str, setting: str) -> Any:
    """The function `module:function` names.

    Args:
        function: As `MODULE_FUNCTION`.
        setting: What asked for it, for messages.

    Raises:
        QuarryError: No such module or function, or importing the module fails.
    """
    module_name, name = function.split(":")
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise QuarryError(
            f"{setting}: cannot import {module_name}: {error}; it must be on the Python path here and "
            "on every worker (spark-submit --py-files)"
        ) from None
    if not callable(found):
        raise QuarryError(f"{setting}: module {module_name} has no function {name!r}")
    return found
