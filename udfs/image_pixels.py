"""From a decoded picture, whatever its mode and orientation, to upright 8-bit RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

EXIF_ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRANSPOSING_ORIENTATIONS = frozenset({5, 6, 7, 8})
ORIENTATIONS_LAST_ROW_FIRST = frozenset({3, 4, 6, 7})
# Fits a core's cache: one conversion after the other finds its pixels there.
BAND_BYTES = 1 << 18
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0


def rgb_image(image: Image.Image, grey_bits: int = 16, *, white_is_zero: bool = False) -> Image.Image:
    """The image as 8-bit RGB; grey of `grey_bits` keeps its contrast, transparency is dropped."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # Pillow cuts 16-bit values at 255 when it converts them, so scale first.
        grey = (np.asarray(image) >> (grey_bits - 8)).clip(0, 255).astype(np.uint8)
        return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def upright_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) uint8 as displayed, converted and turned band by band: no second full image is held.

    Args:
        image: A loaded picture.
        orientation: EXIF orientation still to be applied, 1 to 8.
    """
    width, height = image.size
    transposed = orientation in TRANSPOSING_ORIENTATIONS
    rgb = np.empty((width, height, 3) if transposed else (height, width, 3), np.uint8)
    bands = rgb.swapaxes(0, 1) if transposed else rgb
    grey_bits, white_is_zero = _grey_coding(image)
    n_rows = max(1, BAND_BYTES // (4 * width))
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        band = image.crop((0, top, width, bottom))
        band = rgb_image(band, grey_bits, white_is_zero=white_is_zero)
        if orientation in TURNS:
            band = band.transpose(TURNS[orientation])
        if orientation in ORIENTATIONS_LAST_ROW_FIRST:
            top, bottom = height - bottom, height - top
        pixels = np.asarray(band)
        bands[top:bottom] = pixels.swapaxes(0, 1) if transposed else pixels
    return rgb


def _grey_coding(image: Image.Image) -> tuple[int, bool]:
    """Bits of a grey sample of more than 8, and whether 0 is white; only TIFF leaves this to its reader."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16, False
    bits = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (16,))[0]
    return max(bits, 8), image.tag_v2.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation that is still to be applied, 1 to 8; damaged metadata turns nothing."""
    if image.format == "TIFF":  # Pillow turns it itself, and says so in `size` before it has read it
        return 1
    try:
        # A PNG's own method would decode all pixels to look for metadata behind them.
        found = Image.Image.getexif(image).get(EXIF_ORIENTATION)
    except Exception:  # viewers show such files too; what the parser raises depends on where it is damaged
        return 1
    return found if isinstance(found, int) and found in TURNS else 1
