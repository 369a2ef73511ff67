"""Images read and decoded by threads while the model works on earlier ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from udfs.image_files import ImageFault, decode_rgb, max_file_bytes, read_bytes
from udfs.image_hash import image_hash

GROUPS_AHEAD = 2
# About 300 MB of pixels a group: large photos share a batch with fewer others.
MOST_PIXELS_A_GROUP = 100_000_000


@dataclass(frozen=True)
class ReadImage:
    """One image as the reader left it.

    Attributes:
        pixels: (h, w, 3) uint8, or why there are none.
        fetch_ms: Time to get the file's bytes.
        decode_ms: Time from bytes to pixels and their hash.
        image_hash: Perceptual hash of the pixels, 0..2^64 - 1; none for a fault.
    """

    pixels: NDArray[np.uint8] | ImageFault
    fetch_ms: float
    decode_ms: float
    image_hash: int | None = None


@dataclass(frozen=True)
class ReadGroup:
    """Images that go through the model together.

    Attributes:
        rows: Their input rows.
        images: One an input row.
        wait_ms: How long the model waited for them.
    """

    rows: pa.RecordBatch
    images: list[ReadImage]
    wait_ms: float


def read_ahead(
    batches: Iterator[pa.RecordBatch], *, batch_size: int, threads: int, max_pixels: int
) -> Iterator[ReadGroup]:
    """Groups of read images in the order of the input; two groups are under way while one is used.

    Args:
        batches: Column uri, perhaps n_pixels (null where unknown), by which large images share a group with
            fewer others.
        batch_size: Most images of a group.
        threads: Readers; they wait for stores and decode, both without holding Python's lock.
        max_pixels: Larger images are faults.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="image-reader") as readers:
        coming: deque[tuple[pa.RecordBatch, list[Future[ReadImage]]]] = deque()
        try:
            for rows in _groups(batches, batch_size):
                uris = rows.column("uri").to_pylist()
                coming.append((rows, [readers.submit(_read, uri, max_pixels) for uri in uris]))
                if len(coming) > GROUPS_AHEAD:
                    yield _finished(*coming.popleft())
            while coming:
                yield _finished(*coming.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _finished(rows: pa.RecordBatch, reads: list[Future[ReadImage]]) -> ReadGroup:
    start_s = time.perf_counter()
    images = [read.result() for read in reads]
    return ReadGroup(rows, images, (time.perf_counter() - start_s) * 1000)


def _groups(batches: Iterator[pa.RecordBatch], batch_size: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        pixels = _known_pixels(batch)
        start = 0
        while start < batch.num_rows:
            within = np.cumsum(pixels[start : start + batch_size]) <= MOST_PIXELS_A_GROUP
            size = max(1, int(within.sum()))
            yield batch.slice(start, size)
            start += size


def _known_pixels(batch: pa.RecordBatch) -> NDArray[np.int64]:
    if "n_pixels" not in batch.schema.names:
        return np.zeros(batch.num_rows, np.int64)
    values: NDArray[np.int64] = batch.column("n_pixels").fill_null(0).to_numpy(zero_copy_only=False)
    return values


def _read(uri: str, max_pixels: int) -> ReadImage:
    start_s = fetched_s = time.perf_counter()
    pixels: NDArray[np.uint8] | ImageFault
    perceptual_hash: int | None = None
    try:
        content = read_bytes(uri, max_file_bytes(max_pixels))
        fetched_s = time.perf_counter()
        pixels = decode_rgb(content, max_pixels)
        perceptual_hash = image_hash(pixels)
    except ImageFault as fault:
        pixels = fault
    end_s = time.perf_counter()
    return ReadImage(
        pixels, (fetched_s - start_s) * 1000, (end_s - fetched_s) * 1000, image_hash=perceptual_hash
    )
