"""From a URI to pixels: open, read the header, decode; every failure is an `ImageFault` with its kind."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from conf.errors import QuarryError

# `max_pixels` decides, before anything is decoded; Pillow's own limit would refuse images that a lake allows,
# and silencing its warning for each image is not safe among reader threads.
Image.MAX_IMAGE_PIXELS = None

# Pillow would hand others, EPS for one, to programs on the machine.
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
HEADER_BYTES = 1 << 16
S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
EXIF_ORIENTATION = 0x0112
TRANSPOSING_ORIENTATIONS = frozenset({5, 6, 7, 8})


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


def read_bytes(uri: str) -> bytes:
    """The file's content.

    Raises:
        ImageFault: missing, unreachable or empty.
    """
    with _store_faults():
        filesystem, path = filesystem_and_path(uri)
        with filesystem.open_input_stream(path) as stream:
            content: bytes = stream.read()
    if not content:
        raise ImageFault("empty", "the file has 0 bytes")
    return content


def header_size_wh(uri: str, max_pixels: int) -> tuple[int, int]:
    """Width and height as displayed, read from the header only.

    Args:
        uri: Path or URI of the image.
        max_pixels: Larger images are refused.

    Returns:
        Width and height in px, after EXIF orientation.

    Raises:
        ImageFault: The header is missing, damaged, no image's, or names too many pixels.
    """
    with _store_faults():
        filesystem, path = filesystem_and_path(uri)
        file = filesystem.open_input_file(path)
    with file, _faults():
        if file.size() == 0:
            raise ImageFault("empty", "the file has 0 bytes")
        # Arrow's files lack readline, and stores answer one large request faster than many small ones.
        with _open_image(io.BufferedReader(file, HEADER_BYTES), max_pixels) as image:
            width, height = image.size
            # Pillow turns TIFFs itself, and says so in `size` before it has read them.
            turned = (
                image.format != "TIFF" and image.getexif().get(EXIF_ORIENTATION) in TRANSPOSING_ORIENTATIONS
            )
    return (height, width) if turned else (width, height)


def decode_rgb(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Pixels of an image file as they are displayed.

    Args:
        content: The file's bytes.
        max_pixels: Larger images are refused before decoding.

    Returns:
        uint8 array of shape (height, width, 3), RGB, EXIF orientation applied.

    Raises:
        ImageFault: Not an image, truncated, too large, or undecodable.
    """
    with _faults(), _open_image(io.BytesIO(content), max_pixels) as image:
        upright = ImageOps.exif_transpose(image)
        return np.array(rgb_image(upright), dtype=np.uint8)


def rgb_image(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB; 16-bit grey keeps its contrast, transparency is dropped."""
    if image.mode.startswith("I"):
        # Pillow cuts 16-bit values at 255 when it converts them, so scale first.
        grey = np.asarray(image).astype(np.float32) / 257.0
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _open_image(file: object, max_pixels: int) -> Image.Image:
    image = Image.open(file, formats=IMAGE_FORMATS)  # type: ignore[arg-type]
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageFault("too_large", f"{width} x {height} px, the limit is {max_pixels} px in all")
    return image


@contextmanager
def _store_faults() -> Iterator[None]:
    """Turns what file systems raise into an `ImageFault`."""
    try:
        yield
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
    except Exception as error:  # decoders of broken files raise nearly anything; the fault says what
        kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
        raise ImageFault(kind, _first_line(error)) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
