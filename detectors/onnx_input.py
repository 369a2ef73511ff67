"""From an image to what an ONNX model takes, and boxes back from there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from conf.errors import QuarryError
from conf.onnx_spec import OnnxSpec


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where an image lies in the model's input.

    Attributes:
        original_hw: Height and width of the image (px).
        image_hw: Height and width it has in the input, without padding (px).
        input_hw: Height and width of the input (px).
        top_px: Padding above it.
        left_px: Padding left of it.
    """

    original_hw: tuple[int, int]
    image_hw: tuple[int, int]
    input_hw: tuple[int, int]
    top_px: int = 0
    left_px: int = 0

    def to_original_px(self, boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Boxes (..., 4) in px of the input as px of the image; those on padding end up outside of it."""
        offset = np.array([self.left_px, self.top_px] * 2)
        scale_y, scale_x = (o / i for o, i in zip(self.original_hw, self.image_hw, strict=True))
        scale = np.array([scale_x, scale_y] * 2)
        boxes: NDArray[np.float64] = (boxes_xyxy.astype(np.float64) - offset) * scale
        return boxes


def placement(original_hw: tuple[int, int], input_hw: tuple[int, int] | None, spec: OnnxSpec) -> Placement:
    """Where an image of a size goes.

    Args:
        original_hw: Height and width of the image (px).
        input_hw: Height and width of the model's input (px); none where images keep their size.
        spec: How it is resized.

    Raises:
        QuarryError: The aspect leaves no pixel of the image's shorter side.
    """
    if input_hw is None:
        return Placement(original_hw=original_hw, image_hw=original_hw, input_hw=original_hw)
    if spec.resize == "stretch":
        return Placement(original_hw=original_hw, image_hw=input_hw, input_hw=input_hw)
    (height, width), (input_height, input_width) = original_hw, input_hw
    scale = min(input_height / height, input_width / width)
    image_hw = (round(height * scale), round(width * scale))
    if 0 in image_hw:
        raise QuarryError(
            f"{width}x{height} px has no pixel left across at the detector's input size "
            f"{input_width}x{input_height} px"
        )
    centered = spec.letterbox_anchor == "center"
    return Placement(
        original_hw=original_hw,
        image_hw=image_hw,
        input_hw=input_hw,
        top_px=(input_height - image_hw[0]) // 2 if centered else 0,
        left_px=(input_width - image_hw[1]) // 2 if centered else 0,
    )


def model_input(
    image: NDArray[np.uint8], placed: Placement, spec: OnnxSpec, dtype: np.dtype[np.generic]
) -> NDArray[np.generic]:
    """One image as the model takes it, without batch axis: (3, h, w), or (h, w, 3) as the layout says.

    Args:
        image: (h, w, 3) uint8 RGB.
        placed: Where it goes.
        spec: Resizing, colors and scale of the values.
        dtype: The input's type; uint8 takes pixel values as they are.
    """
    # torch warns on read-only arrays, which Arrow and Pillow hand out.
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    if placed.image_hw != placed.original_hw:
        pixels = interpolate(pixels, size=placed.image_hw, mode="bilinear", antialias=spec.antialias)
    (height, width), (input_height, input_width) = placed.image_hw, placed.input_hw
    right, bottom = input_width - width - placed.left_px, input_height - height - placed.top_px
    pixels = pad(pixels, (placed.left_px, right, placed.top_px, bottom), value=spec.pad_value)[0]
    if spec.color == "bgr":
        pixels = pixels.flip(0)
    values = pixels if dtype == np.uint8 else _scaled(pixels, spec)
    if spec.layout in ("nhwc", "hwc"):
        values = values.permute(1, 2, 0)
    return np.ascontiguousarray(values.numpy().astype(dtype, copy=False))


def _scaled(pixels: Tensor, spec: OnnxSpec) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    return (pixels.float() / spec.divisor - mean) / std
