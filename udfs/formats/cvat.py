"""CVAT: boxes as "CVAT for images 1.1" XML, the images' manifest.jsonl, and the labels of a CVAT task."""

from __future__ import annotations

import hashlib
import json
import posixpath
import tempfile
from collections.abc import Iterable
from typing import IO, Any

from conf.errors import QuarryError
from udfs.formats.json_values import compact_json
from udfs.formats.task import (
    NO,
    QUESTIONS,
    YES,
    Corners,
    LabelingTask,
    Manifest,
    ManifestCounts,
    TaskBox,
    TaskKind,
    UniqueNames,
    check_task,
    class_index,
    class_indices,
    clipped_box,
    is_question,
)
from udfs.formats.xml_values import xml_attribute, xml_text

TASK_TAG, REGION_LABEL = "quarry_task", "quarry_region"
DETECTION_ID, TASK_ID, IMAGE_ID, SENT_CLASS = (
    "quarry_detection_id",
    "quarry_task_id",
    "quarry_image_id",
    "quarry_sent_class",
)
VERDICTS: dict[TaskKind, str] = {"verify_box": "quarry_box_fits", "verify_class": "quarry_class_right"}
UNANSWERED = "unanswered"
LONGEST_LABEL = 64
_SPOOL_BYTES = 16 * 2**20


def write_cvat(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write the boxes of images as CVAT XML 1.1 and count what went in.

    Image ids count from 0 in the order of the tasks, as frames of a CVAT task created from the
    `write_cvat_manifest` of the same tasks do: CVAT finds a frame by its name or, depending on its version,
    by this number. A tag on each image carries our ids, an attribute of each box its detection_id. Of a
    verification the box has a radio attribute with the answers, and a box of a label of its own shows the
    region to look at; several verifications of an image share its frame. Coordinates have two decimals, as
    CVAT writes them. Images wait in a temporary file, since the number of frames comes first.

    Args:
        stream: Where the XML goes, opened for UTF-8 text.
        tasks: Any iterator; one task is held at a time.
        manifest: Gives the classes, the kind and the name of the CVAT task.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them is left inside their image.

    Raises:
        QuarryError: What CVAT would refuse or mix up: a label outside the classes, a class name that is too
            long, padded with blanks or used here, two images whose names differ only in their ending, a
            control character, a NaN or infinite number.
    """
    labels = _labels(manifest)
    indices = class_indices(manifest.classes)
    frames = _Frames(manifest.kind)
    n_tasks = n_boxes = n_dropped = 0
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, "w+", encoding="utf-8", newline="") as spool:
        for task in tasks:
            check_task(task)
            n_tasks += 1
            frame, is_new = frames.number(task)
            kept = []
            for box in task.boxes:
                class_index(indices, box, task)
                if (corners := _hundredths(clipped_box(box, task))) is not None:
                    kept.append((box, corners))
            n_boxes += len(kept)
            n_dropped += len(task.boxes) - len(kept)
            spool.write(_image_xml(task, frame, kept, is_new))
        stream.write(_head_xml(manifest.name, len(frames), labels))
        spool.seek(0)
        while chunk := spool.read(2**16):
            stream.write(chunk)
    stream.write("</annotations>\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def write_cvat_manifest(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write the manifest.jsonl from which CVAT creates a task without reading the images, in their order.

    Sizes are those after EXIF orientation, as CVAT takes them; names are relative to the folder the file is
    put in, without their ending. An image that several verifications ask about is named once. No boxes.

    Raises:
        QuarryError: Two images whose names differ only in their ending: CVAT would mix up their boxes.
    """
    frames = _Frames(manifest.kind)
    n_tasks = 0
    stream.write('{"version":"1.0"}\n{"type":"images"}\n')
    for task in tasks:
        check_task(task)
        n_tasks += 1
        if frames.number(task)[1]:
            name, extension = posixpath.splitext(task.file_name)
            line = {"name": name, "extension": extension, "width": task.width, "height": task.height}
            stream.write(compact_json({**line, "meta": {"related_images": []}}) + "\n")
    return ManifestCounts(n_tasks=n_tasks, n_boxes=0, n_dropped_boxes=0)


def cvat_companions(manifest: Manifest) -> dict[str, str]:
    """`cvat_labels.json`, the raw labels of a CVAT task, and `README.txt`, how to create it.

    Raises:
        QuarryError: A class name that CVAT cannot hold.
    """
    return {
        "cvat_labels.json": json.dumps(_labels(manifest), indent=1) + "\n",
        "README.txt": _README.format(question=QUESTIONS[manifest.kind]),
    }


_README = """\
{question}

Each file tasks-N.xml is one CVAT task, whose images are those of tasks-N.jsonl (format cvat_manifest):
1. Put tasks-N.jsonl into the folder of the images (the lake's root): its names are relative to that folder.
   Attach the bucket as a cloud storage of CVAT, with this file as its manifest.
2. Create a CVAT task. Labels: paste cvat_labels.json into the tab "Raw". Select the images from the cloud
   storage. Advanced: sorting method "predefined", so that frames come in the order of the manifest, the
   most valuable first.
3. Upload annotations to the task, format "CVAT 1.1", file tasks-N.xml.
4. When all its jobs are completed: export annotations, format "CVAT for images 1.1", and import that file.
   CVAT exports every frame and does not say which were looked at, so all frames of the file count as
   labeled, those without boxes as empty. While jobs are open, export the completed jobs one by one.
Leave the tag quarry_task and the attributes that begin with quarry_ as they are; they carry our ids.
"""


class _Frames:
    def __init__(self, kind: TaskKind) -> None:
        self._is_once = not is_question(kind)
        self._numbers: dict[bytes, int] = {}
        self._stems = UniqueNames("file name without its ending")

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, task: LabelingTask) -> tuple[int, bool]:
        """The frame of the task's image, from 0, and whether the image is new."""
        digest = hashlib.blake2b(task.file_name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        is_new = digest not in self._numbers
        if is_new or self._is_once:
            self._stems.add(posixpath.splitext(task.file_name)[0], task.image_id)
        return self._numbers.setdefault(digest, len(self._numbers)), is_new


def _labels(manifest: Manifest) -> list[dict[str, Any]]:
    for name in class_indices(manifest.classes):
        if len(name) > LONGEST_LABEL or name != name.strip() or name in (TASK_TAG, REGION_LABEL):
            raise QuarryError(
                f"class {name!r}: CVAT takes names of at most {LONGEST_LABEL} characters without blanks at "
                f"their ends, and {TASK_TAG} and {REGION_LABEL} are used by the manifest; rename the class"
            )
    attributes = [_text_attribute(DETECTION_ID)]
    labels: list[dict[str, Any]] = []
    if manifest.kind in VERDICTS:
        verdict = {
            "name": VERDICTS[manifest.kind],
            "mutable": False,
            "input_type": "radio",
            "default_value": UNANSWERED,
            "values": [UNANSWERED, YES, NO],
        }
        attributes = [verdict, *attributes, _text_attribute(TASK_ID), _text_attribute(SENT_CLASS)]
        labels = [{"name": REGION_LABEL, "type": "rectangle", "attributes": []}]
    tag_attributes = [_text_attribute(IMAGE_ID), _text_attribute(TASK_ID)]
    return [
        *({"name": name, "type": "rectangle", "attributes": attributes} for name in manifest.classes),
        *labels,
        {"name": TASK_TAG, "type": "tag", "attributes": tag_attributes},
    ]


def _text_attribute(name: str) -> dict[str, Any]:
    return {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}


def _head_xml(name: str, n_frames: int, labels: list[dict[str, Any]]) -> str:
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>',
        f"<name>{xml_text(name, 'manifest name')}</name><size>{n_frames}</size><mode>annotation</mode>",
        "<labels>",
    ]
    for label in labels:
        attributes = "".join(
            f"<attribute><name>{attribute['name']}</name><mutable>False</mutable>"
            f"<input_type>{attribute['input_type']}</input_type>"
            f"<default_value>{attribute['default_value']}</default_value>"
            f"<values>{chr(10).join(attribute['values'])}</values></attribute>"
            for attribute in label["attributes"]
        )
        lines.append(
            f"<label><name>{xml_text(label['name'], 'class')}</name><type>{label['type']}</type>"
            f"<attributes>{attributes}</attributes></label>"
        )
    return "\n".join([*lines, "</labels></task></meta>\n"])


