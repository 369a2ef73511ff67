"""From a URI to pixels: open, read the header, decode; every failure is an `ImageFault` with its kind."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from conf.errors import QuarryError

if TYPE_CHECKING:
    from typing_extensions import Buffer

# `max_pixels` decides, before anything is decoded; Pillow's own limit would refuse images that a lake allows,
# and silencing its warning for each image is not safe among reader threads.
Image.MAX_IMAGE_PIXELS = None
# Pillow tells of damaged metadata and reads on; a fault says all that a table of images needs.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow would hand others, EPS for one, to programs on the machine.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
HEADER_BYTES = 1 << 16
S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
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
# 16-bit RGBA without compression, and room for metadata.
MAX_BYTES_PER_PIXEL, METADATA_BYTES = 8, 1 << 24
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0


TRANSIENT_FAULTS = ("missing", "unreachable")


class ImageFault(Exception):
    """Why one image could not be used.

    Attributes:
        error_class: missing or unreachable (TRANSIENT_FAULTS: another try may succeed); empty, not_an_image,
            truncated, too_large, unreadable or undetectable (facts about the file).
        message: What the reader said.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message


def filesystem_and_path(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path in it.

    Args:
        uri: A local path (spaces and `%` are literal), or a URI such as s3://bucket/key; file:/ and s3a://
            are understood.

    Raises:
        QuarryError: The store does not answer, or nothing can open the scheme.
    """
    if uri.startswith("file:"):
        return pafs.LocalFileSystem(), "/" + uri[len("file:") :].lstrip("/")
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    scheme, _, rest = uri.partition("://")
    authority, _, key = rest.partition("/")
    try:
        filesystem, base = _remote_filesystem("s3" if scheme in S3_SCHEMES else scheme, authority)
    except (OSError, ValueError, NotImplementedError) as error:
        raise QuarryError(
            f"{uri}: {_first_line(error)}; expected a path or a URI of s3, gs, abfss or hdfs"
        ) from None
    # Keys are taken literally; parsing the whole URI would undo percent signs in them.
    return filesystem, f"{base.rstrip('/')}/{key}" if key else base


# Making one asks the store where its bucket is: once per process, not once per image.
@lru_cache(maxsize=64)
def _remote_filesystem(scheme: str, authority: str) -> tuple[pafs.FileSystem, str]:
    filesystem, base = pafs.FileSystem.from_uri(f"{scheme}://{authority}")
    return filesystem, base


def max_file_bytes(max_pixels: int) -> int:
    """Size above which a file is refused unread; no image of `max_pixels` px needs as many bytes."""
    return MAX_BYTES_PER_PIXEL * max_pixels + METADATA_BYTES


def read_bytes(uri: str, max_bytes: int | None = None) -> bytes:
    """The file's content.

    Args:
        uri: Path or URI.
        max_bytes: Larger files are refused before they are read; see `max_file_bytes`.

    Raises:
        ImageFault: missing, unreachable, empty or too_large.
    """
    with _store_faults():
        filesystem, path = filesystem_and_path(uri)
        with filesystem.open_input_file(path) as file:
            _require_size(file, max_bytes)
            content: bytes = file.read()
    return content


def header_size_wh(uri: str, max_pixels: int) -> tuple[int, int]:
    """Width and height as displayed, read from the header only.

    Args:
        uri: Path or URI of the image.
        max_pixels: Larger images are refused.

    Returns:
        Width and height in px, after EXIF orientation.

    Raises:
        ImageFault: The file cannot be read, its header is damaged or no image's, or it names too many pixels.
    """
    with _store_faults():
        filesystem, path = filesystem_and_path(uri)
        file = filesystem.open_input_file(path)
    with file:
        with _store_faults():
            _require_size(file, max_file_bytes(max_pixels))
        # Stores answer one large request faster than many small ones.
        buffered = io.BufferedReader(_StoreFile(file), HEADER_BYTES)
        with _faults(), _open_image(buffered, max_pixels) as image:
            width, height = image.size
            turned = _orientation(image) in TRANSPOSING_ORIENTATIONS
    return (height, width) if turned else (width, height)


def decode_rgb(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Pixels of an image file as they are displayed.

    The first picture of an animation or of several pages counts (of a PNG the default one). Grey of up to
    16 bits keeps its contrast, other samples keep their upper 8 bits. Transparency is dropped, which shows
    the colours that were stored under it, as detectors see them in training. Colour profiles are not applied.

    Args:
        content: The file's bytes.
        max_pixels: Larger images are refused before decoding.

    Returns:
        uint8 array of shape (height, width, 3), RGB, contiguous, EXIF orientation applied. Of PNG files only
        metadata ahead of the pixels turns them, so that the header tells.

    Raises:
        ImageFault: Not an image, truncated, too large, or undecodable, as are float and 32-bit samples: no
            range of them is white everywhere.
    """
    with _faults(), _open_image(io.BytesIO(content), max_pixels) as image:
        orientation = _orientation(image)
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            # Reader threads that stop every 64 KiB for the interpreter's lock wait for each other.
            image.decodermaxblock = len(content)
        image.load()
        _require_pixels(image, max_pixels)
        return _upright_rgb(image, orientation)


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


def _upright_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Converts and turns band by band, so that no second image of full size is held."""
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


def _orientation(image: Image.Image) -> int:
    """EXIF orientation that is still to be applied, 1 to 8; damaged metadata turns nothing."""
    if image.format == "TIFF":  # Pillow turns it itself, and says so in `size` before it has read it
        return 1
    try:
        # A PNG's own method would decode all pixels to look for metadata behind them.
        found = Image.Image.getexif(image).get(EXIF_ORIENTATION)
    except Exception:  # viewers show such files too; what the parser raises depends on where it is damaged
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _open_image(file: IO[bytes], max_pixels: int) -> Image.Image:
    image = Image.open(file, formats=IMAGE_FORMATS)
    try:
        _require_pixels(image, max_pixels)
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise ImageFault(
                "unreadable", "float, 32-bit or signed samples; expected unsigned samples of up to 16 bits"
            )
    except ImageFault:
        image.close()
        raise
    return image


def _require_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageFault("unreadable", f"{width} x {height} px, there is nothing in it")
    if width * height > max_pixels:
        raise ImageFault("too_large", f"{width} x {height} px, the limit is {max_pixels} px in all")


def _require_size(file: pa.NativeFile, max_bytes: int | None) -> None:
    size = file.size()
    if size == 0:
        raise ImageFault("empty", "the file has 0 bytes")
    if max_bytes is not None and size > max_bytes:
        raise ImageFault("too_large", f"the file has {size} bytes, the limit is {max_bytes}")


class _StoreFile(io.RawIOBase):
    """An Arrow file for Pillow; a store that stops answering says nothing about the image."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def readinto(self, buffer: Buffer) -> int:
        with _store_faults():
            return int(self._file.readinto(buffer))


@contextmanager
def _store_faults() -> Iterator[None]:
    """Turns what file systems raise into an `ImageFault`."""
    try:
        yield
    except ImageFault:
        raise
    except FileNotFoundError as error:
        raise ImageFault("missing", _first_line(error)) from None
    except Exception as error:  # each store has its own errors; the fault says what
        raise ImageFault("unreachable", _first_line(error)) from None


@contextmanager
def _faults() -> Iterator[None]:
    """Turns what decoders raise into an `ImageFault`."""
    try:
        yield
    except ImageFault:
        raise
    except UnidentifiedImageError:
        raise ImageFault("not_an_image", "no image format recognises the content") from None
    except MemoryError:
        raise ImageFault("too_large", "there is not enough memory to decode it") from None
    except Exception as error:  # decoders of broken files raise nearly anything; the fault says what
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise ImageFault(kind, _first_line(error)) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
