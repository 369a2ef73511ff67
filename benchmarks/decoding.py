"""Image decoders side by side: time with one and two threads, memory, equal pixels, damaged files.

python benchmarks/decoding.py [--repeats 7] [--mutations 600]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import surroundings
from tests.udfs.mutated_images import mutated_images
from udfs.image_files import decode_rgb
from udfs.street.layout import drive_plan
from udfs.street.scene import sequence_frames
from udfs.street.world import StreetSettings

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]
SIZES_WH = ((640, 480), (1920, 1080), (4000, 3000))
ROUND_PX = 12_000_000  # a round decodes as many images as have about these pixels
MAX_PIXELS = 10**8
NOISE_SIGMA, JPEG_QUALITY = 4.0, 88
OURS = "decode_rgb"


def decode_plainly(content: bytes) -> Pixels:
    """Pillow as most programs use it: a copy to turn, a copy to convert, a copy into the array."""
    with Image.open(io.BytesIO(content)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def decode_with_torchvision(content: bytes) -> Pixels:
    """(h, w, 3) uint8, EXIF orientation applied."""
    from torchvision.io import decode_image

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    pixels = decode_image(encoded, mode="RGB", apply_exif_orientation=True)
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


def decode_with_torchcodec(content: bytes) -> Pixels:
    """(h, w, 3) uint8, EXIF orientation applied; of an animation the first frame."""
    from torchcodec.decoders import decode_image

    pixels = decode_image(content, mode="RGB")
    first = pixels if pixels.ndim == 3 else pixels[0]
    return np.ascontiguousarray(first.permute(1, 2, 0).numpy())


DECODERS: dict[str, Decoder] = {
    "plain Pillow": decode_plainly,
    OURS: lambda content: decode_rgb(content, MAX_PIXELS),
    "torchvision": decode_with_torchvision,
    "torchcodec": decode_with_torchcodec,
}


def camera_frame(size_wh: tuple[int, int]) -> Image.Image:
    """A drawn street scene with a sensor's noise."""
    settings = StreetSettings(frames_per_sequence=1, sequences_per_drive=1)
    frame = next(iter(sequence_frames(drive_plan(0, 0, settings).sequences[0], settings)))
    pixels = np.asarray(frame.image.resize(size_wh, Image.Resampling.LANCZOS), np.float32)
    noise = np.random.default_rng(0).normal(0, NOISE_SIGMA, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def images_per_s(content: bytes, repeats: int) -> dict[str, dict[int, float]]:
    """Decoder -> threads -> images per second; medians of rounds in turn."""
    with Image.open(io.BytesIO(content)) as image:
        n_images = max(2, round(ROUND_PX / (image.width * image.height)) // 2 * 2)
    rounds: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for n_threads in (1, 2):
            for name, decode in DECODERS.items():
                with ThreadPoolExecutor(n_threads) as threads:
                    start_s = time.perf_counter()
                    for future in [threads.submit(_decoded_size, decode, content) for _ in range(n_images)]:
                        future.result()
                    elapsed_s = time.perf_counter() - start_s
                rounds.setdefault((name, n_threads), []).append(n_images / elapsed_s)
    return {name: {n: statistics.median(rounds[name, n]) for n in (1, 2)} for name in DECODERS}


def _decoded_size(decode: Decoder, content: bytes) -> int:
    return decode(content).size  # the pixels themselves would pile up in the futures


def peak_bytes_per_px(name: str, content: bytes) -> float:
    """Growth of a fresh process's largest resident set while it decodes, the result included; Linux only."""
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_grown_bytes_per_px, (name, content))


def _grown_bytes_per_px(name: str, content: bytes) -> float:
    warnings.simplefilter("ignore")
    DECODERS[name](encoded(Image.new("RGB", (64, 64)), "JPEG"))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = _status_kib("VmRSS")
    pixels = DECODERS[name](content)
    grown_kib = _status_kib("VmHWM") - before
    return grown_kib * 1024 / (pixels.shape[0] * pixels.shape[1])


def _status_kib(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0])


