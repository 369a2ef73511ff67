"""Files of manifests, each streamed by the Spark task that holds its rows; mapInArrow-shaped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from conf.errors import QuarryError
from udfs.formats.registry import FORMATS
from udfs.formats.task import LabelingTask, Manifest, TaskBox
from udfs.published_file import file_sha256, published
from udfs.sent_uris import SentUris

FILE_SCHEMA = pa.schema(
    [
        ("strategy", pa.string()),
        ("vendor", pa.string()),
        ("file_name", pa.string()),
        ("n_tasks", pa.int64()),
        ("n_images", pa.int64()),
        ("n_boxes", pa.int64()),
        ("cost_s", pa.float64()),
        ("cost_money", pa.float64()),
        ("sha256", pa.string()),
    ]
)
# What a task and a box take at most in any format, beyond the texts they hold.
TASK_BYTES, BOX_BYTES, ASCII_GROWTH = 1_500, 700, 6
_NOT_IN_FILE_NAMES = re.compile(r"[^\w.-]", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ManifestJob:
    """What every task of an export knows.

    Attributes:
        folders: Strategy and format to the folder its files go to.
        manifests: Strategy to what its tasks share.
        uris: How image URIs are rewritten.
        most_tasks: In a file.
        largest_bytes: Of a file; a task that is larger has a file of its own.
    """

    folders: Mapping[tuple[str, str], str]
    manifests: Mapping[str, Manifest]
    uris: SentUris
    most_tasks: int
    largest_bytes: float


@dataclass
class _Totals:
    n_images: int = 0
    cost_s: float | None = None
    cost_money: float | None = None
    seen: set[bytes] = field(default_factory=set)

    def note(self, row: Mapping[str, Any]) -> None:
        self.seen.add(hashlib.blake2b(row["image_id"].encode(), digest_size=12).digest())
        for name in ("cost_s", "cost_money"):
            if row[name] is not None:
                setattr(self, name, (getattr(self, name) or 0.0) + row[name])


def manifest_file_batches(batches: Iterable[pa.RecordBatch], job: ManifestJob) -> Iterator[pa.RecordBatch]:
    """A row for each file written.

    Args:
        batches: Tasks, those of one strategy, vendor and shard together and by rising rank and task_id.
            Columns strategy, vendor, shard, task_id, image_id, uri, path, width, height, rank, score, cost_s,
            cost_money and boxes (structs of a `TaskBox`).
        job: The same for every task of the export.

    Yields:
        Batches of FILE_SCHEMA; `n_images` counts images once per file, costs are null when not known.

    Raises:
        QuarryError: A task that its labeling tool would refuse or mix up.
    """
    rows = _with_parts(_rows(batches, job.uris), job)
    for (strategy, vendor, shard, part), group in groupby(rows, key=lambda item: item[0]):
        form = FORMATS[vendor]
        assert form.write is not None
        manifest = job.manifests[strategy]
        number = f"{shard + 1:05d}" + (f"-{part}" if part else "")
        file_name = f"tasks-{number}{form.suffixes[0]}"
        path = f"{job.folders[strategy, vendor]}/{file_name}"
        totals = _Totals()
        tasks = (_task(row, manifest, totals) for _, row in group)
        with published(path) as stream:
            counts = form.write(stream, tasks, manifest)
        written = {
            "strategy": strategy,
            "vendor": vendor,
            "file_name": file_name,
            "n_tasks": counts.n_tasks,
            "n_images": len(totals.seen),
            "n_boxes": counts.n_boxes,
            "cost_s": totals.cost_s,
            "cost_money": totals.cost_money,
            "sha256": file_sha256(path),
        }
        yield pa.RecordBatch.from_pylist([written], schema=FILE_SCHEMA)


def folder_names(strategies: Iterable[str]) -> dict[str, str]:
    """A folder name for each strategy, distinct also where letter case is not told apart.

    Raises:
        QuarryError: Two strategies differ only in characters that file names do not hold.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for strategy in strategies:
        name = _NOT_IN_FILE_NAMES.sub("-", strategy).lstrip(".") or "-"
        other = taken.setdefault(name.lower(), strategy)
        if other != strategy:
            raise QuarryError(
                f"strategies {other!r} and {strategy!r} would share the folder {name!r}: rename one, or "
                "export one at a time (setting export.strategies) to different folders (export.folder)"
            )
        names[strategy] = name
    return names


def _rows(batches: Iterable[pa.RecordBatch], uris: SentUris) -> Iterator[dict[str, Any]]:
    for batch in batches:
        rows = batch.to_pylist()
        known = [row for row in rows if row["uri"] is not None]
        sent = uris.rewritten([(row["uri"], row["path"], row["image_id"]) for row in known])
        for row, uri in zip(known, sent, strict=True):
            row["uri"] = uri
        yield from rows


def _with_parts(
    rows: Iterable[dict[str, Any]], job: ManifestJob
) -> Iterator[tuple[tuple[str, str, int, int], dict[str, Any]]]:
    """Rows with the file they belong to: a shard goes on in another part before it grows too large."""
    current: tuple[str, str, int] | None = None
    part = n_tasks = n_bytes = 0
    for row in rows:
        shard = (row["strategy"], row["vendor"], row["shard"])
        grown = _most_bytes(row, job.manifests[row["strategy"]])
        if shard != current:
            current, part, n_tasks, n_bytes = shard, 0, 0, 0
        elif n_tasks == job.most_tasks or n_bytes + grown > job.largest_bytes:
            part, n_tasks, n_bytes = part + 1, 0, 0
        n_tasks, n_bytes = n_tasks + 1, n_bytes + grown
        yield (*shard, part), row


def _most_bytes(row: Mapping[str, Any], manifest: Manifest) -> int:
    """What no format exceeds; some repeat the classes in every task."""
    texts = 3 * sum(len(row[name] or "") for name in ("uri", "path", "image_id", "task_id"))
    texts += 2 * sum(map(len, manifest.classes)) + len(manifest.name)
    labels = sum(BOX_BYTES + ASCII_GROWTH * 2 * len(box["label_name"]) for box in row["boxes"] or ())
    return TASK_BYTES + ASCII_GROWTH * texts + labels


def _task(row: Mapping[str, Any], manifest: Manifest, totals: _Totals) -> LabelingTask:
    totals.note(row)
    if row["uri"] is None or row["width"] is None or row["height"] is None:
        raise QuarryError(
            f"image {row['image_id']!r}: its place or size is not known ({row['width']} x {row['height']} "
            "px); run `quarry ingest` and `quarry detect` first"
        )
    return LabelingTask(
        task_id=row["task_id"],
        image_id=row["image_id"],
        uri=row["uri"],
        file_name=row["path"],
        width=row["width"],
        height=row["height"],
        rank=row["rank"],
        score=row["score"],
        strategy=row["strategy"],
        boxes=tuple(TaskBox(**box) for box in row["boxes"] or ()),
        kind=manifest.kind,
    )
