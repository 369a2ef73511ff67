"""What every labeling format is written from and read into: images with boxes, counts, rejected items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import QuarryError, nearest


@dataclass(frozen=True, kw_only=True)
class ManifestBox:
    """One pre-annotated box, absolute px of the original image after EXIF orientation."""

    detection_id: str
    label_name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class ManifestImage:
    """One image to label: where it is, why it was picked (`strategy`, `rank` from 1, `score`), its boxes."""

    image_id: str
    uri: str
    file_name: str
    width: int
    height: int
    rank: int
    score: float
    strategy: str
    boxes: tuple[ManifestBox, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ManifestCounts:
    """What a writer put into a manifest: images, boxes kept, and boxes left out as empty after clipping."""

    n_images: int
    n_boxes: int
    n_dropped_boxes: int


@dataclass(frozen=True, kw_only=True)
class TruthBox:
    """One ground-truth box as it was drawn, absolute px."""

    label_name: str
    x1: float
    y1: float
    x2: float
    y2: float
    iscrowd: bool = False


@dataclass(frozen=True, kw_only=True)
class TruthImage:
    """The ground truth of one image; `quarry_image_id` is set when a manifest of ours gave it."""

    file_name: str
    width: int
    height: int
    boxes: tuple[TruthBox, ...]
    quarry_image_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class RejectedItem:
    """One image or box of an imported file that was left out, and why.

    `kind` is ``image`` or ``annotation``, `item_id` the id the file gives it, `file_name` is set when known.
    """

    kind: str
    item_id: str
    reason: str
    file_name: str | None = None


def clipped_box(box: ManifestBox, image: ManifestImage) -> tuple[float, float, float, float] | None:
    """The box cut to the image as x1, y1, x2, y2 in px, or None when nothing of it lies inside.

    Args:
        box: Any box, also one that crosses the border.
        image: Its image; only the size is used.

    Returns:
        Corners with 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height, or None.

    Raises:
        QuarryError: A coordinate is NaN or infinite.
    """
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(math.isfinite(value) for value in corners):
        raise QuarryError(
            f"box {box.detection_id!r} of image {image.image_id!r}: expected finite px, got {corners}; "
            "detect this image again before you export it"
        )
    x1, x2 = max(box.x1, 0.0), min(box.x2, float(image.width))
    y1, y2 = max(box.y1, 0.0), min(box.y2, float(image.height))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def class_indices(classes: Sequence[str]) -> dict[str, int]:
    """The position of each class name, from 0.

    Raises:
        QuarryError: No class, an empty name or a name given twice.
    """
    indices = {name: index for index, name in enumerate(classes)}
    if not indices or len(indices) != len(classes) or "" in indices:
        raise QuarryError(
            f"classes of a manifest: expected one or more distinct, non-empty names, got {list(classes)}"
        )
    return indices


def class_index(indices: dict[str, int], box: ManifestBox, image: ManifestImage) -> int:
    """The position of the box's class.

    Raises:
        QuarryError: The label is not among the manifest's classes; labeling tools refuse such a file.
    """
    if box.label_name not in indices:
        raise QuarryError(
            f"box {box.detection_id!r} of image {image.image_id!r}: label {box.label_name!r} is not a class "
            f"of this manifest; {nearest(box.label_name, indices)}"
        )
    return indices[box.label_name]


class UniqueNames:
    """Refuses a second image of the same key, keeping 16 bytes an image and not the image."""

    def __init__(self, what: str) -> None:
        """`what` names the key in the error message, such as ``file name``."""
        self._what = what
        self._digests: set[bytes] = set()

    def add(self, key: str, image_id: str) -> None:
        """Take note of `key`.

        Raises:
            QuarryError: `key` was seen before: importers match by it and would mix up the two images.
        """
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._digests:
            raise QuarryError(
                f"image {image_id!r}: {self._what} {key!r} is in this manifest twice; expected one, "
                "keep more of the folder path in the name or drop the duplicate"
            )
        self._digests.add(digest)


def check_image(image: ManifestImage) -> None:
    """Check what every format relies on.

    Raises:
        QuarryError: A size below 1 px or a score that is not finite.
    """
    if image.width < 1 or image.height < 1:
        raise QuarryError(
            f"image {image.image_id!r}: expected a size of at least 1 x 1 px, "
            f"got {image.width} x {image.height}; read its size again"
        )
    if not math.isfinite(image.score):
        raise QuarryError(f"image {image.image_id!r}: expected a finite score, got {image.score}")
