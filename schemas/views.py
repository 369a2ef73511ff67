"""Views over the tables: one row per box, a column per query, what was sent and what came back."""

from __future__ import annotations

from schemas.table import View

# One value an image, model and query: exact where there is one, else sampled, else the baseline.
_SCORED = "method IN ('exact', 'monte_carlo', 'baseline')"
_PREFERENCE = "CASE method WHEN 'exact' THEN 2 WHEN 'monte_carlo' THEN 1 ELSE 0 END"

BOXES_VIEW = View(
    name="boxes",
    comment="One row per detection",
    sql=(
        "SELECT image_id, model_id, view, width, height, run_id, d.* "
        "FROM (SELECT *, explode(detections) AS d FROM detections)"
    ),
)

LABELS_VIEW = View(
    name="labels",
    comment="One row per label; status is labeled, noisy or background",
    sql=(
        "SELECT image_id, split, complete, cycle_id, ts, b.* "
        "FROM (SELECT *, explode(boxes) AS b FROM ground_truth)"
    ),
)

# IoU >= 1/2 exactly when three times the intersection is at least the sum of the areas.
_OVERLAPS = (
    "d.label_name = l.label_name AND d.x2 > l.x1 AND l.x2 > d.x1 AND d.y2 > l.y1 AND l.y2 > d.y1 AND "
    "3 * (least(d.x2, l.x2) - greatest(d.x1, l.x1)) * (least(d.y2, l.y2) - greatest(d.y1, l.y1)) >= "
    "(d.x2 - d.x1) * (d.y2 - d.y1) + (l.x2 - l.x1) * (l.y2 - l.y1)"
)
LABEL_SCORES_VIEW = View(
    name="label_scores",
    comment=(
        "One row per labeled object and model: found_score is the best score of a detection of its class "
        "with IoU >= 0.5, null if there is none; below the threshold it is a false negative"
    ),
    sql=(
        "SELECT l.image_id, model_id, l.label_name, l.x1, l.y1, l.x2, l.y2, l.split, l.cycle_id, "
        f"array_max(transform(filter(detections, d -> {_OVERLAPS}), d -> d.score)) AS found_score "
        "FROM labels AS l JOIN detections USING (image_id) "
        "WHERE view = 'original' AND l.status = 'labeled' AND NOT l.iscrowd"
    ),
)

LATEST_HARDNESS_VIEW = View(
    name="latest_hardness",
    comment="One row per image and query: what the newest model that scored the image says",
    sql=(
        "SELECT image_id, query, latest.* FROM (SELECT image_id, query, max_by("
        "struct(hardness, std_error, method, model_id, name AS model_name, ts), "
        f"struct(created_ts, model_id, {_PREFERENCE})) AS latest "
        f"FROM hardness JOIN models USING (model_id) WHERE {_SCORED} GROUP BY image_id, query)"
    ),
)

# Files, boxes of one image and answers to one task are each brought together before they meet, or their rows
# multiply.
_N_LABELS = "size(filter(boxes, b -> b.status = 'labeled'))"
_SENT = (
    "SELECT cycle_id, vendor, strategy, coalesce(max_by(tasks, ts), 'image') AS tasks, min(ts) AS sent_ts "
    "FROM manifests GROUP BY cycle_id, vendor, strategy"
)
_PICKED = (
    "SELECT cycle_id, strategy, image_id, min(rank) AS rank FROM acquisition "
    "GROUP BY cycle_id, strategy, image_id"
)
_ANSWERED = (
    "SELECT cycle_id, image_id, task_id, "
    f"max_by(struct(ts, complete, {_N_LABELS} AS n_labels), ts) AS answer "
    "FROM ground_truth_history WHERE split = 'train' OR task_id IS NOT NULL "
    "GROUP BY cycle_id, image_id, task_id"
)
# An answer without a task id (the tool lost it) is taken for one to whatever was asked of its image.
_ANSWERS_TASK = (
    "answer IS NOT NULL AND (task_id IS NULL "
    "OR tasks = 'image' AND task_id = concat_ws('/', cycle_id, image_id) "
    "OR tasks = 'boxes' AND task_id = concat_ws('/', cycle_id, image_id, 'boxes', strategy) "
    "OR startswith(task_id, concat_ws('/', cycle_id, image_id, '')) AND endswith(task_id, '/' || tasks))"
)
# Who labeled the whole image has seen to the boxes that were picked of it too.
_ANSWERS_IMAGE = "tasks = 'boxes' AND answer IS NOT NULL AND task_id = concat_ws('/', cycle_id, image_id)"
SENT_IMAGES_VIEW = View(
    name="sent_images",
    comment="One row per cycle, vendor, strategy and image of a manifest, and whether its labels came back",
    sql=(
        "SELECT cycle_id, vendor, strategy, tasks, image_id, rank, sent_ts, "
        f"count_if({_ANSWERS_TASK} OR {_ANSWERS_IMAGE}) > 0 AS returned, "
        f"max(answer.ts) FILTER (WHERE {_ANSWERS_TASK} OR {_ANSWERS_IMAGE}) AS returned_ts, "
        f"bool_or(answer.complete) FILTER (WHERE {_ANSWERS_TASK} OR {_ANSWERS_IMAGE}) AS complete, "
        f"coalesce(sum(answer.n_labels) FILTER (WHERE {_ANSWERS_TASK}), 0) AS n_labels "
        f"FROM ({_SENT}) JOIN ({_PICKED}) USING (cycle_id, strategy) "
        f"LEFT JOIN ({_ANSWERED}) USING (cycle_id, image_id) "
        "GROUP BY cycle_id, vendor, strategy, tasks, image_id, rank, sent_ts"
    ),
)

