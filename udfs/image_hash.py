"""A 64-bit perceptual hash of an image: near-equal pictures differ in few bits.

The difference hash (dHash) of N. Krawetz, "Kind of Like That", hackerfactor.com, 2013: the image is averaged
down to 9 x 8 grey cells, and each bit says whether brightness rises from a cell to its right neighbour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HASH_BITS = 64
CELL_ROWS, CELL_COLUMNS = 8, 9
# ITU-R BT.601 luma in thousandths, so that sums stay whole numbers.
LUMA = np.array([299, 587, 114], np.int64)
# So many rows of 8-bit values are added up in 16 bits: half the memory traffic of wider sums.
ROWS_IN_16_BITS = 257


def image_hash(pixels: NDArray[np.uint8]) -> int:
    """The difference hash of an image; compare two by the number of bits that differ.

    It stays the same when the image is scaled, or made brighter or of more contrast without clipping, and
    changes little with JPEG quality. It is not blind to mirroring, turning or cropping. An image of one color
    hashes to 0, so frames without any structure look alike.

    Args:
        pixels: (h, w, 3) uint8, h and w at least 1. Cells are of whole pixels; one on the edge of two cells
            counts in both, so that images below 9 x 8 px hash too.

    Returns:
        0..2^64 - 1; the first bit, of value 2^63, is the top left pair of cells, rows follow each other.
    """
    grey = _grey_cells(pixels)
    rises = grey[:, 1:] > grey[:, :-1]
    return int.from_bytes(np.packbits(rises).tobytes(), "big")


def as_signed(image_hash: int) -> int:
    """The same 64 bits as a signed number, as a BIGINT column holds them."""
    return image_hash - (1 << HASH_BITS) if image_hash >> (HASH_BITS - 1) else image_hash


def hamming_bits(hashes: NDArray[np.uint64], image_hash: np.uint64) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ from one: (n,), 0..64."""
    bits: NDArray[np.uint8] = np.bitwise_count(hashes ^ image_hash)
    return bits


def _grey_cells(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(8, 9), mean brightness of every cell, 0..255 000."""
    height, width = pixels.shape[:2]
    row_edges, column_edges = _cell_edges(height, CELL_ROWS), _cell_edges(width, CELL_COLUMNS)
    bands = np.stack([_row_sum(pixels[start:stop]) for start, stop in row_edges])  # (8, w, 3)
    sums = np.stack([bands[:, start:stop].sum(axis=1) for start, stop in column_edges], axis=1)
    sizes = np.outer(np.diff(row_edges), np.diff(column_edges))
    means: NDArray[np.float64] = sums @ LUMA / sizes
    return means


def _cell_edges(length_px: int, n_cells: int) -> NDArray[np.int64]:
    """(n, 2), first pixel of every cell and the one after its last."""
    cells = np.arange(n_cells)
    return np.stack([cells * length_px // n_cells, -(-(cells + 1) * length_px // n_cells)], axis=1)


def _row_sum(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(w, 3), sums over the rows (h, w, 3)."""
    total = np.zeros(rows.shape[1:], np.int64)
    for start in range(0, len(rows), ROWS_IN_16_BITS):
        total += np.add.reduce(rows[start : start + ROWS_IN_16_BITS], axis=0, dtype=np.uint16)
    return total
