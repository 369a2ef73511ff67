"""Headers of image files: sizes, partition values and sequence position, one Arrow row an image."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from conf.errors import QuarryError
from udfs.image_files import ImageFault, header_size_wh
from udfs.lake_listing import partition_values

HEADER_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("path", pa.string()),
        ("dataset", pa.string()),
        ("partitions", pa.map_(pa.string(), pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sequence_id", pa.string()),
        ("frame_index", pa.int32()),
        ("size_bytes", pa.int64()),
        ("mtime", pa.timestamp("us", tz="UTC")),
        ("error_class", pa.string()),
        ("message", pa.string()),
    ]
)
ROWS_PER_BATCH = 256
MAX_FRAME_INDEX = 2**31 - 1


def header_batches(
    batches: Iterator[pa.RecordBatch], dataset: str, sequence_pattern: str | None, max_pixels: int
) -> Iterator[pa.RecordBatch]:
    """Reads the header of every listed image; mapInArrow-shaped.

    Args:
        batches: Columns image_id, uri, path, size_bytes, mtime.
        dataset: Dataset name where the path has no dataset= folder.
        sequence_pattern: Regular expression on the path with groups `sequence` and `frame`, or none.
        max_pixels: Larger images are faults.

    Yields:
        Batches of HEADER_SCHEMA, one row per input row: either width and height, or error_class and message.

    Raises:
        QuarryError: The pattern's group `frame` caught something else than a frame number.
    """
    pattern = re.compile(sequence_pattern) if sequence_pattern else None
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_PER_BATCH):
            rows = [
                _header_row(row, dataset, pattern, max_pixels)
                for row in batch.slice(start, ROWS_PER_BATCH).to_pylist()
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=HEADER_SCHEMA)


def _header_row(
    listed: dict[str, object], dataset: str, pattern: re.Pattern[str] | None, max_pixels: int
) -> dict[str, object]:
    path = str(listed["path"])
    partitions = partition_values(path)
    row = dict(listed) | {
        "dataset": partitions.get("dataset", dataset),
        "partitions": list(partitions.items()),
    }
    found = pattern.search(path) if pattern else None
    if found:
        row |= {"sequence_id": found["sequence"], "frame_index": _frame_index(found["frame"], path)}
    try:
        row["width"], row["height"] = header_size_wh(str(listed["uri"]), max_pixels)
    except ImageFault as fault:
        row |= {"error_class": fault.error_class, "message": fault.message}
    return row


def _frame_index(text: str | None, path: str) -> int:
    if text is None or not text.isdecimal() or int(text) > MAX_FRAME_INDEX:
        raise QuarryError(
            f"lake.sequence_pattern: expected the group `frame` to catch a whole number up to "
            f"{MAX_FRAME_INDEX}, got {text!r} in {path}"
        )
    return int(text)
