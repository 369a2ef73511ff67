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
PLACE_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("sequence_id", pa.string()), ("frame_index", pa.int32())]
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


def place_batches(batches: Iterator[pa.RecordBatch], sequence_pattern: str) -> Iterator[pa.RecordBatch]:
    """Where in which video every listed image is, by its path; no file is opened. mapInArrow-shaped.

    Args:
        batches: Columns image_id and path.
        sequence_pattern: As for `header_batches`.

    Yields:
        Batches of PLACE_SCHEMA, one row per input row; nulls where the pattern does not match.

    Raises:
        QuarryError: As for `header_batches`.
    """
    pattern = re.compile(sequence_pattern)
    for batch in batches:
        places = [_place(path, pattern) for path in batch.column("path").to_pylist()]
        columns = [pa.array([place[name] for place in places]) for name in PLACE_SCHEMA.names[1:]]
        rows = [batch.column("image_id"), *columns]
        arrays = [column.cast(field.type) for column, field in zip(rows, PLACE_SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=PLACE_SCHEMA)


def _header_row(
    listed: dict[str, object], dataset: str, pattern: re.Pattern[str] | None, max_pixels: int
) -> dict[str, object]:
    path = str(listed["path"])
    partitions = partition_values(path)
    row = dict(listed) | {
        "dataset": partitions.get("dataset", dataset),
        "partitions": list(partitions.items()),
    }
    if pattern:
        row |= _place(path, pattern)
    try:
        row["width"], row["height"] = header_size_wh(str(listed["uri"]), max_pixels)
    except ImageFault as fault:
        row |= {"error_class": fault.error_class, "message": fault.message}
    return row


def _place(path: str, pattern: re.Pattern[str]) -> dict[str, str | int | None]:
    found = pattern.search(path)
    if found is None:
        return {"sequence_id": None, "frame_index": None}
    return {"sequence_id": found["sequence"], "frame_index": _frame_index(found["frame"], path)}


def _frame_index(text: str | None, path: str) -> int:
    if text is None or not text.isdecimal() or int(text) > MAX_FRAME_INDEX:
        raise QuarryError(
            f"lake.sequence_pattern: expected the group `frame` to catch a whole number up to "
            f"{MAX_FRAME_INDEX}, got {text!r} in {path}"
        )
    return int(text)
