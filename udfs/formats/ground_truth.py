"""SageMaker Ground Truth and Rekognition: augmented manifests with pre-annotations, one image a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.newest_returns import utc_time
from udfs.formats.task import (
    NO,
    QUESTIONS,
    YES,
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
    uri_kind,
)

SENT, OURS, METADATA = "pred", "quarry", "-metadata"
OBJECT_DETECTION, LABEL_VERIFICATION = "groundtruth/object-detection", "groundtruth/label-verification"


def write_ground_truth(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write an augmented manifest, one line a task, and count what went in.

    The boxes are the label attribute ``pred``, annotated by no human, in whole px; each side is within 0.5 px
    of what was detected unless the box is narrower than a px. Images without boxes have the attribute too,
    with none in it: jobs that adjust labels need it. Our ids are in the key ``quarry``, which Ground Truth
    copies to its output as it does every key.

    Args:
        stream: Where the lines go, opened for text; they are pure ASCII.
        tasks: Any iterator; one task is held at a time. Lines come in their order.
        manifest: Gives the classes, the job's name and the time.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, a task given twice, an image that is not in S3, a NaN or
            infinite number.
    """
    indices = class_indices(manifest.classes)
    ids = UniqueNames("task id")
    n_tasks = n_boxes = n_dropped = 0
    for task in tasks:
        check_task(task)
        n_tasks += 1
        ids.add(task.task_id, task.image_id)
        if not task.uri.startswith("s3://"):
            raise QuarryError(
                f"image {task.image_id!r}: Ground Truth reads images from s3://, got {uri_kind(task)}; "
                "map the prefix of the URIs to a bucket"
            )
        kept = []
        for box in task.boxes:
            class_id = class_index(indices, box, task)
            if (corners := clipped_box(box, task)) is not None:
                kept.append((box, class_id, whole_px(corners, task)))
        n_boxes += len(kept)
        n_dropped += len(task.boxes) - len(kept)
        stream.write(compact_json(_line(task, kept, manifest)) + "\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def ground_truth_companions(manifest: Manifest) -> dict[str, str]:
    """`ground_truth_labels.json`, the label categories, and `README.txt`, which job to start."""
    names = [YES, NO] if manifest.kind == "verify_box" else list(class_indices(manifest.classes))
    categories = {"document-version": "2018-11-28", "labels": [{"label": name} for name in names]}
    job = "label verification" if manifest.kind == "verify_box" else "adjustment"
    return {
        "ground_truth_labels.json": json.dumps(categories, indent=1) + "\n",
        "README.txt": _README.format(question=QUESTIONS[manifest.kind], job=job, sent=SENT),
    }


_README = """\
{question}

1. Copy the manifest and ground_truth_labels.json to S3, into the region of the images.
2. Start a bounding box {job} job. Input: the manifest. Existing labels: the attribute "{sent}". Label
   categories: ground_truth_labels.json. Label attribute name: another one than "{sent}".
3. Import the job's output manifest. Of the labels of a line the newest that humans made count.
"""


def whole_px(corners: Corners, task: LabelingTask) -> tuple[int, int, int, int]:
    """Left, top, width and height in whole px of a box that lies inside the image; at least 1 x 1 px."""
    x1, y1, x2, y2 = (round(value) for value in corners)
    left, top = min(x1, task.width - 1), min(y1, task.height - 1)
    return left, top, max(x2 - left, 1), max(y2 - top, 1)


def _line(
    task: LabelingTask, kept: list[tuple[TaskBox, int, tuple[int, int, int, int]]], manifest: Manifest
) -> dict[str, Any]:
    return {
        "source-ref": task.uri,
        SENT: {
            "image_size": [{"width": task.width, "height": task.height, "depth": 3}],
            "annotations": [
                {"class_id": class_id, **dict(zip(("left", "top", "width", "height"), sides, strict=True))}
                for _, class_id, sides in kept
            ],
        },
        SENT + METADATA: {
            "objects": [{"confidence": box.score} for box, _, _ in kept],
            "class-map": {str(class_id): box.label_name for box, class_id, _ in kept},
            "type": OBJECT_DETECTION,
            "human-annotated": "no",
            "creation-date": (utc_time(manifest.created) or manifest.created)[:19],
            "job-name": manifest.name,
        },
        OURS: {
            "task_id": task.task_id,
            "image_id": task.image_id,
            "file_name": task.file_name,
            "kind": task.kind,
            "rank": task.rank,
            "score": task.score,
            "strategy": task.strategy,
            "region": [round(value, 2) for value in task.region],
            "detection_ids": [box.detection_id for box, _, _ in kept],
        },
    }
