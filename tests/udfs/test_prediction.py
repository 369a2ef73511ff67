"""Batches that do not fit are halved, images that break the model are told apart from broken devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conf.errors import QuarryError
from detectors.detections import Detections
from detectors.detector import Detector
from udfs import prediction
from udfs.image_files import ImageFault
from udfs.prediction import BATCHES_BEFORE_GROWING, Prediction

IMAGES = [np.full((4, 4, 3), i, np.uint8) for i in range(8)]


def _one_box(image: NDArray[np.uint8]) -> Detections:
    x = float(image[0, 0, 0])
    return Detections(
        boxes_xyxy=np.array([[x, 0, x + 1, 1]], np.float32),
        scores=np.array([0.5], np.float32),
        labels=np.array([1]),
    )


class Fragile:
    """Runs `check` on every batch, which may raise; then one box an image, placed by its first pixel."""

    def __init__(self, check: Callable[[Sequence[NDArray[np.uint8]]], None]) -> None:
        self.check = check
        self.sizes: list[int] = []

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        self.sizes.append(len(images))
        self.check(images)
        return [_one_box(image) for image in images]


def _run(model: Fragile, times: int = 1) -> list[list[Detections | ImageFault]]:
    runner = Prediction(cast(Detector, model))
    return [runner.outcomes(IMAGES) for _ in range(times)]


def _places(outcomes: Sequence[Any]) -> list[float]:
    return [o.boxes_xyxy[0, 0] for o in outcomes]


def _fits(most: int, error: type[Exception] = torch.OutOfMemoryError) -> Callable[[Sequence[Any]], None]:
    def check(images: Sequence[Any]) -> None:
        if len(images) > most:
            raise error("CUDA out of memory. Tried to allocate 2.00 GiB")

    return check


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_too_large_is_halved_and_later_ones_start_small(error: type[Exception]) -> None:
    model = Fragile(_fits(3, error))
    first, second = _run(model, times=2)
    assert _places(first) == _places(second) == list(range(8))
    assert model.sizes == [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2]


def test_after_a_while_larger_batches_are_tried_again() -> None:
    model = Fragile(_fits(3))
    _run(model, times=1 + BATCHES_BEFORE_GROWING)
    assert 4 in model.sizes[-BATCHES_BEFORE_GROWING:]


def test_one_image_that_never_fits_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "WAIT_FOR_MEMORY_S", 0.0)

    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        if any(image[0, 0, 0] == 3 for image in images):
            raise torch.OutOfMemoryError("CUDA out of memory")

    (outcomes,) = _run(Fragile(check))
    faults = [o for o in outcomes if isinstance(o, ImageFault)]
    assert [(f.error_class, "memory" in f.message) for f in faults] == [("undetectable", True)]
    assert _places([o for o in outcomes if not isinstance(o, ImageFault)]) == [0, 1, 2, 4, 5, 6, 7]


def test_an_image_waits_for_memory_that_another_worker_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "WAIT_FOR_MEMORY_S", 0.0)
    tries: list[int] = []

    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        if images[0][0, 0, 0] == 3 or len(images) > 1:
            tries.append(len(images))
            if tries.count(1) < 3:
                raise torch.OutOfMemoryError("CUDA out of memory")

    (outcomes,) = _run(Fragile(check))
    assert _places(outcomes) == list(range(8))


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:1]])
def test_odd_images_that_come_together_are_faults_of_their_own(images: list[NDArray[np.uint8]]) -> None:
    def check(batch: Sequence[NDArray[np.uint8]]) -> None:
        if batch[0].shape == (4, 4, 3):
            raise ValueError("not of this shape")

    outcomes = Prediction(cast(Detector, Fragile(check))).outcomes(images)
    assert all(isinstance(o, ImageFault) and "not of this shape" in o.message for o in outcomes)


@pytest.mark.parametrize("error", [QuarryError, ValueError, RuntimeError])
def test_an_image_that_breaks_the_model_spares_the_others(error: type[Exception]) -> None:
    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        if any(image[0, 0, 0] == 5 for image in images):
            raise error("no")

    (outcomes,) = _run(Fragile(check))
    assert [i for i, o in enumerate(outcomes) if isinstance(o, ImageFault)] == [5]


def test_a_model_that_always_fails_stops_the_task_instead_of_emptying_the_lake() -> None:
    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        raise ValueError("the plugin has a bug")

    with pytest.raises(ValueError, match="has a bug"):
        _run(Fragile(check))

    def wrapped(images: Sequence[NDArray[np.uint8]]) -> None:
        raise QuarryError("detector.plugin my:model: predict failed") from ValueError("a bug")

    with pytest.raises(QuarryError, match="predict failed"):
        _run(Fragile(wrapped))


def test_a_batch_of_images_the_model_refuses_is_a_batch_of_faults() -> None:
    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        raise QuarryError("too thin")

    (outcomes,) = _run(Fragile(check))
    assert [(o.error_class, o.message) for o in outcomes if isinstance(o, ImageFault)] == [
        ("undetectable", "too thin")
    ] * 8


def test_a_broken_device_is_no_fact_about_an_image() -> None:
    def check(images: Sequence[NDArray[np.uint8]]) -> None:
        if any(image[0, 0, 0] == 5 for image in images):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(torch.AcceleratorError, match="illegal memory"):
        _run(Fragile(check))
