"""Weights in torchvision's layouts: state dict files, and those torchvision publishes by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from conf.errors import QuarryError, nearest
from conf.settings import DetectorSettings
from detectors.architectures import build_model, require_known, torchvision_architectures
from detectors.files import local_path

# These weights were trained with a batch norm epsilon of 0; torchvision's own builders set it so.
ZERO_EPSILON_WEIGHTS = {
    (f"{family}_resnet50_fpn", "COCO_V1")
    for family in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")
}


def state_dict_model(content: object, settings: DetectorSettings) -> tuple[nn.Module, tuple[str, ...]]:
    """A model of `settings.architecture` with these weights, and its class names.

    Args:
        content: What the file `settings.weights` holds.
        settings: Architecture, classes and input sizes.

    Raises:
        QuarryError: It is no state dict, no architecture is set, or they do not fit.
    """
    uri, architecture = settings.weights, settings.architecture
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise QuarryError(f"{uri}: expected a Quarry checkpoint or a state dict, got neither")
    if architecture is None:
        raise QuarryError(f"{uri} is a bare state dict: set detector.architecture to its builder")
    require_known(architecture)
    n_classes = _class_count(content, architecture, uri)
    official = _official_weights(architecture, uri)
    known = _categories(official) if official is not None else ()
    classes = settings.classes or known or tuple(f"class_{i}" for i in range(1, n_classes + 1))
    if len(classes) != n_classes:
        raise QuarryError(
            f"{uri}: detector.classes expected {n_classes} names (the head has {n_classes + 1} columns, "
            f"the first is background), got {len(classes)}"
        )
    model = build_model(
        architecture, n_classes=n_classes, min_size=settings.min_size, max_size=settings.max_size
    )
    load_weights(model, content, uri)
    if (architecture, getattr(official, "name", None)) in ZERO_EPSILON_WEIGHTS:
        _zero_epsilon(model)
    return model, classes


def downloaded_model(settings: DetectorSettings, weights: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The architecture with weights of torchvision, from torch's cache or the net, and its class names.

    Raises:
        QuarryError: They cannot be fetched, or are of other classes than the settings name.
    """
    architecture, classes = str(settings.architecture), _categories(weights)
    require_classes(settings, classes)
    model = build_model(
        architecture, n_classes=len(classes), min_size=settings.min_size, max_size=settings.max_size
    )
    try:
        content = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise QuarryError(
            f"cannot fetch torchvision weights {settings.weights} of {architecture}: {error}; "
            "download the file elsewhere and set detector.weights to its path"
        ) from error
    load_weights(model, content, weights.url)
    if (architecture, weights.name) in ZERO_EPSILON_WEIGHTS:
        _zero_epsilon(model)
    return model, classes


def _class_count(weights: Mapping[str, Tensor], architecture: str, source: str) -> int:
    """Classes without background, from the layers that grow with them."""
    one, two = (_sizes_of_weights(architecture, n_classes) for n_classes in (1, 2))
    counts: dict[str, int] = {}
    for key in (key for key in one if one[key] != two[key]):
        if key not in weights:
            raise QuarryError(f"{source}: weights do not fit {architecture}: {key} is missing")
        per_class, size = two[key] - one[key], weights[key].numel()
        counts[key] = 1 + (size - one[key]) // per_class
        if counts[key] < 1 or (size - one[key]) % per_class:
            raise QuarryError(
                f"{source}: weights do not fit {architecture}: {key} has {size} values, "
                f"expected {per_class} for each class and {one[key] - per_class} beside"
            )
    fewest, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[fewest] != counts[most]:
        raise QuarryError(
            f"{source}: weights do not fit {architecture}: {fewest} is of {counts[fewest]} classes, "
            f"{most} of {counts[most]}"
        )
    return counts[most]


def _sizes_of_weights(architecture: str, n_classes: int) -> dict[str, int]:
    with torch.device("meta"):
        model = build_model(architecture, n_classes=n_classes)
    return {key: value.numel() for key, value in model.state_dict().items()}


def named_weights(architecture: str | None) -> dict[str, Any]:
    """Weights of a torchvision builder by their names, `DEFAULT` among them."""
    if architecture is None:
        return {}
    require_known(architecture)
    if architecture not in torchvision_architectures():
        return {}
    return dict(torchvision.models.get_model_weights(architecture).__members__)


def _official_weights(architecture: str, uri: str) -> Any | None:
    """torchvision's weights that are published under this file name, if any."""
    name = PurePosixPath(uri).name
    for weights in named_weights(architecture).values():
        if PurePosixPath(weights.url).name == name:
            return weights
    return None


def _categories(weights: Any) -> tuple[str, ...]:
    return tuple(weights.meta["categories"][1:])


def _zero_epsilon(model: Any) -> None:
    for module in model.backbone.body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0


def require_classes(settings: DetectorSettings, classes: tuple[str, ...]) -> None:
    """Fail where the settings name other classes than the weights have.

    Raises:
        QuarryError: Names both.
    """
    if settings.classes is not None and settings.classes != classes:
        raise QuarryError(
            f"{settings.weights}: detector.classes expected {', '.join(settings.classes)}; "
            f"the weights have {', '.join(classes)}"
        )


def require_file_if_named(settings: DetectorSettings, known: Mapping[str, Any]) -> None:
    """Fail with the valid names where `weights` looks like the name of torchvision weights and is no file."""
    name, architecture = settings.weights, settings.architecture
    path = local_path(name)
    if not re.fullmatch(r"\w+", name) or (path is not None and path.exists()):
        return
    if architecture is None:
        hint = "for torchvision weights of this name set detector.architecture"
    elif known:
        hint = f"torchvision weights of {architecture}: {nearest(name, known)}"
    else:
        hint = f"torchvision has no weights for {architecture}"
    raise QuarryError(f"detector.weights: {name!r} is no file; {hint}")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a model of the same shape.

    Raises:
        QuarryError: Names are missing or unknown, or shapes differ; the message names the first.
    """
    try:
        outcome = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise QuarryError(f"{source}: weights do not fit the architecture: {line}") from error
    if outcome.missing_keys or outcome.unexpected_keys:
        missing, unknown = outcome.missing_keys, outcome.unexpected_keys
        first = f"missing {missing[0]}" if missing else f"unknown {unknown[0]}"
        raise QuarryError(
            f"{source}: weights do not fit the architecture: {len(missing)} names missing, "
            f"{len(unknown)} unknown ({first}); check detector.architecture"
        )
