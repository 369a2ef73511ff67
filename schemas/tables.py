"""The tables of a Quarry root: the contract between jobs, and with people who write SQL.

All `*_ts` columns are UTC. Boxes are x1, y1, x2, y2 in pixels of the original image, origin top left, after
EXIF orientation; x2 >= x1 and y2 >= y1.
"""

from __future__ import annotations

from schemas.table import Column, Table


def _required(name: str, ddl_type: str, comment: str) -> Column:
    return Column(name=name, ddl_type=ddl_type, comment=comment, nullable=False)


def _optional(name: str, ddl_type: str, comment: str) -> Column:
    return Column(name=name, ddl_type=ddl_type, comment=comment)


DETECTION_DDL = (
    "STRUCT<detection_id: STRING, label: INT, label_name: STRING, score: DOUBLE, "
    "x1: DOUBLE, y1: DOUBLE, x2: DOUBLE, y2: DOUBLE, logits: ARRAY<FLOAT>, feature: ARRAY<FLOAT>>"
)
TRUTH_BOX_DDL = (
    "STRUCT<label: INT, label_name: STRING, x1: DOUBLE, y1: DOUBLE, x2: DOUBLE, y2: DOUBLE, "
    "iscrowd: BOOLEAN, status: STRING, source: STRING, detection_id: STRING>"
)

IMAGES = Table(
    name="images",
    comment="Every image found in the lake, readable or not, or named by an import",
    columns=(
        _required("image_id", "STRING", "hash of URI or path, the user's own id, or an imported file name"),
        _required("uri", "STRING", "where the file is, as the workers open it"),
        _required("path", "STRING", "path below the lake's root; label files refer to it"),
        _required("dataset", "STRING", "dataset= folder, or the setting lake.dataset"),
        _required(
            "partitions", "MAP<STRING, STRING>", "key=value folders of the lake as found, e.g. date, vehicle"
        ),
        _optional("width", "INT", "px after EXIF orientation; null when the header is unreadable"),
        _optional("height", "INT", "px after EXIF orientation; null when the header is unreadable"),
        _optional("sequence_id", "STRING", "video the frame belongs to"),
        _optional("frame_index", "INT", "position in the sequence"),
        _optional("size_bytes", "BIGINT", "file size, bytes; null when no job opened the file"),
        _optional("mtime", "TIMESTAMP", "last change of the file, UTC; null when no job opened the file"),
        _required("ingest_ts", "TIMESTAMP", "when this row was written, UTC"),
    ),
    key=("image_id",),
    checks=(("size_known_or_null", "width IS NULL OR (width > 0 AND height > 0)"),),
)

MODELS = Table(
    name="models",
    comment="Every detector whose detections are here, run on the lake or imported",
    columns=(
        _required("model_id", "STRING", "hash of weights and settings; imported: of name, classes, head"),
        _required("name", "STRING", "name people know it by"),
        _required("uri", "STRING", "where the weights, or the imported detections, came from"),
        _required("classes", "MAP<INT, STRING>", "label id to class name"),
        _required("head", "STRING", "softmax or sigmoid: how logits become scores"),
        _optional("parent", "STRING", "model_id it was fine-tuned from"),
        _required("settings", "STRING", "adapter settings, JSON"),
        _required("created_ts", "TIMESTAMP", "first registered, UTC"),
    ),
    key=("model_id",),
    checks=(("head_known", "head IN ('softmax', 'sigmoid')"),),
)

DETECTIONS = Table(
    name="detections",
    comment="One row per image, model and view; an image without detections has an empty array",
    columns=(
        _required("image_id", "STRING", "images.image_id"),
        _required("model_id", "STRING", "models.model_id"),
        _required("view", "STRING", "original, or a test-time view such as hflip"),
        _required("width", "INT", "px of the decoded image after EXIF orientation"),
        _required("height", "INT", "px of the decoded image after EXIF orientation"),
        _required("detections", f"ARRAY<{DETECTION_DDL}>", "by falling score, all scores >= eta0"),
        _required("n_detections", "INT", "size of the array"),
        _optional("sequence_id", "STRING", "images.sequence_id; frames of a video lie together, in order"),
        _optional("frame_index", "INT", "images.frame_index"),
        _optional("image_feature", "ARRAY<FLOAT>", "pooled features, if detector.keep_image_feature"),
        _optional("pixel_scores", "MAP<STRING, DOUBLE>", "scores from dense maps, if detector.pixel_scores"),
        _optional(
            "image_hash",
            "BIGINT",
            "64-bit difference hash (dHash) of the picture, the same for all views; null for imports",
        ),
        _optional("image_ts", "TIMESTAMP", "images.ingest_ts of the file that was seen; null for imports"),
        _optional("latency_ms", "FLOAT", "model time of the image's batch divided by its size, ms"),
        _required("run_id", "STRING", "run that wrote the row"),
        _required("ts", "TIMESTAMP", "when the run started, UTC"),
    ),
    key=("image_id", "model_id", "view"),
    partition_by=("model_id",),
    checks=(
        ("n_detections_is_size", "n_detections = size(detections)"),
        ("scores_in_range", "forall(detections, d -> d.score >= 0 AND d.score <= 1)"),
        ("corners_in_order", "forall(detections, d -> d.x2 >= d.x1 AND d.y2 >= d.y1)"),
    ),
)

