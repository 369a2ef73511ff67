"""Memory of a detection worker over very many images: it must stay flat.

    python benchmarks/detection_memory.py --images 100000

A few hundred small simulated images, one in a hundred damaged, go through the worker again and again. Its
resident memory is read from /proc after every step; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.detection_loops import MAX_PIXELS
from benchmarks.machine import surroundings
from conf.settings import DetectorSettings, DetectSettings
from detectors.load import describe_detector
from udfs.detect import detect_batches

FILES, DAMAGED_EVERY = 400, 100
ROWS_PER_BATCH = 1_000
STEPS = 20


def main() -> None:
    """Runs the worker and prints its memory at every step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    n = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        uris = written_images(Path(folder))
        detector = DetectorSettings(min_size=32, max_size=64)
        run = DetectSettings(device="cpu", batch_size=64, threads=1, reader_threads=1)
        model_id = describe_detector(detector).model_id
        memory_mib: list[float] = []
        done, start_s = 0, time.perf_counter()
        for batch in detect_batches(_rows(uris, n), detector, run, MAX_PIXELS, model_id):
            done += batch.num_rows
            if done >= (len(memory_mib) + 1) * n / STEPS:
                memory_mib.append(resident_mib())
                rate = done / (time.perf_counter() - start_s)
                print(f"{done:9,} images  {memory_mib[-1]:7.1f} MiB  {rate:6.1f} images/s", flush=True)
    half = memory_mib[len(memory_mib) // 2]
    grown = {"images": done, "mib": memory_mib, "end_over_half": round(memory_mib[-1] / half, 4)}
    print(json.dumps({**grown, **surroundings()}))


def written_images(folder: Path) -> list[str]:
    """Small JPEG files of many sizes; some are cut short."""
    random = np.random.default_rng(7)
    uris = []
    for i in range(FILES):
        height, width = random.integers(48, 97, 2)
        uris.append(str(folder / f"{i}.jpg"))
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(uris[-1])
        if i % DAMAGED_EVERY == 0:
            Path(uris[-1]).write_bytes(Path(uris[-1]).read_bytes()[:500])
    return uris


def _rows(uris: list[str], n: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, n, ROWS_PER_BATCH):
        places = range(start, min(start + ROWS_PER_BATCH, n))
        rows = {"image_id": [f"image-{i}" for i in places], "uri": [uris[i % len(uris)] for i in places]}
        yield pa.RecordBatch.from_pydict(rows)


def resident_mib() -> float:
    """Resident memory of this process (MiB)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    main()
