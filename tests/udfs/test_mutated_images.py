from __future__ import annotations

import faulthandler
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.udfs.mutated_images import MUTATORS, mutated_images, source_files
from udfs.image_files import ImageFault, decode_rgb, header_size_wh

SEED, N_FILES = 20260, 1000
MAX_PIXELS = 10**6
MAX_FILE_S, HANG_S = 5.0, 60.0
FAULTS = {"not_an_image", "truncated", "too_large", "unreadable", "empty"}

# Settings of the test runner would turn what Pillow warns of into faults.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", source_files())
def test_the_sources_are_whole(name: str) -> None:
    rgb = decode_rgb(source_files()[name], MAX_PIXELS)
    assert rgb.shape in {(32, 48, 3), (48, 32, 3)}
    assert len(np.unique(rgb)) > 10


def test_a_series_depends_on_seed_and_position_only() -> None:
    assert list(mutated_images(3, 60))[:30] == list(mutated_images(3, 30))
    assert list(mutated_images(3, 30)) != list(mutated_images(4, 30))


def test_every_mutation_changes_files_of_every_kind() -> None:
    names = [name.split("-", 2) for name, _ in mutated_images(SEED, N_FILES)]
    assert {mutation for _, mutation, _ in names} == {one.__name__.strip("_") for one in MUTATORS}
    assert {name.removesuffix(".jpg") for _, _, name in names} >= {
        name.removesuffix(".jpg") for name in source_files()
    }
    whole = set(source_files().values())
    assert sum(content in whole for _, content in mutated_images(SEED, N_FILES)) < N_FILES / 20


def test_a_mutated_image_is_decoded_or_refused_with_a_reason(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    path = tmp_path / "image"
    for name, content in mutated_images(SEED, N_FILES):
        path.write_bytes(content)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        start_s = time.perf_counter()
        try:
            rgb = decode_rgb(content, MAX_PIXELS)
        except ImageFault as fault:
            assert fault.error_class in FAULTS, name
            assert fault.message.strip(), name
            outcomes[fault.error_class] += 1
            _require_header_or_fault(path, name)
        else:
            assert rgb.dtype == np.uint8, name
            assert rgb.shape == (*rgb.shape[:2], 3), name
            assert 0 < rgb.shape[0] * rgb.shape[1] <= MAX_PIXELS, name
            assert header_size_wh(str(path), MAX_PIXELS) == (rgb.shape[1], rgb.shape[0]), name
            outcomes["decoded"] += 1
        assert time.perf_counter() - start_s < MAX_FILE_S, name
    faulthandler.cancel_dump_traceback_later()
    assert sum(outcomes.values()) == N_FILES
    assert (
        min(outcomes[kind] for kind in ("decoded", "not_an_image", "truncated", "too_large", "unreadable"))
        > 20
    )


def _require_header_or_fault(path: Path, name: str) -> None:
    try:
        width, height = header_size_wh(str(path), MAX_PIXELS)
    except ImageFault as fault:
        assert fault.error_class in FAULTS, name
        assert fault.message.strip(), name
    else:
        assert 0 < width * height <= MAX_PIXELS, name
