"""An ONNX file behind the one contract, read as the mapping `detector.onnx` says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError
from conf.onnx_spec import OnnxSpec
from detectors.detections import Detections
from detectors.detector import Detector, DetectorCard, require_rgb
from detectors.identity import model_identity
from detectors.kept_detections import kept_detections, probe_images
from detectors.onnx_input import Placement, model_input, placement
from detectors.onnx_output import (
    candidates,
    class_columns,
    image_outputs,
    require_plausible_boxes,
)
from detectors.onnx_scores import output_head
from detectors.onnx_session import OnnxSession, input_size_hw, require_outputs
from detectors.outputs import LOGITS_ONLY, Outputs
from detectors.thresholds import KeepThresholds


class OnnxDetector(Detector):
    """An ONNX model with its mapping, thresholds, class names and identity.

    Before it is ready it runs on two synthetic images of different sizes, and what comes must fit the
    mapping. Images share a forward pass where the model's batch axis is dynamic and a batch gives what its
    images give alone.

    Args:
        content: Bytes of the ONNX file.
        spec: What the model takes and gives.
        classes: Class names without background; none: class_1 ... class_K.
        keep: Thresholds of post-processing; `nms_iou` has no effect with `nms: inside`.
        outputs: What detections carry; an ONNX model has logits at most, and none with labels.
        device: `cpu`, `cuda`, `cuda:<index>` or `auto`.
        name: What people call it; not part of its identity.
        uri: Where the file came from.

    Raises:
        QuarryError: onnxruntime is missing, the file is no ONNX model it can run, or model, mapping and
            class names do not fit together.
    """

    def __init__(
        self,
        content: bytes,
        *,
        spec: OnnxSpec,
        classes: Sequence[str] | None,
        keep: KeepThresholds,
        outputs: Outputs = LOGITS_ONLY,
        device: str = "cpu",
        name: str = "unnamed",
        uri: str = "",
    ) -> None:
        self._spec = spec
        self._session = OnnxSession(content, uri, device)
        self._output_names = require_outputs(self._session, spec)
        self._input_hw = input_size_hw(self._session, spec)
        self._batched = False
        self.keep = keep
        self.outputs = outputs
        probes = [self._probe(image) for image in probe_images()]
        named = self._class_names(probes[0][1], classes)
        super().__init__(self._card(content, named, name, uri), self._session.device)
        for placed, probe in probes:
            self._read(probe, placed)
        self._batched = self._batch_agrees(probes[0][1])

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each image; images of one input size share a forward pass where the model can."""
        groups: dict[tuple[int, ...], list[int]] = {}
        prepared = []
        with self.clock.stage("transfer"):
            for index, image in enumerate(images):
                require_rgb(image, index)
                prepared.append(self._prepare(image))
                key = prepared[index][1].shape if self._batched else (index,)
                groups.setdefault(key, []).append(index)
        found: dict[int, Detections] = {}
        for indices in groups.values():
            with self.clock.stage("forward"):
                outputs = self._run([prepared[i][1] for i in indices])
            with self.clock.stage("post_process"):
                found.update(
                    (i, self._read(o, prepared[i][0])) for i, o in zip(indices, outputs, strict=True)
                )
        return [found[index] for index in range(len(images))]

    def _prepare(self, image: NDArray[np.uint8]) -> tuple[Placement, NDArray[Any]]:
        placed = placement((image.shape[0], image.shape[1]), self._input_hw, self._spec)
        return placed, model_input(image, placed, self._spec, self._session.input_dtype)

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
        values = np.stack(inputs) if "n" in self._spec.layout else inputs[0]
        outputs = self._session.run(values, self._output_names)
        with self._named():
            return image_outputs(outputs, self._spec, len(inputs))

    def _read(self, outputs: dict[str, NDArray[Any]], placed: Placement) -> Detections:
        with self._named():
            found = candidates(
                outputs,
                self._spec,
                placed,
                n_classes=len(self.classes),
                eta0=self.keep.eta0,
                logits=self.outputs.logits,
            )
            suppress = self._spec.nms == "outside"
            return kept_detections(found, original_hw=placed.original_hw, keep=self.keep, suppress=suppress)

    def _probe(self, image: NDArray[np.uint8]) -> tuple[Placement, dict[str, NDArray[Any]]]:
        placed, values = self._prepare(image)
        outputs = self._run([values])[0]
        with self._named():
            require_plausible_boxes(outputs, self._spec)
        return placed, outputs

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Says in errors which file and setting they are about."""
        try:
            yield
        except QuarryError as error:
            raise QuarryError(f"{self._session.uri}: detector.onnx: {error}") from error

    def _batch_agrees(self, alone: dict[str, NDArray[Any]]) -> bool:
        """Whether the first probe image gives beside another one what it gives alone."""
        if "n" not in self._spec.layout or self._session.input_shape[0] is not None:
            return False
        image = probe_images()[0]
        try:
            together = self._run([self._prepare(pixels)[1] for pixels in (image, image[::-1])])[0]
        except QuarryError:
            return False
        return all(
            together[name].shape == values.shape and np.allclose(together[name], values, rtol=1e-2, atol=1e-3)
            for name, values in alone.items()
        )

    def _class_names(
        self, outputs: dict[str, NDArray[Any]], classes: Sequence[str] | None
    ) -> tuple[str, ...]:
        uri = self._session.uri
        with self._named():
            n_classes = class_columns(outputs, self._spec)
        if n_classes is None and classes is None:
            raise QuarryError(f"{uri}: labels do not tell how many classes there are: set detector.classes")
        if classes is None:
            return tuple(f"class_{i}" for i in range(1, (n_classes or 0) + 1))
        if n_classes not in (None, len(classes)):
            raise QuarryError(
                f"{uri}: detector.classes expected {n_classes} names (score columns, background "
                f"{self._spec.background}), got {len(classes)}"
            )
        return tuple(classes)

    def _card(self, content: bytes, classes: tuple[str, ...], name: str, uri: str) -> DetectorCard:
        digest = hashlib.sha256(hashlib.sha256(content).digest())
        mapping = self._spec.model_dump(mode="json", exclude_defaults=True)
        model_id = model_identity(
            digest,
            architecture="onnx",
            classes=classes,
            keep=self.keep,
            outputs=self.outputs,
            adapter={"onnx": mapping},
        )
        size_hw = self._input_hw or (0, 0)
        return DetectorCard(
            model_id=model_id,
            name=name,
            uri=uri,
            classes=classes,
            head=output_head(self._spec),
            architecture="onnx",
            parameters=0,
            min_size=min(size_hw),
            max_size=max(size_hw),
        )