def _image_xml(task: LabelingTask, frame: int, kept: list[tuple[TaskBox, Corners]], is_new: bool) -> str:
    name = xml_attribute(task.file_name, f"file name of image {task.image_id!r}")
    lines = [f'<image id="{frame}" name={name} width="{task.width}" height="{task.height}">']
    is_verification = is_question(task.kind)
    for box, corners in kept:
        attributes = {DETECTION_ID: box.detection_id}
        if is_verification:
            attributes = {
                VERDICTS[task.kind]: UNANSWERED,
                **attributes,
                TASK_ID: task.task_id,
                SENT_CLASS: box.label_name,
            }
            if (region := _hundredths(task.region)) is not None:
                lines.append(_box_xml(REGION_LABEL, region, {}))
        lines.append(_box_xml(box.label_name, corners, attributes))
    if is_new:
        ids = {IMAGE_ID: task.image_id, TASK_ID: "" if is_verification else task.task_id}
        lines.append(f'<tag label="{TASK_TAG}" source="auto">{_attributes_xml(ids)}</tag>')
    return "\n".join([*lines, "</image>\n"])


def _box_xml(label: str, corners: Corners, attributes: dict[str, str]) -> str:
    xtl, ytl, xbr, ybr = (f"{value:.2f}" for value in corners)
    return (
        f'<box label={xml_attribute(label, "class")} source="auto" occluded="0" xtl="{xtl}" ytl="{ytl}" '
        f'xbr="{xbr}" ybr="{ybr}" z_order="0">{_attributes_xml(attributes)}</box>'
    )


def _attributes_xml(values: dict[str, str]) -> str:
    return "".join(
        f'<attribute name="{name}">{xml_text(value, name)}</attribute>' for name, value in values.items()
    )


def _hundredths(corners: Corners | None) -> Corners | None:
    if corners is None:
        return None
    x1, y1, x2, y2 = (round(value, 2) for value in corners)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
