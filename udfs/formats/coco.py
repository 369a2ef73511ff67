"""COCO detection files: a streaming writer for manifests and a forgiving reader for ground truth."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from udfs.formats.json_values import (
    LARGEST_SIDE_PX,
    compact_json,
    is_integer,
    is_px,
    is_side,
    is_text,
    is_whole,
    json_document,
)
from udfs.formats.returned import NotThisFormat, RejectedItem, ReturnedBox, ReturnedImage, box_fault
from udfs.formats.shown_values import shown
from udfs.formats.task import (
    QUESTIONS,
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
)

_SPOOL_BYTES = 16 * 2**20


def write_coco(stream: IO[str], tasks: Iterable[LabelingTask], manifest: Manifest) -> ManifestCounts:
    """Write a COCO file of images with pre-annotated boxes and count what went in.

    Images stream straight to `stream`; annotations wait in a temporary file, since COCO wants them in an
    array of their own. Memory does not grow with the boxes. The text is pure ASCII.

    Args:
        stream: Where the JSON goes, opened for text.
        tasks: Any iterator, in the order wanted; image ids are their ranks, distinct over a manifest's files.
        manifest: Gives the classes; category ids run from 1 in their order.

    Returns:
        Tasks and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside the classes, a file name given twice, a NaN or infinite number.
    """
    indices = class_indices(manifest.classes)
    names = UniqueNames("file name")
    n_tasks = n_boxes = n_dropped = 0
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, mode="w+", encoding="ascii") as spool:
        stream.write('{"images":[')
        for n_tasks, task in enumerate(tasks, start=1):
            check_task(task)
            names.add(task.file_name, task.image_id)
            stream.write(",\n" if n_tasks > 1 else "\n")
            stream.write(compact_json(_coco_image(task)))
            for box in task.boxes:
                category_id = class_index(indices, box, task) + 1
                corners = clipped_box(box, task)
                if corners is None:
                    n_dropped += 1
                    continue
                n_boxes += 1
                spool.write(",\n" if n_boxes > 1 else "\n")
                spool.write(compact_json(_coco_annotation(box, corners, n_boxes, task.rank, category_id)))
        stream.write('],\n"annotations":[')
        spool.seek(0)
        while chunk := spool.read(2**16):
            stream.write(chunk)
    categories = [{"id": i + 1, "name": name, "supercategory": ""} for name, i in indices.items()]
    stream.write(f'],\n"categories":{compact_json(categories)}}}\n')
    return ManifestCounts(n_tasks=n_tasks, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def coco_companions(manifest: Manifest) -> dict[str, str]:
    """`README.txt`: what is asked of the labelers, and what to import."""
    return {"README.txt": _README.format(question=QUESTIONS[manifest.kind])}


_README = """\
{question}

1. Import the tasks-*.json files in the order of their names into a tool that reads COCO; file names are paths
   below the lake's root. Image ids are ranks: 1 is worth most.
2. Import what the tool exports as COCO as labels of the format coco. Keep the keys that begin with quarry_
   where the tool can: they say which task an image answers.
