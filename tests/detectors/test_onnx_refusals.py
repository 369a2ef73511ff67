"""ONNX files and mappings that do not fit are refused when loading, before any image is read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from conf.errors import QuarryError
from conf.settings import DetectorSettings
from detectors.load import load_detector
from detectors.onnx_session import OnnxSession
from tests.detectors.onnx_models import (
    DETR,
    TORCHVISION,
    YOLO,
    DenseHead,
    detr_bytes,
    image_input,
    model_bytes,
    onnx_detector,
    output,
    torchvision_bytes,
    yolo_bytes,
)

WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"boxes": "output1"}, {}, r"boxes: the model has no output 'output1'; did you mean 'output0'"),
    ({"objectness": "obj"}, {}, r"objectness: the model has no output 'obj'; .*it has output0"),
    ({"transposed": False}, {}, "else check columns and transposed"),
    ({"scores": {"output": "output0", "columns": (4, 9)}}, {},
     r"scores: columns \[4, 9\] of output 'output0', which has 7"),
    ({"boxes": "output0"}, {}, "boxes: expected 4 columns, got 7"),
    ({}, {"classes": ("a", "b")}, "detector.classes expected 3 names .*got 2"),
    ({"input_hw": (32, 32)}, {}, r"input_hw expected \[64, 64\] as the model has it, got \[32, 32\]"),
    ({"resize": "none"}, {}, "resize none needs a dynamic height and width, the model's are 64 and 64"),
    ({"layout": "chw"}, {}, r"layout chw has 3 axes, the model's input \?x3x64x64"),
    ({"layout": "nhwc"}, {}, r"expected 3 color channels in layout nhwc"),
    ({"box_format": "xyxy"}, {}, "most have x2 < x1 or y2 < y1 as xyxy: check box_format"),
    ({"box_units": "fraction"}, {}, "are no fractions: set box_units to input_px"),
    ({"background": "first"}, {"classes": None}, "add up to .* with background expected"),
    ({"scores": {"output": "output0", "columns": (0, 3)}}, {},
     r"scores: expected probabilities in \[0, 1\], got"),
    ({"scores": {"output": "output0", "columns": (4, 5)}, "background": "first"}, {},
     "at least one class, got 1"),
    ({"labels": {"output": "output0", "columns": (5, 6)}, "scores": {"output": "output0", "columns": (4, 5)}},
     {}, "labels: expected whole numbers 0..2, got 0"),
    ({"labels": {"output": "output0", "columns": (5, 6)}, "scores": {"output": "output0", "columns": (4, 5)}},
     {"classes": None}, "labels do not tell how many classes there are: set detector.classes"),
]  # fmt: skip


@pytest.mark.parametrize(("mapping", "options", "message"), WRONG)
def test_a_wrong_mapping_is_refused_when_loading(
    mapping: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(QuarryError, match=message) as caught:
        onnx_detector(yolo_bytes(), {**YOLO, **mapping}, **options)
    assert str(caught.value).startswith("m.onnx: ")


def test_more_mismatches_are_refused_when_loading() -> None:
    for content, mapping, message in (
        (detr_bytes(), {**DETR, "activation": "none"}, "set activation to sigmoid or softmax"),
        (detr_bytes(), {**DETR, "box_units": "input_px"}, "set box_units to fraction"),
        (torchvision_bytes(labels=(0, 1, 2)), TORCHVISION, "labels: expected whole numbers 1..3, got 0"),
        (torchvision_bytes(), {**TORCHVISION, "labels": None}, "scores: output 'scores' expected a row and"),
        (yolo_bytes(side_px="side"), YOLO, "input size is dynamic: set detector.onnx.input_hw"),
        (yolo_bytes(batch=4), YOLO, "batch axis that is dynamic or 1, the model's input is 4x3x64x64"),
        (not_a_number_bytes(), YOLO, "scores: a value is NaN|boxes: a value is NaN"),
        (grid_bytes(), YOLO, r"got shape \(1, 7, 8, 8\); write a plugin"),
        (two_inputs_bytes(), YOLO, "expected one input of .* got images tensor.float. .*, size"),
        (uint8_bytes(), YOLO, "as uint8: set detector.onnx.divisor to 1"),
    ):
        with pytest.raises(QuarryError, match=message):
            onnx_detector(content, mapping)


def not_a_number_bytes() -> bytes:
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["wide"]),
        helper.make_node("Div", ["zero", "zero"], ["nan"]),
        helper.make_node("Concat", ["wide", "wide", "wide"], ["many"], axis=1),
        helper.make_node("Slice", ["many", "start", "end", "axis"], ["seven"]),
        helper.make_node("Mul", ["seven", "nan"], ["output0"]),
    ]
    constants = {"shape": np.array([1, 3, 64]), "zero": np.zeros(1, np.float32), "start": np.array([0]),
                 "end": np.array([7]), "axis": np.array([1])}  # fmt: skip
    return model_bytes(nodes, [image_input([1, 3, 64, 64])], [output("output0", [1, 7, 64])], constants)


def grid_bytes() -> bytes:
    head = DenseHead()
    nodes = [helper.make_node("Conv", ["images", "w"], ["output0"], strides=[8, 8])]
    constants = {"w": head.conv.weight.detach().numpy()}
    return model_bytes(nodes, [image_input([1, 3, 64, 64])], [output("output0", [1, 7, 8, 8])], constants)


def two_inputs_bytes() -> bytes:
    nodes = [helper.make_node("Mul", ["images", "size"], ["output0"])]
    inputs = [image_input([1, 3, 64, 64]), output("size", [1])]
    return model_bytes(nodes, inputs, [output("output0", [1, 3, 64, 64])])


def uint8_bytes() -> bytes:
    nodes = [helper.make_node("Cast", ["images"], ["output0"], to=TensorProto.FLOAT)]
    shape = [1, 3, 64, 64]
    return model_bytes(nodes, [image_input(shape, TensorProto.UINT8)], [output("output0", shape)])


def test_contradictions_and_files_that_are_no_models(tmp_path: Path) -> None:
    noise, split = tmp_path / "noise.onnx", tmp_path / "split.onnx"
    noise.write_bytes(np.random.default_rng(5).bytes(5000))
    model = onnx.load_from_string(yolo_bytes())
    onnx.save(model, split, save_as_external_data=True, location="split.data")
    for message, settings in (
        ("noise.onnx is no ONNX model", {"weights": str(noise), "onnx": YOLO}),
        ("split.onnx is no ONNX model .*in the one file", {"weights": str(split), "onnx": YOLO}),
        ("cannot read detector weights .*none.onnx: No such",
         {"weights": str(tmp_path / "none.onnx"), "onnx": YOLO}),
        ("expected an .onnx file in detector.weights, got sample", {"onnx": YOLO}),
        ("does not say what its outputs mean: set detector.onnx", {"weights": str(noise)}),
        ("are both set: keep one", {"weights": str(noise), "onnx": YOLO, "plugin": "a:b"}),
        ("detector.architecture, detector.min_size: no effect with detector.onnx",
         {"weights": str(noise), "onnx": YOLO, "architecture": "small_retinanet", "min_size": 9}),
        ("detector.precision: no effect with detector.plugin", {"plugin": "a:b", "precision": "bfloat16"}),
    ):  # fmt: skip
        with pytest.raises(QuarryError, match=message):
            load_detector(DetectorSettings.model_validate(settings), "cpu")


def test_names_of_torchvision_weights() -> None:
    for message, settings in (
        ("'COCO_V9' is no file; torchvision weights of fasterrcnn_resnet50_fpn: did you mean 'COCO_V1'",
         {"weights": "COCO_V9", "architecture": "fasterrcnn_resnet50_fpn"}),
        ("'COCO_V1' is no file; for torchvision weights of this name set detector.architecture",
         {"weights": "COCO_V1"}),
        ("'COCO_V1' is no file; torchvision has no weights for small_retinanet",
         {"weights": "COCO_V1", "architecture": "small_retinanet"}),
    ):  # fmt: skip
        with pytest.raises(QuarryError, match=message):
            load_detector(DetectorSettings.model_validate(settings), "cpu")


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(QuarryError, match=r"pip install 'quarry\[onnx\]'"):
        onnx_detector(yolo_bytes(), YOLO)


def test_memory_of_the_device_is_told_apart_from_failures() -> None:
    session = OnnxSession(yolo_bytes(), "m.onnx", "cpu")
    with pytest.raises(QuarryError, match=r"m.onnx: fails on an input of shape \(1, 3, 8, 64\)"):
        session.run(np.zeros((1, 3, 8, 64), np.float32), ["output0"])

    class Full:
        def run(self, *_: Any) -> None:
            raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for 123 bytes")

    session._session, session.device = Full(), torch.device("cuda")
    with pytest.raises(torch.OutOfMemoryError):
        session.run(np.zeros((1, 3, 64, 64), np.float32), ["output0"])