QUARANTINE = Table(
    name="quarantine",
    comment="Every image a stage could not use, and why; a row leaves by resolved = true, never by deletion",
    columns=(
        _required("image_id", "STRING", "images.image_id"),
        _optional("model_id", "STRING", "model the fault is between; null: the file's fault, whoever looks"),
        _required("uri", "STRING", "where the file is"),
        _required("stage", "STRING", "stage that failed: ingest, detect or import_detections"),
        _required(
            "error_class",
            "STRING",
            "missing or unreachable (tried again by every run), empty, not_an_image, truncated, "
            "unreadable, too_large, undetectable, or bad_detections (of an import; the file may be fine)",
        ),
        _required("message", "STRING", "what the reader said"),
        _required("attempts", "INT", "times the stage tried"),
        _required("first_ts", "TIMESTAMP", "first failure, UTC"),
        _required("last_ts", "TIMESTAMP", "latest failure, UTC"),
        _required("resolved", "BOOLEAN", "true once the image was read after all"),
    ),
    key=("image_id", "model_id"),
)

GROUND_TRUTH = Table(
    name="ground_truth",
    comment="Labels of images: what people drew, and what was kept as noisy",
    columns=(
        _required("image_id", "STRING", "images.image_id"),
        _required("boxes", f"ARRAY<{TRUTH_BOX_DDL}>", "status is labeled, noisy or background"),
        _required("complete", "BOOLEAN", "whole image labeled, or only queried boxes"),
        _required("split", "STRING", "train: used for training; eval: held out to measure with"),
        _required("cycle_id", "STRING", "cycle that brought the labels"),
        _optional("annotator", "STRING", "who drew them, as the tool says"),
        _optional("annotated_ts", "TIMESTAMP", "when they were drawn, UTC, as the tool says"),
        _optional("import_id", "STRING", "label_imports.import_id"),
        _optional("n_answers", "INT", "rows of ground_truth_history that it was made from"),
        _required("ts", "TIMESTAMP", "when imported, UTC"),
    ),
    key=("image_id",),
    checks=(("split_known", "split IN ('train', 'eval')"),),
)

GROUND_TRUTH_HISTORY = Table(
    name="ground_truth_history",
    comment="Every answer as it was given, one row per image, import and task; ground_truth is made from it",
    columns=(
        *(
            _required(c.name, c.ddl_type, c.comment) if c.name == "import_id" else c
            for c in GROUND_TRUTH.columns
            if c.name != "n_answers"
        ),
        _optional("task_id", "STRING", "labeling task that was answered, where the tool kept its id"),
    ),
    key=("image_id", "import_id", "task_id"),
)

LABEL_IMPORTS = Table(
    name="label_imports",
    comment="Label files that were imported; the same content imported again is the same import",
    columns=(
        _required("import_id", "STRING", "hash of the files' content and how they were read"),
        _required("cycle_id", "STRING", "cycle that brought the labels"),
        _required("vendor", "STRING", "format of the files"),
        _required("split", "STRING", "train or eval"),
        _required("source", "STRING", "file or folder, as given"),
        _required("n_files", "BIGINT", "label files"),
        _required("n_images", "BIGINT", "images with labels"),
        _required("n_boxes", "BIGINT", "their boxes"),
        _required("n_rejected", "BIGINT", "items in label_rejects, without those of unknown images"),
        _required("n_not_in_lake", "BIGINT", "images the lake did not have"),
        _required("ts", "TIMESTAMP", "when first imported, UTC"),
    ),
    key=("import_id",),
)

LABEL_REJECTS = Table(
    name="label_rejects",
    comment="Every image and box of an imported file that was left out, and why",
    columns=(
        _required("import_id", "STRING", "label_imports.import_id"),
        _required("source", "STRING", "file it is in"),
        _required("item_kind", "STRING", "image or annotation"),
        _required("item_id", "STRING", "id the file gives it"),
        _optional("file_name", "STRING", "image, as the file names it"),
        _optional("image_id", "STRING", "images.image_id, where it was found"),
        _required("reason", "STRING", "why it was left out"),
        _required("ts", "TIMESTAMP", "when first imported, UTC"),
    ),
    key=("import_id", "source", "item_kind", "item_id", "file_name", "reason"),
)