"""


def read_coco(stream: IO[bytes]) -> Iterator[ReturnedImage | RejectedItem]:
    """`coco_truths` of a file.

    Raises:
        NotThisFormat: The file is not a COCO annotation file at all.
    """
    return coco_truths(json_document(stream))


def coco_truths(document: Any) -> Iterator[ReturnedImage | RejectedItem]:
    """The ground truth of each image of a COCO annotation file, and each item that had to be left out.

    Boxes stay as they were drawn, also beyond the border. Category ids may have gaps (COCO's 91 ids for 80
    classes). An image without annotations comes with no boxes: it was looked at and found empty.

    Args:
        document: The parsed JSON with the arrays `images`, `annotations`, `categories`.

    Returns:
        A `ReturnedImage` for each sound image, in file order, and a `RejectedItem` for: an annotation with an
        unknown category or image id, a NaN, infinite, negative or zero size, or a box fully outside; an
        image with a missing or wrong id, name or size; images that share an id or a name, as their boxes
        cannot be told apart.

    Raises:
        NotThisFormat: The document is not a COCO annotation file at all.
    """
    images, annotations, categories = (
        _array(document, key) for key in ("images", "annotations", "categories")
    )
    return _truths(images, annotations, category_names(categories))


def _truths(
    images: list[Any], annotations: list[Any], names: Mapping[int, str]
) -> Iterator[ReturnedImage | RejectedItem]:
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for annotation in annotations:
        key = annotation.get("image_id") if isinstance(annotation, Mapping) else None
        by_image[key if _is_id(key) or is_whole(key) else None].append(annotation)
    sound, rejected = split_images(images)
    yield from rejected
    known_ids = {
        image.get("id") for image in images if isinstance(image, Mapping) and _is_id(image.get("id"))
    }
    for image in sound:
        boxes: list[ReturnedBox] = []
        complete = True
        for annotation in by_image.get(image["id"], ()):
            item = _truth_box(annotation, image, names)
            if isinstance(item, ReturnedBox):
                boxes.append(item)
            else:
                complete = False
                yield item
        yield ReturnedImage(
            file_name=image["file_name"],
            width=image["width"],
            height=image["height"],
            boxes=tuple(boxes),
            quarry_image_id=image.get("quarry_image_id"),
            task_id=_text_or_none(image.get("quarry_task_id")),
            complete=complete,
        )
    sound_ids = {image["id"] for image in sound}
    for image_id, orphans in by_image.items():
        if image_id not in sound_ids:
            why = "its image was rejected" if image_id in known_ids else "no image has this id"
            for annotation in orphans:
                yield _rejected_annotation(
                    annotation, f"image_id {_item_text(annotation, 'image_id')}: {why}", None
                )


def split_images(images: list[Any]) -> tuple[list[Mapping[str, Any]], list[RejectedItem]]:
    """The usable items of a COCO file's `images`, in file order, and the others with their reasons.

    An item is usable with an integer or string id and a non-empty file_name, both unique, a width and height
    in px, and a `quarry_image_id` that is a string where there is one.
    """
    maps = [image for image in images if isinstance(image, Mapping)]
    n_by_id = Counter(image.get("id") for image in maps if _is_id(image.get("id")))
    n_by_name = Counter(_match_key(image) for image in maps if isinstance(image.get("file_name"), str))
    sound: list[Mapping[str, Any]] = []
    rejected: list[RejectedItem] = []
    for image in images:
        reason = _image_fault(image, n_by_id, n_by_name)
        if reason is None:
            sound.append(image)
            continue
        name = image.get("file_name") if isinstance(image, Mapping) else None
        rejected.append(
            RejectedItem(
                kind="image",
                item_id=_item_text(image, "id"),
                reason=reason,
                file_name=_text_or_none(name),
            )
        )
    return sound, rejected


def _image_fault(image: Any, n_by_id: Mapping[Any, int], n_by_name: Mapping[Any, int]) -> str | None:
    if not isinstance(image, Mapping):
        return f"expected an object, got {type(image).__name__}"
    image_id, name = image.get("id"), image.get("file_name")
    if not _is_id(image_id):
        return f"expected an id (an integer or a string), got {shown(image_id)}"
    if n_by_id[image_id] > 1:
        return f"id {shown(image_id)} is used by {n_by_id[image_id]} images, so boxes cannot be told apart"
    if not is_text(name) or not name:
        return f"expected a file_name, got {shown(name)}"
    if n_by_name[_match_key(image)] > 1:
        return f"file_name {shown(name)} is used by {n_by_name[_match_key(image)]} images"
    for side in ("width", "height"):
        value = image.get(side)
        if not is_side(value):
            return f"expected {side} in whole px from 1 to {LARGEST_SIDE_PX}, got {shown(value)}"
    if image.get("quarry_image_id") is not None and not is_text(image["quarry_image_id"]):
        return f"expected quarry_image_id as a string, got {shown(image['quarry_image_id'])}"
    return None


def _truth_box(
    annotation: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[int, str]
) -> ReturnedBox | RejectedItem:
    def rejected(reason: str) -> RejectedItem:
        return _rejected_annotation(annotation, reason, image["file_name"])

    category_id, bbox, crowd = (
        annotation.get("category_id"),
        annotation.get("bbox"),
        annotation.get("iscrowd", 0),
    )
    if not is_whole(category_id) or category_id not in names:
        return rejected(f"category_id {shown(category_id)} is not among the categories of the file")
    if not isinstance(bbox, Sequence) or len(bbox) != 4 or not all(is_px(value) for value in bbox):
        return rejected(f"expected bbox as 4 finite numbers x, y, width, height in px, got {shown(bbox)}")
    if crowd not in (0, 1, None):
        return rejected(f"expected iscrowd 0 or 1, got {shown(crowd)}")
    x, y, width, height = (float(value) for value in bbox)
    x2, y2 = x + width, y + height
    fault = box_fault(x, y, x2, y2, width=image["width"], height=image["height"])
    if fault is not None:
        return rejected(fault)
    return ReturnedBox(
        label_name=names[category_id],
        x1=x,
        y1=y,
        x2=x2,
        y2=y2,
        iscrowd=bool(crowd),
        detection_id=_text_or_none(annotation.get("quarry_detection_id")),
    )


def _coco_image(task: LabelingTask) -> dict[str, Any]:
    return {
        "id": task.rank,
        "file_name": task.file_name,
        "width": task.width,
        "height": task.height,
        "quarry_image_id": task.image_id,
        "quarry_task_id": task.task_id,
        "uri": task.uri,
        "rank": task.rank,
        "score": task.score,
        "strategy": task.strategy,
    }


def _coco_annotation(
    box: TaskBox, corners: Corners, number: int, image_number: int, category_id: int
) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    return {
        "id": number,
        "image_id": image_number,
        "category_id": category_id,
        "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": round((x2 - x1) * (y2 - y1), 3),
        "iscrowd": 0,
        "segmentation": [],
        "score": box.score,
        "quarry_detection_id": box.detection_id,
    }


def _array(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(value, list):
        raise NotThisFormat(
            f"not a COCO annotation file: expected an object with the array {key!r}, "
            f"got {type(value).__name__}; pass an instances file with images, annotations and categories "
            "(a results file has none)"
        )
    return value


def category_names(categories: list[Any]) -> dict[int, str]:
    """Category id to class name, in file order.

    Raises:
        NotThisFormat: An item of a COCO file's `categories` lacks an integer id of its own or a name.
    """
    names: dict[int, str] = {}
    for category in categories:
        category_id = category.get("id") if isinstance(category, Mapping) else None
        name = category.get("name") if isinstance(category, Mapping) else None
        if not is_integer(category_id) or not is_text(name) or not name or category_id in names:
            raise NotThisFormat(
                f"not a COCO annotation file: expected categories with distinct integer ids and a name, "
                f"got {shown(category)}"
            )
        names[category_id] = name
    return names


def _match_key(image: Mapping[str, Any]) -> tuple[str, str]:
    return (str(image.get("quarry_image_id", "")), image["file_name"])


def _rejected_annotation(annotation: Any, reason: str, file_name: str | None) -> RejectedItem:
    return RejectedItem(
        kind="annotation", item_id=_item_text(annotation, "id"), reason=reason, file_name=file_name
    )


def _item_text(item: Any, key: str) -> str:
    return shown(item[key]).strip("'") if isinstance(item, Mapping) and key in item else "(none)"


def _is_id(value: Any) -> bool:
    return is_integer(value) or isinstance(value, str)


def _text_or_none(value: Any) -> str | None:
    return value if is_text(value) else None
