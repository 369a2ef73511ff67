"""Labels of the same task given more than once in a file: the newest count."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from udfs.formats.json_values import is_text
from udfs.formats.returned import RejectedItem, ReturnedImage

IS_OLDER = "a newer answer to the same task is there"
_FRACTION = re.compile(r"\.([0-9]+)")


def newest_returns(
    read: Callable[[], Iterator[ReturnedImage | RejectedItem]],
) -> Iterator[ReturnedImage | RejectedItem]:
    """The items of a file, of several labelings of one task only the newest.

    Args:
        read: Starts over at each call; called twice, so that no labels need to be held. A file that is not
            sound to its end is refused by the first reading, before anything of it is used.

    Returns:
        Rejected items as they come, and images. Those with the same name and task are rejected, all but the
        newest; all of them where several share the newest time, or have none: which holds cannot be told.
    """
    newest: dict[bytes, tuple[str, int]] = {}
    for item in read():
        if isinstance(item, ReturnedImage):
            key, time = _key(item), item.annotated_at or ""
            best, n_best = newest.get(key, ("", 0))
            if time >= best:
                newest[key] = (time, n_best + 1 if time == best else 1)
    for item in read():
        if isinstance(item, RejectedItem):
            yield item
            continue
        best, n_best = newest[_key(item)]
        is_older = (item.annotated_at or "") < best
        if n_best == 1 and not is_older:
            yield item
            continue
        reason = f"labeled {n_best} times at the same or an unknown time: which labels hold cannot be told"
        yield RejectedItem(
            kind="image",
            item_id=item.task_id or item.file_name,
            reason=IS_OLDER if is_older else reason,
            file_name=item.file_name,
        )


def utc_time(value: object) -> str | None:
    """A time as ISO 8601 text in UTC, of which the later sorts behind the earlier; None if it is no time.

    Args:
        value: ISO 8601 text with a space or a T in it; without an offset it is taken as UTC.
    """
    if not is_text(value) or not 10 <= len(value) <= 40:
        return None
    try:
        # Python 3.10 reads no Z and no fraction other than of 3 or 6 digits.
        six_digits = _FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", value.strip().removesuffix("Z"))
        time = datetime.fromisoformat(six_digits)
        time = time.replace(tzinfo=time.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return time.isoformat(timespec="microseconds")


def _key(image: ReturnedImage) -> bytes:
    names = f"{image.file_name}\0{image.task_id or ''}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(names, digest_size=16).digest()
