from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from udfs.image_hash import as_signed, hamming_bits, image_hash


def _slow_hash(pixels: NDArray[np.uint8]) -> int:
    height, width = pixels.shape[:2]
    bits = 0
    for row in range(8):
        cells = []
        for column in range(9):
            top, bottom = row * height // 8, -(-(row + 1) * height // 8)
            left, right = column * width // 9, -(-(column + 1) * width // 9)
            cell = pixels[top:bottom, left:right].reshape(-1, 3).astype(int).tolist()
            cells.append(sum(299 * r + 587 * g + 114 * b for r, g, b in cell) / len(cell))
        for left_cell, right_cell in zip(cells, cells[1:], strict=False):
            bits = 2 * bits + (right_cell > left_cell)
    return bits


def _scene(seed: int, size_wh: tuple[int, int] = (320, 200)) -> NDArray[np.uint8]:
    """A smooth random picture: a 7 x 5 grid of colors, enlarged."""
    colors = np.random.default_rng(seed).integers(20, 200, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colors).resize(size_wh, Image.Resampling.BICUBIC))


def test_hand_worked_hash() -> None:
    pixels = np.zeros((8, 9, 3), np.uint8)
    pixels[0] = np.arange(9)[:, None]  # rises everywhere: eight ones
    pixels[1] = np.arange(9, 0, -1)[:, None]  # falls everywhere: eight zeros
    pixels[7, 8] = 1  # rises once, in the last pair
    assert image_hash(pixels) == 0xFF000000_00000001
    doubled = pixels.repeat(20, axis=0).repeat(30, axis=1)
    assert image_hash(doubled) == 0xFF000000_00000001


def test_green_outweighs_red_and_red_outweighs_blue() -> None:
    pixels = np.zeros((8, 9, 3), np.uint8)
    pixels[:, 0, 2] = pixels[:, 1, 0] = pixels[:, 2, 1] = 100
    assert image_hash(pixels) == int("11000000" * 8, 2)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), height=st.integers(1, 40), width=st.integers(1, 40))
def test_equals_a_loop_over_cells(seed: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert image_hash(pixels) == _slow_hash(pixels)
    assert image_hash(np.asfortranarray(pixels)) == image_hash(pixels)


def test_sums_of_tall_bright_images_do_not_overflow() -> None:
    pixels = np.full((8 * 900, 9, 3), 255, np.uint8)
    pixels[:, 4] = 250
    assert image_hash(pixels) == _slow_hash(pixels) == int("00001000" * 8, 2)


@pytest.mark.parametrize("seed", range(5))
def test_like_pictures_hash_alike_and_others_do_not(seed: int) -> None:
    scene = _scene(seed)
    dimmed = (scene * 0.7).astype(np.uint8)
    small = np.asarray(Image.fromarray(scene).resize((160, 100), Image.Resampling.BOX))
    for alike in (dimmed, small):
        assert (image_hash(scene) ^ image_hash(alike)).bit_count() <= 3
    for other in (_scene(seed + 100), scene[:, ::-1]):
        assert (image_hash(scene) ^ image_hash(other)).bit_count() > 10


def test_an_image_without_structure_hashes_to_zero() -> None:
    assert image_hash(np.full((50, 70, 3), 93, np.uint8)) == 0


def test_signed_numbers_hold_the_same_bits() -> None:
    hashes = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    assert [as_signed(h) for h in hashes] == [0, 1, 2**63 - 1, -(2**63), -1]
    column = np.array([as_signed(h) for h in hashes], np.int64).view(np.uint64)
    assert column.tolist() == hashes
    assert hamming_bits(column, np.uint64(3)).tolist() == [2, 1, 61, 3, 62]
