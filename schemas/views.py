"""Views over the tables: one row per box, a column per query, what was sent and what came back."""

from __future__ import annotations

from schemas.table import View
from schemas.tables import SENT_TASKS

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

# An answer whose task id the tool lost is taken for one to what had been asked of its image, or of its box,
# when it came. Who labeled a whole image has seen to the boxes that were picked of it too.
_ANSWERS = (
    "a.cycle_id = t.cycle_id AND a.image_id = t.image_id AND (a.task_id = t.task_id "
    "OR a.task_id IS NULL AND a.split = 'train' AND a.ts > t.ts "
    "AND (t.detection_id IS NULL OR exists(a.boxes, b -> b.detection_id = t.detection_id)) "
    "OR t.kind = 'boxes' AND a.task_id = concat_ws('/', t.cycle_id, t.image_id))"
)
_IS_OWN = "a.task_id IS NULL OR a.task_id = t.task_id"
# The order in which answers count, also in `ground_truth`.
_SAID = "struct(least(a.annotated_ts, a.ts), a.ts, a.import_id)"
_LABELED = (
    "b -> b.status = 'labeled' "
    "AND (a.task_id IS NOT NULL OR t.detection_id IS NULL OR b.detection_id <=> t.detection_id)"
)
_OF_TASK = ", ".join(f"t.{column.name}" for column in SENT_TASKS.columns)
TASKS_VIEW = View(
    name="tasks",
    comment="One row per cycle, strategy and task that was sent, and whether, when and how it was answered",
    sql=(
        f"SELECT {_OF_TASK}, count(a.ts) > 0 AS returned, max(a.ts) AS returned_ts, "
        f"max_by(a.complete, {_SAID}) AS complete, "
        f"coalesce(max_by(size(filter(a.boxes, {_LABELED})), {_SAID}) FILTER (WHERE {_IS_OWN}), 0) "
        "AS n_labels, "
        f"max_by(struct(a.import_id, a.task_id), {_SAID}) FILTER (WHERE {_IS_OWN}) AS answer "
        f"FROM sent_tasks AS t LEFT JOIN ground_truth_history AS a ON {_ANSWERS} GROUP BY {_OF_TASK}"
    ),
)
_SENT_TO = (
    "SELECT cycle_id, vendor, strategy, min(ts) AS sent_ts FROM manifests GROUP BY cycle_id, vendor, strategy"
)
SENT_IMAGES_VIEW = View(
    name="sent_images",
    comment=(
        "One row per cycle, vendor, strategy and image of a manifest: its tasks and how many were answered; "
        "it is returned once all are"
    ),
    sql=(
        "SELECT cycle_id, vendor, strategy, kind, image_id, min(rank) AS rank, sent_ts, count(*) AS n_tasks, "
        "count_if(returned) AS n_answered, bool_and(returned) AS returned, max(returned_ts) AS returned_ts, "
        "bool_and(complete) AS complete, sum(n_labels) AS n_labels "
        f"FROM ({_SENT_TO}) JOIN (SELECT * EXCEPT (ts) FROM tasks) USING (cycle_id, strategy) "
        "GROUP BY cycle_id, vendor, strategy, kind, image_id, sent_ts"
    ),
)

DELIVERIES_VIEW = View(
    name="deliveries",
    comment=(
        "One row per cycle and vendor: files and seconds sent; tasks and images sent, back and out (an image "
        "until all that was asked of it is answered); labels. Every vendor of a cycle gets the same tasks"
    ),
    sql=(
        "SELECT cycle_id, vendor, n_files, cost_s, sent_ts, coalesce(tasks_sent, 0) AS tasks_sent, "
        "coalesce(tasks_returned, 0) AS tasks_returned, coalesce(n_sent, 0) AS images_sent, "
        "coalesce(n_returned, 0) AS images_returned, coalesce(n_sent - n_returned, 0) AS images_out, "
        "coalesce(n_labels, 0) AS labels_returned "
        "FROM (SELECT cycle_id, vendor, count(*) AS n_files, sum(cost_s) AS cost_s, min(ts) AS sent_ts "
        "FROM manifests GROUP BY cycle_id, vendor) LEFT JOIN ("
        "SELECT cycle_id, vendor, sum(n_tasks) AS tasks_sent, sum(n_answered) AS tasks_returned, "
        "count(*) AS n_sent, count_if(n_tasks = n_answered) AS n_returned, sum(n_labels) AS n_labels FROM ("
        # Strategies share the task of an image; tasks share an answer that the tool took the id from.
        "SELECT cycle_id, vendor, image_id, count(DISTINCT task_id) AS n_tasks, "
        "count(DISTINCT task_id) FILTER (WHERE returned) AS n_answered, "
        "aggregate(collect_set(struct(answer, detection_id, n_labels)), 0L, (sum, a) -> sum + a.n_labels) "
        f"AS n_labels FROM ({_SENT_TO}) JOIN tasks USING (cycle_id, strategy) "
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
        TASKS_VIEW,
        SENT_IMAGES_VIEW,
        DELIVERIES_VIEW,
    )
