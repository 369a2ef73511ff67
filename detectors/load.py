"""From settings to a detector: the shipped one, a checkpoint, a state dict file or torchvision's weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from detectors.architectures import build_model, head_kind, require_known, torchvision_architectures
from detectors.checkpoint import Checkpoint, checkpoint_of, is_checkpoint, read_tensors
from detectors.detector import Detector, DetectorCard
from detectors.outputs import Outputs
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector

__all__ = ["Detector", "DetectorCard", "describe_detector", "load_detector"]

SAMPLE_WEIGHTS = "sample"
SAMPLE_FILE = "weights/street.pt"
# These weights were trained with a batch norm epsilon of 0; torchvision's own loader sets it so.
ZERO_EPSILON_WEIGHTS = "COCO_V1"


def load_detector(settings: DetectorSettings, device: str) -> Detector:
    """The detector that the settings name, ready to run.

    `settings.weights` is one of
    - `sample`: the street detector that comes with Quarry;
    - a checkpoint written by `quarry train`, as a local path or URI;
    - a file with a bare state dict of `settings.architecture` (a torchvision name, K + 1 columns with
      background at 0); class names are `settings.classes`, those of torchvision's weights if it is one of
      their files under its own name, else class_1 ... class_K;
    - the name of torchvision weights (`COCO_V1`, `DEFAULT`) of `settings.architecture`, downloaded to
      torch's cache if not there.

    Args:
        settings: Weights, architecture, classes and thresholds.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        QuarryError: The weights are missing, damaged or hold code, or do not fit the architecture or the
            classes that the settings name.
    """
    uri = settings.weights
    weights_names = _torchvision_weights(settings.architecture)
    if uri in weights_names:
        model, classes = _downloaded(settings, weights_names[uri])
        architecture = str(settings.architecture)
    else:
        content = _sample_or_file(uri)
        if is_checkpoint(content):
            checkpoint = checkpoint_of(content, uri)
            architecture, classes = checkpoint.architecture, checkpoint.classes
            model = _checkpoint_model(checkpoint, settings)
        else:
            model, classes = _state_dict_model(content, settings)
            architecture = str(settings.architecture)
    return TorchvisionDetector(
        model,
        architecture=architecture,
        classes=classes,
        keep=keep_thresholds(settings),
        outputs=kept_outputs(settings),
        device=device,
        name=settings.name,
        uri=uri,
    )


def describe_detector(settings: DetectorSettings) -> DetectorCard:
    """Identity, classes and head of the detector that the settings name, with every check of loading it.

    Raises:
        QuarryError: As `load_detector`.
    """
    return load_detector(settings, device="cpu").card


def keep_thresholds(settings: DetectorSettings) -> KeepThresholds:
    """The post-processing part of the settings."""
    return KeepThresholds(
        eta0=settings.eta0, detections_per_image=settings.detections_per_image, nms_iou=settings.nms_iou
    )


def kept_outputs(settings: DetectorSettings) -> Outputs:
    """What the settings ask detections to carry."""
    return Outputs(
        logits=settings.keep_logits,
        features=settings.keep_features,
        image_feature=settings.keep_image_feature,
    )


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


def _sample_or_file(uri: str) -> Any:
    if uri != SAMPLE_WEIGHTS:
        return read_tensors(uri)
    with resources.as_file(resources.files("detectors").joinpath(SAMPLE_FILE)) as path:
        return read_tensors(str(path))


def _checkpoint_model(checkpoint: Checkpoint, settings: DetectorSettings) -> nn.Module:
    uri = settings.weights
    expected = settings.architecture
    if expected is not None and expected != checkpoint.architecture:
        raise QuarryError(
            f"{uri}: detector.architecture expected {expected}, the checkpoint is {checkpoint.architecture}"
        )
    _require_classes(settings, checkpoint.classes)
    model = build_model(
        checkpoint.architecture,
        n_classes=len(checkpoint.classes),
        min_size=settings.min_size or checkpoint.min_size,
        max_size=settings.max_size or checkpoint.max_size,
    )
    load_weights(model, checkpoint.weights, uri)
    return model


def _state_dict_model(content: object, settings: DetectorSettings) -> tuple[nn.Module, tuple[str, ...]]:
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
    if official is not None and official.name == ZERO_EPSILON_WEIGHTS:
        _zero_epsilon(model)
    return model, classes


def _downloaded(settings: DetectorSettings, weights: Any) -> tuple[nn.Module, tuple[str, ...]]:
    sizes = {"min_size": settings.min_size, "max_size": settings.max_size}
    classes = _categories(weights)
    _require_classes(settings, classes)
    try:
        model = torchvision.models.get_model(
            settings.architecture, weights=weights, **{k: v for k, v in sizes.items() if v is not None}
        )
    except (OSError, RuntimeError) as error:
        raise QuarryError(
            f"cannot fetch torchvision weights {settings.weights} of {settings.architecture}: {error}; "
            "download the file elsewhere and set detector.weights to its path"
        ) from error
    return model, classes


def _require_classes(settings: DetectorSettings, classes: tuple[str, ...]) -> None:
    if settings.classes is not None and settings.classes != classes:
        raise QuarryError(
            f"{settings.weights}: detector.classes expected {', '.join(settings.classes)}; "
            f"the weights have {', '.join(classes)}"
        )


def _class_count(weights: Mapping[str, Tensor], architecture: str, source: str) -> int:
    """Classes without background, from the size of the classification layer."""
    reference = build_model(architecture, n_classes=1)
    if head_kind(reference) == "softmax":
        key, per_column = "roi_heads.box_predictor.cls_score.bias", 1
    else:
        key = "head.classification_head.cls_logits.bias"
        per_column = reference.state_dict()[key].numel() // 2
    if key not in weights:
        raise QuarryError(f"{source}: weights do not fit {architecture}: {key} is missing")
    columns = weights[key].numel() // per_column
    if columns < 2 or columns * per_column != weights[key].numel():
        raise QuarryError(
            f"{source}: weights do not fit {architecture}: {key} has {weights[key].numel()} values, "
            f"expected a multiple of {per_column}"
        )
    return columns - 1


def _torchvision_weights(architecture: str | None) -> dict[str, Any]:
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
    for weights in _torchvision_weights(architecture).values():
        if PurePosixPath(weights.url).name == name:
            return weights
    return None


def _categories(weights: Any) -> tuple[str, ...]:
    return tuple(weights.meta["categories"][1:])


def _zero_epsilon(model: Any) -> None:
    for module in model.backbone.body.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