HARDNESS = Table(
    name="hardness",
    comment="Hardness per image and query, long form; larger is harder",
    columns=(
        _required("image_id", "STRING", "images.image_id"),
        _required("model_id", "STRING", "models.model_id"),
        _required("query", "STRING", "query, or baseline name"),
        _required(
            "method",
            "STRING",
            "what was asked for: exact, monte_carlo, calibrated, committee_score_sampled, committee_uniform, "
            "baseline or ground_truth",
        ),
        _required("hardness", "DOUBLE", "expected query value (score sampling), true value, or uncertainty"),
        _optional(
            "std_error", "DOUBLE", "standard error of a sampled mean; 0 when exact; null for baselines"
        ),
        _required(
            "estimator",
            "STRING",
            "what was done: exact, monte_carlo or mixed (after calibrated_ or committee_), ground_truth or "
            "baseline",
        ),
        _optional("n_samples", "INT", "samples behind a sampled value"),
        _required("eta", "DOUBLE", "confirmation threshold"),
        _required("query_hash", "STRING", "hash of the query's definition, thresholds and classes"),
        _required(
            "settings_hash", "STRING", "hash of how the value was found; with query_hash, all settings"
        ),
        _required("run_id", "STRING", "run that wrote the row"),
        _required("ts", "TIMESTAMP", "when the run started, UTC; older than the detections: out of date"),
    ),
    key=("image_id", "model_id", "query", "method"),
    partition_by=("model_id", "query"),
    checks=(("hardness_is_a_number", "NOT isnan(hardness)"),),
)

_COSTS = (
    _optional("cost_s", "DOUBLE", "labeling price, seconds"),
    _optional("cost_money", "DOUBLE", "labeling price, money; null without acquire.prices.money_per_hour"),
)
_PICK_COLUMNS = (
    _required("cycle_id", "STRING", "cycles.cycle_id"),
    _required("strategy", "STRING", "strategy that ranked the row, e.g. hardest:total_fn, random, mixed"),
    _required("unit", "STRING", "image or box"),
    _required("rank", "INT", "1 is labeled first; of a near miss, 1 was nearest to being picked"),
    _required("image_id", "STRING", "images.image_id"),
    _optional("detection_id", "STRING", "boxes.detection_id when unit is box"),
    _required("score", "DOUBLE", "value ranked by; for random, a uniform draw; for k-center, a distance"),
    *_COSTS,
    _optional("part", "STRING", "part of a mixture that proposed the row; else the strategy"),
    _optional("reason", "STRING", "which score and which rule let it in, or kept it out"),
    _required("settings_hash", "STRING", "hash of the acquisition settings"),
)
_PICK_KEY = ("cycle_id", "strategy", "unit", "rank")

ACQUISITION = Table(
    name="acquisition",
    comment="What a cycle picked for labeling, in order",
    columns=(
        *_PICK_COLUMNS,
        _optional("ts", "TIMESTAMP", "when these settings first picked for the cycle, UTC"),
    ),
    key=_PICK_KEY,
    checks=(("rank_from_one", "rank >= 1"),),
)

NEAR_MISSES = Table(
    name="near_misses",
    comment="What a cycle would have picked but for a rule, on request (acquire.near_misses)",
    columns=_PICK_COLUMNS,
    key=_PICK_KEY,
    checks=(("rank_from_one", "rank >= 1"),),
)

MANIFESTS = Table(
    name="manifests",
    comment="Files written for labeling tools",
    columns=(
        _required("cycle_id", "STRING", "cycles.cycle_id"),
        _required("vendor", "STRING", "format of the file, of which a tool may have several: coco, cvat ..."),
        _required("strategy", "STRING", "acquisition.strategy"),
        _required("path", "STRING", "where the file is"),
        _optional("tasks", "STRING", "kind of its tasks: image, boxes, verify_box or verify_class"),
        _required("n_tasks", "BIGINT", "labeling tasks"),
        _required("n_images", "BIGINT", "images, each once"),
        _required("n_boxes", "BIGINT", "pre-annotated boxes"),
        *_COSTS,
        _required("sha256", "STRING", "of the file"),
        _required("status", "STRING", "published"),
        _required("ts", "TIMESTAMP", "when written, UTC"),
    ),
    key=("cycle_id", "vendor", "strategy", "path"),
)

