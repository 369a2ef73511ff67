"""From a YAML profile and `--set` overrides to frozen `Settings`; all errors are reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from conf.errors import QuarryError, nearest
from conf.settings import Settings

PROFILE_FOLDER = Path(__file__).parent
DEFAULT_PROFILE = "local"


def load_settings(
    config: str | None = None, overrides: Sequence[str] = (), root: str | None = None
) -> Settings:
    """The resolved settings of a run.

    Args:
        config: A shipped profile's name (`demo`, `local`, `cluster`) or a YAML file; none: `local`.
        overrides: Items such as ``score.eta=0.6``; the value is read as YAML.
        root: Where the tables live; wins over the profile.

    Returns:
        Frozen settings.

    Raises:
        QuarryError: The file is missing or not YAML, or any key, type or value is wrong; the message lists
            every fault with file, key and what is allowed.
    """
    path = _profile_path(config or DEFAULT_PROFILE)
    merged = _read_yaml(path)
    for item in overrides:
        _set_key(merged, item)
    if root is not None:
        merged["root"] = root
    faults: list[str] = []
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors()]
    faults += _contradictions(merged)
    if faults or settings is None:
        raise QuarryError("\n".join(f"{path}: {fault}" for fault in faults))
    return settings


def profile_names() -> list[str]:
    """Names of the shipped profiles, sorted."""
    return sorted(p.stem for p in PROFILE_FOLDER.glob("*.yaml"))


def _profile_path(config: str) -> Path:
    shipped = PROFILE_FOLDER / f"{config}.yaml"
    if shipped.is_file():
        return shipped
    path = Path(config)
    if not path.is_file():
        raise QuarryError(
            f"--config {config}: no such file and no such profile; profiles: {', '.join(profile_names())}"
        )
    return path


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise QuarryError(f"{path}: not valid YAML: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise QuarryError(f"{path}: expected a mapping of settings, got {type(content).__name__}")
    return content


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
    return f"{key}: {details['msg']}, got {details['input']!r}"


def _fields_at(location: Sequence[str]) -> Mapping[str, object]:
    model: type[BaseModel] = Settings
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return {}
        model = annotation
    return model.model_fields


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
