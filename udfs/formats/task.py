"""What every manifest is written from: labeling tasks, the manifest they belong to, what went in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from conf.errors import QuarryError, nearest

TaskKind = Literal["image", "boxes", "verify_box", "verify_class"]
Corners = tuple[float, float, float, float]

QUESTION_KINDS: tuple[TaskKind, ...] = ("verify_box", "verify_class")
YES, NO = "yes", "no"
QUESTIONS: Mapping[TaskKind, str] = {
    "image": "Draw a box around every object; correct the boxes that are there.",
    "boxes": "Fit each box to the object it is on and set its class; delete it if there is none. Add none.",
    "verify_box": "Does the box fit an object? yes: keep it; no: no object there. If it fits badly, move it.",
    "verify_class": "Is the class of the box right? yes: keep it; no: choose the right class.",
}


def is_question(kind: object) -> bool:
    """Whether tasks of this kind ask about one box, with answers to choose from; files may name any kind."""
    return kind in QUESTION_KINDS


@dataclass(frozen=True, kw_only=True)
class TaskBox:
    """One pre-annotated box, absolute px of the original image after EXIF orientation."""

    detection_id: str
    label_name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class LabelingTask:
    """One task for a labeler: where the image is, why it was picked, and the boxes to start from.

    Attributes:
        task_id: The same in every export of a cycle, so that tools which know ids import a task once.
        image_id: Of the image.
        uri: Where the labeling tool finds the image.
        file_name: Path below the lake's root.
        width: px after EXIF orientation.
        height: px after EXIF orientation.
        rank: From 1, unique in its strategy; 1 is labeled first.
        score: What the strategy ranked by.
        strategy: That picked it.
        boxes: To correct; of a verification the one box that is asked about.
        kind: ``image``: label the whole image; ``boxes``: correct these boxes and no others; ``verify_box``,
            ``verify_class``: answer for one box.
    """

    task_id: str
    image_id: str
    uri: str
    file_name: str
    width: int
    height: int
    rank: int
    score: float
    strategy: str
    boxes: tuple[TaskBox, ...] = ()
    kind: TaskKind = "image"

    @property
    def region(self) -> Corners:
        """What the labeler needs to see: of a verification twice the box, cut to the image; else all of it.

        Source: DeLR, section 3.2 ("we enlarge the pseudo boxes twice as the annotation regions").
        """
        if not is_question(self.kind):
            return (0.0, 0.0, float(self.width), float(self.height))
        (box,) = self.boxes
        half_width, half_height = (box.x2 - box.x1) / 2.0, (box.y2 - box.y1) / 2.0
        return (
            max(box.x1 - half_width, 0.0),
            max(box.y1 - half_height, 0.0),
            min(box.x2 + half_width, float(self.width)),
            min(box.y2 + half_height, float(self.height)),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the tasks of a manifest share.

    Attributes:
        name: Of the cycle and strategy, as people see it in the tool.
        classes: Class names in label order.
        model_version: Name of the model whose boxes are sent.
        kind: Of all its tasks.
        n_tasks: In all files of the manifest.
        last_rank: Largest of all tasks: ranks are those of picks, of which a task may hold several, and
            questions about boxes of one image share one.
        created: When the model was registered, ISO 8601, UTC.
    """

    name: str
    classes: tuple[str, ...]
    model_version: str
    kind: TaskKind = "image"
    n_tasks: int
    last_rank: int
    created: str


@dataclass(frozen=True, kw_only=True)
class ManifestCounts:
    """What a writer put into a file: tasks, boxes kept, and boxes left out as empty after clipping."""

    n_tasks: int
    n_boxes: int
    n_dropped_boxes: int


def clipped_box(box: TaskBox, task: LabelingTask) -> Corners | None:
    """The box cut to the image as x1, y1, x2, y2 in px, or None when nothing of it lies inside.

    Args:
        box: Any box, also one that crosses the border.
        task: Of its image; only the size is used.

    Returns:
        Corners with 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height, or None.

    Raises:
        QuarryError: A coordinate is NaN or infinite.
    """
    corners = (box.x1, box.y1, box.x2, box.y2)
    if not all(math.isfinite(value) for value in corners):
        raise QuarryError(
            f"box {box.detection_id!r} of image {task.image_id!r}: expected finite px, got {corners}; "
            "detect this image again before you export it"
        )
    x1, x2 = max(box.x1, 0.0), min(box.x2, float(task.width))
    y1, y2 = max(box.y1, 0.0), min(box.y2, float(task.height))
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


def class_index(indices: dict[str, int], box: TaskBox, task: LabelingTask) -> int:
    """The position of the box's class.

    Raises:
        QuarryError: The label is not among the manifest's classes; labeling tools refuse such a file.
    """
    if box.label_name not in indices:
        raise QuarryError(
            f"box {box.detection_id!r} of image {task.image_id!r}: label {box.label_name!r} is not a class "
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


def check_task(task: LabelingTask) -> None:
    """Check what every format relies on.

    Raises:
        QuarryError: A size below 1 px or a score that is not finite.
    """
    if task.width < 1 or task.height < 1:
        raise QuarryError(
            f"image {task.image_id!r}: expected a size of at least 1 x 1 px, "
            f"got {task.width} x {task.height}; read its size again"
        )
    if not math.isfinite(task.score):
        raise QuarryError(f"image {task.image_id!r}: expected a finite score, got {task.score}")


def uri_kind(task: LabelingTask) -> str:
    """What kind of URI an image has, for messages: rewritten ones may hold a signature."""
    scheme, separator, _ = task.uri.partition("://")
    return f"one that begins with {scheme}://" if separator and scheme.isalnum() else "a path"


def check_web_uri(task: LabelingTask) -> None:
    """Check that a labeling service can fetch the image.

    Raises:
        QuarryError: The URI is a path or a file of this machine.
    """
    scheme, separator, _ = task.uri.partition("://")
    if not separator or not scheme.isalnum() or scheme.lower() == "file":
        raise QuarryError(
            f"image {task.image_id!r}: expected a URI a labeling service can fetch, such as https://..., "
            f"got {uri_kind(task)}; rewrite URIs in the export's settings"
        )
