"""Damaged, forged and foreign files named like images, each told by seed and position in the series."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from PIL import Image, features

WIDTH, HEIGHT = 48, 32
EXTREMES = (0, 1, 2, 255, 256, 32767, 32768, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
# By format: what stands ahead of width and height, and how they are stored; the first match is overwritten.
SIZE_FIELDS = {
    "png": (b"IHDR", ">II"),
    "jpg": (rb"\xff[\xc0\xc1\xc2]..\x08", ">HH"),
    "gif": (b"GIF8[79]a", "<HH"),
    "gif_frame": (rb",\0\0\0\0", "<HH"),
    "bmp": (rb"BM.{16}", "<ii"),
    "tif_width": (rb"\x00\x01\x04\x00\x01\x00\x00\x00", "<I"),
    "tif_height": (rb"\x01\x01\x04\x00\x01\x00\x00\x00", "<I"),
    "webp": (rb"VP8X.{8}", "<HHH"),
    "webp_lossy": (rb"\x9d\x01\x2a", "<HH"),
    "jp2": (b"ihdr", ">II"),
    "jp2_codestream": (rb"\xff\x4f\xff\x51....", ">IIIIII"),
    "avif": (b"ispe....", ">II"),
}
Mutator = Callable[[bytes, np.random.Generator], bytes]


@lru_cache(maxsize=1)
def source_files() -> dict[str, bytes]:
    """One small file of each format and mode that the reader takes, by name."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(HEIGHT) * 3, np.arange(WIDTH) * 2)[..., None] + [0, 40, 80]
    rgb = Image.fromarray((smooth + rng.integers(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "street"
    frames = [rgb.rotate(90), rgb.rotate(180)]
    deep = Image.fromarray((smooth[..., 0] * 256).astype(np.uint16))
    sources = {
        "plain.jpg": _saved(rgb, "JPEG", exif=exif),
        "progressive.jpg": _saved(rgb, "JPEG", progressive=True, icc_profile=bytes(500)),
        "cmyk.jpg": _saved(rgb.convert("CMYK"), "JPEG"),
        "plain.png": _saved(rgb, "PNG", exif=exif),
        "palette.png": _saved(rgb.quantize(16), "PNG", transparency=3),
        "deep.png": _saved(deep, "PNG"),
        "animated.png": _saved(rgb, "PNG", save_all=True, append_images=frames),
        "animated.gif": _saved(rgb, "GIF", save_all=True, append_images=frames),
        "plain.bmp": _saved(rgb, "BMP"),
        "plain.tif": _saved(rgb, "TIFF", exif=exif),
        "packed.tif": _saved(rgb, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": _saved(rgb, "TIFF", compression="jpeg"),
        "pages.tif": _saved(deep, "TIFF", save_all=True, append_images=[deep]),
        "lossy.webp": _saved(rgb, "WEBP", exif=exif),
        "animated.webp": _saved(rgb.convert("RGBA"), "WEBP", save_all=True, append_images=frames),
        "plain.ppm": _saved(rgb, "PPM"),
    }
    if features.check("jpg_2000"):
        sources["plain.jp2"] = _saved(rgb, "JPEG2000")
    if features.check("avif"):
        sources["plain.avif"] = _saved(rgb, "AVIF", speed=10)
    return sources


def mutated_images(seed: int, n: int) -> Iterator[tuple[str, bytes]]:
    """Pairs of a telling name and content; file i depends on seed and i only."""
    sources = source_files()
    names = sorted(sources)
    for i in range(n):
        rng = np.random.default_rng((seed, i))
        name = names[i % len(names)]
        mutate = MUTATORS[int(rng.integers(len(MUTATORS)))]
        content = mutate(sources[name], rng)
        if rng.random() < 0.2:
            content = MUTATORS[int(rng.integers(len(MUTATORS)))](content, rng)
        if rng.random() < 0.1:
            name += ".jpg"
        yield f"{i:05}-{mutate.__name__.strip('_')}-{name}", content


def with_correct_checksums(png: bytes) -> bytes:
    """The PNG with each chunk's CRC recomputed, as far as the chunks can be followed."""
    content, at = bytearray(png), 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        content[end : end + 4] = zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(content)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _span(content: bytes, rng: np.random.Generator, most: int) -> tuple[int, int]:
    start = int(rng.integers(len(content) + 1))
    return start, min(len(content), start + int(rng.integers(1, most)))


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _header_flipped(content: bytes, rng: np.random.Generator) -> bytes:
    return _flipped(content, rng, 96)


def _body_flipped(content: bytes, rng: np.random.Generator) -> bytes:
    return _flipped(content, rng, len(content))


def _flipped(content: bytes, rng: np.random.Generator, within: int) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9)) if changed else 0):
        changed[int(rng.integers(min(within, len(changed))))] ^= 1 << int(rng.integers(8))
    return with_correct_checksums(bytes(changed)) if rng.random() < 0.5 else bytes(changed)


def _spliced(content: bytes, rng: np.random.Generator) -> bytes:
    others = list(source_files().values())
    other = others[int(rng.integers(len(others)))]
    start, end = _span(content, rng, 200)
    from_start, from_end = _span(other, rng, 200)
    return content[:start] + other[from_start:from_end] + content[end:]


def _zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng, 200)
    return content[:start] + bytes(end - start) + content[end:]


