"""Label Studio tasks: a streaming writer of images with boxes to correct and of questions about one box."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.task import (
    Corners,
    LabelingTask,
    Manifest,
    ManifestCounts,
    TaskBox,
    UniqueNames,
    check_task,
    class_index,
    class_indices,
    clipped_box,
    is_question,
)

LABELS, REGION, REGION_LABEL = "label", "region", "region"


def write_label_studio(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write a JSON array of Label Studio tasks and count what went in.

    All boxes of a task are in ONE prediction, as the tool shows one prediction at a time. Sizes are percent
    of the image with 6 decimals. The prediction's `score` is the mean score of its boxes; what the image was
    picked by is in the task's data (`rank`, `strategy`, `query_score`). An image without boxes has no
    prediction. A question about a box has a second, read-only rectangle: the region the labeler is to see.

    Args:
        stream: Where the JSON goes, opened for text; the text is pure ASCII.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the classes of the labeling interface, what Label Studio shows as the model, and the
            kind of all tasks.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, a task or a box given twice, a NaN or infinite number, a
            task of another kind, a question about a box outside its image.
    """
    indices = class_indices(manifest.classes)
    ids = UniqueNames("task id")
    n_tasks = n_boxes = n_dropped = 0
    stream.write("[")
    for n_tasks, task in enumerate(tasks, start=1):
        check_task(task)
        ids.add(task.task_id, task.image_id)
        boxes = _boxes_inside(task, manifest, indices)
        n_boxes += len(boxes)
        n_dropped += len(task.boxes) - len(boxes)
        stream.write(",\n" if n_tasks > 1 else "\n")
        stream.write(compact_json(_task(task, boxes, manifest.model_version)))
    stream.write("\n]\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def _boxes_inside(
    task: LabelingTask, manifest: Manifest, indices: dict[str, int]
) -> list[tuple[TaskBox, Corners]]:
    boxes = []
    for box in task.boxes:
        class_index(indices, box, task)
        corners = clipped_box(box, task)
        if corners is not None:
            boxes.append((box, corners))
    if len({box.detection_id for box, _ in boxes}) != len(boxes):
        raise QuarryError(
            f"image {task.image_id!r}: two boxes share a detection_id; expected distinct ones, "
            "Label Studio would show one of them"
        )
    if task.kind != manifest.kind:
        raise QuarryError(
            f"task {task.task_id!r}: expected kind {manifest.kind!r} as its manifest has, got {task.kind!r}; "
            "a labeling interface asks one kind of question, so write a manifest for each"
        )
    if is_question(task.kind) and (len(task.boxes), len(boxes)) != (1, 1):
        raise QuarryError(
            f"task {task.task_id!r}: expected one box inside the image to ask about, got {len(boxes)} of "
            f"{len(task.boxes)}; leave the task out"
        )
    return boxes


def _task(task: LabelingTask, boxes: list[tuple[TaskBox, Corners]], model_version: str) -> dict[str, Any]:
    data = {
        "image": task.uri,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "file_name": task.file_name,
        "width": task.width,
        "height": task.height,
        "rank": task.rank,
        "strategy": task.strategy,
        "query_score": task.score,
        "kind": task.kind,
    }
    if not boxes:
        return {"data": data, "predictions": []}
    result = [
        _rectangle(task, LABELS, box.label_name, box.detection_id, corners) | {"score": box.score}
        for box, corners in boxes
    ]
    if is_question(task.kind):
        ((box, corners),) = boxes
        data |= {"detection_id": box.detection_id, "label_name": box.label_name}
        data |= {"box": [round(value, 3) for value in corners]}
        region = _rectangle(task, REGION, REGION_LABEL, f"{box.detection_id}-{REGION}", task.region)
        # Of rectangles that overlap, a click hits the first: the box must stay movable.
        result.append(region | {"readonly": True})
    mean_score = sum(box.score for box, _ in boxes) / len(boxes)
    prediction = {"model_version": model_version, "score": round(mean_score, 6), "result": result}
    return {"data": data, "predictions": [prediction]}


def _rectangle(
    task: LabelingTask, control: str, label: str, region_id: str, corners: Corners
) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    return {
        "id": region_id,
        "type": "rectanglelabels",
        "from_name": control,
        "to_name": "image",
        "original_width": task.width,
        "original_height": task.height,
        "image_rotation": 0,
        "value": {
            "x": round(100.0 * x1 / task.width, 6),
            "y": round(100.0 * y1 / task.height, 6),
            "width": round(100.0 * (x2 - x1) / task.width, 6),
            "height": round(100.0 * (y2 - y1) / task.height, 6),
            "rotation": 0,
            "rectanglelabels": [label],
        },
    }
