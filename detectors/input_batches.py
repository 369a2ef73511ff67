"""From images as arrays to the batches that torchvision's models take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from conf.errors import QuarryError
from detectors.detector import require_rgb


@dataclass(frozen=True)
class InputBatch:
    """Images that share a forward pass.

    Attributes:
        images: Tensors (b, 3, h, w) float32, channels last, normalised and padded with 0 at the right and at
            the bottom, with the sizes (h, w) in px without padding.
        positions: Place of each image among those that came.
        original_hw: Height and width (px) of each image as it came.
    """

    images: ImageList
    positions: tuple[int, ...]
    original_hw: tuple[tuple[int, int], ...]


def input_batches(
    images: Sequence[NDArray[np.uint8]], transform: Any, device: torch.device
) -> list[InputBatch]:
    """Images resized, normalised and padded on the device, in batches of one padded size each.

    The padded size of an image depends on the image alone, so what it is batched with does not change what
    the network makes of it. torchvision pads to the largest image of a batch instead.

    Args:
        images: (h, w, 3) uint8 RGB arrays of any sizes; they may be read-only.
        transform: The model's `GeneralizedRCNNTransform`, in evaluation mode.
        device: Where the model is.

    Raises:
        QuarryError: An array is no RGB image, or so narrow that resizing leaves nothing of it.
    """
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (transform.image_mean, transform.image_std)
    )
    members: dict[tuple[int, int], list[tuple[int, Tensor]]] = {}
    for position, image in enumerate(images):
        _require_usable(image, position, transform)
        pixels = _uploaded(image, device).permute(2, 0, 1).float().div_(255).sub_(mean).div_(std)
        resized, _ = transform.resize(pixels)
        padded_hw = _padded_hw(resized, transform.size_divisible)
        members.setdefault(padded_hw, []).append((position, resized))
    return [_batch(padded_hw, found, images) for padded_hw, found in members.items()]


def _require_usable(image: NDArray[np.uint8], position: int, transform: Any) -> None:
    require_rgb(image, position)
    if transform.fixed_size is not None:
        return
    height, width = image.shape[:2]
    scale = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
    if min(height, width) * scale < 1:
        raise QuarryError(
            f"image {position} of the batch: {width}x{height} px has no pixel left across at the "
            f"detector's input size (longer side {transform.max_size} px)"
        )


def _uploaded(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The image on the device, as bytes: a quarter of what floats would take over the bus.

    Copies from pinned memory need not be waited for. The copy into it also takes arrays that are read-only
    or not contiguous.
    """
    staged = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    staged.numpy()[...] = image
    return staged.to(device, non_blocking=True)


def _padded_hw(resized: Tensor, multiple: int) -> tuple[int, int]:
    height, width = (-(-side // multiple) * multiple for side in resized.shape[-2:])
    return height, width


def _batch(
    padded_hw: tuple[int, int], members: list[tuple[int, Tensor]], images: Sequence[NDArray[np.uint8]]
) -> InputBatch:
    first = members[0][1]
    tensors = torch.empty(
        (len(members), 3, *padded_hw), device=first.device, memory_format=torch.channels_last
    ).zero_()
    sizes_hw = []
    for slot, (_, resized) in zip(tensors, members, strict=True):
        height, width = resized.shape[-2:]
        slot[:, :height, :width] = resized
        sizes_hw.append((height, width))
    positions = tuple(position for position, _ in members)
    original_hw = tuple((images[p].shape[0], images[p].shape[1]) for p in positions)
    return InputBatch(ImageList(tensors, sizes_hw), positions, original_hw)
