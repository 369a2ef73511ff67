"""Arrow batches of detections in, Arrow batches of hardness out: what Spark's mapInArrow runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from conf.errors import QuarryError
from udfs.boxes import BoolArray, FloatArray
from udfs.detection_batch import DetectionBatch, TruthBatch, with_labels
from udfs.exact_score_sampling import exact_hardness
from udfs.matching import Matcher, match_detections
from udfs.monte_carlo_score_sampling import Hardness, monte_carlo_hardness
from udfs.queries import queries_named
from udfs.supervised_hardness import supervised_hardness
from udfs.uncertainty_baselines import Head, check_baselines, uncertainty_baselines

Estimator = Literal["exact", "monte_carlo"]

HARDNESS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("model_id", pa.string()),
        pa.field("query", pa.string()),
        pa.field("hardness", pa.float64()),
        pa.field("std_error", pa.float64()),
        pa.field("estimator", pa.string()),
        pa.field("n_samples", pa.int32()),
    ]
)

MATCH_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("model_id", pa.string()),
        pa.field("detection_id", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("is_true_positive", pa.bool_()),
    ]
)

# Images are worked on in runs whose possible box pairs stay near the size of a core's cache; results do not
# depend on it.
_MAX_PAIRS = 2**19


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What to compute, and with which thresholds.

    Attributes:
        queries: Names of hardness queries.
        baselines: Names of query-free uncertainties.
        estimator: `exact`, or `monte_carlo` as in the paper's Algorithm 1.
        n_samples: Samples of `monte_carlo`, and of components too large for `exact`; >= 1.
        seed: Seed of the samples.
        eta: Confirmation threshold, 0..1.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.
        max_component: Largest component of overlapping detections that `exact` enumerates, 1..20.
        head: How the detector makes scores from logits.
        labels: Class ids that count; None for all.

    Raises:
        QuarryError: A value outside its range, or an unknown name.
    """

    queries: tuple[str, ...]
    baselines: tuple[str, ...] = ()
    estimator: Estimator = "exact"
    n_samples: int = 10
    seed: int = 0
    eta: float = 0.5
    iou_threshold: float = 0.5
    matcher: Matcher = "coco"
    max_component: int = 12
    head: Head = "softmax"
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        queries_named(self.queries)
        check_baselines(self.baselines)
        for name, kind in (("estimator", Estimator), ("matcher", Matcher), ("head", Head)):
            if getattr(self, name) not in get_args(kind):
                raise QuarryError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        ranges = {
            "n_samples >= 1": self.n_samples >= 1,
            "0 <= eta <= 1": 0.0 <= self.eta <= 1.0,
            "0 < iou_threshold <= 1": 0.0 < self.iou_threshold <= 1.0,
            "1 <= max_component <= 20": 1 <= self.max_component <= 20,
        }
        for condition, holds in ranges.items():
            if not holds:
                raise QuarryError(f"expected {condition}, got {self}")


def score_batches(batches: Iterator[pa.RecordBatch], request: ScoreRequest) -> Iterator[pa.RecordBatch]:
    """Hardness of every image without ground truth.

    Args:
        batches: Columns image_id, model_id, width, height, detections; any number of rows.
        request: Queries, baselines and thresholds.

    Yields:
        One batch of `HARDNESS_SCHEMA` per batch read: a row per image and query or baseline. `estimator` says
        what was done: `exact`, `monte_carlo`, `mixed` (exact but for components above `max_component`) or
        `baseline`.

    Raises:
        QuarryError: Bad input; the message names the image.
    """
    for batch in batches:
        detections = with_labels(DetectionBatch.from_arrow(batch), request.labels)
        hardness = _estimated(detections, request)
        baselines = uncertainty_baselines(detections, request.baselines, request.head)
        yield _hardness_rows(batch, request, hardness, baselines)


def supervise_batches(batches: Iterator[pa.RecordBatch], request: ScoreRequest) -> Iterator[pa.RecordBatch]:
    """Hardness of every image with ground truth.

    Args:
        batches: As for `score_batches`, and a column boxes of ground truth, never null.
        request: Queries, thresholds, matcher and labels; the rest is not used.

    Yields:
        One batch of `HARDNESS_SCHEMA` per batch read, with estimator `ground_truth` and no std_error or
        n_samples.

    Raises:
        QuarryError: Bad input; the message names the image.
    """
    queries = queries_named(request.queries)
    for batch in batches:
        detections, truth = _detections_and_truth(batch, request)
        values = supervised_hardness(
            detections,
            truth,
            queries,
            eta=request.eta,
            iou_threshold=request.iou_threshold,
            matcher=request.matcher,
        )
        yield pa.RecordBatch.from_arrays(
            [
                *_keys(batch, request.queries),
                pa.array(values.ravel()),
                pa.nulls(values.size, pa.float64()),
                pa.repeat("ground_truth", values.size),
                pa.nulls(values.size, pa.int32()),
            ],
            schema=HARDNESS_SCHEMA,
        )