def format_files() -> dict[str, bytes]:
    """The same picture in each format and mode."""
    image = camera_frame((320, 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = image.convert("RGBA")
    clear.putalpha(100)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return {
        "JPEG baseline": encoded(image, "JPEG"),
        "JPEG progressive": encoded(image, "JPEG", progressive=True),
        "JPEG 4:4:4, EXIF 6": encoded(image, "JPEG", exif=exif, subsampling=0),
        "JPEG grey": encoded(image.convert("L"), "JPEG"),
        "JPEG CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "PNG RGB": encoded(image, "PNG"),
        "PNG RGBA": encoded(clear, "PNG"),
        "PNG grey and alpha": encoded(clear.convert("LA"), "PNG"),
        "PNG palette": encoded(image.quantize(64), "PNG"),
        "PNG 16-bit grey": encoded(deep, "PNG"),
        "WebP": encoded(image, "WEBP"),
        "WebP RGBA lossless": encoded(clear, "WEBP", lossless=True, exact=True),
        "GIF": encoded(image, "GIF"),
        "AVIF": encoded(image, "AVIF", speed=10),
        "TIFF": encoded(image, "TIFF"),
        "BMP": encoded(image, "BMP"),
        "JPEG 2000": encoded(image, "JPEG2000"),
    }


def differences(content: bytes) -> dict[str, str]:
    """Each decoder's largest difference from `decode_rgb`, or why there is none."""
    ours = DECODERS[OURS](content)
    return {name: _difference(ours, _outcome(DECODERS[name], content)) for name in DECODERS if name != OURS}


def _difference(ours: Pixels, theirs: Pixels | str) -> str:
    if isinstance(theirs, str):
        return "refused"
    if theirs.shape != ours.shape:
        return f"shape {theirs.shape}"
    largest = int(np.abs(ours.astype(int) - theirs).max())
    return f"differs by up to {largest}" if largest else "equal"


def damage_verdicts(n: int) -> dict[str, Counter[str]]:
    """Decoder -> what it and `decode_rgb` make of mutated JPEG and PNG files."""
    kinds = ("-plain.jpg", "-progressive.jpg", "-plain.png")
    damaged = [content for name, content in mutated_images(1, n) if any(kind in name for kind in kinds)]
    digests = {name: _digests(name, damaged) for name in DECODERS}
    pairs = {name: zip(digests[OURS], digests[name], strict=True) for name in DECODERS if name != OURS}
    return {name: Counter(_verdict(ours, theirs) for ours, theirs in both) for name, both in pairs.items()}


def _digests(name: str, contents: Sequence[bytes]) -> list[str]:
    """Hash of each file's pixels, `refused`, or `crash` where it takes its process along."""
    context = multiprocessing.get_context("spawn")
    found: list[str] = []
    while len(found) < len(contents):
        ours, its = context.Pipe()
        process = context.Process(target=_send_digests, args=(its, name, contents[len(found) :]))
        process.start()
        its.close()
        try:
            while len(found) < len(contents):
                found.append(ours.recv())
        except EOFError:
            found.append("crash")
        process.join()
    return found


def _send_digests(parent: Connection, name: str, contents: Sequence[bytes]) -> None:
    warnings.simplefilter("ignore")
    for content in contents:
        pixels = _outcome(DECODERS[name], content)
        parent.send("refused" if isinstance(pixels, str) else hashlib.blake2b(pixels.tobytes()).hexdigest())


def _outcome(decode: Decoder, content: bytes) -> Pixels | str:
    try:
        return decode(content)
    except Exception as error:  # every library has its own errors for files it refuses
        return type(error).__name__


def _verdict(ours: str, theirs: str) -> str:
    if theirs == "crash":
        return "crashes its process"
    if ours == "refused":
        return "both refuse" if theirs == "refused" else "accepts what decode_rgb refuses"
    if theirs == "refused":
        return "refuses what decode_rgb accepts"
    return "same pixels" if ours == theirs else "other pixels"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    for row in (columns, ["---"] * len(columns), *rows):
        print(
            "| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) + " |"
        )
    print()


def main() -> None:
    """Measures, prints tables and ends with one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mutations", type=int, default=600)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    record: dict[str, Any] = {"benchmark": "decoding", **surroundings()}
    record["versions"] |= {name: version(name) for name in ("pillow", "torchvision", "torchcodec", "torch")}

    frames = {f"{w}x{h}": camera_frame((w, h)) for w, h in SIZES_WH}
    speed = {
        size: images_per_s(encoded(frame, "JPEG", quality=JPEG_QUALITY), arguments.repeats)
        for size, frame in frames.items()
    }
    rows: list[list[object]] = [
        [size, name, *per[name].values(), f"{per[name][1] / per[OURS][1]:.2f}"]
        for size, per in speed.items()
        for name in DECODERS
    ]
    _table(("JPEG", "decoder", "images/s, 1 thread", "2 threads", f"of {OURS}'s"), rows)

    largest = list(frames.values())[-1]
    kinds: dict[str, dict[str, Any]] = {"baseline": {}, "progressive": {"progressive": True}}
    memory = {
        name: {kind: peak_bytes_per_px(name, encoded(largest, "JPEG", **kinds[kind])) for kind in kinds}
        for name in DECODERS
    }
    memory[OURS] |= {"PNG": peak_bytes_per_px(OURS, encoded(largest, "PNG", compress_level=1))}
    memory[OURS] |= {"JPEG 2000": peak_bytes_per_px(OURS, encoded(largest, "JPEG2000"))}
    _table(
        ("decoder", "peak bytes a pixel"),
        [[n, ", ".join(f"{k} {v:.1f}" for k, v in m.items())] for n, m in memory.items()],
    )

    pixels = {kind: differences(content) for kind, content in format_files().items()}
    others = [name for name in DECODERS if name != OURS]
    _table(("file", *others), [[kind, *found.values()] for kind, found in pixels.items()])

    damage = damage_verdicts(arguments.mutations)
    verdicts = sorted({verdict for counts in damage.values() for verdict in counts})
    _table(("mutated JPEG and PNG files", *others), [[v, *(damage[o][v] for o in others)] for v in verdicts])
    print(json.dumps(record | {"images_per_s": speed, "peak": memory, "pixels": pixels, "damage": damage}))


if __name__ == "__main__":
    main()
