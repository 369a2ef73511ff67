"""The contract every detector meets: arrays of images in, aligned arrays of detections out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import QuarryError
from detectors.architectures import Head
from detectors.detections import Detections
from detectors.stage_clock import StageClock


@dataclass(frozen=True)
class DetectorCard:
    """What is known of a detector without running it.

    Attributes:
        model_id: 16 hexadecimal characters; same weights and adapter settings, same id, whatever the name.
        name: What people call it.
        uri: Where the weights came from.
        classes: Class names; label i is `classes[i - 1]`.
        head: `softmax` (logits K + 1, background first) or `sigmoid` (logits K).
        architecture: Name of the builder, `onnx`, or the plugin's module:factory.
        parameters: Number of weights; 0 when unknown.
        min_size: Shorter side fed to the model (px); 0 when the detector resizes by a rule of its own.
        max_size: Longer side fed to the model (px); 0 likewise.
    """

    model_id: str
    name: str
    uri: str
    classes: tuple[str, ...]
    head: Head
    architecture: str
    parameters: int
    min_size: int
    max_size: int


class Detector(ABC):
    """Runs on images and says who it is; subclasses bring the model.

    Attributes:
        card: What is known of it without running it.
        clock: Seconds of its stages `transfer`, `forward`, `post_process`, and `pixel_scores` where they are
            asked for, since they were last taken.
    """

    def __init__(self, card: DetectorCard, device: torch.device) -> None:
        self.card = card
        self.device = device
        self.clock = StageClock(device)

    @abstractmethod
    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each image, in the order given.

        What one image gets does not depend on the others (beyond float rounding).

        Args:
            images: Arrays (h, w, 3) uint8, RGB, EXIF orientation applied; sizes may differ.

        Returns:
            One `Detections` an image, in px of that image, scores >= eta0, best first.

        Raises:
            QuarryError: An array is no RGB image, or the detector cannot use it.
            torch.OutOfMemoryError: The device has too little memory for so many images at once.
        """

    def pixel_score_map(self, image: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        """Score of every pixel of an image, of which `Detections.pixel_scores[name]` is pooled.

        Args:
            image: (h, w, 3) uint8, RGB.
            name: One of the scores that the detector was asked for.

        Returns:
            (h, w) float32, >= 0, nats.

        Raises:
            QuarryError: The detector was not asked for this score.
        """
        raise QuarryError(f"{self.name} has no pixel scores {name!r}; see detector.pixel_scores")

    @property
    def model_id(self) -> str:
        """Identity over weights and adapter settings."""
        return self.card.model_id

    @property
    def name(self) -> str:
        """What people call the detector."""
        return self.card.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; label i is `classes[i - 1]`."""
        return self.card.classes

    @property
    def head(self) -> Head:
        """`softmax` or `sigmoid`."""
        return self.card.head

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.card.parameters


def resolve_device(device: str) -> torch.device:
    """The torch device of `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        QuarryError: CUDA was asked for and this machine has none.
    """
    available = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if available else "cpu")
    if device.startswith("cuda") and not available:
        raise QuarryError("detect.device is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return torch.device(device)


def require_rgb(image: NDArray[np.uint8], index: int) -> None:
    """Fail unless an array is an image as `Detector.predict` takes it.

    Raises:
        QuarryError: Names the image's place in the batch, its shape and type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise QuarryError(
            f"image {index} of the batch: expected (h, w, 3) uint8, got {image.shape} {image.dtype}"
        )
