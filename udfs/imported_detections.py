"""Detections made elsewhere, as rows of `detections`: checked, sorted and named with array operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from udfs.boxes import FloatArray, IntArray, owners
from udfs.detection_rows import DETECTION_TYPE, detection_id
from udfs.views import ORIGINAL_VIEW

BAD_DETECTIONS = "bad_detections"
LARGEST_PX = 1e9
IMAGES_PER_BATCH = 1_000
FOUND_SCHEMA = pa.schema(
    [
        ("source_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION_TYPE)),
        ("n_given", pa.int64()),
        ("n_below", pa.int64()),
        ("fault", pa.string()),
        ("message", pa.string()),
    ]
)
NAMED_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION_TYPE)),
        ("n_detections", pa.int32()),
        ("n_below", pa.int64()),
        ("n_dropped", pa.int64()),
        ("fault", pa.string()),
        ("message", pa.string()),
    ]
)
# Name of a fault, and what was expected; the first that applies to a detection is told.
BOX, SIZE, SCORE, CLASS = "coordinates", "negative size", "score", "class"
EXPECTED = {
    BOX: f"4 finite numbers below {LARGEST_PX:g} px",
    SIZE: "x2 >= x1 and y2 >= y1",
    SCORE: "a number from 0 to 1",
    CLASS: "a class of the source",
}


@dataclass(frozen=True, kw_only=True)
class GivenDetections:
    """m detections of n images as a source gives them, in any order.

    Attributes:
        source_ids: (n,) Arrow strings: the images as the source names them.
        image_index: (m,), index of the image of every detection.
        boxes_xyxy: (m, 4), px; NaN where the source has no number.
        scores: (m,); NaN where the source has no number.
        names: (m,) Arrow strings: classes; null where the source names none it declares.
        shown: Detection and fault to the value at fault as the source has it.
        detection_ids: (m,) Arrow strings, nulls where there is none; None: there are none.
        logits: (m,) Arrow lists; None: there are none.
    """

    source_ids: pa.Array
    image_index: IntArray
    boxes_xyxy: FloatArray
    scores: FloatArray
    names: pa.Array
    shown: Callable[[int, str], str]
    detection_ids: pa.Array | None = None
    logits: pa.Array | None = None


def found_rows(
    given: GivenDetections, eta0: float, widths: pa.Array | None = None, heights: pa.Array | None = None
) -> pa.RecordBatch:
    """One row per image: its detections by falling score, or the fault of the first bad one.

    Args:
        given: Detections of images.
        eta0: Detections with a lower score are counted and left out.
        widths: (n,) px, where the source has them.
        heights: (n,) px, where the source has them.

    Returns:
        A batch of FOUND_SCHEMA. Equal scores keep the order they were given in. An image with a bad
        detection has fault and message, and no detections. `label` stays null.
    """
    n_images = len(given.source_ids)
    faults = _faults(given)
    first_bad, messages = _messages(given, faults)
    is_bad = np.zeros(n_images, bool)
    is_bad[list(messages)] = True
    order = np.lexsort((-given.scores, given.image_index))
    is_above = given.scores >= eta0
    kept = order[(is_above & ~is_bad[given.image_index])[order]]
    counts = np.bincount(given.image_index, minlength=n_images)
    n_above = np.bincount(given.image_index[is_above], minlength=n_images)
    n_kept = np.bincount(given.image_index[kept], minlength=n_images)
    unknown_px = pa.nulls(n_images, pa.int32())
    columns = [
        given.source_ids,
        unknown_px if widths is None else widths,
        unknown_px if heights is None else heights,
        _lists(_structs(given, kept), n_kept),
        pa.array(counts, pa.int64()),
        pa.array(np.where(is_bad, 0, counts - n_above), pa.int64()),
        pa.array([first_bad.get(image) for image in range(n_images)], pa.string()),
        pa.array([messages.get(image) for image in range(n_images)], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=FOUND_SCHEMA)


def table_batches(
    batches: Iterator[pa.RecordBatch], categories: Mapping[int, str] | None, eta0: float
) -> Iterator[pa.RecordBatch]:
    """Rows of a table of detections, checked; mapInArrow-shaped.

    Args:
        batches: Columns source_id, width, height and detections (lists of DETECTION_TYPE; a null list is an
            empty one). Where `label_name` is null, `label` is looked up among the categories.
        categories: Category id to class name: the source's classes; None: any name is a class.
        eta0: Detections with a lower score are counted and left out.

    Yields:
        Batches of FOUND_SCHEMA, one row per input row.
    """
    for batch in batches:
        lengths, structs = _flattened(batch.column("detections"))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        boxes = np.stack([_numbers(structs, side) for side in ("x1", "y1", "x2", "y2")]).T
        names = _declared_names(structs, categories)
        given = GivenDetections(
            source_ids=batch.column("source_id"),
            image_index=owners(offsets),
            boxes_xyxy=boxes,
            scores=_numbers(structs, "score"),
            names=names,
            shown=lambda i, fault, structs=structs: _table_value(structs[i].as_py() or {}, fault),  # type: ignore[misc]
            detection_ids=structs.field("detection_id"),
            logits=structs.field("logits"),
        )
        yield found_rows(given, eta0, batch.column("width"), batch.column("height"))


def named_batches(
    batches: Iterator[pa.RecordBatch],
    model_id: str,
    targets: Mapping[str, str | None],
    labels: Mapping[str, int],
) -> Iterator[pa.RecordBatch]:
    """Detections with the model's class names, label ids and detection ids; mapInArrow-shaped.

    Args:
        batches: Columns of NAMED_SCHEMA less n_detections and n_dropped.
        model_id: Part of detection ids.
        targets: The source's class name to the model's; None drops the detection.
        labels: The model's class name to its label id.

    Yields:
        Batches of NAMED_SCHEMA, one row per input row. A detection that has an id keeps it.
    """
    sources = pa.array(list(targets), pa.string())
    label_of_source = np.array([labels[name] if name else 0 for name in targets.values()], np.int32)
    class_names = pa.array(list(labels), pa.string())
    for batch in batches:
        lengths, structs = _flattened(batch.column("detections"))
        found = pc.index_in(structs.field("label_name"), value_set=sources).to_numpy(zero_copy_only=False)
        label = label_of_source[found.astype(np.int64)]
        keep = label > 0
        rows = np.repeat(np.arange(batch.num_rows), lengths)[keep]
        counts = np.bincount(rows, minlength=batch.num_rows)
        kept, label = structs.filter(pa.array(keep)), label[keep]
        fields = {field.name: kept.field(field.name) for field in DETECTION_TYPE}
        fields["detection_id"] = _ids(
            fields["detection_id"], batch.column("image_id"), rows, counts, model_id
        )
        fields["label"] = pa.array(label, pa.int32())
        fields["label_name"] = class_names.take(pa.array(label - 1))
        lists = _lists(pa.StructArray.from_arrays(list(fields.values()), fields=list(DETECTION_TYPE)), counts)
        columns = {name: batch.column(name) for name in batch.schema.names} | {
            "detections": lists,
            "n_detections": pa.array(counts, pa.int32()),
            "n_dropped": pa.array(lengths - counts, pa.int64()),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in NAMED_SCHEMA.names], schema=NAMED_SCHEMA)


def _faults(given: GivenDetections) -> IntArray:
    """(m,): 0 for a sound detection, else 1 + the position of its fault in EXPECTED."""
    boxes, scores = given.boxes_xyxy, given.scores
    # Comparisons are false for NaN.
    finite = (np.abs(boxes) < LARGEST_PX).all(axis=1)
    ordered = (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    in_range = (scores >= 0.0) & (scores <= 1.0)
    known = given.names.is_valid().to_numpy(zero_copy_only=False)
    return np.select([~finite, ~ordered, ~in_range, ~known], [1, 2, 3, 4], 0).astype(np.int64)


def _messages(given: GivenDetections, faults: IntArray) -> tuple[dict[int, str], dict[int, str]]:
    """Of each image with a bad detection: the first fault, and the message."""
    bad = np.flatnonzero(faults)
    images, first = np.unique(given.image_index[bad], return_index=True)
    n_bad = np.bincount(given.image_index[bad], minlength=len(given.source_ids))
    n_all = np.bincount(given.image_index, minlength=len(given.source_ids))
    kinds, messages = {}, {}
    for image, i in zip(images.tolist(), bad[first].tolist(), strict=True):
        kind = kinds[image] = list(EXPECTED)[faults[i] - 1]
        messages[image] = (
            f"{given.shown(i, kind)}: expected {EXPECTED[kind]}; "
            f"{n_bad[image]:,} of the image's {n_all[image]:,} detections are bad"
        )
    return kinds, messages


def _structs(given: GivenDetections, kept: IntArray) -> pa.StructArray:
    def taken(column: pa.Array | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(len(kept), kind) if column is None else column.take(pa.array(kept))

    columns = {
        "detection_id": taken(given.detection_ids, pa.string()),
        "label": pa.nulls(len(kept), pa.int32()),
        "label_name": taken(given.names, pa.string()),
        "score": pa.array(given.scores[kept]),
        **{side: pa.array(given.boxes_xyxy[kept, i]) for i, side in enumerate(("x1", "y1", "x2", "y2"))},
        "logits": taken(given.logits, pa.list_(pa.float32())),
        "feature": pa.nulls(len(kept), pa.list_(pa.float32())),
    }
    return pa.StructArray.from_arrays(
        [columns[field.name] for field in DETECTION_TYPE], fields=list(DETECTION_TYPE)
    )


def _lists(structs: pa.StructArray, counts: IntArray) -> pa.ListArray:
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=FOUND_SCHEMA.field("detections").type)


def _flattened(lists: pa.ListArray) -> tuple[IntArray, pa.StructArray]:
    lengths: IntArray = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64), lists.flatten()


def _numbers(structs: pa.StructArray, name: str) -> FloatArray:
    # `flatten` makes the fields of a null struct null, which become NaN.
    field = structs.flatten()[structs.type.get_field_index(name)]
    numbers: FloatArray = field.to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _declared_names(structs: pa.StructArray, categories: Mapping[int, str] | None) -> pa.Array:
    names = structs.field("label_name")
    if categories is None:
        return names
    classes = pa.array(list(categories.values()), pa.string())
    ids = pa.array(list(categories), pa.int32())
    by_label = classes.take(pc.index_in(structs.field("label"), value_set=ids))
    names = pc.coalesce(names, by_label)
    return pc.if_else(pc.is_in(names, value_set=classes), names, pa.scalar(None, pa.string()))


def _table_value(detection: dict[str, object], fault: str) -> str:
    if fault == SCORE:
        return f"score {detection.get('score')}"
    if fault == CLASS:
        return f"label_name {detection.get('label_name')!r}, label {detection.get('label')}"
    return f"x1, y1, x2, y2 [{', '.join(str(detection.get(side)) for side in ('x1', 'y1', 'x2', 'y2'))}]"


def _ids(given: pa.Array, image_ids: pa.Array, rows: IntArray, counts: IntArray, model_id: str) -> pa.Array:
    """Detection ids: the given one, else the one of its image, model and position."""
    names = image_ids.to_pylist()
    positions = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    ids = [
        old or detection_id(names[row], model_id, ORIGINAL_VIEW, position)
        for old, row, position in zip(given.to_pylist(), rows.tolist(), positions.tolist(), strict=True)
    ]
    return pa.array(ids, pa.string())
