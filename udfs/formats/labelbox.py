"""Labelbox files to import: data rows, pre-annotated boxes and the ontology they belong to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import IO, Any

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.labelbox_keys import global_key
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

RIGHT_CLASS = "Right class"
_ANNOTATIONS = uuid.UUID("6ecb40ff-3f5c-5d0c-9d6b-5a1f1c6d0f6e")
_README = """\
{question}

1. Once in a workspace: create the metadata fields of labelbox_metadata.json (of the format
   labelbox_data_rows), or take metadata_fields out of its files.
2. Data rows: dataset.upsert_data_rows with the rows of the labelbox_data_rows files, of each its global_key
   as "key": labelbox.GlobalKey(...). create_data_rows takes them as they are, but turns down images that the
   workspace has from another cycle.
3. Project: client.create_ontology(name, labelbox_ontology.json, media_type=MediaType.Image), a project with
   it, and a batch by the global keys. Lower priority values come first: pass quarry_rank to
   project.update_data_row_labeling_priority.
4. Boxes: MALPredictionImport.create_from_objects(client, project.uid, name, lines of the labelbox files).
5. When labeled: project.export(params={{"data_row_details": True, "label_details": True,
   "project_details": True, "performance_details": True}}), save one object a line, import that file as
   labels of the format labelbox. One cycle a project, as a row of an image is shared by all cycles.
"""
_METADATA = (("quarry_rank", "CustomMetadataNumber"), ("quarry_strategy", "CustomMetadataString"))


def write_labelbox_data_rows(
    stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest
) -> ManifestCounts:
    """Write a JSON array of Labelbox data rows, one a task, and count what went in.

    An image has the same global key in every cycle, so that Labelbox keeps one row of it, which an upsert
    creates or updates. Boxes to correct and questions about one have rows of their own.

    Args:
        stream: Where the JSON goes, opened for text; the text is pure ASCII.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the kind; boxes travel in the file of `write_labelbox`.

    Returns:
        Tasks written; no boxes.

    Raises:
        QuarryError: A key given twice or too long, a URI that no service can fetch.
    """
    keys = UniqueNames("Labelbox global key")
    n_tasks = 0
    stream.write("[")
    for n_tasks, task in enumerate(tasks, start=1):
        check_task(task)
        check_web_uri(task)
        keys.add(global_key(task), task.image_id)
        stream.write(",\n" if n_tasks > 1 else "\n")
        stream.write(compact_json(_data_row(task)))
    stream.write("\n]\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=0, n_dropped_boxes=0)


def write_labelbox(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write Labelbox NDJSON of pre-annotated boxes, one line a box, and count what went in.

    The boxes go to the data rows of `write_labelbox_data_rows`; import those first. A task without boxes has
    no line. The uuid of a line follows from task and box, so that a second import repeats it.

    Args:
        stream: Where the lines go, opened for text; the text is pure ASCII.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the classes of the ontology.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, an image or a box given twice, a NaN or infinite number.
    """
    indices = class_indices(manifest.classes)
    keys = UniqueNames("Labelbox global key")
    n_tasks = n_boxes = n_dropped = 0
    for task in tasks:
        check_task(task)
        key = global_key(task)
        keys.add(key, task.image_id)
        lines: dict[str, dict[str, Any]] = {}
        for box in task.boxes:
            class_index(indices, box, task)
            corners = clipped_box(box, task)
            if corners is None:
                n_dropped += 1
                continue
            annotation_id = str(uuid.uuid5(_ANNOTATIONS, f"{task.task_id}\n{box.detection_id}"))
            if annotation_id in lines:
                raise QuarryError(
                    f"image {task.image_id!r}: two boxes share the detection_id {box.detection_id!r}; "
                    "expected distinct ones, Labelbox would keep one of them"
                )
            lines[annotation_id] = {
                "uuid": annotation_id,
                "name": box.label_name,
                "dataRow": {"globalKey": key},
                "classifications": [],
                "bbox": spelled_box(corners),
                "confidence": box.score,
            }
        n_tasks += 1
        n_boxes += len(lines)
        stream.writelines(f"{compact_json(line)}\n" for line in lines.values())
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def labelbox_ontology(manifest: Manifest) -> dict[str, str]:
    """``labelbox_ontology.json``, a box tool for each class, and ``labelbox_README.txt``, how to import.

    Tools of verifications carry the question.
    """
    ontology = {
        "tools": [
            {
                "tool": "rectangle",
                "name": name,
                "required": False,
                "classifications": [_question(manifest)] if is_question(manifest.kind) else [],
            }
            for name in class_indices(manifest.classes)
        ],
        "classifications": [],
    }
    return {
        "labelbox_ontology.json": json.dumps(ontology, indent=1) + "\n",
        "labelbox_README.txt": _README.format(question=QUESTIONS[manifest.kind]),
    }


def labelbox_metadata(_: Manifest) -> dict[str, str]:
    """``labelbox_metadata.json``: the fields of data rows, to be created once in a workspace."""
    fields = [{"name": name, "kind": kind} for name, kind in _METADATA]
    return {"labelbox_metadata.json": json.dumps(fields, indent=1) + "\n"}


def _data_row(task: LabelingTask) -> dict[str, Any]:
    (rank, _), (strategy, _) = _METADATA
    row = {
        "row_data": task.uri,
        "global_key": global_key(task),
        "external_id": task.file_name,
        "media_type": "IMAGE",
        "metadata_fields": [
            {"name": rank, "value": task.rank},
            {"name": strategy, "value": task.strategy},
        ],
    }
    if is_question(task.kind):
        x1, y1, x2, y2 = task.region
        text = f"{QUESTIONS[task.kind]} Look at x {x1:.0f} to {x2:.0f} and y {y1:.0f} to {y2:.0f} px."
        row["attachments"] = [{"type": "RAW_TEXT", "value": text}]
    return row


def _question(manifest: Manifest) -> dict[str, Any]:
    options = [_option(answer) for answer in choices(manifest.kind)]
    if manifest.kind == "verify_class":
        classes = [_option(name) for name in manifest.classes]
        options[choices(manifest.kind).index(NO)]["options"] = [_radio(RIGHT_CLASS, classes)]
    return _radio(QUESTIONS[manifest.kind], options)


def _radio(question: str, options: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "radio",
        "instructions": question,
        "name": question,
        "required": True,
        "options": options,
    }


def _option(value: str) -> dict[str, Any]:
    return {"label": value, "value": value, "options": []}
