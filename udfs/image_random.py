"""Random numbers that depend on a seed and an image's id only, never on partition, order or batch size.

A counter-based stream (the output function of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", 2014) keyed by a BLAKE2b hash of seed and image id, so that whole batches are drawn at
once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from udfs.boxes import FloatArray, IntArray

UIntArray = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def image_keys(seed: int, image_ids: Iterable[str]) -> UIntArray:
    """A 64-bit key per image.

    Args:
        seed: Any integer.
        image_ids: n ids.

    Returns:
        (n,), equal for equal (seed, id) on every machine.
    """
    prefix = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    digests = []
    for image_id in image_ids:
        state = prefix.copy()
        state.update(image_id.encode())
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def image_uniforms(keys: UIntArray, offsets: IntArray, sample: int) -> FloatArray:
    """One uniform number for every detection of a batch, for one sample.

    Args:
        keys: (n,), from `image_keys`.
        offsets: (n + 1,), starts of the images in the flat arrays.
        sample: Index of the sample, from 0; more samples leave the earlier ones as they are.

    Returns:
        (m,), in [0, 1); a detection's number depends on its image's key, its position there and the sample.
    """
    counts = np.diff(offsets)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    stream = _mixed(keys + _GOLDEN * np.full(1, sample + 1, np.uint64))
    bits = _mixed(np.repeat(stream, counts) + _GOLDEN * (position + 1).astype(np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: UIntArray) -> UIntArray:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
