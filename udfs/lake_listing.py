"""Finds the image files of a partitioned lake, folder by folder, on the workers."""

from __future__ import annotations

import datetime
import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs

from conf.errors import QuarryError
from udfs.image_files import filesystem_and_path

LISTING_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.timestamp("us", tz="UTC")),
    ]
)
ROWS_PER_BATCH = 10_000
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = (".", "_")


def lake_folders(root_uri: str, at_least: int, depth: int = 4) -> list[tuple[str, bool]]:
    """Folders that together cover the lake, to be listed in parallel.

    Goes down level by level until there are enough folders; only folder names are held.

    Args:
        root_uri: Root of the lake.
        at_least: Enough folders to keep all workers busy.
        depth: Levels to go down at most.

    Returns:
        Pairs of folder URI and whether everything below it belongs to the pair (else only its own files).

    Raises:
        QuarryError: The root is not a folder, or its store does not answer.
    """
    try:
        filesystem, root = filesystem_and_path(root_uri)
        kind = filesystem.get_file_info(root).type
    except (OSError, ValueError, QuarryError) as error:
        raise QuarryError(f"lake.uri {root_uri}: cannot be opened: {str(error).splitlines()[0]}") from None
    if kind != pafs.FileType.Directory:
        raise QuarryError(f"lake.uri {root_uri}: no such folder; give the root folder of the images")
    prefix = root_uri.rstrip("/")
    shallow: list[str] = []
    frontier = [root.rstrip("/")]
    for _ in range(depth):
        if len(frontier) >= at_least:
            break
        shallow += frontier
        frontier = [sub for folder in frontier for sub in _subfolders(filesystem, folder)]
    start = len(root.rstrip("/"))
    return [(prefix + f[start:], False) for f in shallow] + [(prefix + f[start:], True) for f in frontier]


def _subfolders(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    infos = filesystem.get_file_info(pafs.FileSelector(folder))
    paths = sorted(listed_path(info) for info in infos if info.type == pafs.FileType.Directory)
    for path in paths:
        if REPLACEMENT in path:
            raise QuarryError(f"{path}: the folder's name is not UTF-8, so no table can hold it; rename it")
    return [path for path in paths if not posixpath.basename(path).startswith(HIDDEN)]


def list_batches(
    batches: Iterator[pa.RecordBatch], root_uri: str, extensions: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    """Image files of folders; mapInArrow-shaped.

    Args:
        batches: Columns `folder` (string URI) and `recursive` (bool).
        root_uri: Root of the lake; `path` is relative to it.
        extensions: File endings without dot, any case.

    Yields:
        Batches of LISTING_SCHEMA; hidden names (leading `.` or `_`) are skipped.
    """
    endings = tuple(f".{extension.lower()}" for extension in extensions)
    for batch in batches:
        for folder, recursive in zip(
            batch.column("folder").to_pylist(), batch.column("recursive").to_pylist(), strict=True
        ):
            yield from _listed(folder, recursive, root_uri.rstrip("/"), endings)


def _listed(
    folder: str, recursive: bool, root_uri: str, endings: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    filesystem, path = filesystem_and_path(folder)
    base = path.rstrip("/")
    rows: list[tuple[str, str, int, datetime.datetime]] = []
    for info in filesystem.get_file_info(pafs.FileSelector(base, recursive=recursive)):
        relative = listed_path(info)[len(base) + 1 :]
        hidden = any(part.startswith(HIDDEN) for part in relative.split("/"))
        if info.type != pafs.FileType.File or hidden or not relative.lower().endswith(endings):
            continue
        uri = f"{folder}/{relative}"
        rows.append((uri, uri[len(root_uri) + 1 :], info.size, info.mtime))
        if len(rows) >= ROWS_PER_BATCH:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def listed_path(info: pafs.FileInfo) -> str:
    """The file's path; a name that is not UTF-8 is one no table can hold, so its file will be missing."""
    try:
        return str(info.path)
    except UnicodeDecodeError as error:
        name: bytes = error.object
        return name.decode("utf-8", "replace")  # with REPLACEMENT


def _batch(rows: list[tuple[str, str, int, datetime.datetime]]) -> pa.RecordBatch:
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*rows, strict=True), LISTING_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LISTING_SCHEMA)


def partition_values(path: str) -> dict[str, str]:
    """The key=value folders of a path, in order: ``a=1/b=2/x.jpg`` gives ``{"a": "1", "b": "2"}``."""
    pairs = (folder.partition("=") for folder in posixpath.dirname(path).split("/"))
    return {key: value for key, separator, value in pairs if separator and key}
