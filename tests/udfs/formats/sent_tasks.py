"""Tasks that are hard to carry through a labeling tool and back, and values that break careless readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from udfs.formats.task import LabelingTask, Manifest, TaskBox, TaskKind

CLASSES = ("car", 'say "hi" & <b>', "Fußgänger 行人")
NAMES = (
    "a/b/c/1.jpg",
    "a/b/d/1.jpg",
    "with space & 'quote\".jpg",
    "日本/ö <x>.png",
    "../up.JPG",
    "no_ending",
    "0.jpg",
)
HOSTILE = (
    "",
    " ",
    "nan",
    "inf",
    "-1e999",
    "1" * 400,
    "true",
    "٣",
    "1_0",
    "-5",
    "0x10",
    "\ud83d\ude00",
    "../../etc",
)


def manifest(kind: TaskKind = "image", classes: tuple[str, ...] = CLASSES) -> Manifest:
    return Manifest(
        name='cycle-3 <"fn">',
        classes=classes,
        model_version="m1",
        kind=kind,
        n_tasks=1,
        last_rank=1,
        created="2026-11-21T00:00:00Z",
    )


def example(kind: TaskKind = "image") -> LabelingTask:
    """The example of a 640 x 480 px image with one car."""
    box = TaskBox(detection_id="d1", label_name="car", score=0.62, x1=10, y1=20, x2=40, y2=60)
    return LabelingTask(
        task_id="t1",
        image_id="i1",
        uri="s3://b/dir/a.jpg",
        file_name="dir/a.jpg",
        width=640,
        height=480,
        rank=1,
        score=1.5,
        strategy="s",
        boxes=(box,),
        kind=kind,
    )


def tasks(seed: int = 7) -> list[LabelingTask]:
    """Seven images up to 30,000 px wide; boxes on the border, of one px, all over the image; one has none."""
    rng = np.random.default_rng(seed)
    result = []
    for rank, name in enumerate(NAMES, start=1):
        width, height = (30_000, 20_000) if rank == 2 else (int(rng.integers(60, 2000)), 333)
        corners = [(0.0, 0.0, float(width), float(height)), (width - 1.0, height - 1.0, width, height)]
        corners += [(-7.0, 10.5, 11.5, 11.5), (0.0, 0.0, 1.0, 1.0)]
        for _ in range(5):
            x1, y1 = rng.uniform(0, width - 20), rng.uniform(0, height - 20)
            corners.append((x1, y1, rng.uniform(x1 + 1, width), rng.uniform(y1 + 1, height)))
        boxes = tuple(
            TaskBox(
                detection_id=f"{rank}/{k}",
                label_name=CLASSES[k % 3],
                score=0.5,
                x1=float(c[0]),
                y1=float(c[1]),
                x2=float(c[2]),
                y2=float(c[3]),
            )
            for k, c in enumerate(corners)
        )
        task = replace(example(), task_id=f"cycle/{rank}", image_id=f"id-{rank}", uri=f"s3://b/{name}")
        task = replace(task, file_name=name, width=width, height=height, rank=rank)
        result.append(replace(task, boxes=boxes if rank != 4 else ()))
    return result


def questions(kind: TaskKind) -> list[LabelingTask]:
    """One question about each box of `tasks`, so several an image, those of an image not in a row."""
    found = [
        replace(task, task_id=f"{task.task_id}/{box.detection_id}", boxes=(box,), kind=kind)
        for task in tasks()
        for box in task.boxes
    ]
    return found[::2] + found[1::2]
