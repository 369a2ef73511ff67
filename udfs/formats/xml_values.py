"""XML of label files: escaped when written; parsed with limits when read, as anybody may have written it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, iterparse

from conf.errors import QuarryError
from udfs.formats.json_values import is_px
from udfs.formats.returned import NotThisFormat
from udfs.formats.shown_values import without_query

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

DEEPEST_ELEMENT = 16
LARGEST_ELEMENT_BYTES = 16 * 2**20
MOST_PARTS = 500_000
LARGEST_FILE_BYTES = 8 * 2**30
_READ_BYTES = 2**18
_NOT_XML_1_0 = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENTITY = re.compile(r"&[^;\s]*;")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")


def xml_attribute(value: str, what: str) -> str:
    """`value` with its quotes, as the value of an attribute; `what` names it in the error.

    Raises:
        QuarryError: A control or half character, which XML 1.0 cannot hold.
    """
    return quoteattr(_sound(value, what))


def xml_text(value: str, what: str) -> str:
    """`value` as the text of an element; `what` names it in the error.

    Raises:
        QuarryError: A control or half character, which XML 1.0 cannot hold.
    """
    return escape(_sound(value, what), {"\r": "&#13;"})


def top_elements(
    stream: IO[bytes], root_tag: str, tool: str, largest_bytes: int = LARGEST_FILE_BYTES
) -> Iterator[Element]:
    """Each child of the root element when it is complete; it is emptied when the next one is asked for.

    Memory holds one child, of at most `LARGEST_ELEMENT_BYTES` of text and `MOST_PARTS` elements.

    Args:
        stream: Read in small pieces, also from a decompressor.
        root_tag: Name of the root element.
        tool: Whose file it should be, for the error.
        largest_bytes: Read at most.

    Raises:
        NotThisFormat: No XML, another root, a document type or entities (which can blow up or open files),
            elements nested deeper than `DEEPEST_ELEMENT`, or more bytes than the limits allow.
    """
    bounded = _BoundedReader(stream, tool, largest_bytes)
    root, depth, n_parts = None, 0, 0
    try:
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            if event == "start":
                root = element if root is None else root
                depth, n_parts = depth + 1, n_parts + 1
                _check_start(root.tag, root_tag, depth, tool)
                bounded.check(n_parts)
                continue
            depth -= 1
            if depth == 1 and root is not None:
                yield element
                root.clear()
                bounded.n_element_bytes = n_parts = 0
    except DefusedXmlException as error:
        raise NotThisFormat(
            f"not a file of {tool}: it declares a document type or entities ({type(error).__name__}), which "
            f"are refused; expected a plain export with <{root_tag}>"
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        # Of an unknown entity the message has the name, which may be a part of a query.
        fault = _ENTITY.sub("&...;", without_query(str(error)))[:200]
        raise NotThisFormat(
            f"not a file of {tool}: not sound XML ({fault}); expected a complete file with "
            f"<{root_tag}>, export it again"
        ) from None


def xml_number(value: str | None) -> float | None:
    """The finite number of px that an attribute spells in ASCII digits, or None."""
    if value is None or not _NUMBER.fullmatch(value):
        return None
    number = float(value)
    return number if is_px(number) else None


class _BoundedReader:
    def __init__(self, stream: IO[bytes], tool: str, largest_bytes: int) -> None:
        self._stream = stream
        self._tool = tool
        self._largest_bytes = largest_bytes
        self._n_bytes = 0
        self.n_element_bytes = 0

    def read(self, _: int = -1) -> bytes:
        # The parser asks for 16 KiB and goes over an unfinished token again at each piece.
        data = self._stream.read(_READ_BYTES)
        self._n_bytes += len(data)
        self.n_element_bytes += len(data)
        self.check(0)
        return data

    def check(self, n_parts: int) -> None:
        is_large = self.n_element_bytes > LARGEST_ELEMENT_BYTES or self._n_bytes > self._largest_bytes
        if is_large or n_parts > MOST_PARTS:
            raise NotThisFormat(
                f"too large for a file of {self._tool}: expected at most {LARGEST_ELEMENT_BYTES:,} bytes and "
                f"{MOST_PARTS:,} elements an image, and {self._largest_bytes:,} bytes in all; export fewer "
                "images at a time"
            )


def _check_start(found: str, root_tag: str, depth: int, tool: str) -> None:
    if found != root_tag:
        raise NotThisFormat(
            f"not a file of {tool}: expected the root <{root_tag}>, got <{without_query(found)[:80]}>"
        )
    if depth > DEEPEST_ELEMENT:
        raise NotThisFormat(
            f"not a file of {tool}: elements are nested deeper than {DEEPEST_ELEMENT}; export it again"
        )


def _sound(value: str, what: str) -> str:
    if _NOT_XML_1_0.search(value):
        raise QuarryError(
            f"{what} {value!r}: expected text without control or half characters, which XML cannot hold; "
            "rename it or leave it out"
        )
    return value
