"""The newest answer of each task where a file holds several: times compared, ties turned down."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from udfs.formats.json_values import is_text, shown
from udfs.formats.returned import RejectedItem, ReturnedImage

_ISO_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:(Z)|([+-]\d\d):?(\d\d))?", re.ASCII
)


def iso_time(value: Any) -> str | None:
    """The value when it is a date and time of ISO 8601, else None; without an offset it means UTC."""
    return value if is_text(value) and _moment(value) is not None else None


def newest_of_each(
    items: Iterable[tuple[Hashable, ReturnedImage] | RejectedItem],
) -> Iterator[ReturnedImage | RejectedItem]:
    """One image of each key, the one labeled last, in the order in which keys came first.

    Args:
        items: Images with what says that two answer the same task, and rejected items, which pass at once.

    Returns:
        The images, and a rejected item for each key with several images whose times do not say which is the
        newest.
    """
    answers: dict[Hashable, list[ReturnedImage]] = {}
    for item in items:
        if isinstance(item, RejectedItem):
            yield item
        else:
            answers.setdefault(item[0], []).append(item[1])
    for images in answers.values():
        yield _newest(images)


def _newest(images: list[ReturnedImage]) -> ReturnedImage | RejectedItem:
    if all(image == images[0] for image in images):
        return images[0]
    moments = [moment for image in images if (moment := _moment(image.annotated_at or "")) is not None]
    if len(moments) == len(images) and moments.count(max(moments)) == 1:
        return images[moments.index(max(moments))]
    name = images[0].file_name
    return RejectedItem(
        kind="image",
        item_id=images[0].task_id or name,
        reason=f"{len(images)} different labels of {shown(name)} in this file and no time that says which "
        "is the newest; export the label to use alone",
        file_name=name,
    )


def _moment(text: str) -> datetime | None:
    match = _ISO_TIME.fullmatch(text)
    if match is None:
        return None
    day, clock, fraction, _, hours, minutes = match.groups()
    offset = f"{hours}:{minutes}" if hours else "+00:00"
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}{offset}")
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