def _halves_swapped(content: bytes, rng: np.random.Generator) -> bytes:
    middle = int(rng.integers(len(content) + 1))
    return content[:16] + content[middle:] + content[16:middle]


def _rubbish_appended(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 2000)))


def _repeated(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng, 100)
    return content[:start] + content[start:end] * int(rng.integers(2, 50)) + content[end:]


def _size_forged(content: bytes, rng: np.random.Generator) -> bytes:
    """Another width and height, with checksums that agree."""
    changed = content
    for pattern, layout in SIZE_FIELDS.values():
        found = re.search(pattern, changed, re.DOTALL)
        room = found and len(changed) - found.end() >= struct.calcsize(layout)
        if found and room and rng.random() < 0.8:
            fields = re.findall("[A-Za-z]", layout)
            bits = {"H": 16, "I": 32, "i": 31}
            numbers = [int(rng.choice(EXTREMES)) % 2 ** bits[field] for field in fields]
            forged = struct.pack(layout, *numbers)
            changed = changed[: found.end()] + forged + changed[found.end() + len(forged) :]
    if changed.startswith(b"P6"):
        changed = b"P6\n%d %d\n255\n" % tuple(rng.choice(EXTREMES, 2)) + changed[12:]
    return with_correct_checksums(changed) if changed.startswith(b"\x89PNG") else changed


def _length_forged(content: bytes, rng: np.random.Generator) -> bytes:
    """An extreme number somewhere: a chunk's length, a tag's count, an offset."""
    layout = str(rng.choice(["<H", ">H", "<I", ">I"]))
    size = struct.calcsize(layout)
    at = int(rng.integers(max(1, min(len(content), 600) - size)))
    forged = struct.pack(layout, int(rng.choice(EXTREMES)) % 2 ** (8 * size))
    changed = content[:at] + forged + content[at + size :]
    return with_correct_checksums(changed) if rng.random() < 0.5 else changed


def _chunk_added(content: bytes, rng: np.random.Generator) -> bytes:
    """PNG: compressed text or a profile that grows a thousandfold; others: zeros after the header."""
    if not content.startswith(b"\x89PNG"):
        return content[:20] + bytes(int(rng.integers(1, 70_000))) + content[20:]
    kind, start = [(b"iCCP", b"p\0\0"), (b"zTXt", b"t\0\0"), (b"iTXt", b"t\0\1\0\0\0"), (b"eXIf", b"MM\0*")][
        int(rng.integers(4))
    ]
    body = start + zlib.compress(bytes(int(rng.integers(1, 3_000_000))), 1)
    chunk = struct.pack(">I", len(body)) + kind + body + bytes(4)
    return with_correct_checksums(content[:33] + chunk * int(rng.integers(1, 3)) + content[33:])


def _foreign(content: bytes, rng: np.random.Generator) -> bytes:
    """Something else than an image, or an image inside of something else."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("a.jpg", content)
    kinds = (
        archive.getvalue(),
        b"%PDF-1.7\n1 0 obj\n<< /Length 9 >>\nstream\n" + content,
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\nshowpage\n",
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(300),
        b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0" + struct.pack("<II", len(content), 22) + content,
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + rng.bytes(500),
        b"\0\0\0\x20ftypheic\0\0\0\0mif1heic" + rng.bytes(500),
        b"RIFF" + struct.pack("<I", 500) + b"AVI LIST" + rng.bytes(500),
        b"\xff\xd8\xff\xe1" + struct.pack(">H", 30) + b"Exif\0\0MM\0*\0\0\0\x08" + content,
        b"\x1f\x8b\x08\0" + rng.bytes(300),
        content[:12] + rng.bytes(800),
        rng.bytes(int(rng.integers(1, 2000))),
        b"",
    )
    return kinds[int(rng.integers(len(kinds)))]


MUTATORS: tuple[Mutator, ...] = (
    _truncated,
    _header_flipped,
    _body_flipped,
    _spliced,
    _zeroed,
    _halves_swapped,
    _rubbish_appended,
    _repeated,
    _size_forged,
    _length_forged,
    _chunk_added,
    _foreign,
)
