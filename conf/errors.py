"""The one exception that users see: every expected failure of Quarry is a `QuarryError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class QuarryError(Exception):
    """An expected failure, told in one line: what is wrong, what was expected, what came, what to do.

    Jobs print the message without a traceback and exit with code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that lists the known names closest to `name`, or all of them when none is close.

    Args:
        name: What the user wrote.
        known: The valid names.

    Returns:
        A fragment such as ``did you mean 'total_fp'?`` or ``known: a, b``.
    """
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + (", ".join(choices) or "none")
