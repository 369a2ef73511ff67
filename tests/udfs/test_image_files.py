from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
from PIL import Image

from conf.errors import QuarryError
from udfs import image_files
from udfs.image_files import ImageFault, decode_rgb, filesystem_and_path, header_size_wh, read_bytes

MAX_PIXELS = 10**6
WIDTH, HEIGHT = 30, 20
RED, BLUE = (200, 10, 10), (10, 10, 200)
Save = Callable[[Path], None]


def _left_red(mode: str = "RGB") -> Image.Image:
    """Red on the left half, blue on the right, so that a wrong turn shows."""
    image = Image.new("RGB", (WIDTH, HEIGHT), BLUE)
    image.paste(RED, (0, 0, WIDTH // 2, HEIGHT))
    return image.convert(mode)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _decoded(path: Path) -> Any:
    return decode_rgb(read_bytes(str(path)), MAX_PIXELS)


def _fault(call: Callable[[], object]) -> str:
    with pytest.raises(ImageFault) as caught:
        call()
    assert str(caught.value) == caught.value.message
    assert caught.value.message
    return caught.value.error_class


def _animated(path: Path) -> None:
    _left_red().save(path, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), (0, 99, 0))])


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds one row of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (width + 1))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


KINDS: dict[str, Save] = {
    "plain.jpg": lambda path: _left_red().save(path),
    "progressive.jpg": lambda path: _left_red().save(path, progressive=True),
    "cmyk.jpg": lambda path: _left_red("CMYK").save(path),
    "plain.png": lambda path: _left_red().save(path),
    "alpha.png": lambda path: _left_red("RGBA").save(path),
    "palette.png": lambda path: _left_red("P").save(path),
    "see-through palette.png": lambda path: _left_red("P").save(path, transparency=bytes([0, 9])),
    "plain.bmp": lambda path: _left_red().save(path),
    "plain.tif": lambda path: _left_red().save(path),
    "plain.webp": lambda path: _left_red().save(path, lossless=True),
    "animated.gif": _animated,
    "animated.webp": _animated,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_gives_rgb_of_the_header_s_size(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    rgb = _decoded(tmp_path / name)
    assert (rgb.shape, rgb.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert header_size_wh(str(tmp_path / name), MAX_PIXELS) == (WIDTH, HEIGHT)
    # JPEG, WebP and the palette move colours a little.
    assert np.abs(rgb[10, 4].astype(int) - RED).max() < 40
    assert np.abs(rgb[10, 26].astype(int) - BLUE).max() < 40


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "red_at"),
    [
        (1, "left"),
        (2, "right"),
        (3, "right"),
        (4, "left"),
        (5, "top"),
        (6, "top"),
        (7, "bottom"),
        (8, "bottom"),
    ],
)
def test_exif_orientation_is_applied_to_pixels_and_size(
    tmp_path: Path, ending: str, orientation: int, red_at: str
) -> None:
    path = tmp_path / f"a.{ending}"
    _left_red().save(path, exif=_turned(orientation))
    rgb = _decoded(path)
    upright = orientation < 5
    assert rgb.shape == ((HEIGHT, WIDTH, 3) if upright else (WIDTH, HEIGHT, 3))
    assert header_size_wh(str(path), MAX_PIXELS) == (rgb.shape[1], rgb.shape[0])
    edges = {"left": rgb[:, 2], "right": rgb[:, -3], "top": rgb[2], "bottom": rgb[-3]}
    is_red = {name: bool((edge[:, 0].astype(int) > 120).all()) for name, edge in edges.items()}
    assert is_red == {name: name == red_at for name in edges}


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_eight_bit_grey_is_kept_and_sixteen_bit_grey_is_scaled(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"grey.{ending}"
    Image.new("L", (WIDTH, HEIGHT), 77).save(path)
    assert (_decoded(path) == 77).all()
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(HEIGHT, axis=0)
    Image.fromarray(ramp).save(path)
    rgb = _decoded(path)
    np.testing.assert_array_equal(rgb[0, :, 0], np.arange(256))
    assert header_size_wh(str(path), MAX_PIXELS) == (256, HEIGHT)


@pytest.mark.parametrize("name", ["with space.png", "per%20cent.png", "straße-東京.png", "a#b?c.png"])
@pytest.mark.parametrize("style", ["{}", "file:{}", "file://{}"])
def test_names_are_taken_literally(tmp_path: Path, name: str, style: str) -> None:
    _left_red().save(tmp_path / name)
    uri = style.format(tmp_path / name)
    assert decode_rgb(read_bytes(uri), MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)
    assert header_size_wh(uri, MAX_PIXELS) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("name", "content", "error_class"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"not an image\n" * 9, "not_an_image"),
        ("zeros.png", bytes(4096), "not_an_image"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, name: str, content: bytes, error_class: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert _fault(lambda: _decoded(path)) == error_class
    assert _fault(lambda: header_size_wh(str(path), MAX_PIXELS)) == error_class


@pytest.mark.parametrize(
    ("uri", "error_class"),
    [("{}/absent.jpg", "missing"), ("{}", "unreachable"), ("nosuch://bucket/a.jpg", "unreachable")],
)
def test_what_cannot_be_opened_is_a_fault(tmp_path: Path, uri: str, error_class: str) -> None:
    uri = uri.format(tmp_path)
    assert _fault(lambda: read_bytes(uri)) == error_class
    assert _fault(lambda: header_size_wh(uri, MAX_PIXELS)) == error_class


@pytest.mark.parametrize("name", ["plain.jpg", "progressive.jpg", "plain.png"])
def test_half_a_file_is_truncated(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    noise = np.random.default_rng(5).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(path, progressive=name.startswith("progressive"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert _fault(lambda: _decoded(path)) == "truncated"


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damaged EXIF and reads on
@pytest.mark.parametrize("name", KINDS)
def test_damage_anywhere_gives_a_fault_or_an_image_of_the_header_s_size(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(11)
    cuts = [whole[:size] for size in range(1, len(whole), max(1, len(whole) // 25))]
    flips = [bytearray(whole) for _ in range(25)]
    for flip in flips:
        for position in rng.integers(0, len(flip), 5):
            flip[position] = rng.integers(256)
    outcomes = set()
    for content in (*cuts, *map(bytes, flips)):
        (tmp_path / name).write_bytes(content)
        try:
            shape = _decoded(tmp_path / name).shape
        except ImageFault as fault:
            outcomes.add(fault.error_class)
        else:
            assert header_size_wh(str(tmp_path / name), MAX_PIXELS) == (shape[1], shape[0])
    assert outcomes & {"truncated", "unreadable", "not_an_image"}
    assert outcomes <= {"truncated", "unreadable", "not_an_image", "too_large"}


def test_the_limit_holds_before_anything_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_of_size(60_000, 60_000))
    assert _fault(lambda: _decoded(path)) == "too_large"
    assert _fault(lambda: header_size_wh(str(path), MAX_PIXELS)) == "too_large"
    path.write_bytes(_png_of_size(WIDTH, HEIGHT))
    assert _fault(lambda: decode_rgb(path.read_bytes(), WIDTH * HEIGHT - 1)) == "too_large"


def test_the_limit_may_be_above_pillow_s_own(tmp_path: Path) -> None:
    (tmp_path / "wide.bmp").write_bytes(_bmp_header(20_000, 10_000))
    assert header_size_wh(str(tmp_path / "wide.bmp"), 200_000_000) == (20_000, 10_000)


def _bmp_header(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "BMP")
    content = bytearray(stream.getvalue())
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


@pytest.mark.parametrize(
    ("uri", "asked", "base", "path"),
    [
        ("s3://bucket/a%20b/c d.jpg", "s3://bucket", "bucket", "bucket/a%20b/c d.jpg"),
        ("s3a://bucket/x.jpg", "s3://bucket", "bucket", "bucket/x.jpg"),
        ("s3n://bucket/x.jpg", "s3://bucket", "bucket", "bucket/x.jpg"),
        ("gs://bucket/x.jpg", "gs://bucket", "bucket", "bucket/x.jpg"),
        ("abfss://box@acc.dfs.example/x.jpg", "abfss://box@acc.dfs.example", "box/", "box/x.jpg"),
        ("hdfs://name:8020/lake/x.jpg", "hdfs://name:8020", "/", "/lake/x.jpg"),
        ("s3://bucket", "s3://bucket", "bucket", "bucket"),
    ],
)
def test_each_store_gets_the_path_it_expects_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, uri: str, asked: str, base: str, path: str
) -> None:
    calls = []

    class Stores:
        @staticmethod
        def from_uri(uri: str) -> tuple[object, str]:
            calls.append(uri)
            return "store", base

    image_files._remote_filesystem.cache_clear()
    monkeypatch.setattr(pafs, "FileSystem", Stores)
    assert filesystem_and_path(uri) == ("store", path)
    assert filesystem_and_path(uri) == ("store", path)
    assert calls == [asked]
    image_files._remote_filesystem.cache_clear()


def test_a_scheme_nobody_opens_is_a_clear_error() -> None:
    with pytest.raises(QuarryError, match=r"ftp://host/a\.jpg.*expected a path or a URI of s3"):
        filesystem_and_path("ftp://host/a.jpg")
    with pytest.raises(ImageFault) as caught:
        read_bytes("ftp://host/a.jpg")
    assert caught.value.error_class == "unreachable"
