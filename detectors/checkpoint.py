"""Checkpoints: one file of weights and everything needed to rebuild the detector, without executable code."""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from conf.errors import QuarryError
from detectors.files import read_bytes, write_bytes

FORMAT = "quarry-detector"
FORMAT_VERSION = 1
_FIELDS: dict[str, type] = {
    "architecture": str, "classes": list, "head": str, "min_size": int, "max_size": int, "weights": dict,
    "recipe": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A detector as stored.

    Attributes:
        architecture: Name for `build_model`.
        classes: Class names without background; label i is `classes[i - 1]`.
        head: `softmax` or `sigmoid`.
        min_size: Shorter side fed to the model (px).
        max_size: Longer side fed to the model (px).
        weights: State dict, floating-point tensors as float32.
        recipe: How it was trained: settings and results, plain values.
    """

    architecture: str
    classes: tuple[str, ...]
    head: str
    min_size: int
    max_size: int
    weights: dict[str, Tensor]
    recipe: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, uri: str, *, half: bool = True) -> None:
    """Write a checkpoint in one piece; an existing file is replaced.

    Args:
        checkpoint: What to store.
        uri: Local path or URI.
        half: Store floating-point weights as float16 (half the bytes; relative rounding below 0.1 %).

    Raises:
        QuarryError: The place cannot be written.
    """
    content: dict[str, Any] = {**asdict(checkpoint), "format": FORMAT, "format_version": FORMAT_VERSION}
    content["classes"] = list(checkpoint.classes)
    content["weights"] = {
        key: _half(value) if half else value.cpu() for key, value in checkpoint.weights.items()
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(uri, buffer.getvalue())


def as_stored(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that loading would give after storing these as float16."""
    return {key: _restored(_half(value)) for key, value in weights.items()}


def load_checkpoint(uri: str) -> Checkpoint:
    """Read a checkpoint from a local path or URI.

    Raises:
        QuarryError: The file is missing, holds anything but tensors and plain values, is no Quarry
            checkpoint, or one of a newer format.
    """
    content = read_tensors(uri)
    if not is_checkpoint(content):
        raise QuarryError(f"{uri} is no Quarry checkpoint; for a bare state dict set detector.architecture")
    return checkpoint_of(content, uri)


def is_checkpoint(content: object) -> bool:
    """Whether what `read_tensors` returned is a Quarry checkpoint of any format version."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def checkpoint_of(content: dict[str, Any], uri: str) -> Checkpoint:
    """The checkpoint in what `read_tensors` returned.

    Raises:
        QuarryError: The format is newer than this version of Quarry, or a field is missing or mistyped.
    """
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise QuarryError(f"{uri}: checkpoint format {version}, expected {FORMAT_VERSION}; update Quarry")
    for name, kind in _FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise QuarryError(
                f"{uri}: damaged checkpoint, {name} expected {kind.__name__}, "
                f"got {type(content.get(name)).__name__}"
            )
    values = {name: content[name] for name in _FIELDS}
    values["classes"] = tuple(values["classes"])
    values["weights"] = {key: _restored(value) for key, value in values["weights"].items()}
    return Checkpoint(**values)


def read_tensors(uri: str) -> Any:
    """What a file written by `torch.save` holds, if that is tensors and plain values only.

    Raises:
        QuarryError: The file is missing, not written by `torch.save`, or would run code when loaded.
    """
    try:
        stream = io.BytesIO(read_bytes(uri))
    except OSError as error:
        raise QuarryError(f"cannot read detector weights {uri}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            # A pickle of another protocol: it is loaded, or refused below with our own message.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        # torch's own text advises to load such files all the same.
        reason = "other objects are in it" if isinstance(error, pickle.UnpicklingError) else first_line
        raise QuarryError(
            f"{uri} is not a checkpoint of tensors and plain values, and nothing else is loaded: {reason}"
        ) from error


def _half(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if torch.isfinite(half).all() else value


def _restored(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
