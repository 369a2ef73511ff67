"""Labeling tasks that break importers: names, sizes and boxes, with what must come back of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from udfs.formats.task import LabelingTask, Manifest, TaskBox, TaskKind, clipped_box, is_question

CLASSES = ("car", "Fußgänger 行人", 'say "hi" & <b>')
CAR, PERSON, SIGN = CLASSES
WEB_ROOT = "https://images.example/lake"
EXIF_NAME = "turned/exif 6.jpg"
# File name, width, height, boxes as class and corners; px of the upright image.
_IMAGES: tuple[tuple[str, int, int, tuple[tuple[str, float, float, float, float], ...]], ...] = (
    ("day/front/0001.jpg", 640, 480, ((CAR, 10, 20, 40, 60), (PERSON, 300.25, 100.5, 420.75, 479.5))),
    ("day/rear/0001.jpg", 640, 480, ((CAR, 11, 21, 41, 61),)),
    ("day/side/0001.png", 320, 240, ((SIGN, 1, 2, 3, 4),)),
    ("with space/a 'b' (1) & c=d+e%20.jpg", 800, 600, ((SIGN, 50.125, 60.375, 70.5, 80.625),)),
    ("日本/straße ö.jpg", 1920, 1080, ((PERSON, 0, 0, 1920, 1080), (CAR, 1919, 1079, 1920, 1080))),
    ("border/pixels.jpg", 101, 67, ((CAR, 0, 0, 1, 1), (CAR, 100, 66, 101, 67), (PERSON, 50, 33, 51, 34))),
    ("border/beyond.jpg", 640, 480, ((CAR, -30, -20, 50, 40), (SIGN, 600, 400, 700, 500))),
    (EXIF_NAME, 48, 64, ((CAR, 4, 40, 30, 63),)),
    ("large/aerial.jpg", 30_000, 20_000, ((CAR, 29_990.25, 19_980.75, 30_000, 20_000), (CAR, 7, 9, 8, 10))),
    ("empty/nothing.jpg", 640, 480, ()),
)


def hard_manifest(kind: TaskKind = "image") -> Manifest:
    """The manifest of `hard_tasks`."""
    return Manifest(
        name="cycle-3 hard",
        classes=CLASSES,
        model_version="m1",
        kind=kind,
        n_tasks=len(hard_tasks(kind)),
        last_rank=len(hard_tasks(kind)),
        created="2026-01-01T00:00:00Z",
    )


def hard_tasks(kind: TaskKind = "image", root: str = WEB_ROOT) -> list[LabelingTask]:
    """One task an image, or one a box for verifications; URIs are below `root`, quoted for the web."""
    tasks = []
    for number, (name, width, height, found) in enumerate(_IMAGES, start=1):
        boxes = tuple(
            TaskBox(
                detection_id=f"{number:02d}{position:02d}ab",
                label_name=label,
                score=round(0.9 - 0.1 * position, 2),
                x1=x1,
                y1=y1,
                x2=x2,
                y2=y2,
            )
            for position, (label, x1, y1, x2, y2) in enumerate(found)
        )
        for asked in ((box,) for box in boxes) if is_question(kind) else (boxes,):
            # An id of a user's own may hold anything, a hash is plain.
            image_id = "Bild Ö:7" if number == 1 else f"{number:016x}"
            suffix = {"image": "", "boxes": "/boxes/total_fn"}.get(kind)
            suffix = f"/{asked[0].detection_id}/{kind}" if suffix is None else suffix
            tasks.append(
                LabelingTask(
                    task_id=f"cycle-3/{image_id}{suffix}",
                    image_id=image_id,
                    uri=f"{root}/{quote(name) if root.startswith('http') else name}",
                    file_name=name,
                    width=width,
                    height=height,
                    rank=len(tasks) + 1,
                    score=round(5.0 / (len(tasks) + 1), 3),
                    strategy="total_fn",
                    boxes=asked,
                    kind=kind,
                )
            )
    return tasks


def expected_images(kind: TaskKind = "image", root: str = WEB_ROOT) -> dict[str, dict[str, Any]]:
    """Task id to what a reader must find: ids, name, size, and boxes cut to the image."""
    expected = {}
    for task in hard_tasks(kind, root):
        corners = [(box, clipped_box(box, task)) for box in task.boxes]
        expected[task.task_id] = {
            "image_id": task.image_id,
            "file_name": task.file_name,
            "uri": task.uri,
            "width": task.width,
            "height": task.height,
            "rank": task.rank,
            "boxes": [
                {"detection_id": box.detection_id, "label": box.label_name, "corners": list(cut)}
                for box, cut in corners
                if cut is not None
            ],
        }
    return expected
