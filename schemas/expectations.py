"""The expectations on every table, by the stage of a cycle after which they are judged.

Conditions are SQL over a table's columns, as CHECK constraints are, and over settings that the rows carry
as columns of their own (`tolerance_px`, `known_labels`). Suites that compare tables, or a cycle with the one
before, are on rows that `pipelines.quality_rows` prepares under the suite's name; their columns are listed
there. An unknown value is a failure: conditions say where null is sound.
"""

from __future__ import annotations

from schemas.expectation import Expectation, Suite, table_suite
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

# Single fields of the structs: Spark then reads no others from the files. NaN is larger than any number.
_X_IN_ORDER = "forall(zip_with({0}.x1, {0}.x2, (a, b) -> a <= b), ok -> ok)"
_Y_IN_ORDER = "forall(zip_with({0}.y1, {0}.y2, (a, b) -> a <= b), ok -> ok)"
_FINITE = "abs({0}) < double('Infinity')"
_COSTS_SOUND = Expectation(
    name="costs_sound",
    description="costs are finite and not negative",
    condition=" AND ".join(
        f"({cost} IS NULL OR ({cost} >= 0 AND {_FINITE.format(cost)}))" for cost in ("cost_s", "cost_money")
    ),
)

IMAGES_SUITE = table_suite(
    "ingest",
    IMAGES,
    Expectation(
        name="files_named",
        description="an image says where its file is",
        condition="uri <> '' AND path <> ''",
    ),
    Expectation(
        name="sizes_whole",
        description="width and height are both known and positive, or neither is known",
        condition="(width IS NULL AND height IS NULL) OR coalesce(width > 0 AND height > 0, false)",
    ),
)

DETECTIONS_SUITE = table_suite(
    "detect",
    DETECTIONS,
    Expectation(
        name="sizes_positive",
        description="the decoded image has a width and a height",
        condition="width > 0 AND height > 0",
    ),
    Expectation(
        name="counts_true",
        description="n_detections is the number of detections",
        condition="n_detections = size(detections)",
    ),
    Expectation(
        name="scores_in_range",
        description="every score lies in 0..1",
        condition="forall(detections.score, s -> s BETWEEN 0 AND 1)",
    ),
    Expectation(
        name="scores_fall",
        description="detections come by falling score",
        condition="detections.score = sort_array(detections.score, false)",
    ),
    Expectation(
        name="corners_in_order",
        description="every box has x1 <= x2 and y1 <= y2",
        condition=f"{_X_IN_ORDER} AND {_Y_IN_ORDER}".format("detections"),
    ),
    Expectation(
        name="boxes_inside",
        description="every box lies in its image, but for quality.box_tolerance_px",
        condition=(
            "forall(detections.x1, x -> x >= -tolerance_px) "
            "AND forall(detections.y1, y -> y >= -tolerance_px) "
            "AND forall(detections.x2, x -> x <= width + tolerance_px) "
            "AND forall(detections.y2, y -> y <= height + tolerance_px)"
        ),
    ),
    Expectation(
        name="classes_known",
        description="every label is a class of the model",
        condition="forall(detections.label, label -> array_contains(known_labels, label))",
    ),
    Expectation(
        name="detection_ids_distinct",
        description="every detection of an image has an id of its own",
        condition=(
            "forall(detections.detection_id, id -> id IS NOT NULL) "
            "AND size(array_distinct(detections.detection_id)) = size(detections)"
        ),
    ),
)

MODELS_SUITE = table_suite(
    "detect",
    MODELS,
    Expectation(
        name="classes_numbered",
        description="a model has classes, each with a name",
        condition=(
            "size(classes) > 0 AND forall(map_values(classes), name -> name IS NOT NULL AND name <> '')"
        ),
    ),
)

QUARANTINE_SUITE = table_suite(
    "detect",
    QUARANTINE,
    Expectation(
        name="faults_dated",
        description="a fault was met at least once, the first time not after the last",
        condition="attempts >= 1 AND first_ts <= last_ts",
    ),
)

OUTCOMES_SUITE = Suite(
    stage="detect",
    name="image_outcomes",
    table=IMAGES.name,
    key=("image_id",),
    on_rows=(
        Expectation(
            name="detected_or_quarantined",
            description="every ingested image is detected in all views, or in quarantine",
            condition="NOT is_due OR n_views >= n_views_wanted OR is_quarantined",
        ),
        Expectation(
            name="not_detected_and_quarantined",
            description="no image is both detected and in quarantine, unless its file is only out of reach",
            condition="n_views = 0 OR NOT is_broken",
        ),
        Expectation(
            name="detected_images_ingested",
            description="every detected image is in images",
            condition="n_views = 0 OR is_ingested",
        ),
    ),
    shown=("n_views", "is_quarantined"),
)

