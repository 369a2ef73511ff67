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
from udfs.formats.registry import FORMATS, LabelFormat
from udfs.formats.task import LabelingTask, Manifest, TaskBox
from udfs.published_file import file_sha256, move_file, published
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
# Also of those that an earlier version or a task that was killed left behind.
TASK_FILES = re.compile(r"tasks-[0-9]+(-[0-9]+)?\..+")
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
    files = groupby(rows, key=lambda item: item[0])
    for (strategy, vendor, shard), parts in groupby(files, key=lambda file: file[0][:3]):
        folder = job.folders[strategy, vendor]
        names: list[str] = []
        written = []
        for (*_, part), group in parts:
            names.append(file_name(vendor, shard, part if part else None))
            tasks = (row for _, row in group)
            counts = _written(f"{folder}/{names[-1]}", tasks, FORMATS[vendor], job.manifests[strategy])
            written.append({"strategy": strategy, "vendor": vendor, **counts})
        if len(names) > 1:  # before the second began, nobody knew
            was, names[0] = names[0], file_name(vendor, shard, 0)
            move_file(f"{folder}/{was}", f"{folder}/{names[0]}")
        named = [{**row, "file_name": name} for row, name in zip(written, names, strict=True)]
        yield pa.RecordBatch.from_pylist(named, schema=FILE_SCHEMA)


def file_name(vendor: str, shard: int, part: int | None) -> str:
    """Name of a file of tasks; in the order of their names the files of a manifest go by rank.

    Only digits of one length are compared, so that every way to sort names agrees: all files of a shard that
    is split have the number of their part.

    Args:
        vendor: The format.
        shard: From 0.
        part: Of the shard, from 0; None where all of it is one file.
    """
    number = f"{shard + 1:05d}" + ("" if part is None else f"-{part + 1:05d}")
    return f"tasks-{number}{FORMATS[vendor].suffixes[0]}"


def _written(
    path: str, rows: Iterable[Mapping[str, Any]], form: LabelFormat, manifest: Manifest
) -> dict[str, Any]:
    """Writes a file and says what is in it."""
    assert form.write is not None
    totals = _Totals()
    with published(path) as stream:
        counts = form.write(stream, (_task(row, manifest, totals) for row in rows), manifest)
    return {
        "n_tasks": counts.n_tasks,
        "n_images": len(totals.seen),
        "n_boxes": counts.n_boxes,
        "cost_s": totals.cost_s,
        "cost_money": totals.cost_money,
        "sha256": file_sha256(path),
    }


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
