"""COCO detection files: a streaming writer for manifests and a forgiving reader for ground truth."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeGuard

from conf.errors import QuarryError
from udfs.manifest import (
    ManifestBox,
    ManifestCounts,
    ManifestImage,
    RejectedItem,
    TruthBox,
    TruthImage,
    UniqueNames,
    check_image,
    class_index,
    class_indices,
    clipped_box,
)

_SPOOL_BYTES = 16 * 2**20
_LARGEST_PX = 1e9
_LARGEST_SIDE_PX = 2**31 - 1
_Corners = tuple[float, float, float, float]


def write_coco(stream: IO[str], images: Iterable[ManifestImage], classes: Sequence[str]) -> ManifestCounts:
    """Write a COCO file of images with pre-annotated boxes and count what went in.

    Images stream straight to `stream`; annotations wait in a temporary file, since COCO wants them in an
    array of their own. Memory does not grow with the boxes. The text is pure ASCII.

    Args:
        stream: Where the JSON goes, opened for text.
        images: Any iterator, in the order wanted; image ids run from 1 in this order.
        classes: Class names; category ids run from 1 in this order.

    Returns:
        Images and boxes written, and boxes dropped because nothing of them lies inside their image.

    Raises:
        QuarryError: A label outside `classes`, a file name given twice, a NaN or infinite number.
    """
    indices = class_indices(classes)
    names = UniqueNames("file name")
    n_images = n_boxes = n_dropped = 0
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, mode="w+", encoding="ascii") as spool:
        stream.write('{"images":[')
        for n_images, image in enumerate(images, start=1):
            check_image(image)
            names.add(image.file_name, image.image_id)
            stream.write(",\n" if n_images > 1 else "\n")
            stream.write(_dumped(_coco_image(image, n_images)))
            for box in image.boxes:
                category_id = class_index(indices, box, image) + 1
                corners = clipped_box(box, image)
                if corners is None:
                    n_dropped += 1
                    continue
                n_boxes += 1
                spool.write(",\n" if n_boxes > 1 else "\n")
                spool.write(_dumped(_coco_annotation(box, corners, n_boxes, n_images, category_id)))
        stream.write('],\n"annotations":[')
        spool.seek(0)
        while chunk := spool.read(2**16):
            stream.write(chunk)
    categories = [{"id": i + 1, "name": name, "supercategory": ""} for name, i in indices.items()]
    stream.write(f'],\n"categories":{_dumped(categories)}}}\n')
    return ManifestCounts(n_images=n_images, n_boxes=n_boxes, n_dropped_boxes=n_dropped)


def coco_truths(document: Mapping[str, Any]) -> Iterator[TruthImage | RejectedItem]:
    """The ground truth of each image of a COCO annotation file, and each item that had to be left out.

    Boxes stay as they were drawn, also beyond the border. Category ids may have gaps (COCO's 91 ids for 80
    classes). An image without annotations comes with no boxes: it was looked at and found empty.

    Args:
        document: The parsed JSON with the arrays `images`, `annotations`, `categories`.

    Returns:
        A `TruthImage` for each sound image, in file order, and a `RejectedItem` for: an annotation with an
        unknown category or image id, a NaN, infinite, negative or zero size, or a box fully outside; an
        image with a missing or wrong id, name or size; images that share an id or a name, as their boxes
        cannot be told apart.

    Raises:
        QuarryError: The document is not a COCO annotation file at all.
    """
    images, annotations, categories = (
        _array(document, key) for key in ("images", "annotations", "categories")
    )
    return _truths(images, annotations, category_names(categories))


def _truths(
    images: list[Any], annotations: list[Any], names: Mapping[int, str]
) -> Iterator[TruthImage | RejectedItem]:
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for annotation in annotations:
        key = annotation.get("image_id") if isinstance(annotation, Mapping) else None
        by_image[key if _is_id(key) or _is_whole(key) else None].append(annotation)
    sound, rejected = split_images(images)
    yield from rejected
    known_ids = {
        image.get("id") for image in images if isinstance(image, Mapping) and _is_id(image.get("id"))
    }
    for image in sound:
        boxes: list[TruthBox] = []
        for annotation in by_image.get(image["id"], ()):
            item = _truth_box(annotation, image, names)
            if isinstance(item, TruthBox):
                boxes.append(item)
            else:
                yield item
        yield TruthImage(
            file_name=image["file_name"],
            width=image["width"],
            height=image["height"],
            boxes=tuple(boxes),
            quarry_image_id=image.get("quarry_image_id"),
        )
    sound_ids = {image["id"] for image in sound}
    for image_id, orphans in by_image.items():
        if image_id not in sound_ids:
            why = "its image was rejected" if image_id in known_ids else "no image has this id"
            for annotation in orphans:
                yield _rejected_annotation(
                    annotation, f"image_id {_shown(annotation, 'image_id')}: {why}", None
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
                item_id=_shown(image, "id"),
                reason=reason,
                file_name=name if isinstance(name, str) else None,
            )
        )
    return sound, rejected


def _image_fault(image: Any, n_by_id: Mapping[Any, int], n_by_name: Mapping[Any, int]) -> str | None:
    if not isinstance(image, Mapping):
        return f"expected an object, got {type(image).__name__}"
    image_id, name = image.get("id"), image.get("file_name")
    if not _is_id(image_id):
        return f"expected an id (an integer or a string), got {image_id!r}"
    if n_by_id[image_id] > 1:
        return f"id {image_id!r} is used by {n_by_id[image_id]} images, so boxes cannot be told apart"
    if not _is_text(name) or not name:
        return f"expected a file_name, got {name!r}"
    if n_by_name[_match_key(image)] > 1:
        return f"file_name {name!r} is used by {n_by_name[_match_key(image)]} images"
    for side in ("width", "height"):
        value = image.get(side)
        if not _is_integer(value) or not 1 <= value <= _LARGEST_SIDE_PX:
            return f"expected {side} in whole px from 1 to {_LARGEST_SIDE_PX}, got {value!r}"
    if image.get("quarry_image_id") is not None and not _is_text(image["quarry_image_id"]):
        return f"expected quarry_image_id as a string, got {image['quarry_image_id']!r}"
    return None


def _truth_box(
    annotation: Mapping[str, Any], image: Mapping[str, Any], names: Mapping[int, str]
) -> TruthBox | RejectedItem:
    def rejected(reason: str) -> RejectedItem:
        return _rejected_annotation(annotation, reason, image["file_name"])

    category_id, bbox, crowd = (
        annotation.get("category_id"),
        annotation.get("bbox"),
        annotation.get("iscrowd", 0),
    )
    if not _is_whole(category_id) or category_id not in names:
        return rejected(f"category_id {category_id!r} is not among the categories of the file")
    if not isinstance(bbox, Sequence) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        return rejected(f"expected bbox as 4 finite numbers x, y, width, height in px, got {bbox!r}")
    if crowd not in (0, 1, None):
        return rejected(f"expected iscrowd 0 or 1, got {crowd!r}")
    x, y, width, height = (float(value) for value in bbox)
    if width <= 0 or height <= 0:
        return rejected(f"expected a box of positive size, got width {width:g} and height {height:g} px")
    x2, y2 = x + width, y + height
    if x2 <= 0 or y2 <= 0 or x >= image["width"] or y >= image["height"]:
        return rejected(
            f"bbox {list(bbox)} lies outside the image of {image['width']} x {image['height']} px"
        )
    return TruthBox(label_name=names[category_id], x1=x, y1=y, x2=x2, y2=y2, iscrowd=bool(crowd))


def _coco_image(image: ManifestImage, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
        "quarry_image_id": image.image_id,
        "uri": image.uri,
        "rank": image.rank,
        "score": image.score,
        "strategy": image.strategy,
    }


def _coco_annotation(
    box: ManifestBox, corners: _Corners, number: int, image_number: int, category_id: int
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
        raise QuarryError(
            f"not a COCO annotation file: expected an object with the array {key!r}, "
            f"got {type(value).__name__}; pass an instances file with images, annotations and categories "
            "(a results file has none)"
        )
    return value


def category_names(categories: list[Any]) -> dict[int, str]:
    """Category id to class name, in file order.

    Raises:
        QuarryError: An item of a COCO file's `categories` lacks an integer id of its own or a name.
    """
    names: dict[int, str] = {}
    for category in categories:
        category_id = category.get("id") if isinstance(category, Mapping) else None
        name = category.get("name") if isinstance(category, Mapping) else None
        if not _is_integer(category_id) or not _is_text(name) or not name or category_id in names:
            raise QuarryError(
                f"not a COCO annotation file: expected categories with distinct integer ids and a name, "
                f"got {category!r}"
            )
        names[category_id] = name
    return names


def _match_key(image: Mapping[str, Any]) -> tuple[str, str]:
    return (str(image.get("quarry_image_id", "")), image["file_name"])


def _rejected_annotation(annotation: Any, reason: str, file_name: str | None) -> RejectedItem:
    return RejectedItem(
        kind="annotation", item_id=_shown(annotation, "id"), reason=reason, file_name=file_name
    )


def _shown(item: Any, key: str) -> str:
    return str(item.get(key, "(none)")) if isinstance(item, Mapping) else "(none)"


def _is_id(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, str)


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_whole(value: Any) -> TypeGuard[int]:
    """An integer, or one written as 3.0 by tools that keep numbers in float columns; equal as a key."""
    return _is_integer(value) or (isinstance(value, float) and value.is_integer())


def _is_text(value: Any) -> TypeGuard[str]:
    # JSON can spell half a character, which no table can hold.
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode("utf-8") == value


def _is_number(value: Any) -> bool:
    # A comparison also refuses NaN and integers too long for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST_PX


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
