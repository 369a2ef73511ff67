"""All formats by name: what the exporter writes and the importer reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, get_args

from udfs.formats.coco import coco_companions, read_coco, write_coco
from udfs.formats.cvat import cvat_companions, write_cvat, write_cvat_manifest
from udfs.formats.cvat_returns import read_cvat
from udfs.formats.ground_truth import ground_truth_companions, write_ground_truth
from udfs.formats.ground_truth_returns import read_ground_truth
from udfs.formats.label_studio import write_label_studio
from udfs.formats.label_studio_interface import label_studio_companions
from udfs.formats.label_studio_returns import read_label_studio
from udfs.formats.labelbox import (
    labelbox_metadata,
    labelbox_ontology,
    write_labelbox,
    write_labelbox_data_rows,
)
from udfs.formats.labelbox_returns import read_labelbox
from udfs.formats.returned import RejectedItem, ReturnedImage
from udfs.formats.scale import scale_project, write_scale
from udfs.formats.scale_returns import read_scale
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
    kinds: frozenset[TaskKind] = frozenset({"image", "boxes"})
    companions: Companions = _no_companions
    read: Read | None = None


_EVERY_KIND: frozenset[TaskKind] = frozenset(get_args(TaskKind))
_ALL = (
    LabelFormat(
        name="coco",
        tool="COCO",
        suffixes=(".json",),
        write=write_coco,
        companions=coco_companions,
        read=read_coco,
    ),
    LabelFormat(
        name="cvat",
        tool="CVAT",
        suffixes=(".xml", ".zip"),
        write=write_cvat,
        kinds=_EVERY_KIND,
        companions=cvat_companions,
        read=read_cvat,
    ),
    LabelFormat(
        name="cvat_manifest",
        tool="CVAT",
        suffixes=(".jsonl",),
        write=write_cvat_manifest,
        kinds=_EVERY_KIND,
    ),
    LabelFormat(
        name="ground_truth",
        tool="SageMaker Ground Truth",
        suffixes=(".manifest", ".jsonl"),
        write=write_ground_truth,
        kinds=_EVERY_KIND,
        companions=ground_truth_companions,
        read=read_ground_truth,
    ),
    LabelFormat(
        name="label_studio",
        tool="Label Studio",
        suffixes=(".json",),
        write=write_label_studio,
        kinds=_EVERY_KIND,
        companions=label_studio_companions,
        read=read_label_studio,
    ),
    LabelFormat(
        name="labelbox",
        tool="Labelbox",
        suffixes=(".ndjson", ".json"),
        write=write_labelbox,
        kinds=_EVERY_KIND,
        companions=labelbox_ontology,
        read=read_labelbox,
    ),
    LabelFormat(
        name="labelbox_data_rows",
        tool="Labelbox",
        suffixes=(".json",),
        write=write_labelbox_data_rows,
        kinds=_EVERY_KIND,
        companions=labelbox_metadata,
    ),
    LabelFormat(
        name="scale",
        tool="Scale",
        suffixes=(".jsonl", ".json"),
        write=write_scale,
        kinds=_EVERY_KIND,
        companions=scale_project,
        read=read_scale,
    ),
)
FORMATS = {form.name: form for form in _ALL}
