from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
from PIL import Image, ImageOps, features

from conf.errors import QuarryError
from udfs import image_files, image_pixels
from udfs.image_files import (
    ImageFault,
    decode_rgb,
    filesystem_and_path,
    header_size_wh,
    max_file_bytes,
    read_bytes,
)
from udfs.image_pixels import rgb_image

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


def _png(header: tuple[int, int, int, int], rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of (width, height, bits, colour type), its unfiltered rows and chunks ahead of the pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds one row of it."""
    return _png((width, height, 8, 0), b"\0" * (width + 1))


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _tiff(width: int, height: int, bits: int, photometric: int, pixels: bytes) -> bytes:
    """A TIFF of one grey strip without compression."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, height), (279, len(pixels))]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory + bytes(4)


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
    "alpha.tif": lambda path: _left_red("RGBA").save(path),
    "packed.tif": lambda path: _left_red().save(path, compression="tiff_lzw"),
    "pages.tif": _animated,
    "plain.ppm": lambda path: _left_red().save(path),
    "several.mpo": _animated,
    "animated.gif": _animated,
    "animated.webp": _animated,
    "animated.png": _animated,
}
if features.check("jpg_2000"):
    KINDS["plain.jp2"] = lambda path: _left_red().save(path)
if features.check("avif"):
    KINDS["plain.avif"] = lambda path: _left_red().save(path, speed=10)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "I;16"])
def test_an_image_of_many_bands_is_turned_like_pillow_does(
    monkeypatch: pytest.MonkeyPatch, mode: str, orientation: int
) -> None:
    monkeypatch.setattr(image_pixels, "BAND_BYTES", 1 << 10)
    noise = np.random.default_rng(3).integers(0, 256, (53, 31, 3), np.uint8)
    image = (
        Image.fromarray(noise[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(noise)
    )
    stored = _saved(image.convert(mode), "PNG" if mode == "I;16" else "JPEG", exif=_turned(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(stored)))
    rgb = decode_rgb(stored, MAX_PIXELS)
    np.testing.assert_array_equal(rgb, np.asarray(rgb_image(upright)))
    assert rgb.flags.c_contiguous
    assert rgb.flags.writeable


@pytest.mark.parametrize(
    ("content", "row"),
    [
        (
            _png((2, 1, 16, 2), struct.pack(">x6H", 0x12FF, 0x3400, 0x5600, 0, 255, 256)),
            [18, 52, 86, 0, 0, 1],
        ),
        (_png((2, 1, 16, 0), struct.pack(">x2H", 0x12FF, 0xFFFF)), [18] * 3 + [255] * 3),
        (_png((2, 1, 8, 4), bytes([0, 200, 255, 7, 0])), [200] * 3 + [7] * 3),
        (_png((2, 1, 8, 6), bytes([0, 1, 2, 3, 255, 4, 5, 6, 0])), [1, 2, 3, 4, 5, 6]),
        (_png((2, 1, 1, 0), bytes([0, 0b01000000])), [0] * 3 + [255] * 3),
        (
            _png((2, 1, 8, 2), bytes([0, 1, 2, 3, 9, 9, 9]), (b"tRNS", bytes([0, 1, 0, 2, 0, 3]))),
            [1, 2, 3, 9, 9, 9],
        ),
        (
            _png(
                (2, 1, 8, 3),
                bytes([0, 1, 0]),
                (b"PLTE", bytes([7, 8, 9, 250, 251, 252])),
                (b"tRNS", bytes([0, 5])),
            ),
            [250, 251, 252, 7, 8, 9],
        ),
        (_tiff(2, 1, 16, 1, struct.pack("<2H", 0x12FF, 0xFFFF)), [18] * 3 + [255] * 3),
        (_tiff(2, 1, 16, 0, struct.pack("<2H", 0, 0x12FF)), [255] * 3 + [237] * 3),
        (_tiff(2, 1, 12, 1, bytes([0x12, 0xFF, 0xFF])), [18] * 3 + [255] * 3),
        (_tiff(2, 1, 8, 0, bytes([0, 200])), [255] * 3 + [55] * 3),
        (_saved(Image.fromarray(np.array([[0x12FF, 0xFFFF]], ">u2")), "TIFF"), [18] * 3 + [255] * 3),
        (_saved(Image.new("1", (2, 1), 1), "TIFF", compression="group4"), [255] * 6),
        (b"P5\n2 1\n65535\n" + struct.pack(">2H", 0x12FF, 0xFFFF), [18] * 3 + [255] * 3),
        (b"P3\n2 1\n255\n1 2 3 4 5 6\n", [1, 2, 3, 4, 5, 6]),
    ],
    ids=[
        "16-bit RGB",
        "16-bit grey",
        "grey with alpha",
        "colour under no opacity",
        "1-bit",
        "transparent colour",
        "transparent palette entry",
        "16-bit TIFF",
        "16-bit TIFF, 0 is white",
        "12-bit TIFF",
        "8-bit TIFF, 0 is white",
        "16-bit big-endian TIFF",
        "fax",
        "16-bit PGM",
        "text PPM",
    ],
)
def test_pixels_worked_out_by_hand(content: bytes, row: list[int]) -> None:
    rgb = decode_rgb(content, MAX_PIXELS)
    assert rgb.shape == (1, 2, 3)
    assert rgb.ravel().tolist() == row


def test_cmyk_of_adobe_is_stored_inverted_and_ycck_is_understood() -> None:
    # Stored planes are 255 minus these: 200, 128, 128 and 255.
    inks = _saved(Image.new("CMYK", (16, 16), (55, 127, 127, 0)), "JPEG", quality=100)
    np.testing.assert_allclose(decode_rgb(inks, MAX_PIXELS)[8, 8], [200, 128, 128], atol=2)
    marker = inks.index(b"Adobe") + 11
    assert inks[marker] == 0
    # As YCCK the planes are luma 200 without chroma: inks of 255 - 200, stored inverted, on full key.
    ycck = inks[:marker] + b"\2" + inks[marker + 1 :]
    np.testing.assert_allclose(decode_rgb(ycck, MAX_PIXELS)[8, 8], [55, 55, 55], atol=2)


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (np.array([[0.5, np.nan]], np.float32), "TIFF"),
        (np.array([[-1.0, 300.0]], np.float32), "TIFF"),
        (np.array([[0, 255]], np.int32), "TIFF"),
        (np.array([[0.0, 1.0]], np.float32), "PPM"),
    ],
)
def test_samples_without_a_range_are_refused(tmp_path: Path, samples: Any, kind: str) -> None:
    (tmp_path / "depth").write_bytes(_saved(Image.fromarray(samples), kind))
    for call in (
        lambda: _decoded(tmp_path / "depth"),
        lambda: header_size_wh(str(tmp_path / "depth"), MAX_PIXELS),
    ):
        with pytest.raises(ImageFault, match="expected unsigned samples of up to 16 bits") as caught:
            call()
        assert caught.value.error_class == "unreadable"


