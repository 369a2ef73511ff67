"""SQL text as statements: split at `;` outside quotes and comments."""

from __future__ import annotations

import re

# An open quote or comment reaches to the end: what follows may close it on a later line.
_TOKEN = re.compile(
    r"""\b[rR]'[^']*(?:'|\Z)|\b[rR]"[^"]*(?:"|\Z)"""  # raw strings have no escapes
    r"""|'(?:\\.|[^'\\])*(?:'|\Z)|"(?:\\.|[^"\\])*(?:"|\Z)|`[^`]*(?:`|\Z)"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z)|;""",
    re.DOTALL,
)
_NOTHING = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*", re.DOTALL)


def split_statements(text: str) -> tuple[list[str], str]:
    """The statements that end with `;`, and the rest.

    Args:
        text: Any number of statements. What is only space or comment is none.

    Returns:
        Statements without their `;`, and what follows the last; empty where that is no statement.
    """
    ends = [token.start() for token in _TOKEN.finditer(text) if token[0] == ";"]
    starts = [0, *(end + 1 for end in ends)]
    parts = [text[start:end].strip() for start, end in zip(starts, [*ends, len(text)], strict=True)]
    *whole, rest = ["" if _NOTHING.fullmatch(part) else part for part in parts]
    return [part for part in whole if part], rest