DELIVERIES_VIEW = View(
    name="deliveries",
    comment="One row per cycle and vendor: files, tasks and seconds sent; images sent, back and out; labels",
    sql=(
        "SELECT cycle_id, vendor, n_files, n_tasks, cost_s, sent_ts, coalesce(n_sent, 0) AS images_sent, "
        "coalesce(n_returned, 0) AS images_returned, coalesce(n_sent - n_returned, 0) AS images_out, "
        "coalesce(n_labels, 0) AS labels_returned "
        "FROM (SELECT cycle_id, vendor, count(*) AS n_files, sum(n_tasks) AS n_tasks, "
        "sum(cost_s) AS cost_s, min(ts) AS sent_ts FROM manifests GROUP BY cycle_id, vendor) "
        "LEFT JOIN (SELECT cycle_id, vendor, count(*) AS n_sent, count_if(is_back) AS n_returned, "
        "sum(n_labels) AS n_labels FROM (SELECT cycle_id, vendor, image_id, bool_and(is_back) AS is_back, "
        # Strategies share the task of an image; each has its own of the boxes it picked.
        "sum(n_labels) AS n_labels FROM (SELECT cycle_id, vendor, image_id, bool_and(returned) AS is_back, "
        "max(n_labels) AS n_labels FROM sent_images "
        "GROUP BY cycle_id, vendor, image_id, tasks, if(tasks = 'boxes', strategy, '')) "
        "GROUP BY cycle_id, vendor, image_id) GROUP BY cycle_id, vendor) USING (cycle_id, vendor)"
    ),
)


def hardness_wide_view(queries: tuple[str, ...]) -> View:
    """The view with a column per query: exact score sampling, else Monte Carlo, else the baseline.

    Args:
        queries: Names that become columns; only the names, never other text, enter the SQL, quoted. Of names
            that SQL cannot tell apart (`Total_FP`, `total_fp`) the first becomes one.
    """
    keys = ("image_id", "model_id")
    named = {name.lower(): name for name in reversed((*keys, *queries))}
    distinct = [name for name in queries if named[name.lower()] == name]

    def column(query: str) -> str:
        literal, identifier = query.replace("\\", "\\\\").replace("'", "\\'"), query.replace("`", "``")
        return f"max_by(hardness, {_PREFERENCE}) FILTER (WHERE query = '{literal}') AS `{identifier}`"

    columns = ", ".join([*keys, *map(column, distinct)])
    return View(
        name="hardness_wide",
        comment="One row per image and model, a column per query",
        sql=f"SELECT {columns} FROM hardness WHERE {_SCORED} GROUP BY image_id, model_id",
    )


def views(queries: tuple[str, ...]) -> tuple[View, ...]:
    """All views, each after those it reads.

    Args:
        queries: Queries and baselines that become columns of `hardness_wide`.
    """
    return (
        BOXES_VIEW,
        LABELS_VIEW,
        LABEL_SCORES_VIEW,
        LATEST_HARDNESS_VIEW,
        hardness_wide_view(queries),
        SENT_IMAGES_VIEW,
        DELIVERIES_VIEW,
    )
