"""From a query as a team writes it to a query that runs, class names resolved to a model's labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conf.errors import QuarryError, nearest
from conf.plugin import imported_function
from conf.query_spec import QuerySpec, TermSpec
from udfs.boxes import FloatArray
from udfs.queries import Comparison, ErrorSets, Query, Term, read_only
from udfs.query_weights import FeatureRange, WeightRule

_RANGES = ("area_px", "area", "width", "height", "bottom", "aspect_ratio", "score")
_POWERS = ("area_px", "area", "width", "height", "bottom")
OTHERS = "*"


@dataclass(frozen=True, kw_only=True)
class PluginRule:
    """A query in Python: `function(sets: ErrorSets, labels: Mapping[str, int])` -> (images,) hardness.

    It sees the errors of a whole batch with known outcomes: `sets.fp.probability` and `sets.fn.probability`
    are 0 or 1 for every box of `sets.fp_boxes` and `sets.fn_boxes`, `tp_overlap_px` is what an error box
    shares with true positives, and `labels` gives the label of a class name. It must return `sets.n_images`
    finite numbers >= 0, larger is harder, each from its own image's boxes only (`image_index`). All arrays
    are read-only: other queries see them too.

    Attributes:
        query: Name of the query, for messages.
        function: module:function, importable on every worker.
        labels: Class name to label.
    """

    query: str
    function: str
    labels: Mapping[str, int]

    def value(self, sets: ErrorSets) -> FloatArray:
        """(images,), checked.

        Raises:
            QuarryError: The function cannot be loaded, fails, or returns something else.
        """
        function = imported_function(self.function, _asked_by(self.query))
        try:
            values = np.asarray(function(read_only(sets), self.labels), np.float64)
        except (Exception, SystemExit) as error:
            raise QuarryError(f"{self._name()} failed: {type(error).__name__}: {error}") from error
        if values.shape != (sets.n_images,):
            raise QuarryError(f"{self._name()} must return shape ({sets.n_images},), got {values.shape}")
        bad = ~np.isfinite(values) | (values < 0.0)
        if bad.any():
            raise QuarryError(f"{self._name()} must return finite numbers >= 0, got {values[bad][0]}")
        return values

    def _name(self) -> str:
        return f"query {self.query!r} (python: {self.function})"


def definition_text(name: str, spec: QuerySpec) -> str:
    """All that a query's values depend on, as text: its definition, and the source of a Python function's
    module.

    Raises:
        QuarryError: The Python function cannot be loaded.
    """
    text = spec.model_dump_json(exclude={"description"})
    if spec.python is None:
        return text
    return text + inspect.getsource(
        inspect.getmodule(imported_function(spec.python, _asked_by(name))) or object
    )


def defined_query(name: str, spec: QuerySpec, labels: Mapping[str, int]) -> Query:
    """A user's query, ready to run.

    Args:
        name: Its name.
        spec: How it was written.
        labels: Class name to label, of the model whose detections are scored.

    Raises:
        QuarryError: A class the model does not know, or a Python function that cannot be loaded.
    """
    key = f"score.define.{name}"
    if spec.python is not None:
        imported_function(spec.python, _asked_by(name))
        return Query(name=name, rule=PluginRule(query=name, function=spec.python, labels=dict(labels)))
    if spec.compare is None:
        return Query(name=name, rule=_term(spec, labels, key))
    left = _term(spec.compare.left, labels, f"{key}.compare.left")
    right: Term | float
    if spec.compare.right is not None:
        right = _term(spec.compare.right, labels, f"{key}.compare.right")
    else:
        assert spec.compare.value is not None
        right = spec.compare.value
    return Query(name=name, rule=Comparison(left=left, op=spec.compare.op, right=right))


def _asked_by(query: str) -> str:
    return f"query {query!r}"


def _term(spec: TermSpec, labels: Mapping[str, int], key: str) -> Term:
    assert spec.errors is not None
    where, weight = spec.where, spec.weight
    ranges = []
    for feature in _RANGES:
        bounds = getattr(where, feature)
        if bounds is not None:
            low = -np.inf if bounds.min is None else bounds.min
            high = np.inf if bounds.max is None else bounds.max
            ranges.append(FeatureRange(feature=feature, low=low, high=high))
    classes = None if where.classes is None else _labels(where.classes, labels, f"{key}.where.classes")
    powers, prices, other_price = [], {}, 1.0
    if weight is not None:
        powers = [(f, getattr(weight, f)) for f in _POWERS if getattr(weight, f) is not None]
        prices = dict(weight.price or {})
        other_price = prices.pop(OTHERS, 1.0)
    priced = _labels(tuple(prices), labels, f"{key}.weight.price")
    rule = WeightRule(
        labels=classes,
        ranges=tuple(ranges),
        region=where.region,
        constant=1.0 if weight is None else weight.constant,
        powers=tuple(powers),
        prices=tuple(zip(priced, prices.values(), strict=True)),
        other_price=other_price,
    )
    return Term(
        errors=spec.errors,
        weight=rule,
        overlap_power=0.0 if weight is None or weight.occlusion is None else weight.occlusion,
        reduce="sum" if spec.reduce == "count" else spec.reduce,
    )


def _labels(names: tuple[str, ...], labels: Mapping[str, int], key: str) -> tuple[int, ...]:
    for name in names:
        if name not in labels:
            raise QuarryError(f"{key}: {name!r} is no class of the model; {nearest(name, labels)}")
    return tuple(labels[name] for name in names)
