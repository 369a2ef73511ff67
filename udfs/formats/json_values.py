"""JSON of label files, which anybody may have written: parsed with limits, values checked before use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO, Any, TypeGuard

from udfs.formats.returned import NotThisFormat, RejectedItem

LARGEST_PX = 1e9
LARGEST_SIDE_PX = 2**31 - 1
LONGEST_LINE_BYTES = 64 * 2**20
LARGEST_DOCUMENT_BYTES = 8 * 2**30  # all of it is held in memory
_BLANKS_AND_BOM = b" \t\r\n\xef\xbb\xbf"
_ZIP = b"PK\x03\x04"


def json_document(stream: IO[bytes]) -> Any:
    """The value a JSON file holds.

    Args:
        stream: Seekable; it is read from where it stands, unless it is too large.

    Raises:
        NotThisFormat: Not UTF-8, not JSON, a zip archive, nested too deeply, or larger than
            `LARGEST_DOCUMENT_BYTES`.
    """
    _require_no_zip(stream)
    start = stream.tell()
    n_bytes = stream.seek(0, io.SEEK_END) - start
    if n_bytes > LARGEST_DOCUMENT_BYTES:
        raise NotThisFormat(
            f"too large for one JSON value: expected at most {LARGEST_DOCUMENT_BYTES:,} bytes, got "
            f"{n_bytes:,}; split the file, or export fewer images at a time"
        )
    stream.seek(start)
    return _parsed(stream.read())


def json_lines(stream: IO[bytes]) -> Iterator[tuple[int, Any] | RejectedItem]:
    """Each line of a JSON Lines file as its number and value, and lines that are no JSON; blanks are skipped.

    Args:
        stream: Seekable; read line by line, one line is held at a time.

    Raises:
        NotThisFormat: A zip archive.
    """
    _require_no_zip(stream)
    number = 0
    while line := stream.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > LONGEST_LINE_BYTES:
            yield _rejected_line(number, f"longer than {LONGEST_LINE_BYTES:,} bytes")
            while not line.endswith(b"\n") and (line := stream.readline(LONGEST_LINE_BYTES)):
                pass
            continue
        if not line.strip():
            continue
        try:
            yield number, _parsed(line)
        except NotThisFormat as error:
            yield _rejected_line(number, str(error))


def json_items(stream: IO[bytes]) -> Iterator[tuple[int, Any] | RejectedItem]:
    """Each item of a JSON array, each line of a JSON Lines file, or the one value that spans several lines.

    Args:
        stream: Seekable, read from its start. An array is read whole; lines are held one at a time.

    Raises:
        NotThisFormat: An array, or a value that spans lines, that is no JSON; a zip archive.
    """
    stream.seek(0)
    while (first := stream.readline(LONGEST_LINE_BYTES)) and not first.strip(_BLANKS_AND_BOM):
        pass
    opening = first.strip(_BLANKS_AND_BOM)
    stream.seek(0)
    if opening.startswith(b"[") or opening == b"{":
        document = json_document(stream)
        yield from enumerate(document if isinstance(document, list) else [document], start=1)
    else:
        yield from json_lines(stream)


def _require_no_zip(stream: IO[bytes]) -> None:
    start = stream.tell()
    if stream.read(len(_ZIP)) == _ZIP:
        raise NotThisFormat("a zip archive, not JSON: unpack it and give the JSON file that is in it")
    stream.seek(start)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NotThisFormat(
            f"not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from None
    except RecursionError:
        raise NotThisFormat("not JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise NotThisFormat(f"not JSON: {str(error).splitlines()[0][:200]}") from None


def _rejected_line(number: int, reason: str) -> RejectedItem:
    return RejectedItem(kind="image", item_id=f"line {number}", reason=reason)


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_whole(value: Any) -> TypeGuard[int]:
    """An integer, or one written as 3.0 by tools that keep numbers in float columns; equal as a key."""
    return is_integer(value) or (isinstance(value, float) and value.is_integer())


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is a string a table can hold: JSON can spell half a character."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode("utf-8") == value


def is_px(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number no image is too small for; NaN, infinite and endless numbers are none."""
    # A comparison also refuses NaN and integers too long for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_PX


def is_side(value: Any) -> TypeGuard[int]:
    """Whether it can be the width or height of an image in px."""
    return is_integer(value) and 1 <= value <= LARGEST_SIDE_PX


def compact_json(value: Any) -> str:
    """The value as one line of pure ASCII; NaN is an error."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
