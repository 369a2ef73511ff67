"""The label files that a path or URI names, and the identity of an import of them."""

from __future__ import annotations

from functools import partial

import pyarrow.fs as pafs
from pyspark import StorageLevel
from pyspark.sql import DataFrame

from conf.errors import QuarryError
from pipelines.local_frame import local_frame
from pipelines.run import Run
from udfs.formats.registry import FORMATS
from udfs.image_files import filesystem_and_path
from udfs.label_files import import_id_batches, label_file_batches
from udfs.published_file import file_digest_batches


def label_files(run: Run, labels_uri: str, form: str) -> tuple[DataFrame, int]:
    """The files of a format that a path or URI names, itself or all below it, and their number.

    A worker lists a folder: there may be a file an image.

    Returns:
        Column `uri`, persisted where it is a listing, and how many rows it has.

    Raises:
        QuarryError: Nothing is there, or no such file in it.
    """
    filesystem, path = filesystem_and_path(labels_uri)
    kind = filesystem.get_file_info(path).type
    if kind == pafs.FileType.File:
        return local_frame(run.store.session, [(labels_uri,)], "uri STRING"), 1
    if kind != pafs.FileType.Directory:
        raise QuarryError(f"labels {labels_uri}: no such file or folder")
    suffixes = FORMATS[form].suffixes
    folder = local_frame(run.store.session, [(labels_uri,)], "folder STRING").coalesce(1)
    listed = folder.mapInArrow(partial(label_file_batches, suffixes=suffixes), "uri STRING")
    listed = listed.persist(StorageLevel.DISK_ONLY)
    n_files = listed.count()
    if n_files == 0:
        raise QuarryError(f"labels {labels_uri}: no {' or '.join(suffixes)} file in it")
    return listed, n_files


def import_id_of(files: DataFrame, read_as: tuple[object, ...]) -> str:
    """Identity of an import: the files' content, wherever they lie, and how they are read.

    Args:
        files: Column `uri`.
        read_as: See `import_id_batches`.
    """
    digests = files.mapInArrow(file_digest_batches, "sha256 STRING")
    # One task hashes all digests, 64 bytes a file: Spark sorts them on disk where memory is short.
    digests = digests.repartition(1).sortWithinPartitions("sha256")
    row = digests.mapInArrow(partial(import_id_batches, read_as=read_as), "import_id STRING").first()
    assert row is not None
    return str(row.import_id)
