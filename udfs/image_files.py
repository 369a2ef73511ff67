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
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from conf.errors import QuarryError
from udfs.image_pixels import TRANSPOSING_ORIENTATIONS, orientation_of, upright_rgb

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
# 16-bit RGBA without compression, and room for metadata.
MAX_BYTES_PER_PIXEL, METADATA_BYTES = 8, 1 << 24


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
    with _header(uri, max_pixels) as image:
        width, height = image.size
        turned = orientation_of(image) in TRANSPOSING_ORIENTATIONS
    return (height, width) if turned else (width, height)


def header_orientation(uri: str, max_pixels: int) -> int:
    """EXIF orientation of an image file, 1 to 8, read from the header only.

    Args:
        uri: Path or URI of the image.
        max_pixels: Larger images are refused.

    Raises:
        ImageFault: The file cannot be read, its header is damaged or no image's, or it names too many pixels.
    """
    with _header(uri, max_pixels) as image:
        return orientation_of(image)


@contextmanager
def _header(uri: str, max_pixels: int) -> Iterator[Image.Image]:
    with _store_faults():
        filesystem, path = filesystem_and_path(uri)
        file = filesystem.open_input_file(path)
    with file:
        with _store_faults():
            _require_size(file, max_file_bytes(max_pixels))
        # Stores answer one large request faster than many small ones.
        buffered = io.BufferedReader(_StoreFile(file), HEADER_BYTES)
        with _faults(), _open_image(buffered, max_pixels) as image:
            yield image


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
        orientation = orientation_of(image)
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            # Reader threads that stop every 64 KiB for the interpreter's lock wait for each other.
            image.decodermaxblock = len(content)
        image.load()
        _require_pixels(image, max_pixels)
        return upright_rgb(image, orientation)


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