def test_damaged_metadata_turns_nothing(tmp_path: Path) -> None:
    whole = _saved(_left_red(), "JPEG", exif=_turned(6))
    damaged = whole.replace(b"Exif\0\0MM\0*", b"Exif\0\0rubb").replace(b"Exif\0\0II*\0", b"Exif\0\0rubb")
    assert damaged != whole
    (tmp_path / "a.jpg").write_bytes(damaged)
    assert _decoded(tmp_path / "a.jpg").shape == (HEIGHT, WIDTH, 3)
    assert header_size_wh(str(tmp_path / "a.jpg"), MAX_PIXELS) == (WIDTH, HEIGHT)


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = _turned(6).tobytes().removeprefix(b"Exif\0\0")
    ahead = _png((3, 1, 8, 0), bytes([0, 7, 8, 9]), (b"eXIf", exif))
    path.write_bytes(ahead[: ahead.index(b"IDAT") + 6])
    assert header_size_wh(str(path), MAX_PIXELS) == (1, 3)
    plain = _png((3, 1, 8, 0), bytes([0, 7, 8, 9]))
    chunk = ahead[ahead.index(b"eXIf") - 4 : ahead.index(b"IDAT") - 4]
    path.write_bytes(plain[:-12] + chunk + plain[-12:])
    assert header_size_wh(str(path), MAX_PIXELS) == (3, 1)
    assert _decoded(path).shape == (1, 3, 3)


def test_pillow_s_warnings_are_neither_errors_nor_printed(tmp_path: Path) -> None:
    tags = _tiff(2, 1, 8, 1, bytes(2)).replace(
        struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 2**31, 1)
    )
    (tmp_path / "a.tif").write_bytes(tags)
    script = "import sys, udfs.image_files as f; print(f.decode_rgb(f.read_bytes(sys.argv[1]), 9).shape)"
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "a.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1, 2, 3)\n", "")
    with pytest.warns(UserWarning):
        decode_rgb(tags, 9)


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
        ("page.jpg", b"<!DOCTYPE html><html>404 Not Found</html>", "not_an_image"),
        ("picture.jpg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "not_an_image"),
        ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not_an_image"),
        ("icon.png", _saved(_left_red(), "ICO", sizes=[(16, 16)]), "not_an_image"),
        ("paper.jpg", _saved(_left_red(), "PDF"), "not_an_image"),
        ("film.jpg", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99), "not_an_image"),
        ("nothing.pgm", b"P5\n0 5\n255\n", "not_an_image"),
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


def test_a_file_too_large_for_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "archive.jpg"
    _left_red().save(path)
    os.truncate(path, max_file_bytes(MAX_PIXELS) + 1)  # sparse: takes no room on the disk
    assert _fault(lambda: header_size_wh(str(path), MAX_PIXELS)) == "too_large"
    assert _fault(lambda: read_bytes(str(path), max_file_bytes(MAX_PIXELS))) == "too_large"
    os.truncate(path, max_file_bytes(MAX_PIXELS))
    assert len(read_bytes(str(path), max_file_bytes(MAX_PIXELS))) == max_file_bytes(MAX_PIXELS)
    assert header_size_wh(str(path), MAX_PIXELS) == (WIDTH, HEIGHT)


def test_memory_that_does_not_suffice_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_files, "upright_rgb", refuses)
    assert _fault(lambda: decode_rgb(_png_of_size(9, 1), MAX_PIXELS)) == "too_large"


def test_a_store_that_stops_answering_says_nothing_about_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stopping(io.BytesIO):
        def size(self) -> int:
            return 9999

        def readinto(self, buffer: object) -> int:
            raise OSError("connection reset\nby peer")

        def read(self, size: int | None = -1) -> bytes:
            raise OSError("connection reset\nby peer")

    class Store:
        def open_input_file(self, path: str) -> Stopping:
            return Stopping()

    monkeypatch.setattr(image_files, "filesystem_and_path", lambda uri: (Store(), uri))
    for call in (lambda: header_size_wh("a.jpg", MAX_PIXELS), lambda: read_bytes("a.jpg")):
        with pytest.raises(ImageFault, match="^connection reset$") as caught:
            call()
        assert caught.value.error_class == "unreachable"


def test_names_that_are_not_utf_8_are_a_clear_fault(tmp_path: Path) -> None:
    uri = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    with pytest.raises(ImageFault, match="surrogates not allowed") as caught:
        read_bytes(uri)
    assert caught.value.error_class == "unreachable"


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
