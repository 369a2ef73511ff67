"""From a YAML profile and `--set` overrides to frozen `Settings`; all errors are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from conf.errors import QuarryError, nearest
from conf.section import secret_in
from conf.settings import Settings
from conf.yaml_file import read_mapping, shipped_file, shipped_names

PROFILE_FOLDER = Path(__file__).parent
DEFAULT_PROFILE = "local"


def load_settings(
    config: str | None = None,
    overrides: Sequence[str] = (),
    root: str | None = None,
    resolved: Settings | None = None,
) -> Settings:
    """The resolved settings of a run.

    Args:
        config: A shipped profile's name (`demo`, `local`, `cluster`) or a YAML file; none: `local`.
        overrides: Items such as ``score.eta=0.6``; the value is read as YAML.
        root: Where the tables live; wins over the profile.
        resolved: Earlier settings that the overrides change, in place of a profile.

    Returns:
        Frozen settings.

    Raises:
        QuarryError: The file is missing or not YAML, or any key, type or value is wrong; the message lists
            every fault with file, key and what is allowed.
    """
    path = _profile_path(config or DEFAULT_PROFILE)
    # A query file was read when the settings were first resolved.
    merged = read_mapping(path, "settings") if resolved is None else resolved.model_dump(mode="json")
    for item in overrides:
        _set_key(merged, item)
    if root is not None:
        merged["root"] = root
    sources = _read_query_file(merged) if resolved is None else {}
    faults: list[str] = []
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        faults = [f"{_source(details, sources) or path}: {_fault(details)}" for details in error.errors()]
    faults += [f"{path}: {fault}" for fault in _contradictions(merged)]
    if faults or settings is None:
        raise QuarryError("\n".join(faults))
    return settings


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return shipped_names(PROFILE_FOLDER)


def _profile_path(config: str) -> Path:
    return shipped_file(config, PROFILE_FOLDER, "--config")


def _read_query_file(merged: dict[str, Any]) -> dict[str, Path]:
    """Puts the queries of `score.query_file` into `score.define`; returns where each came from."""
    score = merged.get("score")
    if not isinstance(score, dict) or not isinstance(score.get("query_file"), str):
        return {}
    path = shipped_file(score["query_file"], PROFILE_FOLDER / "queries", "score.query_file")
    queries = read_mapping(path, "query names to queries")
    defined = score.get("define")
    defined = defined if isinstance(defined, dict) else {}
    twice = sorted(set(queries) & set(defined))
    if twice:
        raise QuarryError(f"{path}: query {twice[0]!r} is defined in score.define too; keep one")
    merged["score"] = score | {"define": defined | queries}
    return dict.fromkeys(queries, path)


def _source(details: ErrorDetails, sources: Mapping[str, Path]) -> Path | None:
    location = details["loc"]
    return sources.get(str(location[2])) if location[:2] == ("score", "define") and location[2:] else None


def _set_key(merged: dict[str, Any], item: str) -> None:
    key, separator, text = item.partition("=")
    if not separator or not all(key.split(".")):
        raise QuarryError(f"--set {item}: expected a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise QuarryError(f"--set {item}: the value is not valid YAML; quote it") from None
    node: dict[str, Any] = merged
    *parents, leaf = key.split(".")
    for parent in parents:
        child = node.get(parent)
        if not isinstance(child, dict):
            child = node[parent] = {}
        node = child
    node[leaf] = value


def _fault(details: ErrorDetails) -> str:
    location = [part for part in details["loc"] if isinstance(part, str)]
    key = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        return f"{key}: unknown setting; {nearest(location[-1], known)}"
    if details["type"] == "tuple_type":
        reason = "expected a list, as in [a, b]"
    else:
        reason = details["msg"].removeprefix("Value error, ")
    value = details["input"]
    is_left_out = isinstance(value, dict) or (isinstance(value, str) and secret_in(value) is not None)
    got = "" if is_left_out else f", got {value!r}"
    return f"{key}: {reason}{got}"


def _fields_at(location: Sequence[str]) -> Mapping[str, object]:
    node: Any = Settings
    for part in location:
        if get_origin(node) is dict:
            node = get_args(node)[1]
            continue
        section = _section(node)
        if section is None or part not in section.model_fields:
            return {}
        node = section.model_fields[part].annotation
    section = _section(node)
    return {} if section is None else section.model_fields


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section an annotation such as `FilterSpec | None` stands for."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _contradictions(merged: Mapping[str, Any]) -> list[str]:
    """Faults between keys, checked on raw values so that they appear beside the faults within keys."""
    defaults = Settings()

    def number(section: str, key: str) -> float | None:
        raw = merged.get(section)
        value = (
            raw.get(key) if isinstance(raw, dict) and key in raw else getattr(getattr(defaults, section), key)
        )
        return float(value) if isinstance(value, (int, float)) else None

    faults = []
    eta0, eta = number("detector", "eta0"), number("score", "eta")
    if eta0 is not None and eta is not None and eta0 > eta:
        faults.append(
            f"detector.eta0: must be at most score.eta ({eta}), got {eta0}: nothing would be missed"
        )
    shorter, longer = number("train", "min_size"), number("train", "max_size")
    if shorter is not None and longer is not None and shorter > longer:
        faults.append(f"train.min_size: must be at most train.max_size ({longer:g}), got {shorter:g}")
    return faults
