"""Sound rows of every suite, and for every expectation rows that break it and nothing else."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.table import Table
from schemas.tables import (
    ACQUISITION,
    DETECTIONS,
    GROUND_TRUTH,
    GROUND_TRUTH_HISTORY,
    HARDNESS,
    IMAGES,
    LABEL_IMPORTS,
    LABEL_REJECTS,
    MANIFESTS,
    METRICS,
    MODELS,
    NEAR_MISSES,
    QUARANTINE,
    SENT_TASKS,
)

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
EARLIER = NOW - datetime.timedelta(days=1)
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The rows a suite is tried on.

    Attributes:
        schema: Their DDL.
        mark: The column of the key that tells rows apart.
        sound: A row that meets everything.
        also_sound: What may be otherwise in a sound row.
        broken: What breaks each expectation, perhaps in several ways.
    """

    schema: str
    mark: str
    sound: Values
    broken: Mapping[str, Sequence[Values]]
    also_sound: Sequence[Values] = field(default=())

    def rows(self) -> Iterator[Values]:
        """All rows; the mark of a broken one names what it breaks."""
        yield self.sound | {self.mark: "sound"}
        for number, values in enumerate(self.also_sound):
            yield self.sound | {self.mark: f"sound {number}"} | values
        for name, ways in self.broken.items():
            for number, values in enumerate(ways):
                yield self.sound | {self.mark: mark_of(name, number)} | values


def mark_of(expectation: str, number: int) -> str:
    """What the `number`th row that breaks an expectation is called."""
    return f"{expectation} {number}"


def _schema(table: Table, **more: str) -> str:
    return ", ".join([table.ddl(), *(f"{name} {kind}" for name, kind in more.items())])


def _keys(table: Table, sound: Values, mark: str) -> dict[str, list[Values]]:
    """Rows without each part of the key; that of a key twice comes from two rows of one mark."""
    required = [c.name for c in table.columns if c.name in table.key and not c.nullable]
    return {
        "keys_not_null": [{name: None} for name in required],
        "keys_unique": [{mark: "twice"}, {mark: "twice"}],
    }


def _box(**given: Any) -> Values:
    usual = {"detection_id": "d", "label": 1, "label_name": "car", "score": 0.5}
    return usual | {"x1": 1.0, "y1": 1.0, "x2": 5.0, "y2": 4.0, "logits": None, "feature": None} | given


def _boxes(*boxes: Values) -> Values:
    return {"detections": list(boxes), "n_detections": len(boxes)}


def _truth(**given: Any) -> Values:
    usual = {"label": 1, "label_name": "car", "x1": 1.0, "y1": 1.0, "x2": 5.0, "y2": 4.0}
    return {"boxes": [usual | {"iscrowd": False, "status": "labeled", "source": "t"} | given]}


def _sample(
    table: Table,
    mark: str,
    sound: Values,
    broken: Mapping[str, Sequence[Values]],
    also_sound: Sequence[Values] = (),
    **more: str,
) -> Sample:
    return Sample(
        schema=_schema(table, **more),
        mark=mark,
        sound=dict.fromkeys(table.column_names) | sound,
        broken={**_keys(table, sound, mark), **broken},
        also_sound=also_sound,
    )


_INFINITE = (math.inf, -math.inf, math.nan)
_PICK: Values = {"cycle_id": "c", "strategy": "s", "unit": "image", "rank": 1, "image_id": "i", "score": 0.5}
_OUTCOME: Values = {
    "is_ingested": True,
    "is_due": True,
    "n_views": 1,
    "n_views_wanted": 1,
    "is_quarantined": False,
    "is_broken": False,
}

