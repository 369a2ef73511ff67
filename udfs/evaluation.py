"""An evaluation as people read it: tables, matrices and diagrams made of the rows of `metrics`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from udfs.evaluate import OVER_RANDOM
from udfs.metric_rows import ALL_CLASSES, DETECTOR, EXACT, GROUND_TRUTH, MONTE_CARLO, RANDOM

METRIC_TITLES = {"ndcg": "nDCG", "mauc": "mAUC"}
MOST_CLASSES = 11
METHOD_ORDER = (EXACT, MONTE_CARLO)


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One row of `metrics`, without cycle and model."""

    metric: str
    query: str
    method: str
    value: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure and its 95 % interval; `no_better_than_random` where the gain's interval reaches down to 0."""

    value: float | None
    low: float | None = None
    high: float | None = None
    is_best: bool = False
    no_better_than_random: bool = False


@dataclass(frozen=True, kw_only=True)
class MethodTable:
    """One quality measure, larger is better: a row of cells a query, a cell a method; means per method."""

    metric: str
    queries: tuple[str, ...]
    methods: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    means: tuple[Cell, ...]

    @property
    def named_rows(self) -> list[tuple[str, tuple[Cell, ...]]]:
        """Each query with its cells."""
        return list(zip(self.queries, self.rows, strict=True))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Rank correlations, -1..1, of each two of `names`; None where undefined."""

    title: str
    names: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Mean score, share of correct detections and number of detections per score bin; ece in 0..1."""

    name: str
    scores: tuple[float, ...]
    precisions: tuple[float, ...]
    counts: tuple[int, ...]
    ece: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Monte Carlo at each number of samples against the exact value, for one query."""

    query: str
    n_images: int
    n_samples: tuple[int, ...]
    ndcg: tuple[float | None, ...]
    spearman_to_exact: tuple[float | None, ...]
    error_to_exact: tuple[float | None, ...]
    exact_ndcg: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was measured in a cycle; empty where it was not evaluated."""

    tables: tuple[MethodTable, ...] = ()
    between_queries: Matrix | None = None
    between_methods: tuple[Matrix, ...] = ()
    reliability: tuple[Reliability, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()


def evaluation_of(rows: Iterable[MetricRow], queries: Sequence[str] = ()) -> Evaluation:
    """The rows of one cycle and model, arranged.

    Args:
        rows: In any order.
        queries: Order of queries; others follow by name.

    Returns:
        The evaluation. Score sampling stands first, `random` last among methods; reliability has all classes
        together first, then at most MOST_CLASSES, those with the most detections first.
    """
    found = {(row.metric, row.query, row.method): row for row in rows}
    ranked = {(query, method) for metric, query, method in found if metric in METRIC_TITLES}
    names = tuple(sorted({query for query, _ in ranked}, key=listed_first(queries)))
    methods = tuple(sorted({method for _, method in ranked}, key=listed_first(METHOD_ORDER, last=(RANDOM,))))
    return Evaluation(
        tables=tuple(_table(found, metric, names, methods) for metric in METRIC_TITLES) if ranked else (),
        between_queries=_matrix("queries", names, lambda a, b: found.get((f"spearman:{b}", a, GROUND_TRUTH))),
        between_methods=tuple(filter(None, (_methods_matrix(found, query, methods) for query in names))),
        reliability=_reliability(found),
        sensitivity=tuple(filter(None, (_sensitivity(found, query) for query in names))),
    )


Rows = Mapping[tuple[str, str, str], MetricRow]


def listed_first(first: Sequence[str], last: Sequence[str] = ()) -> Callable[[str], tuple[int, str]]:
    """A sort key: the names of `first` in their order, others by name, then `last` in its order."""
    places = {name: place for place, name in enumerate(first)}
    places |= {name: len(first) + 1 + place for place, name in enumerate(last)}
    return lambda name: (places.get(name, len(first)), name)


def _table(found: Rows, metric: str, queries: Sequence[str], methods: Sequence[str]) -> MethodTable:
    rows = []
    for query in queries:
        cells = []
        for method in methods:
            row = found.get((metric, query, method))
            gain = found.get((OVER_RANDOM[metric], query, method))
            cells.append(
                Cell(
                    value=row.value if row else None,
                    low=row.low if row else None,
                    high=row.high if row else None,
                    no_better_than_random=gain is not None and gain.low is not None and gain.low <= 0.0,
                )
            )
        rows.append(_best_marked(cells))
    columns = [[cell.value for cell in column] for column in zip(*rows, strict=True)]
    known = [[value for value in column if value is not None] for column in columns]
    means = [
        Cell(value=math.fsum(values) / len(values) if len(values) == len(rows) else None) for values in known
    ]
    return MethodTable(
        metric=METRIC_TITLES[metric],
        queries=tuple(queries),
        methods=tuple(methods),
        rows=tuple(rows),
        means=_best_marked(means),
    )


def _best_marked(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    # Compared as printed: two methods that read the same are both best.
    best = max((round(cell.value, 3) for cell in cells if cell.value is not None), default=None)
    return tuple(
        replace(cell, is_best=cell.value is not None and round(cell.value, 3) == best) for cell in cells
    )


def _matrix(
    title: str, names: Sequence[str], row_of: Callable[[str, str], MetricRow | None]
) -> Matrix | None:
    cells = {(a, b): row_of(a, b) for a in names for b in names if a != b}
    if not any(cells.values()):
        return None
    values = tuple(
        tuple(1.0 if a == b else row.value if (row := cells[a, b]) else None for b in names) for a in names
    )
    return Matrix(title=title, names=tuple(names), values=values)


def _methods_matrix(found: Rows, query: str, methods: Sequence[str]) -> Matrix | None:
    def row_of(a: str, b: str) -> MetricRow | None:
        if GROUND_TRUTH in (a, b):
            return found.get(("spearman", query, b if a == GROUND_TRUTH else a))
        return found.get((f"spearman:{b}", query, a))

    present = [method for method in methods if ("spearman", query, method) in found]
    return _matrix(query, (GROUND_TRUTH, *present), row_of)


def _reliability(found: Rows) -> tuple[Reliability, ...]:
    errors = {query: row for (metric, query, _), row in found.items() if metric == "ece" and row.n}
    names = sorted(errors, key=lambda name: (name != ALL_CLASSES, -errors[name].n, name))
    diagrams = []
    for name in names[: MOST_CLASSES + 1]:
        bins = sorted(
            metric.rpartition("_")[2]
            for metric, query, _ in found
            if query == name and metric.startswith("precision_bin_")
        )
        precision = [found[f"precision_bin_{number}", name, DETECTOR] for number in bins]
        score = [found[f"mean_score_bin_{number}", name, DETECTOR] for number in bins]
        diagrams.append(
            Reliability(
                name=name,
                scores=tuple(row.value or 0.0 for row in score),
                precisions=tuple(row.value or 0.0 for row in precision),
                counts=tuple(row.n for row in precision),
                ece=errors[name].value or 0.0,
            )
        )
    return tuple(diagrams)


def _sensitivity(found: Rows, query: str) -> Sensitivity | None:
    exact = found.get(("ndcg:exact", query, EXACT))
    sizes = sorted(
        int(metric.removeprefix("ndcg:").removesuffix("_samples"))
        for metric, name, method in found
        if name == query and method == MONTE_CARLO and metric.startswith("ndcg:")
    )
    if exact is None or not sizes:
        return None

    def values(kind: str) -> tuple[float | None, ...]:
        return tuple(found[f"{kind}:{size}_samples", query, MONTE_CARLO].value for size in sizes)

    return Sensitivity(
        query=query,
        n_images=exact.n,
        n_samples=tuple(sizes),
        ndcg=values("ndcg"),
        spearman_to_exact=values("spearman_to_exact"),
        error_to_exact=values("error_to_exact"),
        exact_ndcg=exact.value,
    )