SENT_TASKS = Table(
    name="sent_tasks",
    comment="Labeling tasks in a cycle's manifests; the same ones in the files of every vendor",
    columns=(
        _required("cycle_id", "STRING", "cycles.cycle_id"),
        _required("strategy", "STRING", "acquisition.strategy; strategies share the task of an image"),
        _required("task_id", "STRING", "id in the files and in what comes back, the same in every export"),
        _required("kind", "STRING", "image, boxes, verify_box or verify_class"),
        _required("image_id", "STRING", "images.image_id"),
        _optional("detection_id", "STRING", "boxes.detection_id of the box that a question is about"),
        _required("rank", "INT", "of the best pick it was made of; 1 is labeled first"),
        _required("n_boxes", "INT", "boxes shown"),
        *_COSTS,
        _required("ts", "TIMESTAMP", "when the run that exported it started, UTC"),
    ),
    key=("cycle_id", "strategy", "task_id"),
)

CYCLES = Table(
    name="cycles",
    comment="Where each cycle stands",
    columns=(
        _required("cycle_id", "STRING", "the user's name of the cycle"),
        _optional("parent", "STRING", "cycle it continues"),
        _optional("model_id", "STRING", "detector of the cycle"),
        _required(
            "state",
            "STRING",
            "planned, ingested, detected, labels_imported, scored, evaluated, ranked, exported, reported, "
            "labeled, trained or closed",
        ),
        _required("settings", "STRING", "resolved settings, JSON"),
        _required("settings_hash", "STRING", "hash of the resolved settings"),
        _required("started", "TIMESTAMP", "UTC"),
        _optional("ended", "TIMESTAMP", "UTC"),
        _required("counts", "MAP<STRING, BIGINT>", "rows per stage"),
    ),
    key=("cycle_id",),
)

METRICS = Table(
    name="metrics",
    comment="Evaluation results: one number a row",
    columns=(
        _required("cycle_id", "STRING", "cycles.cycle_id"),
        _required("model_id", "STRING", "models.model_id"),
        _required(
            "metric",
            "STRING",
            "rankings: ndcg, auroc_05 ..., mauc, area_under_curve, spearman, spearman:<other method or "
            "query>, ndcg_over_random, mauc_over_random; Monte Carlo: ndcg:<N>_samples, "
            "spearman_to_exact:<N>_samples, error_to_exact:<N>_samples, ndcg:exact; detector: ap, ap50, ece, "
            "precision_bin_<i>, mean_score_bin_<i>; strategies: k_center_radius, k_center_lower_bound (L2 of "
            "features)",
        ),
        _required("query", "STRING", "query, class name, strategy, or `all`"),
        _required(
            "method",
            "STRING",
            "score_sampling, score_sampling_mc, another hardness.method, a baseline, random, ground_truth "
            "(likeness of queries), detector, k_center (what picks reach), or detect (where a detection "
            "run's time went: images_per_s, forward_s ...)",
        ),
        _optional("value", "DOUBLE", "null where undefined, e.g. AUROC without hard images"),
        _optional("low", "DOUBLE", "2.5th percentile over bootstrap resamples of the images"),
        _optional("high", "DOUBLE", "97.5th percentile over bootstrap resamples of the images"),
        _required(
            "n",
            "BIGINT",
            "images behind the number; detections for ece and bins; what k-center chose from",
        ),
    ),
    key=("cycle_id", "model_id", "metric", "query", "method"),
)

QUALITY = Table(
    name="quality",
    comment="What the quality gates of a cycle found: one row an expectation",
    columns=(
        _required("cycle_id", "STRING", "cycles.cycle_id"),
        _required("stage", "STRING", "stage of the cycle after which it was judged"),
        _required("table_name", "STRING", "table that is at fault when it fails"),
        _required("expectation", "STRING", "e.g. scores_in_range; docs/quality.md lists all"),
        _required("description", "STRING", "what is true of sound rows"),
        _required("passed", "BOOLEAN", "whether all rows met it"),
        _required("severity", "STRING", "critical: a failure stops the cycle; warning: it is told"),
        _required("observed", "STRING", "failing rows of all rows, or the measure that is limited"),
        _required("n_unexpected", "BIGINT", "failing rows"),
        _required("examples", "ARRAY<STRING>", "keys of up to 20 failing rows"),
        _required("ts", "TIMESTAMP", "when the run that judged it started, UTC"),
    ),
    key=("cycle_id", "stage", "table_name", "expectation"),
    checks=(("severity_known", "severity IN ('critical', 'warning')"),),
)

TABLES: tuple[Table, ...] = (
    IMAGES,
    MODELS,
    DETECTIONS,
    QUARANTINE,
    GROUND_TRUTH,
    GROUND_TRUTH_HISTORY,
    LABEL_IMPORTS,
    LABEL_REJECTS,
    HARDNESS,
    ACQUISITION,
    NEAR_MISSES,
    MANIFESTS,
    SENT_TASKS,
    CYCLES,
    METRICS,
    QUALITY,
)
