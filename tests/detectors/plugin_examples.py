"""Detector plugins, one good and many bad."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

Result = dict[str, Any]
BOXES = [[10, 10, 50, 60], [12, 10, 50, 60], [-20, 5, 5000, 40], [30, 30, 30, 80], [0, 0, 20, 20]]
SCORES = [0.3, 0.9, 0.6, 0.8, 0.04]
LABELS = [1, 1, 2, 2, 1]


class Plugin:
    """The same five boxes on every image, whatever is changed about them."""

    def __init__(
        self, change: Callable[[list[Result]], Any] = lambda results: results, **fields: Any
    ) -> None:
        self.classes = ["car", "sign"]
        self.head = "sigmoid"
        self.version = "1"
        self._change = change
        for name, value in fields.items():
            setattr(self, name, value)

    def predict(self, images: list[Any]) -> Any:
        results = []
        for image in images:
            assert image.flags.writeable and image.flags.c_contiguous
            scores = np.array(SCORES)
            logits = np.full((5, 2), -3.0)
            logits[range(5), np.array(LABELS) - 1] = np.log(scores / (1 - scores))
            results.append(
                {
                    "boxes_xyxy": np.array(BOXES, np.float32),
                    "scores": scores,
                    "labels": np.array(LABELS),
                    "logits": logits,
                    "features": torch.arange(15.0).reshape(5, 3),
                    "image_feature": [float(image.shape[0]), float(image.shape[1])],
                }
            )
        return self._change(results)


def with_last(**values: Any) -> Callable[[list[Result]], list[Result]]:
    """Changes the last image's result; `none` takes a value away."""

    def change(results: list[Result]) -> list[Result]:
        results[-1] = {k: v for k, v in {**results[-1], **values}.items() if v is not None}
        return results

    return change


def raising(error: BaseException) -> Callable[[list[Result]], Any]:
    def change(results: list[Result]) -> Any:
        raise error

    return change


def after_the_probe(change: Callable[[list[Result]], Any]) -> Callable[[list[Result]], Any]:
    calls: list[int] = []

    def later(results: list[Result]) -> Any:
        calls.append(1)
        return results if len(calls) == 1 else change(results)

    return later


def _columns(n: int) -> Any:
    return np.zeros((5, n))


# What predict returns, and what the error must say.
BAD_RESULTS: Mapping[str, tuple[Callable[[list[Result]], Any], str]] = {
    "too few": (lambda r: r[:-1], "predict: expected 2 results, got 1"),
    "a mapping": (lambda r: r[0], "predict: expected a list of mappings, got dict"),
    "nothing": (lambda r: None, "predict: expected a list of mappings, got NoneType"),
    "a tuple": (lambda r: [r[0], (1, 2)], "result 1 .160x224 px.: expected a mapping with .*, got tuple"),
    "no scores": (with_last(scores=None), "result 1 .*: expected scores, got boxes_xyxy, labels"),
    "misspelt": (with_last(feature=_columns(2)), "unknown 'feature'; did you mean 'features'"),
    "box shape": (with_last(boxes_xyxy=_columns(5)), r"boxes_xyxy: expected shape \(5, 4\), got \(5, 5\)"),
    "flat box": (with_last(boxes_xyxy=np.zeros(20)), r"boxes_xyxy: expected shape \(20, 4\), got \(20,\)"),
    "ragged": (with_last(boxes_xyxy=[[1, 2], [3]]), "boxes_xyxy: expected a numpy array, got list"),
    "text": (with_last(scores=["a"] * 5), "scores: expected numbers, got <U1"),
    "infinite": (with_last(boxes_xyxy=_columns(4) + np.inf), "boxes_xyxy: expected finite values, got inf"),
    "corners": (with_last(boxes_xyxy=-np.array(BOXES)), r"x2 >= x1 and y2 >= y1, got \[-10.*\] in row 0"),
    "scores": (with_last(scores=np.array([0.3, 0.9, 1.5, 0.1, 0])), r"\[0, 1\], got 1.5 in row 2"),
    "n scores": (with_last(scores=np.zeros(4)), r"scores: expected shape \(5,\), got \(4,\)"),
    "label 0": (with_last(labels=np.array([1, 0, 1, 1, 1])), r"labels: expected 1..2 .*, got 0 in row 1"),
    "label 3": (with_last(labels=np.array([1, 1, 1, 1, 3])), r"labels: expected 1..2 .*, got 3 in row 4"),
    "floats": (with_last(labels=np.ones(5)), "labels: expected integers, got float64"),
    "logit width": (with_last(logits=_columns(3)), r"logits: expected shape \(5, 2\), got \(5, 3\)"),
    "logits": (with_last(logits=_columns(2)), "sigmoid of the label's column .* 0.3, got 0.5 in row 0"),
    "features": (with_last(features=np.zeros((4, 3))), r"features: expected shape \(5, any\), got \(4, 3\)"),
    "image feature": (with_last(image_feature=[[1.0]]), r"image_feature: expected .*any,\), got \(1, 1\)"),
    "raises": (raising(KeyError("x")), "predict failed: KeyError: 'x'"),
    "exits": (raising(SystemExit(3)), "predict failed: SystemExit: 3"),
}  # fmt: skip

# What the object lacks, and what the error must say.
BAD_FIELDS: tuple[tuple[Mapping[str, Any], str], ...] = (
    ({"classes": "car"}, "classes: expected a list of names, got 'car'"),
    ({"classes": []}, r"classes: expected a list of names, got \[\]"),
    ({"classes": ["a", "a"]}, "classes: expected names, each once"),
    ({"classes": ["a", 2]}, "classes: expected names, each once"),
    ({"head": "linear"}, "head: expected 'softmax' or 'sigmoid', got 'linear'"),
    ({"version": 3}, "version: expected text that changes with the weights, got 3"),
    ({"nms": None}, "nms: expected 'inside' or 'outside', got None"),
    ({"predict": 3}, "predict: expected a method, got none"),
)


def good(weights: str | None, device: str) -> Plugin:
    """`weights` is its version here."""
    assert device == "cpu"
    return Plugin(version=weights or "unversioned")


def outside(weights: str | None, device: str) -> Plugin:
    return Plugin(nms="outside")


def bad(weights: str | None, device: str) -> Plugin:
    assert weights is not None
    return Plugin(BAD_RESULTS[weights][0])


def bad_later(weights: str | None, device: str) -> Plugin:
    assert weights is not None
    return Plugin(after_the_probe(BAD_RESULTS[weights][0]))


def bad_fields(weights: str | None, device: str) -> Plugin:
    return Plugin(**BAD_FIELDS[int(weights or "")][0])


def without_memory(weights: str | None, device: str) -> Plugin:
    return Plugin(after_the_probe(raising(torch.OutOfMemoryError("no memory"))))


def empty(weights: str | None, device: str) -> Plugin:
    nothing = {"boxes_xyxy": [], "scores": [], "labels": [], "logits": [], "features": []}
    return Plugin(lambda results: [nothing for _ in results])


def softmax(weights: str | None, device: str) -> Plugin:
    """One box an image: probabilities 0.2 of background, 0.3 and 0.5."""
    one = {"boxes_xyxy": [[0, 0, 9, 9]], "scores": [0.5], "labels": [2], "logits": np.log([[0.2, 0.3, 0.5]])}
    return Plugin(lambda results: [one for _ in results], head="softmax")


def exits(weights: str | None, device: str) -> Plugin:
    sys.exit("no licence")


def wrong_arguments(weights: str | None) -> Plugin:
    return Plugin()
