"""ONNX files built node by node, and the same computation in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from conf.onnx_spec import OnnxSpec
from detectors.onnx_detector import OnnxDetector
from detectors.thresholds import KeepThresholds
from tests.detectors.tiny_detectors import CLASSES

SEED = 11
STRIDE_PX = 8
N_CLASSES = 3


KEEP = KeepThresholds(eta0=0.05, detections_per_image=300, nms_iou=0.5)
YOLO: dict[str, Any] = {
    "boxes": {"output": "output0", "columns": (0, 4)},
    "scores": {"output": "output0", "columns": (4, 7)},
    "box_format": "cxcywh",
    "transposed": True,
}
DETR: dict[str, Any] = {
    "resize": "stretch",
    "boxes": "pred_boxes",
    "scores": "logits",
    "box_format": "cxcywh",
    "box_units": "fraction",
    "activation": "softmax",
    "background": "last",
    "nms": "inside",
}
TORCHVISION: dict[str, Any] = {
    "layout": "chw",
    "resize": "none",
    "boxes": "boxes",
    "scores": "scores",
    "labels": "labels",
    "background": "first",
    "nms": "inside",
}


def onnx_detector(content: bytes, mapping: dict[str, Any], **changes: Any) -> OnnxDetector:
    options: dict[str, Any] = {"classes": CLASSES, "keep": KEEP, "uri": "m.onnx", **changes}
    return OnnxDetector(content, spec=OnnxSpec.model_validate(mapping), **options)


class DenseHead(torch.nn.Module):
    """A convolution of stride 8: four box terms, perhaps objectness, and class scores of every cell."""

    def __init__(self, score_columns: int = N_CLASSES) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4 + score_columns, STRIDE_PX, stride=STRIDE_PX)
        random = np.random.default_rng(SEED)
        weight = random.normal(0, 0.12, self.conv.weight.shape).astype(np.float32)
        self.conv.weight.data = torch.from_numpy(weight)
        self.conv.bias.data = torch.zeros(4 + score_columns)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (n, cells, 4) cxcywh in fractions and raw scores (n, cells, C)."""
        cells = self.conv(pixels).flatten(2).transpose(1, 2)
        return torch.sigmoid(cells[..., :4]), cells[..., 4:]


def model_bytes(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Any] | None = None,
) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "detector", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def image_input(shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info("images", kind, shape)


def output(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def yolo_bytes(
    *, batch: int | str = "batch", side_px: int | str = 64, score_columns: int = N_CLASSES
) -> bytes:
    """One output (batch, 4 + K, cells): cx, cy, w, h in px and class probabilities, as YOLOv8."""
    head = DenseHead(score_columns)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["cells"], strides=[STRIDE_PX, STRIDE_PX]),
        helper.make_node("Reshape", ["cells", "shape"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["probable"]),
        helper.make_node("Mul", ["probable", "scale"], ["output0"]),
    ]
    px = 64 if isinstance(side_px, str) else side_px
    constants = {
        "w": head.conv.weight.detach().numpy(),
        "b": np.zeros(4 + score_columns, np.float32),
        "shape": np.array([0, 4 + score_columns, -1]),
        "scale": np.array([px] * 4 + [1] * score_columns, np.float32)[:, None],
    }
    return model_bytes(
        nodes,
        [image_input([batch, 3, side_px, side_px])],
        [output("output0", [batch, 4 + score_columns, "cells"])],
        constants,
    )


def detr_bytes() -> bytes:
    """Outputs `logits` (batch, cells, K + 1), background last, and `pred_boxes`, cxcywh, as DETR."""
    head = DenseHead(N_CLASSES + 1)
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["cells"], strides=[STRIDE_PX, STRIDE_PX]),
        helper.make_node("Reshape", ["cells", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Split", ["rows", "parts"], ["terms", "logits"], axis=2),
        helper.make_node("Sigmoid", ["terms"], ["pred_boxes"]),
    ]
    constants = {
        "w": head.conv.weight.detach().numpy(),
        "b": np.zeros(8, np.float32),
        "shape": np.array([0, 8, -1]),
        "parts": np.array([4, N_CLASSES + 1]),
    }
    return model_bytes(
        nodes,
        [image_input(["batch", 3, 64, 64])],
        [output("logits", ["batch", "cells", 4]), output("pred_boxes", ["batch", "cells", 4])],
        constants,
    )


def torchvision_bytes(labels: tuple[int, ...] = (2, 1, 2)) -> bytes:
    """Input (3, h, w); `boxes`, `labels`, `scores` after suppression: scores are the means of R, G and B."""
    boxes = np.array([[1, 2, 30, 40], [5.5, 0, 1000, 20], [50, 50, 50, 60]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["scores"], axes=[1, 2], keepdims=0),
        helper.make_node("Identity", ["fixed_boxes"], ["boxes"]),
        helper.make_node("Identity", ["fixed_labels"], ["labels"]),
    ]
    return model_bytes(
        nodes,
        [image_input([3, "height", "width"])],
        [output("boxes", [3, 4]), output("labels", [3], TensorProto.INT64), output("scores", [3])],
        {"fixed_boxes": boxes, "fixed_labels": np.array(labels)},
    )
