"""All formats by name: what the exporter writes and the importer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from udfs.formats.coco import read_coco, write_coco
from udfs.formats.label_studio import write_label_studio
from udfs.formats.label_studio_interface import label_studio_companions
from udfs.formats.label_studio_returns import read_label_studio
from udfs.formats.returned import RejectedItem, ReturnedImage
from udfs.formats.task import LabelingTask, Manifest, ManifestCounts, TaskKind

Write = Callable[[IO[str], Iterable[LabelingTask], Manifest], ManifestCounts]
Companions = Callable[[Manifest], dict[str, str]]
Read = Callable[[IO[bytes]], Iterator[ReturnedImage | RejectedItem]]


def _no_companions(_: Manifest) -> dict[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class LabelFormat:
    """One file format of a labeling tool.

    Attributes:
        name: As in settings and in `manifests.vendor`.
        tool: What people call it.
        suffixes: Of its files; those written get the first one.
        write: Writes one file of tasks; None for formats that are only read.
        kinds: Kinds of tasks `write` takes.
        companions: Name to content of the files that go with a manifest: labeling interface, class map.
        read: Yields what one returned file holds, streaming where the format allows it; raises NotThisFormat
            for a file that is something else. None for formats that are only written.
    """

    name: str
    tool: str
    suffixes: tuple[str, ...]
    write: Write | None = None
    kinds: frozenset[TaskKind] = frozenset({"image"})
    companions: Companions = _no_companions
    read: Read | None = None


_ALL = (
    LabelFormat(name="coco", tool="COCO", suffixes=(".json",), write=write_coco, read=read_coco),
    LabelFormat(
        name="label_studio",
        tool="Label Studio",
        suffixes=(".json",),
        write=write_label_studio,
        kinds=frozenset({"image", "verify_box", "verify_class"}),
        companions=label_studio_companions,
        read=read_label_studio,
    ),
)
FORMATS = {form.name: form for form in _ALL}
