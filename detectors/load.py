"""From settings to a detector: the shipped one, a checkpoint, a state dict file, torchvision's weights, an
ONNX file or a plugin."""

from __future__ import annotations

from importlib import resources
from typing import Any

from torch import nn

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from detectors.architectures import build_model, known_architectures
from detectors.checkpoint import Checkpoint, checkpoint_of, is_checkpoint, read_tensors
from detectors.detector import Detector, DetectorCard
from detectors.files import read_bytes
from detectors.onnx_detector import OnnxDetector
from detectors.outputs import Outputs, PixelScoring
from detectors.pixel_scoring import MUTUAL_INFORMATION, measure_of
from detectors.plugin_detector import PluginDetector
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector
from detectors.torchvision_weights import (
    downloaded_model,
    load_weights,
    named_weights,
    require_classes,
    require_file_if_named,
    state_dict_model,
)

__all__ = ["Detector", "DetectorCard", "describe_detector", "load_detector"]

SAMPLE_WEIGHTS = "sample"
SAMPLE_FILE = "weights/street.pt"


def load_detector(settings: DetectorSettings, device: str, *, compile: bool = False) -> Detector:
    """The detector that the settings name, ready to run.

    With `settings.plugin` it is what that factory makes of `settings.weights`; with `settings.onnx` the ONNX
    file `settings.weights`, read as the mapping says. Otherwise `settings.weights` is one of
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
        compile: Whether torch models are compiled by `torch.compile`; the others run as they are.

    Raises:
        QuarryError: The settings contradict one another; the weights are missing, damaged or hold code, or
            do not fit the architecture, the mapping or the classes that the settings name; a plugin fails.
    """
    _require_one_kind(settings)
    if settings.plugin is not None:
        return _plugin_detector(settings, device)
    if settings.onnx is not None:
        return _onnx_detector(settings, device)
    return _torch_detector(settings, device, compile=compile)


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
        pixel_scores=pixel_scoring(settings),
    )


def pixel_scoring(settings: DetectorSettings) -> PixelScoring | None:
    """Which pixel scores the settings ask for, in one order however they are listed; none: none."""
    if not settings.pixel_scores:
        return None
    uses_dropout = any(measure_of(name) == MUTUAL_INFORMATION for name in settings.pixel_scores)
    return PixelScoring(
        names=tuple(sorted(settings.pixel_scores)),
        radius_px=settings.pixel_radius,
        region_px=settings.pixel_region,
        passes=settings.dropout_passes if uses_dropout else 0,
        dropout_ratio=settings.dropout_ratio if uses_dropout else None,
    )


def _torch_detector(settings: DetectorSettings, device: str, *, compile: bool) -> TorchvisionDetector:
    uri = settings.weights
    weights_names = named_weights(settings.architecture)
    if uri in weights_names:
        model, classes = downloaded_model(settings, weights_names[uri])
        architecture = str(settings.architecture)
    else:
        if uri != SAMPLE_WEIGHTS:
            require_file_if_named(settings, weights_names)
        content = _sample_or_file(uri)
        if is_checkpoint(content):
            checkpoint = checkpoint_of(content, uri)
            architecture, classes = checkpoint.architecture, checkpoint.classes
            model = _checkpoint_model(checkpoint, settings)
        else:
            model, classes = state_dict_model(content, settings)
            architecture = str(settings.architecture)
    return TorchvisionDetector(
        model,
        architecture=architecture,
        classes=classes,
        keep=keep_thresholds(settings),
        outputs=kept_outputs(settings),
        device=device,
        precision=settings.precision,
        compile=compile,
        name=settings.name,
        uri=uri,
    )


def _plugin_detector(settings: DetectorSettings, device: str) -> PluginDetector:
    assert settings.plugin is not None
    return PluginDetector(
        settings.plugin,
        weights=None if settings.weights == SAMPLE_WEIGHTS else settings.weights,
        classes=settings.classes,
        keep=keep_thresholds(settings),
        outputs=kept_outputs(settings),
        device=device,
        name=settings.name,
    )


def _onnx_detector(settings: DetectorSettings, device: str) -> OnnxDetector:
    assert settings.onnx is not None
    uri = settings.weights
    try:
        content = read_bytes(uri)
    except OSError as error:
        raise QuarryError(f"cannot read detector weights {uri}: {error.strerror or error}") from error
    return OnnxDetector(
        content,
        spec=settings.onnx,
        classes=settings.classes,
        keep=keep_thresholds(settings),
        outputs=kept_outputs(settings),
        device=device,
        name=settings.name,
        uri=uri,
    )


def _require_one_kind(settings: DetectorSettings) -> None:
    """Fail where settings are of two kinds of detector, or would have no effect on theirs."""
    is_onnx_file = settings.weights.lower().endswith(".onnx")
    if settings.plugin is None and settings.onnx is None:
        if is_onnx_file:
            raise QuarryError(
                f"{settings.weights}: an ONNX file does not say what its outputs mean: set detector.onnx "
                "(docs/detectors.md)"
            )
        return
    if settings.plugin is not None and settings.onnx is not None:
        raise QuarryError("detector.plugin and detector.onnx are both set: keep one")
    kind = "plugin" if settings.plugin is not None else "onnx"
    if kind == "onnx" and not is_onnx_file:
        raise QuarryError(
            f"detector.onnx is set: expected an .onnx file in detector.weights, got {settings.weights}"
        )
    torch_only: tuple[Any, ...] = (settings.architecture, settings.min_size, settings.max_size)
    names = ("architecture", "min_size", "max_size")
    if settings.pixel_scores:
        raise QuarryError(
            f"detector.pixel_scores need the dense foreground maps of a torchvision detector "
            f"({', '.join(known_architectures())}); with detector.{kind} there are none: leave them out"
        )
    useless = [f"detector.{name}" for name, value in zip(names, torch_only, strict=True) if value is not None]
    if settings.precision != "float32":
        useless.append("detector.precision")
    if useless:
        raise QuarryError(f"{', '.join(useless)}: no effect with detector.{kind}; leave out")


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
    require_classes(settings, checkpoint.classes)
    model = build_model(
        checkpoint.architecture,
        n_classes=len(checkpoint.classes),
        min_size=settings.min_size or checkpoint.min_size,
        max_size=settings.max_size or checkpoint.max_size,
    )
    load_weights(model, checkpoint.weights, uri)
    return model
