"""Writes a text file, or a folder of them, so that others see it whole or not at all."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

import pyarrow as pa
import pyarrow.fs as pafs

from conf.errors import QuarryError
from udfs.image_files import filesystem_and_path

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
CHUNK_BYTES = 1 << 20
PUBLISH_TRIES = 5


@contextmanager
def published(uri: str) -> Iterator[IO[str]]:
    """A text stream whose content appears at `uri` only when the block ends without an error.

    Object stores get the whole file from a local temporary one, because closing their streams publishes what
    is there, also after an error; file systems get a file beside the target, then a rename.

    Args:
        uri: Path or URI of the file; folders are made.

    Raises:
        QuarryError: The place cannot be written to, or no more fits.
    """
    filesystem, path = filesystem_and_path(uri)
    writing = _uploaded if filesystem.type_name in OBJECT_STORES else _renamed
    try:
        with writing(filesystem, path) as raw:
            stream = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
            try:
                yield stream
            finally:
                stream.detach()
    except OSError as error:
        raise QuarryError(
            f"{uri}: cannot be written: {_first_line(error)}; make room there, or give another place"
        ) from None


@contextmanager
def _uploaded(filesystem: pafs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        yield spool
        spool.seek(0)
        with filesystem.open_output_stream(path) as target:
            shutil.copyfileobj(spool, target, CHUNK_BYTES)


@contextmanager
def _renamed(filesystem: pafs.FileSystem, path: str) -> Iterator[IO[bytes]]:
    filesystem.create_dir(path.rpartition("/")[0] or ".", recursive=True)
    part = f"{path}.{uuid.uuid4().hex}.part"  # a task and its second try may write at once
    try:
        with filesystem.open_output_stream(part) as target:
            yield target
        filesystem.move(part, path)
    except BaseException:
        with suppress(OSError):  # it may never have been there
            filesystem.delete_file(part)
        raise


def move_file(old: str, new: str) -> None:
    """Gives a file another name; object stores copy it and then delete the old one.

    Raises:
        QuarryError: It cannot be moved.
    """
    (filesystem, source), (_, target) = filesystem_and_path(old), filesystem_and_path(new)
    try:
        if filesystem.type_name in OBJECT_STORES:
            filesystem.copy_file(source, target)
            filesystem.delete_file(source)
        else:
            filesystem.move(source, target)
    except OSError as error:
        raise QuarryError(f"{old}: cannot be moved to {new}: {_first_line(error)}") from None


def file_sha256(uri: str) -> str:
    """SHA-256 of a file's bytes, hexadecimal.

    Raises:
        QuarryError: It cannot be read.
    """
    filesystem, path = filesystem_and_path(uri)
    digest = hashlib.sha256()
    try:
        with filesystem.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise QuarryError(f"{uri}: cannot be read: {_first_line(error)}") from None
    return digest.hexdigest()


def _first_line(error: OSError) -> str:
    return str(error).partition("\n")[0]


def file_digest_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The SHA-256 of each file named in column `uri`, as column `sha256`; mapInArrow-shaped."""
    for batch in batches:
        digests = [file_sha256(uri) for uri in batch.column("uri").to_pylist()]
        yield pa.RecordBatch.from_pydict({"sha256": pa.array(digests, pa.string())})


def renames(uri: str) -> bool:
    """Whether folders at `uri` can be published by `replace_folder`: object stores have no rename."""
    return filesystem_and_path(uri)[0].type_name not in OBJECT_STORES


def replace_folder(staged: str, final: str) -> None:
    """Moves a folder to its place; what was there goes away. Both are on one file system that renames.

    Killed at any moment it leaves the old folder, the new one or none, never a mixture.

    Args:
        staged: The folder, complete; while it is moved, what it replaces lies beside it as `.old`.
        final: Its place; folders above are made.
    """
    filesystem, source = filesystem_and_path(staged)
    _, target = filesystem_and_path(final)
    filesystem.create_dir(target.rpartition("/")[0] or ".", recursive=True)
    for attempt in range(PUBLISH_TRIES):
        old = f"{source}.{attempt}.old"
        if filesystem.get_file_info(target).type != pafs.FileType.NotFound:
            filesystem.move(target, old)
        try:
            filesystem.move(source, target)
        except OSError:  # another job put its own there in between
            if attempt == PUBLISH_TRIES - 1:
                raise
            continue
        break
    for attempt in range(PUBLISH_TRIES):
        remove_folder(f"{staged}.{attempt}.old")


def remove_files(uri: str, names: re.Pattern[str], *, keep: Container[str] = ()) -> None:
    """Deletes the files right in a folder whose whole name matches, but for those to keep."""
    filesystem, path = filesystem_and_path(uri)
    for info in filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        is_meant = names.fullmatch(info.base_name) and info.base_name not in keep
        if is_meant and info.type == pafs.FileType.File:
            filesystem.delete_file(info.path)


def remove_abandoned(uri: str, names: re.Pattern[str], *, older_than_s: float) -> None:
    """Deletes the folders right in a folder whose whole name matches and which nobody works on any more.

    Args:
        uri: The folder; it need not be there. On a file system that knows when files were changed.
        names: Of the folders in it.
        older_than_s: Neither the folder nor anything in it was changed in this time; in seconds.
    """
    filesystem, path = filesystem_and_path(uri)
    for folder in filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)):
        if folder.type != pafs.FileType.Directory or not names.fullmatch(folder.base_name):
            continue
        inside = filesystem.get_file_info(
            pafs.FileSelector(folder.path, recursive=True, allow_not_found=True)
        )
        newest = max(info.mtime_ns or 0 for info in [folder, *inside])
        if time.time() - newest / 1e9 > older_than_s:
            with suppress(FileNotFoundError):  # another job may clear up as well
                filesystem.delete_dir(folder.path)


def remove_folder(uri: str) -> None:
    """Deletes a folder with all in it, if it is there."""
    filesystem, path = filesystem_and_path(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)
