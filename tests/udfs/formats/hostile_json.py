"""Label files with something wrong in them: values replaced by hostile ones, keys taken away."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None,
    True,
    float("nan"),
    float("inf"),
    10**400,
    -1,
    0,
    "",
    "\ud800",
    "../../etc/passwd",
    "'; DROP TABLE labels; --",
    [],
    {},
    [[[[]]]],
    {"x": {"x": {}}},
    ["a"],
    "9999-99-99T99:99:99Z",
)


def mutated(document: Any, *, seed: int, n: int) -> Iterator[bytes]:
    """`n` copies of a JSON value, each with one to three places replaced by hostile values or removed."""
    rng = random.Random(seed)
    found = list(places(document, ()))
    for _ in range(n):
        changed = copy.deepcopy(document)
        for place in rng.sample(found, k=rng.randint(1, 3)):
            _spoil(changed, place, rng)
        yield json.dumps(changed).encode()


def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Where the values inside a JSON value are, each as the keys and indices that lead to it."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def _spoil(document: Any, path: tuple[Any, ...], rng: random.Random) -> None:
    holder = document
    try:
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.3:
            del holder[path[-1]]
        else:
            holder[path[-1]] = rng.choice(HOSTILE)
    except (KeyError, IndexError, TypeError):
        return  # An earlier change of this copy took the place away.
