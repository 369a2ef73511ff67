"""A detector among images that may break it: smaller batches when memory is short, faults image by image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs.image_files import ImageFault

if TYPE_CHECKING:
    from detectors.detections import Detections
    from detectors.detector import Detector

UNDETECTABLE = "undetectable"
# Batches that must fit before twice as many images are tried again: one giant image must not slow all.
BATCHES_BEFORE_GROWING = 50
TRIES_FOR_MEMORY, WAIT_FOR_MEMORY_S = 3, 2.0
SIGNS_OF_SHORT_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")


class Prediction:
    """Runs a detector on batches; a batch that does not fit the device's memory is halved, later ones too.

    Args:
        detector: What runs.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._most_images: int | None = None
        self._fitted = 0

    def outcomes(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections | ImageFault]:
        """Detections of each image, or its fault; one that the model refuses spares the others.

        Args:
            images: Arrays (h, w, 3) uint8.

        Raises:
            Exception: The device is broken, or the detector fails on ordinary images too: that is no fact
                about an image.
        """
        found: list[Detections | ImageFault] = []
        while len(found) < len(images):
            size = self._most_images or len(images)
            found += self._batch(images[len(found) : len(found) + size])
            self._grow()
        return found

    def _grow(self) -> None:
        self._fitted += 1
        if self._most_images is not None and self._fitted >= BATCHES_BEFORE_GROWING:
            self._most_images, self._fitted = 2 * self._most_images, 0

    def _batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections | ImageFault]:
        try:
            return list(self.detector.predict(images))
        except Exception as error:
            if _is_out_of_memory(error):
                told = _told(error)
            elif _is_device_failure(error):
                raise
            elif len(images) > 1:
                return self._one_by_one(images)
            elif _is_unforeseen(error) and not self._runs_at_all():
                raise
            else:
                return [ImageFault(UNDETECTABLE, _told(error))]
        # Outside the handler: while the error is held, so are the tensors of the batch that did not fit.
        return self._in_halves(images, told)

    def _one_by_one(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections | ImageFault]:
        return [outcome for image in images for outcome in self._batch([image])]

    def _runs_at_all(self) -> bool:
        """Whether the detector can use ordinary images: then what it failed on is that image's fault."""
        from detectors.kept_detections import probe_images

        try:
            self.detector.predict(probe_images())
        except Exception:
            return False
        return True

    def _in_halves(self, images: Sequence[NDArray[np.uint8]], told: str) -> list[Detections | ImageFault]:
        _free_device_memory()
        if len(images) == 1:
            return self._once_there_is_room(images, told)
        self._most_images = half = len(images) // 2
        self._fitted = 0
        return [
            outcome
            for start in range(0, len(images), half)
            for outcome in self._batch(images[start : start + half])
        ]

    def _once_there_is_room(
        self, images: Sequence[NDArray[np.uint8]], told: str
    ) -> list[Detections | ImageFault]:
        """Another worker on the same device may need the memory just now."""
        for _ in range(TRIES_FOR_MEMORY):
            time.sleep(WAIT_FOR_MEMORY_S)
            try:
                return list(self.detector.predict(images))
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise
            _free_device_memory()
        return [ImageFault(UNDETECTABLE, f"does not fit the device's memory: {told}")]


def _is_unforeseen(error: Exception) -> bool:
    """Whether no check of ours refused the image: code failed, a plugin's perhaps."""
    return not isinstance(error, QuarryError) or error.__cause__ is not None


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS_OF_SHORT_MEMORY)


def _is_device_failure(error: Exception) -> bool:
    """Errors after which a CUDA context answers nothing but errors; another task must take over."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)


def _free_device_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _told(error: Exception) -> str:
    line = (str(error).splitlines() or [""])[0][:300]
    return line if isinstance(error, QuarryError) else f"{type(error).__name__}: {line}"
