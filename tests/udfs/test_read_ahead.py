"""Images arrive in order, ahead of the model, in groups bounded by number and by pixels."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from udfs import read_ahead as module
from udfs.image_files import ImageFault
from udfs.read_ahead import GROUPS_AHEAD, MOST_PIXELS_A_GROUP, read_ahead


def _batch(uris: list[str], pixels: list[int | None] | None = None) -> pa.RecordBatch:
    columns = {"uri": pa.array(uris, pa.string())}
    if pixels is not None:
        columns["n_pixels"] = pa.array(pixels, pa.int64())
    return pa.RecordBatch.from_pydict(columns)


def test_groups_keep_the_order_and_faults_keep_their_place(tmp_path: Path) -> None:
    uris = []
    for i in range(7):
        uris.append(str(tmp_path / f"{i}.png"))
        Image.new("RGB", (10 + i, 5)).save(uris[-1])
    uris[4] = str(tmp_path / "absent.png")
    groups = list(read_ahead(iter([_batch(uris)]), batch_size=3, threads=2, max_pixels=1000))
    assert [len(group.images) for group in groups] == [3, 3, 1]
    pixels = [image.pixels for group in groups for image in group.images]
    widths = [None if isinstance(p, ImageFault) else p.shape[1] for p in pixels]
    assert widths == [10, 11, 12, 13, None, 15, 16]
    assert all(image.fetch_ms >= 0 and image.decode_ms >= 0 for group in groups for image in group.images)


def test_large_images_share_a_group_with_fewer_others(tmp_path: Path) -> None:
    half = MOST_PIXELS_A_GROUP // 2
    sizes: list[int | None] = [half, half, half, 5 * half, None, 1, 1]
    batch = _batch([str(tmp_path / "absent.png")] * len(sizes), sizes)
    groups = read_ahead(iter([batch]), batch_size=4, threads=1, max_pixels=10)
    assert [len(group.images) for group in groups] == [2, 1, 1, 3]


def test_the_next_groups_are_read_while_one_is_used_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    seen = threading.Condition()

    def read_bytes(uri: str, max_bytes: int) -> bytes:
        with seen:
            opened.append(uri)
            seen.notify_all()
        return b""

    def decode_rgb(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(module, "read_bytes", read_bytes)
    monkeypatch.setattr(module, "decode_rgb", decode_rgb)
    uris = [str(i) for i in range(20)]
    groups = read_ahead(iter([_batch(uris)]), batch_size=2, threads=1, max_pixels=10)
    next(groups)
    ahead = 2 * (1 + GROUPS_AHEAD)
    with seen:
        assert seen.wait_for(lambda: len(opened) == ahead, timeout=10)
    time.sleep(0.05)
    assert opened == uris[:ahead]
    groups.close()
    assert len(opened) == ahead