def match_batches(batches: Iterator[pa.RecordBatch], request: ScoreRequest) -> Iterator[pa.RecordBatch]:
    """Every detection with its score and whether it finds an object, for reliability diagrams.

    All detections above the collection threshold are matched, not only the confirmed ones; those absorbed by
    a crowd are left out, as they are neither right nor wrong.

    Args:
        batches: As for `supervise_batches`.
        request: IoU threshold, matcher and labels; the rest is not used.

    Yields:
        One batch of `MATCH_SCHEMA` per batch read: a row per detection. `detection_id` is null where
        detections have none.

    Raises:
        QuarryError: Bad input; the message names the image.
    """
    for batch in batches:
        detections, truth = _detections_and_truth(batch, request)
        matches = match_detections(
            detections, truth, iou_threshold=request.iou_threshold, matcher=request.matcher
        )
        rows = np.flatnonzero(~matches.is_absorbed)
        images = pa.array(detections.image_index[rows])
        ids = detections.detection_ids
        no_ids = pa.nulls(len(rows), pa.string())
        yield pa.RecordBatch.from_arrays(
            [
                detections.image_ids.take(images),
                _model_ids(batch).take(images),
                no_ids if ids is None else ids.cast(pa.string()).take(pa.array(rows)),
                pa.array(detections.labels[rows].astype(np.int32)),
                pa.array(detections.scores[rows]),
                pa.array(matches.truth_of_detection[rows] >= 0),
            ],
            schema=MATCH_SCHEMA,
        )


def _detections_and_truth(batch: pa.RecordBatch, request: ScoreRequest) -> tuple[DetectionBatch, TruthBatch]:
    return (
        with_labels(DetectionBatch.from_arrow(batch), request.labels),
        with_labels(TruthBatch.from_arrow(batch), request.labels),
    )


def _estimated(detections: DetectionBatch, request: ScoreRequest) -> Hardness:
    queries = queries_named(request.queries)
    if not queries or detections.n_images == 0:
        empty = np.zeros((len(queries), detections.n_images))
        return Hardness(value=empty, std_error=empty, is_sampled=np.zeros(detections.n_images, bool))
    parts = []
    for start, stop in _runs(detections):
        run = detections.images(start, stop)
        if request.estimator == "exact":
            parts.append(
                exact_hardness(
                    run,
                    queries,
                    eta=request.eta,
                    iou_threshold=request.iou_threshold,
                    matcher=request.matcher,
                    max_component=request.max_component,
                    n_samples=request.n_samples,
                    seed=request.seed,
                )
            )
        else:
            parts.append(
                monte_carlo_hardness(
                    run,
                    queries,
                    eta=request.eta,
                    iou_threshold=request.iou_threshold,
                    matcher=request.matcher,
                    n_samples=request.n_samples,
                    seed=request.seed,
                )
            )
    return Hardness(
        value=np.concatenate([part.value for part in parts], axis=1),
        std_error=np.concatenate([part.std_error for part in parts], axis=1),
        is_sampled=np.concatenate([part.is_sampled for part in parts]),
    )


def _runs(detections: DetectionBatch) -> Iterator[tuple[int, int]]:
    pairs = np.cumsum(np.diff(detections.offsets) ** 2)
    start = 0
    while start < detections.n_images:
        limit = (pairs[start - 1] if start else 0) + _MAX_PAIRS
        stop = max(start + 1, int(np.searchsorted(pairs, limit, side="right")))
        yield start, stop
        start = stop


def _hardness_rows(
    batch: pa.RecordBatch, request: ScoreRequest, hardness: Hardness, baselines: FloatArray
) -> pa.RecordBatch:
    value = np.concatenate((hardness.value.ravel(), baselines.ravel()))
    n_estimated, n_baseline = hardness.value.size, baselines.size
    std_error = np.concatenate((hardness.std_error.ravel(), np.full(n_baseline, np.nan)))
    sampled = np.tile(hardness.is_sampled, len(request.queries))
    names = pa.array([request.estimator, "mixed" if request.estimator == "exact" else "monte_carlo"])
    estimator = names.take(pa.array(sampled.astype(np.int32)))
    has_samples: BoolArray = np.concatenate((sampled, np.zeros(n_baseline, bool)))
    return pa.RecordBatch.from_arrays(
        [
            *_keys(batch, (*request.queries, *request.baselines)),
            pa.array(value),
            pa.array(std_error, mask=np.isnan(std_error)),
            pa.concat_arrays([estimator, pa.repeat("baseline", n_baseline)]),
            pa.array(np.full(n_estimated + n_baseline, request.n_samples, np.int32), mask=~has_samples),
        ],
        schema=HARDNESS_SCHEMA,
    )


def _keys(batch: pa.RecordBatch, names: Sequence[str]) -> list[pa.Array]:
    n_images = batch.num_rows
    if not names:
        return [pa.array([], pa.string())] * 3
    return [
        pa.concat_arrays([batch.column("image_id").cast(pa.string())] * len(names)),
        pa.concat_arrays([_model_ids(batch)] * len(names)),
        pa.array(list(names), pa.string()).take(pa.array(np.repeat(np.arange(len(names)), n_images))),
    ]


def _model_ids(batch: pa.RecordBatch) -> pa.Array:
    if "model_id" not in batch.schema.names:
        raise QuarryError(f"column 'model_id' is missing; got {', '.join(batch.schema.names)}")
    return batch.column("model_id").cast(pa.string())