SAMPLES: dict[str, Sample] = {
    "images": _sample(
        IMAGES,
        "image_id",
        {"uri": "/a", "path": "a", "dataset": "d", "width": 9, "height": 9, "ingest_ts": NOW},
        {
            "files_named": [{"uri": ""}, {"path": ""}, {"uri": None}],
            "sizes_whole": [{"height": None}, {"width": None}, {"width": 0}],
        },
        also_sound=[{"width": None, "height": None}],
    ),
    "detections": _sample(
        DETECTIONS,
        "image_id",
        {"model_id": "m", "view": "original", "width": 9, "height": 9, "tolerance_px": 1.0}
        | {"known_labels": [1, 2]}
        | _boxes(_box()),
        {
            "sizes_positive": [{"width": 0} | _boxes(), {"height": None} | _boxes()],
            "counts_true": [{"n_detections": 2}, {"n_detections": None}],
            "scores_in_range": [_boxes(_box(score=s)) for s in (1.5, -0.1, math.nan, None)],
            "scores_fall": [_boxes(_box(score=0.2), _box(detection_id="e"))],
            "corners_in_order": [_boxes(_box(x1=6.0)), _boxes(_box(y1=5.0)), _boxes(_box(x1=math.nan))],
            "boxes_inside": [
                _boxes(_box(x1=-1.5)),
                _boxes(_box(y1=-1.5)),
                _boxes(_box(x2=10.5)),
                _boxes(_box(y2=10.5)),
                _boxes(_box(x2=math.nan)),
            ],
            "classes_known": [_boxes(_box(label=3)), _boxes(_box(label=None)), {"known_labels": None}],
            "detection_ids_distinct": [_boxes(_box(), _box()), _boxes(_box(detection_id=None))],
        },
        also_sound=[_boxes(), _boxes(_box(x1=-1.0, y1=-1.0, x2=10.0, y2=10.0, score=1.0)), {"view": "hflip"}],
        tolerance_px="DOUBLE",
        known_labels="ARRAY<INT>",
    ),
    "models": _sample(
        MODELS,
        "model_id",
        {"name": "n", "classes": {1: "car"}},
        {"classes_numbered": [{"classes": {}}, {"classes": {1: ""}}, {"classes": None}]},
    ),
    "quarantine": _sample(
        QUARANTINE,
        "image_id",
        {"attempts": 1, "first_ts": EARLIER, "last_ts": NOW},
        {"faults_dated": [{"attempts": 0}, {"first_ts": NOW, "last_ts": EARLIER}, {"last_ts": None}]},
        also_sound=[{"model_id": "m"}],
    ),
    "image_outcomes": Sample(
        schema=(
            "image_id STRING, is_ingested BOOLEAN, is_due BOOLEAN, n_views BIGINT, n_views_wanted INT, "
            "is_quarantined BOOLEAN, is_broken BOOLEAN"
        ),
        mark="image_id",
        sound=_OUTCOME,
        broken={
            "detected_or_quarantined": [{"n_views": 0}, {"n_views_wanted": 2}],
            "not_detected_and_quarantined": [{"is_quarantined": True, "is_broken": True}],
            "detected_images_ingested": [{"is_ingested": False, "is_due": False}],
        },
        also_sound=[
            {"n_views": 0, "is_quarantined": True, "is_broken": True},
            {"n_views": 0, "is_due": False},
            {"is_quarantined": True},
        ],
    ),
    "drift": Sample(
        schema=(
            "cycle_before STRING, model_before STRING, n_images BIGINT, n_images_before BIGINT, "
            "per_image DOUBLE, per_image_before DOUBLE, class_drift DOUBLE, count_ratio DOUBLE, "
            "least_images INT, max_class_drift DOUBLE, max_count_ratio DOUBLE"
        ),
        mark="cycle_before",
        sound={"n_images": 100, "n_images_before": 100, "class_drift": 0.25, "count_ratio": 2.0}
        | {"least_images": 100, "max_class_drift": 0.25, "max_count_ratio": 2.0},
        broken={
            "class_shares_stable": [{"class_drift": 0.26}],
            "detection_counts_stable": [{"count_ratio": 2.01}, {"count_ratio": math.inf}],
        },
        also_sound=[{"n_images": 99, "class_drift": 1.0, "count_ratio": math.inf}],
    ),
    "ground_truth": _sample(
        GROUND_TRUTH,
        "image_id",
        {"split": "eval", "width": 9, "height": 9, "is_ingested": True} | _truth(),
        {
            "corners_in_order": [_truth(x1=6.0), _truth(y1=5.0), _truth(x2=math.nan), _truth(x1=-math.inf)],
            "boxes_touch_image": [
                _truth(x1=9.0, x2=12.0),
                _truth(y1=9.0, y2=12.0),
                _truth(x1=-4.0, x2=0.0),
                _truth(y1=-4.0, y2=0.0),
            ],
            "classes_named": [_truth(label_name=None), _truth(label_name="")],
            "statuses_known": [_truth(status="perhaps"), _truth(status=None)],
            "splits_known": [{"split": "test"}, {"split": None}],
            "images_ingested": [{"is_ingested": False, "width": None, "height": None}],
        },
        also_sound=[{"boxes": []}, _truth(x1=-4.0, x2=20.0), {"width": None, "height": None}],
        width="INT",
        height="INT",
        is_ingested="BOOLEAN",
    ),
    "ground_truth_history": _sample(
        GROUND_TRUTH_HISTORY,
        "image_id",
        {"import_id": "a"} | _truth(),
        {"statuses_known": [_truth(status="perhaps"), _truth(status=None)]},
    ),
    "label_imports": _sample(
        LABEL_IMPORTS,
        "import_id",
        {"n_files": 1, "n_images": 0, "n_boxes": 0, "n_rejected": 0, "n_not_in_lake": 0},
        {"counts_possible": [{"n_files": 0}, {"n_boxes": -1}, {"n_rejected": -1}]},
    ),
    "label_rejects": _sample(
        LABEL_REJECTS,
        "item_id",
        {"import_id": "a", "source": "s", "item_kind": "image", "reason": "no image of this name"},
        {"reasons_given": [{"reason": ""}]},
    ),
    "hardness": _sample(
        HARDNESS,
        "image_id",
        {"model_id": "m", "query": "q", "method": "exact", "hardness": 1.5, "std_error": 0.0, "eta": 0.5},
        {
            "hardness_finite": [{"hardness": value} for value in (*_INFINITE, None)],
            "errors_sound": [{"std_error": value} for value in (-0.1, math.inf, math.nan)],
            "thresholds_in_range": [{"eta": 1.1}, {"eta": math.nan}, {"eta": None}],
        },
        also_sound=[{"std_error": None}, {"query": "other"}],
    ),
    "scored_images": Sample(
        schema="image_id STRING, is_detected BOOLEAN, n_scores BIGINT, n_asked INT, missing ARRAY<STRING>",
        mark="image_id",
        sound={"is_detected": True, "n_scores": 2, "n_asked": 2, "missing": []},
        broken={"images_scored": [{"n_scores": 1, "missing": ["total_fn"]}]},
        also_sound=[{"is_detected": False, "n_scores": 0}],
    ),
    "metrics": _sample(
        METRICS,
        "metric",
        {"cycle_id": "c", "model_id": "m", "query": "q", "method": "x"}
        | {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3},
        {
            "values_finite": [{"value": value} for value in _INFINITE],
            "intervals_in_order": [{"low": 0.7}, {"low": None}, {"high": None}],
            "counts_not_negative": [{"n": -1}, {"n": None}],
        },
        also_sound=[{"value": None, "low": None, "high": None, "n": 0}],
    ),
    "acquisition": _sample(
        ACQUISITION,
        "strategy",
        _PICK,
        {
            "units_known": [{"unit": "region"}, {"unit": "box"}],
            "scores_finite": [{"score": value} for value in (*_INFINITE, None)],
            "costs_sound": [{"cost_s": -1.0}, {"cost_s": math.inf}, {"cost_money": math.nan}],
        },
        also_sound=[{"unit": "box", "detection_id": "d", "cost_s": 1.0, "cost_money": 0.0}],
    ),
    "near_misses": _sample(
        NEAR_MISSES,
        "strategy",
        _PICK | {"reason": "too like i"},
        {"reasons_given": [{"reason": ""}, {"reason": None}]},
    ),
    "picks": Sample(
        schema=(
            "strategy STRING, unit STRING, image_id STRING, detection_id STRING, n_picks BIGINT, "
            "is_detected BOOLEAN"
        ),
        mark="strategy",
        sound={"unit": "image", "image_id": "i", "n_picks": 1, "is_detected": True},
        broken={
            "picked_once": [{"n_picks": 2}],
            "picks_detected": [{"is_detected": False}, {"is_detected": None}],
        },
    ),
    "strategies": Sample(
        schema=(
            "strategy STRING, unit STRING, first_rank INT, last_rank INT, n_ranks BIGINT, spent DOUBLE, "
            "budget DOUBLE"
        ),
        mark="strategy",
        sound={"unit": "image", "first_rank": 1, "last_rank": 5, "n_ranks": 5, "spent": 5.0, "budget": 5.0},
        broken={
            "ranks_contiguous": [{"first_rank": 2, "last_rank": 6}, {"last_rank": 6}],
            "within_budget": [{"spent": 5.1}, {"spent": math.nan}, {"spent": None}],
        },
        also_sound=[{"spent": 5.0 + 1e-9}, {"spent": 0.5}],
    ),
    "manifests": _sample(
        MANIFESTS,
        "path",
        {"cycle_id": "c", "vendor": "coco", "strategy": "s", "n_tasks": 2, "n_images": 2, "n_boxes": 0}
        | {"sha256": "0" * 64},
        {
            "counts_sound": [{"n_tasks": 0}, {"n_images": 0}, {"n_boxes": -1}],
            "checksums_whole": [{"sha256": ""}, {"sha256": "g" * 64}, {"sha256": None}],
        },
    ),
    "sent_tasks": _sample(
        SENT_TASKS,
        "task_id",
        {"cycle_id": "c", "strategy": "s", "kind": "image", "image_id": "i", "rank": 1, "n_boxes": 0},
        {
            "questions_about_boxes": [
                {"kind": "verify_box"},
                {"detection_id": "d"},
                {"kind": "polygon", "detection_id": "d"},
            ],
            "costs_sound": [{"cost_s": -1.0}, {"cost_money": math.inf}],
        },
        also_sound=[{"kind": "verify_class", "detection_id": "d", "cost_s": 1.0}],
    ),
    "tasks": Sample(
        schema="strategy STRING, vendor STRING, n_tasks BIGINT, n_wanted BIGINT, n_other BIGINT",
        mark="strategy",
        sound={"vendor": "coco", "n_tasks": 5, "n_wanted": 5, "n_other": 0},
        broken={"tasks_match_acquisition": [{"n_tasks": 4}, {"n_tasks": 6}, {"n_other": 2}, {"n_wanted": 0}]},
    ),
}
