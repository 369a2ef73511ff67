"""Scale image annotation tasks, one JSON object a line, and the project they belong to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import IO, Any
from urllib.parse import quote

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.px_boxes import choices, spelled_box
from udfs.formats.task import (
    NO,
    QUESTIONS,
    LabelingTask,
    Manifest,
    ManifestCounts,
    UniqueNames,
    check_task,
    check_web_uri,
    class_index,
    class_indices,
    clipped_box,
    is_question,
)

_README = """\
{question}

1. POST scale_project.json to /v1/projects and scale_batch.json to /v1/batches.
2. POST each line of the task files to /v1/task/imageannotation, then finalize the batch. A line sent twice
   is answered with 409, as its unique_id is taken: go on with the next.
3. When tasks are completed: GET /v1/tasks?batch={batch}&status=completed, all pages, and import each
   answer, or one task a line, as labels of the format scale.
"""
ANSWER, RIGHT_CLASS = "answer", "right_class"
_ANNOTATIONS = uuid.UUID("0d3b0c57-7a04-5e35-9f51-1f0e7d6a2c43")


def write_scale(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write the bodies of Scale's image annotation tasks, one a line, and count what went in.

    `unique_id` is our task id: Scale turns a second task of it down, so that lines can be sent again. The
    first third of the ranks gets the priority 30, the second 20, the last 10. Metadata carries our ids there
    and back.

    Args:
        stream: Where the lines go, opened for text; the text is pure ASCII.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the classes, the kind, and the name of Scale's project and batch.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, a task or a box given twice, a URI no service can fetch, a
            NaN or infinite number.
    """
    indices = class_indices(manifest.classes)
    ids = UniqueNames("task id")
    shared = {"project": manifest.name, "batch": manifest.name, **_parameters(manifest)}
    n_tasks = n_boxes = n_dropped = 0
    for task in tasks:
        check_task(task)
        check_web_uri(task)
        ids.add(task.task_id, task.image_id)
        annotations, sent = [], {}
        for box in task.boxes:
            class_index(indices, box, task)
            corners = clipped_box(box, task)
            if corners is None:
                n_dropped += 1
                continue
            annotation_id = str(uuid.uuid5(_ANNOTATIONS, f"{task.task_id}\n{box.detection_id}"))
            place = {"type": "box", "label": box.label_name, **spelled_box(corners)}
            annotations.append({"uuid": annotation_id, **place})
            sent[annotation_id] = box.detection_id
        if len(sent) != len(annotations):
            raise QuarryError(
                f"image {task.image_id!r}: two boxes share a detection_id; expected distinct ones, "
                "Scale would keep one of them"
            )
        n_tasks += 1
        n_boxes += len(annotations)
        own = _own_fields(task, manifest, {"annotations": annotations}, sent)
        stream.write(f"{compact_json({**shared, **own})}\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def scale_project(manifest: Manifest) -> dict[str, str]:
    """Bodies that create the tasks' project and batch, and ``scale_README.txt``, how to send them."""
    project = {"type": "imageannotation", "name": manifest.name, "params": _parameters(manifest)}
    batch = {"project": manifest.name, "name": manifest.name}
    return {
        "scale_project.json": json.dumps(project, indent=1) + "\n",
        "scale_batch.json": json.dumps(batch, indent=1) + "\n",
        "scale_README.txt": _README.format(question=QUESTIONS[manifest.kind], batch=quote(manifest.name)),
    }


def _parameters(manifest: Manifest) -> dict[str, Any]:
    classes = list(class_indices(manifest.classes))
    attributes: dict[str, Any] = {}
    if is_question(manifest.kind):
        question, answers = QUESTIONS[manifest.kind], list(choices(manifest.kind))
        attributes[ANSWER] = {"type": "category", "description": question, "choices": answers}
    if manifest.kind == "verify_class":
        attributes[RIGHT_CLASS] = {
            "type": "category",
            "description": "The right class of the object.",
            "choices": classes,
            "conditions": {"attribute_conditions": [{ANSWER: NO}]},
        }
    return {
        "instruction": QUESTIONS[manifest.kind],
        "geometries": {"box": {"objects_to_annotate": classes}},
        "annotation_attributes": attributes,
    }


def _own_fields(
    task: LabelingTask, manifest: Manifest, hypothesis: dict[str, Any], sent: dict[str, str]
) -> dict[str, Any]:
    third = -(-3 * task.rank // manifest.last_rank)
    fields = {
        "unique_id": task.task_id,
        "attachment_type": "image",
        "attachment": task.uri,
        "priority": {1: 30, 2: 20}.get(third, 10),
        "hypothesis": hypothesis,
        "metadata": {
            "quarry_task_id": task.task_id,
            "quarry_image_id": task.image_id,
            "file_name": task.file_name,
            "width": task.width,
            "height": task.height,
            "kind": task.kind,
            "rank": task.rank,
            "strategy": task.strategy,
            "query_score": task.score,
            "model_version": manifest.model_version,
            "detection_ids": sent,
        },
    }
    if is_question(task.kind):
        x1, y1, x2, y2 = task.region
        place = f"Look at x {x1:.0f} to {x2:.0f} and y {y1:.0f} to {y2:.0f} px."
        fields["instruction"] = f"{QUESTIONS[task.kind]} {place}"
    return fields
