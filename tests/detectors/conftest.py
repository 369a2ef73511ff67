"""One thread and one seed for every test here, and a COCO folder to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detectors.tiny_detectors import write_coco


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> Any:
    """The suite runs beside other work; results must not hang on threads or the order of tests."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """16 images in 8 sequences, one of them unreadable."""
    return write_coco(tmp_path)
