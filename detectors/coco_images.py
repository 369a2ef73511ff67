"""Training images from COCO annotations: which images, which boxes, and pixels as they are displayed."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from conf.errors import QuarryError
from detectors.average_precision import TruthBoxes
from detectors.files import annotation_files, local_path, read_bytes


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of a COCO file.

    Attributes:
        uri: Path or URI of the image file.
        group: Images of one group (a sequence) never part between training and validation.
        truth: Its objects.
        size_wh: Width and height (px) that the annotations refer to; none when the file does not say.
        noisy: (m,) bool, which boxes of `truth` a model predicted and nobody has checked.
        complete: Whether every object is labeled; otherwise the image serves training only.
    """

    uri: str
    group: str
    truth: TruthBoxes
    size_wh: tuple[int, int] | None
    noisy: NDArray[np.bool_]
    complete: bool


class UnusableImage(Exception):
    """Why one image cannot be trained on."""


def read_coco_images(
    labels_uri: str, images_uri: str, classes: Sequence[str] | None = None
) -> tuple[list[AnnotatedImage], tuple[str, ...]]:
    """Images and classes of one COCO JSON, or of all below a folder or matching a pattern.

    Categories are told apart by name, so that files may number them differently. Two keys are not COCO's:
    `"noisy": 1` of an annotation, a predicted box that nobody has checked, and `"complete": false` of an
    image, some objects of which have no label. An image with a noisy box is not complete either.

    Args:
        labels_uri: COCO JSON, a folder of them, or a glob pattern; local or URI.
        images_uri: Root that relative `file_name`s start from; absolute paths and URIs stand as they are.
        classes: The classes in label order; none: category names as first met, by file name and category id.

    Returns:
        Images by file and id, each with labels 1..K, and the K class names. Annotations without area are
        left out; images without annotations stay in as negatives.

    Raises:
        QuarryError: No file is found, one is no COCO JSON or names a category that `classes` lacks, or there
            is no object at all.
    """
    contents = [(uri, _coco_content(uri)) for uri in annotation_files(labels_uri)]
    names = tuple(classes) if classes is not None else _class_names(contents)
    images = [image for uri, content in contents for image in _images_of(uri, content, images_uri, names)]
    if not any(len(image.truth.labels) for image in images):
        raise QuarryError(f"{labels_uri}: {len(images)} images and not one object; nothing can be learned")
    return images, names


def split_by_group(
    images: Sequence[AnnotatedImage], validation_fraction: float, seed: int
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Training and validation images; a group (sequence) is whole in one of them.

    Groups are taken in the order of a hash of seed and group until `validation_fraction` of the images is
    reached. Unless the fraction is 0, both parts hold at least one group, if there are two.

    A group with an image that is not completely labeled is always trained on: objects found there that have
    no label would count as false positives. The fraction is then of the images in the other groups, and
    nothing is held out where there are none.

    Args:
        images: All images.
        validation_fraction: In [0, 1).
        seed: Another seed, another split.
    """
    partly_labeled = {image.group for image in images if not image.complete}
    sizes: dict[str, int] = {}
    for image in images:
        if image.group not in partly_labeled:
            sizes[image.group] = sizes.get(image.group, 0) + 1
    ordered = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).hexdigest())
    held_out: set[str] = set()
    wanted = validation_fraction * sum(sizes.values())
    for group in ordered if partly_labeled else ordered[:-1]:
        if sum(sizes[g] for g in held_out) >= wanted:
            break
        held_out.add(group)
    return [i for i in images if i.group not in held_out], [i for i in images if i.group in held_out]


def displayed_image(image: AnnotatedImage) -> Image.Image:
    """The RGB image with its EXIF orientation applied.

    Raises:
        UnusableImage: The file is missing or damaged, or its size is not the annotations'.
    """
    try:
        with Image.open(io.BytesIO(read_bytes(image.uri))) as stored:
            upright = ImageOps.exif_transpose(stored).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UnusableImage(f"{image.uri}: {error}") from error
    if image.size_wh is not None and upright.size != image.size_wh:
        raise UnusableImage(f"{image.uri}: annotated as {image.size_wh} px, is {upright.size}")
    return upright


def _coco_content(uri: str) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(uri))
    except (OSError, ValueError) as error:
        raise QuarryError(f"{uri}: cannot be read as COCO JSON: {error}") from error
    wanted = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in wanted):
        raise QuarryError(f"{uri}: no COCO annotations; expected the lists {', '.join(wanted)}")
    return content


def _class_names(contents: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for _, content in contents:
        for category in sorted(content["categories"], key=lambda category: int(category["id"])):
            names.setdefault(str(category["name"]))
    return tuple(names)


def _images_of(
    uri: str, content: dict[str, Any], images_uri: str, classes: tuple[str, ...]
) -> list[AnnotatedImage]:
    label_of = {name: i for i, name in enumerate(classes, start=1)}
    category_names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        name = category_names.get(int(annotation["category_id"]))
        if name not in label_of:
            raise QuarryError(
                f"{uri}: annotation {annotation.get('id')} has class {name!r}; expected {', '.join(classes)}"
            )
        by_image.setdefault(annotation["image_id"], []).append({**annotation, "label": label_of[name]})
    images = []
    for entry in sorted(content["images"], key=lambda entry: str(entry["file_name"])):
        size = (int(entry["width"]), int(entry["height"])) if "width" in entry and "height" in entry else None
        file_uri = _image_uri(images_uri, str(entry["file_name"]))
        truth, noisy = _truth_boxes(by_image.get(entry["id"], []), size)
        images.append(
            AnnotatedImage(
                uri=file_uri,
                group=str(entry.get("sequence_id") or file_uri),
                truth=truth,
                size_wh=size,
                noisy=noisy,
                complete=bool(entry.get("complete", True)) and not noisy.any(),
            )
        )
    return images


def _image_uri(root: str, file_name: str) -> str:
    if local_path(file_name) is None or file_name.startswith(("/", "file:")):
        return file_name
    return posixpath.join(root, file_name)


def _truth_boxes(
    annotations: Sequence[dict[str, Any]], size_wh: tuple[int, int] | None
) -> tuple[TruthBoxes, NDArray[np.bool_]]:
    """The boxes with area, and which of them are noisy."""
    xywh = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes: NDArray[np.float64] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    if size_wh is not None:
        boxes = boxes.clip(0, [*size_wh, *size_wh])
    labels = np.array([a["label"] for a in annotations], dtype=np.int64)
    crowd = np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool)
    noisy = np.array([bool(a.get("noisy", 0)) for a in annotations], dtype=bool)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return TruthBoxes(boxes[solid].astype(np.float32), labels[solid], crowd[solid]), noisy[solid]
