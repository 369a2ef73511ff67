"""An ONNX file opened in onnxruntime: one image input, named outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import QuarryError, nearest
from conf.onnx_spec import OnnxSpec
from detectors.detector import resolve_device

_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
# onnxruntime would look for weights beside the working directory, where they are not part of the identity.
_NO_FOLDER = "/nonexistent"


class OnnxSession:
    """Runs one model on prepared inputs.

    Args:
        content: Bytes of the ONNX file, weights within.
        uri: Where they came from, for messages.
        device: `cpu`, `cuda`, `cuda:<index>` or `auto` (CUDA where torch and onnxruntime have it).

    Attributes:
        device: Where it runs.
        input_shape: Axes of the input; none where an axis is dynamic.
        input_dtype: float32, float16 or uint8.
        output_names: In the model's order.

    Raises:
        QuarryError: onnxruntime is not installed, the bytes are no ONNX model of one image input, or CUDA
            was asked for and is not there.
    """

    def __init__(self, content: bytes, uri: str, device: str) -> None:
        runtime = _onnxruntime()
        self.uri = uri
        self.device, providers = _providers(runtime, device)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
        try:
            self._session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions share no base class of its own
            hint = "; export it with its weights in the one file" if "external" in str(error).lower() else ""
            raise QuarryError(
                f"{uri} is no ONNX model that onnxruntime can run: {_reason(error)}{hint}"
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _INPUT_TYPES:
            got = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise QuarryError(
                f"{uri}: expected one input of float32, float16 or uint8, the image; got {got or 'none'}; "
                "write a plugin for it (docs/detectors.md)"
            )
        self._input_name = inputs[0].name
        self.input_shape = tuple(axis if isinstance(axis, int) else None for axis in inputs[0].shape)
        self.input_dtype: np.dtype[Any] = np.dtype(_INPUT_TYPES[inputs[0].type])
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def run(self, values: NDArray[np.generic], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Outputs by their names.

        Raises:
            QuarryError: The model fails on this input.
            torch.OutOfMemoryError: The device has too little memory for it.
        """
        try:
            outputs = self._session.run(list(names), {self._input_name: values})
        except Exception as error:
            if self.device.type == "cuda" and "allocate memory" in str(error):
                raise torch.OutOfMemoryError(_reason(error)) from error
            raise QuarryError(
                f"{self.uri}: fails on an input of shape {values.shape}: {_reason(error)}"
            ) from error
        return dict(zip(names, (np.asarray(output) for output in outputs), strict=True))


def require_outputs(session: OnnxSession, spec: OnnxSpec) -> tuple[str, ...]:
    """The outputs that a mapping reads, each once.

    Raises:
        QuarryError: The model has no such output; the message lists what it has.
    """
    parts = {"boxes": spec.boxes, "scores": spec.scores, "labels": spec.labels, "objectness": spec.objectness}
    given = {part: column.output for part, column in parts.items() if column is not None}
    for part, name in given.items():
        if name not in session.output_names:
            raise QuarryError(
                f"{session.uri}: detector.onnx.{part}: the model has no output {name!r}; "
                f"{nearest(name, session.output_names)} (it has {', '.join(session.output_names)})"
            )
    return tuple(dict.fromkeys(given.values()))


def input_size_hw(session: OnnxSession, spec: OnnxSpec) -> tuple[int, int] | None:
    """Height and width of the input (px); none where images keep their size.

    Raises:
        QuarryError: The mapping's layout, size or scale does not fit the model's input.
    """
    shape, layout = session.input_shape, spec.layout
    if len(shape) != len(layout):
        raise QuarryError(
            f"{session.uri}: detector.onnx.layout {layout} has {len(layout)} axes, the model's input "
            f"{_axes(shape)}; layouts are nchw, nhwc, chw and hwc"
        )
    if shape[layout.index("c")] not in (3, None):
        raise QuarryError(
            f"{session.uri}: expected 3 color channels in layout {layout}, the model's input is "
            f"{_axes(shape)}"
        )
    if "n" in layout and shape[0] not in (1, None):
        raise QuarryError(
            f"{session.uri}: expected a batch axis that is dynamic or 1, the model's input is {_axes(shape)}"
        )
    if session.input_dtype == np.uint8 and (spec.divisor, spec.mean, spec.std) != (
        1.0,
        (0.0,) * 3,
        (1.0,) * 3,
    ):
        raise QuarryError(
            f"{session.uri}: the model takes pixel values 0..255 as uint8: set detector.onnx.divisor to 1, "
            "without mean and std"
        )
    return _size_hw((shape[layout.index("h")], shape[layout.index("w")]), session.uri, spec)


def _size_hw(model_hw: tuple[int | None, int | None], uri: str, spec: OnnxSpec) -> tuple[int, int] | None:
    height, width = model_hw
    if spec.resize == "none":
        if height is not None or width is not None:
            raise QuarryError(
                f"{uri}: detector.onnx.resize none needs a dynamic height and width, the model's are "
                f"{height or 'dynamic'} and {width or 'dynamic'}; set it to letterbox or stretch"
            )
        return None
    if spec.input_hw is None:
        if height is None or width is None:
            raise QuarryError(
                f"{uri}: the model's input size is dynamic: set detector.onnx.input_hw to [height, width]"
            )
        return height, width
    if height not in (spec.input_hw[0], None) or width not in (spec.input_hw[1], None):
        raise QuarryError(
            f"{uri}: detector.onnx.input_hw expected {[height, width]} as the model has it, "
            f"got {list(spec.input_hw)}"
        )
    return spec.input_hw


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise QuarryError(
            "ONNX detectors need onnxruntime, which is not installed: pip install 'quarry[onnx]' "
            "(onnxruntime-gpu for CUDA), here and on every worker"
        ) from error
    return onnxruntime


def _providers(runtime: Any, device: str) -> tuple[torch.device, list[Any]]:
    resolved = resolve_device(device)
    if resolved.type != "cuda":
        return resolved, ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        if device == "auto":
            return torch.device("cpu"), ["CPUExecutionProvider"]
        raise QuarryError(
            f"detect.device is {device}, but this onnxruntime has no CUDA: install onnxruntime-gpu in its "
            "place, or set detect.device to auto or cpu"
        )
    return resolved, [
        ("CUDAExecutionProvider", {"device_id": resolved.index or 0}),
        "CPUExecutionProvider",
    ]


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _axes(shape: Sequence[int | None]) -> str:
    return "x".join("?" if axis is None else str(axis) for axis in shape)
