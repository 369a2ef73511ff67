"""The examples of docs/detectors.md load and run."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from conf.load import load_settings
from conf.onnx_spec import OnnxSpec
from conf.settings import DetectorSettings
from detectors.load import load_detector

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "detectors.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_mappings_load_as_settings(tmp_path: Path) -> None:
    assert len(blocks("yaml")) == 3
    for text in blocks("yaml"):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        assert load_settings(str(path)).detector.onnx is not None


def test_every_key_of_the_mapping_is_explained() -> None:
    table = PAGE[PAGE.index("| key | values") : PAGE.index("An output is a name")]
    assert set(OnnxSpec.model_fields) <= set(re.findall(r"`(\w+)`", table))


def test_the_plugin_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("bright_spots")
    exec(blocks("python")[0], module.__dict__)
    monkeypatch.setitem(sys.modules, "bright_spots", module)
    detector = load_detector(DetectorSettings(plugin="bright_spots:factory"), "cpu")
    image = np.zeros((40, 60, 3), np.uint8)
    assert len(detector.predict([image])[0]) == 0
    image[10:20, 30:50] = 255
    found = detector.predict([image])[0]
    np.testing.assert_array_equal(found.boxes_xyxy, [[30, 10, 50, 20]])
    assert found.logits is not None and detector.classes == ("lamp",)
