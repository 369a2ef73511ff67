"""Arrow batches of detections in, Arrow batches of hardness out: what Spark's mapInArrow runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from udfs.boxes import FloatArray
from udfs.committee import (
    exact_committee_hardness,
    judged_by,
    member_column,
    monte_carlo_committee_hardness,
)
from udfs.detection_batch import DetectionBatch, TruthBatch, with_labels, with_structs
from udfs.exact_score_sampling import exact_hardness
from udfs.matching import match_detections
from udfs.monte_carlo_score_sampling import ESTIMATORS, EXACT, Hardness, monte_carlo_hardness
from udfs.queries import Query
from udfs.score_calibration import with_presence
from udfs.score_request import ScoreRequest
from udfs.supervised_hardness import supervised_hardness
from udfs.uncertainty_baselines import uncertainty_baselines

HARDNESS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
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
        pa.field("detection_id", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("score", pa.float64()),
        pa.field("is_true_positive", pa.bool_()),
    ]
)

# Images are worked on in runs whose possible box pairs stay near the size of a core's cache; results do not
# depend on it.
_MAX_PAIRS = 2**19


def score_batches(batches: Iterator[pa.RecordBatch], request: ScoreRequest) -> Iterator[pa.RecordBatch]:
    """Hardness of every image without ground truth.

    Args:
        batches: Columns image_id, width, height, detections (or its fields, see `with_structs`);
            any number of rows. With a committee also `member_0` and so on, the members' detections.
        request: Queries, baselines and thresholds.

    Yields:
        One batch of `HARDNESS_SCHEMA` per batch read: a row per image and query or baseline. `estimator` says
        what was done: `exact`, `monte_carlo`, `mixed` (exact but for components above `max_component`), with
        `committee_` or `calibrated_` before it where not the scores themselves stand for truth, or
        `baseline`.

    Raises:
        QuarryError: Bad input; the message names the image.
    """
    for batch in map(with_structs, batches):
        detections = DetectionBatch.from_arrow(batch)
        if request.calibration is not None:
            detections = with_presence(detections, batch, request.calibration)
        detections = with_labels(detections, request.labels)
        hardness = _estimated(detections, _members(batch, request), request)
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
    queries = request.resolved_queries()
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


def _members(batch: pa.RecordBatch, request: ScoreRequest) -> list[DetectionBatch]:
    if request.committee is None:
        return []
    names = [member_column(member) for member in range(len(request.committee.label_maps))]
    columns = [batch.select(["image_id", "width", "height", name]) for name in names]
    return [
        DetectionBatch.from_arrow(column.rename_columns(["image_id", "width", "height", "detections"]))
        for column in columns
    ]


def _estimated(
    detections: DetectionBatch, members: Sequence[DetectionBatch], request: ScoreRequest
) -> Hardness:
    queries = request.resolved_queries()
    if not queries or detections.n_images == 0:
        empty = np.zeros((len(queries), detections.n_images))
        return Hardness(value=empty, std_error=empty, estimator=empty.astype(np.int8))
    parts = [
        _hardness(detections.images(*run), [member.images(*run) for member in members], queries, request)
        for run in _runs([detections, *members], request.n_samples)
    ]
    return Hardness(
        value=np.concatenate([part.value for part in parts], axis=1),
        std_error=np.concatenate([part.std_error for part in parts], axis=1),
        estimator=np.concatenate([part.estimator for part in parts], axis=1),
    )


def _hardness(
    detections: DetectionBatch,
    members: Sequence[DetectionBatch],
    queries: Sequence[Query],
    request: ScoreRequest,
) -> Hardness:
    options = request.estimation()
    if request.committee is None:
        estimate = exact_hardness if request.estimator == "exact" else monte_carlo_hardness
        return estimate(detections, queries, **options)
    truth, label_maps = request.committee.truth, request.committee.label_maps
    scenes = [
        with_labels(judged_by(detections, member, labels, truth, request.eta), request.labels)
        for member, labels in zip(members, label_maps, strict=True)
    ]
    judge = exact_committee_hardness if request.estimator == "exact" else monte_carlo_committee_hardness
    return judge(scenes, queries, **options)


def _runs(batches: Sequence[DetectionBatch], n_samples: int) -> Iterator[tuple[int, int]]:
    pairs = np.cumsum(np.sum([np.diff(batch.offsets) for batch in batches], axis=0) ** 2)
    most_pairs = _MAX_PAIRS * 10 // max(10, n_samples)
    start = 0
    while start < len(pairs):
        limit = (pairs[start - 1] if start else 0) + most_pairs
        stop = max(start + 1, int(np.searchsorted(pairs, limit, side="right")))
        yield start, stop
        start = stop


def _hardness_rows(
    batch: pa.RecordBatch, request: ScoreRequest, hardness: Hardness, baselines: FloatArray
) -> pa.RecordBatch:
    value = np.concatenate((hardness.value.ravel(), baselines.ravel()))
    n_estimated, n_baseline = hardness.value.size, baselines.size
    std_error = np.concatenate((hardness.std_error.ravel(), np.full(n_baseline, np.nan)))
    prefix = "committee_" if request.committee else "calibrated_" if request.calibration else ""
    estimator = pa.array([prefix + name for name in ESTIMATORS]).take(pa.array(hardness.estimator.ravel()))
    has_samples = np.concatenate((hardness.estimator.ravel() != EXACT, np.zeros(n_baseline, bool)))
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
        return [pa.array([], pa.string())] * 2
    return [
        pa.concat_arrays([batch.column("image_id").cast(pa.string())] * len(names)),
        pa.array(list(names), pa.string()).take(pa.array(np.repeat(np.arange(len(names)), n_images))),
    ]
