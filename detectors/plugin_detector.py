"""A team's own detector behind the one contract: whatever it returns is checked before it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import QuarryError
from conf.plugin import imported_function
from detectors.architectures import Head
from detectors.detections import Detections
from detectors.detector import Detector, DetectorCard, require_rgb, resolve_device
from detectors.identity import model_identity
from detectors.kept_detections import kept_detections, probe_images
from detectors.outputs import LOGITS_ONLY, Outputs
from detectors.plugin_result import checked_result
from detectors.thresholds import KeepThresholds


class PluginModel(Protocol):
    """What the factory `module:factory`, called with (weights: str | None, device: str), must return.

    It may also have `nms`: `inside` (the default: its boxes are final) or `outside` (Quarry drops boxes that
    overlap a better one of their class). docs/detectors.md has a complete example.

    Attributes:
        classes: Class names; label i is `classes[i - 1]`.
        head: `softmax` (logits K + 1, background first) or `sigmoid` (logits K).
        version: Text that changes whenever its detections could, such as a hash of its weights and code.
    """

    classes: Sequence[str]
    head: Literal["softmax", "sigmoid"]
    version: str

    def predict(self, images: list[NDArray[np.uint8]]) -> Sequence[Mapping[str, Any]]:
        """One mapping an image, of arrays in any order of rows.

        Args:
            images: Arrays (h, w, 3) uint8, RGB; sizes differ.

        Returns:
            `boxes_xyxy` (n, 4) in px of the image, `scores` (n,) in [0, 1] and `labels` (n,) 1..K; if it has
            them, `logits` (n, K + 1 or K) that give the scores, `features` (n, D), `image_feature` (F,).
        """


class PluginDetector(Detector):
    """A plugin with its thresholds and identity.

    Before it is ready it runs on two synthetic images of different sizes; that result and every later one is
    checked.

    Args:
        plugin: module:factory, importable here and on every worker.
        weights: What the factory gets; its own business.
        classes: Expected class names; none: the plugin's.
        keep: Thresholds of post-processing; `nms_iou` has no effect on a plugin that is `inside`.
        outputs: What detections carry, as far as the plugin has it.
        device: `cpu`, `cuda`, `cuda:<index>` or `auto`; the factory gets it resolved.
        name: What people call it; not part of its identity.

    Raises:
        QuarryError: The plugin cannot be loaded, fails, or does not keep to `PluginModel`.
    """

    def __init__(
        self,
        plugin: str,
        *,
        weights: str | None,
        classes: Sequence[str] | None,
        keep: KeepThresholds,
        outputs: Outputs = LOGITS_ONLY,
        device: str = "cpu",
        name: str = "unnamed",
    ) -> None:
        self._plugin = plugin
        torch_device = resolve_device(device)
        factory = imported_function(plugin, "detector.plugin")
        self._model = self._result_of(lambda: factory(weights, str(torch_device)), "the factory")
        named, head, version, nms = self._result_of(
            lambda: self._described(classes), "reading its attributes"
        )
        self._suppress = nms == "outside"
        self.keep = keep
        self.outputs = outputs
        model_id = model_identity(
            hashlib.sha256(version.encode()),
            architecture=plugin,
            classes=named,
            keep=keep,
            outputs=outputs,
            adapter={"head": head, "nms": nms},
        )
        card = DetectorCard(
            model_id=model_id,
            name=name,
            uri=weights or plugin,
            classes=named,
            head=head,
            architecture=plugin,
            parameters=0,
            min_size=0,
            max_size=0,
        )
        super().__init__(card, torch_device)
        self.predict(probe_images())
        self.clock.take()

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detections of each image: the plugin's, checked, clipped, best first, within the thresholds."""
        for index, image in enumerate(images):
            require_rgb(image, index)
        with self.clock.stage("forward"):
            # Torch takes no negative strides, and warns on read-only arrays, which Arrow and Pillow hand out.
            owned = [np.require(image, requirements=["C", "W"]) for image in images]
            results = self._result_of(lambda: self._model.predict(owned), "predict")
        with self.clock.stage("post_process"):
            if not isinstance(results, Sequence) or isinstance(results, (str, Mapping)):
                raise self._error("predict", "expected a list of mappings", type(results).__name__)
            if len(results) != len(images):
                raise self._error("predict", f"expected {len(images)} results", str(len(results)))
            return [self._kept(*pair, i) for i, pair in enumerate(zip(images, results, strict=True))]

    def _kept(self, image: NDArray[np.uint8], result: object, index: int) -> Detections:
        height, width = image.shape[:2]
        try:
            found, image_feature = checked_result(result, len(self.classes), self.head, self.outputs)
        except QuarryError as error:
            where = f"detector.plugin {self._plugin}: result {index} ({width}x{height} px)"
            raise QuarryError(f"{where}: {error}") from error
        return kept_detections(
            found,
            original_hw=(height, width),
            keep=self.keep,
            suppress=self._suppress,
            image_feature=image_feature,
        )

    def _described(self, expected: Sequence[str] | None) -> tuple[tuple[str, ...], Head, str, str]:
        """Class names, head, version and nms, checked."""
        missing = object()
        classes = getattr(self._model, "classes", missing)
        if isinstance(classes, str) or not isinstance(classes, Sequence) or not classes:
            raise self._error("classes", "expected a list of names", _told(classes, missing))
        if not all(isinstance(c, str) and c for c in classes) or len(set(classes)) < len(classes):
            raise self._error("classes", "expected names, each once", _told(list(classes), missing))
        head = getattr(self._model, "head", missing)
        if head not in ("softmax", "sigmoid"):
            raise self._error("head", "expected 'softmax' or 'sigmoid'", _told(head, missing))
        version = getattr(self._model, "version", missing)
        if not isinstance(version, str) or not version:
            raise self._error(
                "version", "expected text that changes with the weights", _told(version, missing)
            )
        nms = getattr(self._model, "nms", "inside")
        if nms not in ("inside", "outside"):
            raise self._error("nms", "expected 'inside' or 'outside'", _told(nms, missing))
        if not callable(getattr(self._model, "predict", None)):
            raise self._error("predict", "expected a method", "none")
        if expected is not None and tuple(expected) != tuple(classes):
            raise self._error(
                "classes", f"detector.classes expected {', '.join(expected)}", ", ".join(classes)
            )
        return tuple(classes), head, version, nms

    def _result_of(self, call: Callable[[], Any], what: str) -> Any:
        try:
            return call()
        except (torch.OutOfMemoryError, QuarryError):
            raise
        except (Exception, SystemExit) as error:  # whatever a user's code does
            raise QuarryError(
                f"detector.plugin {self._plugin}: {what} failed: {type(error).__name__}: {error}"
            ) from error

    def _error(self, what: str, expected: str, got: str) -> QuarryError:
        return QuarryError(f"detector.plugin {self._plugin}: {what}: {expected}, got {got}")


def _told(value: object, missing: object) -> str:
    return "none" if value is missing else repr(value)