DRIFT_SUITE = Suite(
    stage="detect",
    name="drift",
    table=DETECTIONS.name,
    key=("cycle_before", "model_before"),
    on_rows=(
        Expectation(
            name="class_shares_stable",
            description=(
                "total variation distance of the class shares of confirmed detections from those of the last "
                "cycle is at most quality.max_class_drift"
            ),
            condition="least(n_images, n_images_before) < least_images OR class_drift <= max_class_drift",
            measure="class_drift",
            drift=True,
        ),
        Expectation(
            name="detection_counts_stable",
            description=(
                "confirmed detections per image, divided by those of the last cycle or the other way round, "
                "are at most quality.max_count_ratio"
            ),
            condition="least(n_images, n_images_before) < least_images OR count_ratio <= max_count_ratio",
            measure="count_ratio",
            drift=True,
        ),
    ),
    shown=("n_images", "n_images_before", "per_image", "per_image_before", "class_drift"),
)

GROUND_TRUTH_SUITE = table_suite(
    "import_labels",
    GROUND_TRUTH,
    Expectation(
        name="corners_in_order",
        description="every box has finite corners with x1 <= x2 and y1 <= y2",
        condition=f"{_X_IN_ORDER} AND {_Y_IN_ORDER} AND ".format("boxes")
        + " AND ".join(
            f"forall(boxes.{side}, v -> {_FINITE.format('v')})" for side in ("x1", "y1", "x2", "y2")
        ),
    ),
    Expectation(
        name="boxes_touch_image",
        description="every box overlaps its image",
        condition=(
            "width IS NULL OR (forall(boxes.x1, x -> x < width) AND forall(boxes.y1, y -> y < height) "
            "AND forall(boxes.x2, x -> x > 0) AND forall(boxes.y2, y -> y > 0))"
        ),
    ),
    Expectation(
        name="classes_named",
        description="every box has a class name",
        condition="forall(boxes.label_name, name -> name IS NOT NULL AND name <> '')",
    ),
    Expectation(
        name="statuses_known",
        description="every box is labeled, noisy or background",
        condition="forall(boxes.status, status -> status IN ('labeled', 'noisy', 'background'))",
    ),
    Expectation(
        name="splits_known",
        description="an image is for training or held out",
        condition="split IN ('train', 'eval')",
    ),
    Expectation(
        name="images_ingested",
        description="every labeled image is in images",
        condition="is_ingested",
    ),
)

HISTORY_SUITE = table_suite(
    "import_labels",
    GROUND_TRUTH_HISTORY,
    Expectation(
        name="statuses_known",
        description="every box is labeled, noisy or background",
        condition="forall(boxes.status, s -> coalesce(s IN ('labeled', 'noisy', 'background'), false))",
    ),
)

IMPORTS_SUITE = table_suite(
    "import_labels",
    LABEL_IMPORTS,
    Expectation(
        name="counts_possible",
        description="an import read at least one file, and counted no less than nothing",
        condition="n_files >= 1 AND least(n_images, n_boxes, n_rejected, n_not_in_lake) >= 0",
    ),
)

REJECTS_SUITE = table_suite(
    "import_labels",
    LABEL_REJECTS,
    Expectation(
        name="reasons_given",
        description="what was left out says why",
        condition="reason IS DISTINCT FROM ''",
    ),
)

HARDNESS_SUITE = table_suite(
    "score",
    HARDNESS,
    Expectation(
        name="hardness_finite",
        description="hardness is a finite number",
        condition=_FINITE.format("hardness"),
    ),
    Expectation(
        name="errors_sound",
        description="a standard error is finite and not negative",
        condition=f"std_error IS NULL OR (std_error >= 0 AND {_FINITE.format('std_error')})",
    ),
    Expectation(
        name="thresholds_in_range",
        description="the confirmation threshold lies in 0..1",
        condition="eta BETWEEN 0 AND 1",
    ),
)

SCORED_SUITE = Suite(
    stage="score",
    name="scored_images",
    table=HARDNESS.name,
    key=("image_id",),
    on_rows=(
        Expectation(
            name="images_scored",
            description="every detected image has a row for every query and baseline asked for",
            condition="NOT is_detected OR n_scores >= n_asked",
        ),
    ),
    shown=("missing",),
)

