"""The files of a label folder, and the identity of what is in them; mapInArrow-shaped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.fs as pafs

from udfs.image_files import filesystem_and_path
from udfs.lake_listing import listed_path

ROWS_PER_BATCH = 10_000


def label_file_batches(
    batches: Iterable[pa.RecordBatch], suffixes: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    """The files below the folders of column `folder` that end in one of `suffixes`, as column `uri`.

    Names with a leading `_` count, as tools choose them (`_annotations.coco.json`).
    """
    for batch in batches:
        for folder in batch.column("folder").to_pylist():
            filesystem, path = filesystem_and_path(folder)
            base = path.rstrip("/")
            infos = filesystem.get_file_info(pafs.FileSelector(base, recursive=True))
            found = (
                folder.rstrip("/") + listed_path(info)[len(base) :]
                for info in infos
                if info.type == pafs.FileType.File
            )
            uris = [uri for uri in found if uri.endswith(suffixes)]
            for start in range(0, len(uris), ROWS_PER_BATCH):
                part = pa.array(uris[start : start + ROWS_PER_BATCH], pa.string())
                yield pa.RecordBatch.from_pydict({"uri": part})


def import_id_batches(
    batches: Iterable[pa.RecordBatch], read_as: tuple[object, ...]
) -> Iterator[pa.RecordBatch]:
    """One row with the `import_id` of files: 16 hexadecimal characters of a SHA-256 over all digests.

    A batch is forgotten before the next comes, so the number of files costs no memory.

    Args:
        batches: Column `sha256`, the digest of each file, sorted over all batches; a file that is there twice
            counts twice.
        read_as: What else makes it another import, in a form whose `repr` is its identity.
    """
    # The text is repr([digests, *read_as]): imports of earlier versions keep their id.
    whole = hashlib.sha256(b"[[")
    between = ""
    for batch in batches:
        for digest in batch.column("sha256").to_pylist():
            whole.update(f"{between}{digest!r}".encode())
            between = ", "
    whole.update(f"], {repr(list(read_as))[1:]}".encode())
    yield pa.RecordBatch.from_pydict({"import_id": pa.array([whole.hexdigest()[:16]], pa.string())})
