"""Reading the YAML files that users write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from conf.errors import QuarryError


class _Loader(yaml.SafeLoader):
    """Safe loading that does not let the second of two equal keys win without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise yaml.YAMLError(
                f"{key!r} is written twice, again in line {node.value[number][0].start_mark.line + 1}"
            )
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def shipped_file(name: str, folder: Path, what: str) -> Path:
    """The YAML file a user names: one that is shipped, or a path.

    Raises:
        QuarryError: Neither; the message has what was asked for and the shipped names.
    """
    shipped = folder / f"{name}.yaml"
    if os.path.isfile(shipped):
        return shipped
    path = Path(name)
    if not os.path.isfile(path):  # unlike Path.is_file, also an answer for names that are too long
        raise QuarryError(f"{what} {name}: no such file; shipped ones: {', '.join(shipped_names(folder))}")
    return path


def shipped_names(folder: Path) -> list[str]:
    """Names of the YAML files of a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The mapping a YAML file holds; empty for an empty file.

    Args:
        path: The file.
        what: What it should map, for messages.

    Raises:
        QuarryError: Not readable, not YAML, a key written twice, or no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise QuarryError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise QuarryError(f"{path}: expected a mapping of {what}, got {type(content).__name__}")
    return content