METRICS_SUITE = table_suite(
    "evaluate",
    METRICS,
    Expectation(
        name="values_finite",
        description="a value is finite, or null where it is undefined",
        condition=f"value IS NULL OR {_FINITE.format('value')}",
    ),
    Expectation(
        name="intervals_in_order",
        description="an interval has both ends, the lower first",
        condition="(low IS NULL AND high IS NULL) OR coalesce(low <= high, false)",
    ),
    Expectation(name="counts_not_negative", description="n is not negative", condition="n >= 0"),
)

ACQUISITION_SUITE = table_suite(
    "acquire",
    ACQUISITION,
    Expectation(
        name="units_known",
        description="a pick is an image, or a box with its detection",
        condition="unit IS NULL OR unit = 'image' OR (unit = 'box' AND detection_id IS NOT NULL)",
    ),
    Expectation(name="scores_finite", description="a score is finite", condition=_FINITE.format("score")),
    _COSTS_SOUND,
)

NEAR_MISSES_SUITE = table_suite(
    "acquire",
    NEAR_MISSES,
    Expectation(
        name="reasons_given", description="a near miss says what kept it out", condition="reason <> ''"
    ),
)

PICKS_SUITE = Suite(
    stage="acquire",
    name="picks",
    table=ACQUISITION.name,
    key=("strategy", "unit", "image_id", "detection_id"),
    on_rows=(
        Expectation(
            name="picked_once",
            description="a strategy picks an image or box once",
            condition="n_picks = 1",
        ),
        Expectation(
            name="picks_detected",
            description="what is picked is an image the model has detected, or one of its boxes",
            condition="is_detected",
        ),
    ),
    shown=("n_picks",),
)

STRATEGIES_SUITE = Suite(
    stage="acquire",
    name="strategies",
    table=ACQUISITION.name,
    key=("strategy", "unit"),
    on_rows=(
        Expectation(
            name="ranks_contiguous",
            description="a strategy's ranks are 1, 2, 3 ... without a gap",
            condition="first_rank = 1 AND last_rank = n_ranks",
        ),
        Expectation(
            name="within_budget",
            description="a strategy spends at most acquire.budget",
            condition="spent <= budget * (1 + 1e-9)",
            measure="spent",
        ),
    ),
    shown=("first_rank", "last_rank", "n_ranks", "spent", "budget"),
)

MANIFESTS_SUITE = table_suite(
    "export_manifest",
    MANIFESTS,
    Expectation(
        name="counts_sound",
        description="a file has tasks and images, and no negative number of boxes",
        condition="n_tasks > 0 AND n_images > 0 AND n_boxes >= 0",
    ),
    Expectation(
        name="checksums_whole",
        description="a file has its SHA-256",
        condition="sha256 RLIKE '^[0-9a-f]{64}$'",
    ),
)

SENT_TASKS_SUITE = table_suite(
    "export_manifest",
    SENT_TASKS,
    Expectation(
        name="questions_about_boxes",
        description="an image or picked boxes of it are to be labeled, or a question is about one box",
        condition=(
            "kind IN ('image', 'boxes') AND detection_id IS NULL "
            "OR kind IN ('verify_box', 'verify_class') AND detection_id IS NOT NULL"
        ),
    ),
    _COSTS_SOUND,
)

TASKS_SUITE = Suite(
    stage="export_manifest",
    name="tasks",
    table=MANIFESTS.name,
    key=("strategy", "vendor"),
    on_rows=(
        Expectation(
            name="tasks_match_acquisition",
            description="a strategy's files for a vendor, and sent_tasks, hold the tasks its picks make",
            condition="n_tasks = n_wanted AND n_other = 0",
        ),
    ),
    shown=("n_tasks", "n_wanted", "n_other"),
)

SUITES: tuple[Suite, ...] = (
    IMAGES_SUITE,
    DETECTIONS_SUITE,
    MODELS_SUITE,
    QUARANTINE_SUITE,
    OUTCOMES_SUITE,
    DRIFT_SUITE,
    GROUND_TRUTH_SUITE,
    HISTORY_SUITE,
    IMPORTS_SUITE,
    REJECTS_SUITE,
    HARDNESS_SUITE,
    SCORED_SUITE,
    METRICS_SUITE,
    ACQUISITION_SUITE,
    NEAR_MISSES_SUITE,
    PICKS_SUITE,
    STRATEGIES_SUITE,
    MANIFESTS_SUITE,
    SENT_TASKS_SUITE,
    TASKS_SUITE,
)
