"""Values of label files as messages and tables show them: short, without signatures and passwords of URLs."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

# Python's and Java's regular expressions read both alike; names in object stores may hold ? and #.
QUERY = r"(?si)(https?://[^?#]*)[?#].*|[?#][^\s?&#=/]+=.*"
# Azure's container stands where others have a user.
PASSWORD = r"(?<!abfs)(?<!abfss)(?<!wasb)(?<!wasbs)(://)[^/?#@\s]*@"
MOST_PARTS = 8
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def without_query(text: str) -> str:
    """The text up to the query or fragment of a URL in it, and without the user and password of its host.

    Where labeling tools fetch images, the query is often a signature: whoever reads it can open the image.
    """
    return re.sub(PASSWORD, r"\1", re.sub(QUERY, r"\1", text))


def shown(value: Any) -> str:
    """The value for a message: files may hold megabytes, or URLs that are signed, where a number is due.

    Returns:
        Of an object its keys, of an array its first items, of a text what `without_query` leaves; shortened.
    """
    if isinstance(value, Mapping):
        return f"an object with {_first(map(_scalar, value), len(value)) or 'nothing in it'}"
    if isinstance(value, (list, tuple)):
        # Of objects the first tells what they are.
        most = 1 if any(isinstance(part, Mapping) for part in value) else MOST_PARTS
        return f"[{_first(map(_part, value), len(value), most)}]"
    return _scalar(value)


def _first(texts: Iterable[str], n_texts: int, most: int = MOST_PARTS) -> str:
    return ", ".join([*islice(texts, most), *(["..."] if n_texts > most else [])])


def _part(value: Any) -> str:
    return "an array" if isinstance(value, (list, tuple)) else shown(value)


def _scalar(value: Any) -> str:
    return _SHORT.repr(without_query(value) if isinstance(value, str) else value)
