"""Label Studio tasks: a streaming writer of pre-annotated images, and the labeling interface they need."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.task import (
    LabelingTask,
    Manifest,
    ManifestCounts,
    TaskBox,
    UniqueNames,
    check_task,
    class_index,
    class_indices,
    clipped_box,
)

_GOLDEN_ANGLE_TURNS = 0.381966
_NOT_XML_1_0 = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_label_studio(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write a JSON array of Label Studio tasks, one an image, and count what went in.

    All boxes of an image are in ONE prediction, as the tool shows one prediction at a time. Sizes are
    percent of the image with 6 decimals. The prediction's `score` is the mean score of its boxes; what the
    image was picked by is in the task's data (`rank`, `strategy`, `query_score`). An image without boxes has
    no prediction.

    Args:
        stream: Where the JSON goes, opened for text; the text is pure ASCII.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the classes of the labeling interface and what Label Studio shows as the model.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, an image or a box given twice, a NaN or infinite number.
    """
    indices = class_indices(manifest.classes)
    ids = UniqueNames("task id")
    n_tasks = n_boxes = n_dropped = 0
    stream.write("[")
    for n_tasks, task in enumerate(tasks, start=1):
        check_task(task)
        ids.add(task.task_id, task.image_id)
        regions: list[dict[str, Any]] = []
        for box in task.boxes:
            class_index(indices, box, task)
            region = _region(box, task)
            if region is not None:
                regions.append(region)
        if len({region["id"] for region in regions}) != len(regions):
            raise QuarryError(
                f"image {task.image_id!r}: two boxes share a detection_id; expected distinct ones, "
                "Label Studio would show one of them"
            )
        n_boxes += len(regions)
        n_dropped += len(task.boxes) - len(regions)
        stream.write(",\n" if n_tasks > 1 else "\n")
        stream.write(compact_json(_task(task, regions, manifest.model_version)))
    stream.write("\n]\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def labeling_config(classes: Sequence[str]) -> str:
    """The XML of a labeling interface whose names fit `write_label_studio`, a colour for each class.

    Args:
        classes: Class names, in the order in which annotators see them. The first nine get a number key.

    Returns:
        XML 1.0 text.

    Raises:
        QuarryError: No class, a name given twice, or a control character that XML cannot hold.
    """
    lines = []
    for name, index in class_indices(classes).items():
        if _NOT_XML_1_0.search(name):
            raise QuarryError(f"class {name!r}: expected a name without control characters; rename the class")
        hotkey = f' hotkey="{index + 1}"' if index < 9 else ""
        lines.append(f'    <Label value={quoteattr(name)} background="{_colour(index)}"{hotkey}/>\n')
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
        '  <RectangleLabels name="label" toName="image">\n'
        f"{''.join(lines)}"
        "  </RectangleLabels>\n"
        "</View>\n"
    )


def _task(task: LabelingTask, regions: list[dict[str, Any]], model_version: str) -> dict[str, Any]:
    data = {
        "image": task.uri,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "file_name": task.file_name,
        "rank": task.rank,
        "strategy": task.strategy,
        "query_score": task.score,
    }
    if not regions:
        return {"data": data, "predictions": []}
    mean_score = sum(float(region["score"]) for region in regions) / len(regions)
    prediction = {"model_version": model_version, "score": round(mean_score, 6), "result": regions}
    return {"data": data, "predictions": [prediction]}


def _region(box: TaskBox, task: LabelingTask) -> dict[str, Any] | None:
    corners = clipped_box(box, task)
    if corners is None:
        return None
    x1, y1, x2, y2 = corners
    return {
        "id": box.detection_id,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": task.width,
        "original_height": task.height,
        "image_rotation": 0,
        "score": box.score,
        "value": {
            "x": round(100.0 * x1 / task.width, 6),
            "y": round(100.0 * y1 / task.height, 6),
            "width": round(100.0 * (x2 - x1) / task.width, 6),
            "height": round(100.0 * (y2 - y1) / task.height, 6),
            "rotation": 0,
            "rectanglelabels": [box.label_name],
        },
    }


def _colour(index: int) -> str:
    # Steps of the golden angle keep neighbouring classes far apart in hue for any number of classes.
    red, green, blue = colorsys.hls_to_rgb((0.58 + index * _GOLDEN_ANGLE_TURNS) % 1.0, 0.5, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
