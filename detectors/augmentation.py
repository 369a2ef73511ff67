"""Training views of an image: scaled and cropped, mirrored, colours changed; drawn from a seed of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from detectors.architectures import resized_hw

ZOOM_RANGE = (0.75, 1.4)
BRIGHTNESS_RANGE = CONTRAST_RANGE = SATURATION_RANGE = (0.7, 1.3)
# A box cut by the crop is still an object to find when at least this share of its area is left.
VISIBLE_SHARE = 0.35
SMALLEST_SIDE_PX = 2.0


@dataclass(frozen=True)
class TrainingView:
    """One image as the model is trained on it.

    Attributes:
        pixels: (3, h, w) uint8, RGB.
        boxes_xyxy: (m, 4) float32, px of `pixels`.
        labels: (m,) int64, 1..K.
        noisy: (m,) bool, boxes that nobody has checked.
    """

    pixels: Tensor
    boxes_xyxy: Tensor
    labels: Tensor
    noisy: Tensor


def view_generator(seed: int, epoch: int, image: str) -> np.random.Generator:
    """The random source of one image in one epoch, whatever the order and the batch."""
    digest = hashlib.sha256(f"{seed} {epoch} {image}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def training_view(
    image: Image.Image,
    boxes_xyxy: NDArray[np.float32],
    labels: NDArray[np.int64],
    noisy: NDArray[np.bool_],
    size_px: tuple[int, int],
    random: np.random.Generator,
) -> TrainingView:
    """A random view at the model's input size.

    The view is a window of the image's shape, 1 / zoom of its sides, at a random place (beyond the border, in
    black, for zoom < 1), mirrored in half of all cases.

    Args:
        image: RGB.
        boxes_xyxy: (m, 4) float32, px of `image`.
        labels: (m,) int64.
        noisy: (m,) bool.
        size_px: Shorter and longer side fed to the model (px).
        random: Source of every choice.

    Returns:
        The view; boxes are clipped to it, and left out if too little of them remains.
    """
    height, width = resized_hw(image.height, image.width, *size_px)
    zoom = random.uniform(*ZOOM_RANGE)
    window_h, window_w = max(1, round(image.height / zoom)), max(1, round(image.width / zoom))
    top, left = _offset(image.height, window_h, random), _offset(image.width, window_w, random)
    view = F.resized_crop(
        image, top, left, window_h, window_w, [height, width], InterpolationMode.BILINEAR, antialias=True
    )
    view = _with_changed_colours(view, random)
    scale = np.array([width / window_w, height / window_h] * 2)
    boxes = (boxes_xyxy - np.array([left, top, left, top])) * scale
    if random.random() < 0.5:
        view = F.horizontal_flip(view)
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    boxes, kept = _visible_boxes(boxes, height, width)
    pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1)
    return TrainingView(
        pixels=pixels,
        boxes_xyxy=torch.from_numpy(boxes.astype(np.float32)),
        labels=torch.from_numpy(labels[kept]),
        noisy=torch.from_numpy(noisy[kept]),
    )


def _offset(side: int, window: int, random: np.random.Generator) -> int:
    low, high = sorted((0, side - window))
    return int(random.integers(low, high + 1))


def _with_changed_colours(view: Image.Image, random: np.random.Generator) -> Image.Image:
    view = F.adjust_brightness(view, random.uniform(*BRIGHTNESS_RANGE))
    view = F.adjust_contrast(view, random.uniform(*CONTRAST_RANGE))
    changed: Image.Image = F.adjust_saturation(view, random.uniform(*SATURATION_RANGE))
    return changed


def _visible_boxes(
    boxes_xyxy: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    clipped = boxes_xyxy.clip(0, [width, height, width, height])
    sides, full_sides = clipped[:, 2:] - clipped[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    kept = (sides >= SMALLEST_SIDE_PX).all(axis=1)
    kept &= sides.prod(axis=1) >= VISIBLE_SHARE * full_sides.prod(axis=1)
    return clipped[kept], kept
