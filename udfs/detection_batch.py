"""Detections and ground truth of many images as aligned flat arrays, read from Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import QuarryError
from udfs.boxes import BoolArray, FloatArray, IntArray, owners

Ragged = TypeVar("Ragged", "DetectionBatch", "TruthBatch")


@dataclass(frozen=True, kw_only=True)
class DetectionBatch:
    """Detections of n images; image i owns elements `offsets[i]:offsets[i + 1]` of the flat arrays.

    Attributes:
        image_ids: (n,) Arrow strings.
        image_wh_px: (n, 2), width and height of the original images, px.
        offsets: (n + 1,), from 0.
        boxes_xyxy: (m, 4), px of the original image, x2 >= x1 and y2 >= y1.
        labels: (m,), class ids.
        scores: (m,), 0..1.
        logits: (m,) Arrow lists of class logits, or None where the detector keeps none.
        detection_ids: (m,) Arrow strings, or None.
        presence: (m,), P(there is an object of this class at this box), 0..1; None: the scores.
        is_judged: (m,), detections of the detector whose errors count; the others only stand for ground
            truth, as those of a committee do. None: all.
    """

    image_ids: pa.Array
    image_wh_px: FloatArray
    offsets: IntArray
    boxes_xyxy: FloatArray
    labels: IntArray
    scores: FloatArray
    logits: pa.Array | None = None
    detection_ids: pa.Array | None = None
    presence: FloatArray | None = None
    is_judged: BoolArray | None = None

    @property
    def n_images(self) -> int:
        """Number of images, those without detections included."""
        return len(self.offsets) - 1

    @cached_property
    def image_index(self) -> IntArray:
        """(m,), index of the image of every detection."""
        return owners(self.offsets)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> DetectionBatch:
        """Read the columns image_id, width, height and detections of an Arrow batch.

        Args:
            batch: May be a slice; a null or empty list is an image without detections. Fields `logits` and
                `detection_id` are optional, further fields and columns are ignored.

        Returns:
            Boxes, labels and scores as 64-bit arrays; identifiers and logits stay in Arrow, uncopied.

        Raises:
            QuarryError: A missing column, a null, NaN or infinite value, x2 < x1, y2 < y1, a score outside
                0..1 or an image without size; the message names the image.
        """
        image_ids = _column(batch, "image_id").cast(pa.string())
        if image_ids.null_count:
            raise QuarryError("a row has no image_id; every row needs one")
        offsets, structs = _ragged(_column(batch, "detections"), image_ids, "detections")
        boxes, labels = _boxes_and_labels(structs, offsets, image_ids, "detection")
        scores = _numbers(structs, "score", offsets, image_ids, "detection")
        _reject(
            ~((scores >= 0.0) & (scores <= 1.0)), offsets, image_ids, scores, "a detection's score", "0..1"
        )
        return cls(
            image_ids=image_ids,
            image_wh_px=_image_sizes(batch, image_ids),
            offsets=offsets,
            boxes_xyxy=boxes,
            labels=labels,
            scores=scores,
            logits=_optional_field(structs, "logits"),
            detection_ids=_optional_field(structs, "detection_id"),
        )

    def where(self, keep: BoolArray) -> DetectionBatch:
        """The same images with only the detections marked in `keep`, (m,)."""
        mask = pa.array(keep)
        return self._with_rows(
            self.image_ids,
            self.image_wh_px,
            _kept_offsets(self.offsets, keep),
            lambda flat: flat[keep],
            lambda column: column.filter(mask),
        )

    def images(self, start: int, stop: int) -> DetectionBatch:
        """The images `start:stop` as views of the same memory."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return self._with_rows(
            self.image_ids.slice(start, stop - start),
            self.image_wh_px[start:stop],
            self.offsets[start : stop + 1] - low,
            lambda flat: flat[low:high],
            lambda column: column.slice(low, high - low),
        )

    def images_where(self, keep: BoolArray) -> DetectionBatch:
        """Only the images marked in `keep`, (n,), with all their detections."""
        rows = keep[self.image_index]
        mask = pa.array(rows)
        return self._with_rows(
            self.image_ids.filter(pa.array(keep)),
            self.image_wh_px[keep],
            np.concatenate(([0], np.cumsum(np.diff(self.offsets)[keep]))).astype(np.int64),
            lambda flat: flat[rows],
            lambda column: column.filter(mask),
        )

    def _with_rows(
        self,
        image_ids: pa.Array,
        image_wh_px: FloatArray,
        offsets: IntArray,
        of_array: Callable[[Any], Any],
        of_column: Callable[[pa.Array], pa.Array],
    ) -> DetectionBatch:
        arrays = ("boxes_xyxy", "labels", "scores", "presence", "is_judged")
        columns = ("logits", "detection_ids")
        fields = {name: getattr(self, name) for name in (*arrays, *columns)}
        kept: dict[str, Any] = {
            name: None if value is None else (of_array if name in arrays else of_column)(value)
            for name, value in fields.items()
        }
        return DetectionBatch(image_ids=image_ids, image_wh_px=image_wh_px, offsets=offsets, **kept)


@dataclass(frozen=True, kw_only=True)
class TruthBatch:
    """Ground-truth boxes of n images; image i owns elements `offsets[i]:offsets[i + 1]` of the flat arrays.

    Attributes:
        offsets: (n + 1,), from 0.
        boxes_xyxy: (g, 4), px of the original image.
        labels: (g,), class ids.
        is_crowd: (g,), boxes that stand for any number of objects.
    """

    offsets: IntArray
    boxes_xyxy: FloatArray
    labels: IntArray
    is_crowd: BoolArray

    @cached_property
    def image_index(self) -> IntArray:
        """(g,), index of the image of every box."""
        return owners(self.offsets)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> TruthBatch:
        """Read the columns image_id and boxes of an Arrow batch.

        Args:
            batch: May be a slice. An empty list is an image without objects. `iscrowd` is optional, null
                means no crowd. Where a field `status` exists only null and 'labeled' count: 'background' is
                no object, 'noisy' is no truth.

        Returns:
            Boxes, labels and crowd flags.

        Raises:
            QuarryError: A null list (no truth is known, which is not the same as no object), a null, NaN or
                infinite value, x2 < x1 or y2 < y1; the message names the image.
        """
        image_ids = _column(batch, "image_id").cast(pa.string())
        column = _column(batch, "boxes")
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise QuarryError(
                f"image {image_ids[row].as_py()!r}: boxes is null; expected a list, empty for an image "
                "without objects; leave images without ground truth out"
            )
        offsets, structs = _ragged(column, image_ids, "boxes")
        boxes, labels = _boxes_and_labels(structs, offsets, image_ids, "ground-truth box")
        crowd = _optional_field(structs, "iscrowd")
        is_crowd = np.zeros(len(structs), bool)
        if crowd is not None:
            is_crowd = pc.fill_null(crowd.cast(pa.bool_()), False).to_numpy(zero_copy_only=False)
        truth = cls(offsets=offsets, boxes_xyxy=boxes, labels=labels, is_crowd=is_crowd)
        status = _optional_field(structs, "status")
        if status is None:
            return truth
        counted = pc.fill_null(pc.equal(status, "labeled"), True)
        return truth.where(counted.to_numpy(zero_copy_only=False))

    def where(self, keep: BoolArray) -> TruthBatch:
        """The same images with only the boxes marked in `keep`, (g,)."""
        return TruthBatch(
            offsets=_kept_offsets(self.offsets, keep),
            boxes_xyxy=self.boxes_xyxy[keep],
            labels=self.labels[keep],
            is_crowd=self.is_crowd[keep],
        )


class _Lists(NamedTuple):
    offsets: IntArray
    structs: pa.StructArray


def field_column(name: str, field: str) -> str:
    """Name of the column that holds the lists of one field of `name`, for `with_structs`."""
    return f"{name}:{field}"


def with_structs(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with columns `name:field`, lists of equal lengths, joined to one column of lists of structs
    per `name`; values are not copied. Other columns stay."""
    fields: dict[str, list[str]] = {}
    for column in batch.schema.names:
        name, separator, field = column.partition(":")
        if separator:
            fields.setdefault(name, []).append(field)
    columns = {column: batch.column(column) for column in batch.schema.names if ":" not in column}
    for name, parts in fields.items():
        lists = [batch.column(field_column(name, part)) for part in parts]
        offsets = np.concatenate(([0], np.cumsum(pc.list_value_length(lists[0]).to_numpy())))
        structs = pa.StructArray.from_arrays([column.flatten() for column in lists], names=parts)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
    return pa.RecordBatch.from_pydict(columns)


def with_labels(boxes: Ragged, labels: Sequence[int] | None) -> Ragged:
    """Only the boxes of the given classes; None keeps all.

    Args:
        boxes: Detections or ground truth.
        labels: Class ids.

    Returns:
        The same images with fewer boxes.
    """
    if labels is None:
        return boxes
    return boxes.where(np.isin(boxes.labels, np.asarray(labels, dtype=np.int64)))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise QuarryError(f"column {name!r} is missing; got {', '.join(batch.schema.names)}")
    return batch.column(name)


def _kept_offsets(offsets: IntArray, keep: BoolArray) -> IntArray:
    return np.concatenate(([0], np.cumsum(keep)))[offsets].astype(np.int64, copy=False)


def _ragged(column: pa.Array, image_ids: pa.Array, name: str) -> _Lists:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    structs = column.flatten()  # honours slices and leaves out what null lists may hide
    if structs.null_count:
        missing = structs.is_null().to_numpy(zero_copy_only=False)
        raise QuarryError(f"image {_image_of(missing, offsets, image_ids)!r}: {name} holds a null element")
    return _Lists(offsets, structs)


def _optional_field(structs: pa.StructArray, name: str) -> pa.Array | None:
    if structs.type.get_field_index(name) < 0:
        return None
    field = structs.field(name)
    return None if field.null_count and field.null_count == len(field) else field


def _numbers(
    structs: pa.StructArray, name: str, offsets: IntArray, image_ids: pa.Array, what: str
) -> FloatArray:
    if structs.type.get_field_index(name) < 0:
        known = ", ".join(field.name for field in structs.type)
        raise QuarryError(f"a {what} has no field {name!r}; got {known}")
    field = structs.field(name)
    if field.null_count:
        missing = field.is_null().to_numpy(zero_copy_only=False)
        raise QuarryError(f"image {_image_of(missing, offsets, image_ids)!r}: a {what} has no {name}")
    values: FloatArray = field.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return values


def _boxes_and_labels(
    structs: pa.StructArray, offsets: IntArray, image_ids: pa.Array, what: str
) -> tuple[FloatArray, IntArray]:
    columns = [_numbers(structs, name, offsets, image_ids, what) for name in ("x1", "y1", "x2", "y2")]
    boxes = np.stack(columns).T  # columns stay contiguous, which is how they are read
    bad = ~np.isfinite(boxes).all(axis=1)
    bad |= (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    _reject(bad, offsets, image_ids, boxes, f"a {what}'s x1, y1, x2, y2", "finite px with x2 >= x1, y2 >= y1")
    return boxes, _numbers(structs, "label", offsets, image_ids, what).astype(np.int64)


def _image_sizes(batch: pa.RecordBatch, image_ids: pa.Array) -> FloatArray:
    sides = [_column(batch, name) for name in ("width", "height")]
    sizes: FloatArray = np.stack(
        [side.cast(pa.float64()).to_numpy(zero_copy_only=False) for side in sides], axis=1
    )  # a null becomes NaN
    is_size: BoolArray = (sizes > 0.0) & np.isfinite(sizes)
    rows = np.arange(len(sizes) + 1)
    _reject(~is_size[:, 0] | ~is_size[:, 1], rows, image_ids, sizes, "width, height", "px > 0")
    return sizes


def _reject(
    bad: BoolArray, offsets: IntArray, image_ids: pa.Array, values: FloatArray, what: str, expected: str
) -> None:
    if bad.any():
        got = np.array2string(values[int(np.argmax(bad))], separator=", ")
        image_id = _image_of(bad, offsets, image_ids)
        raise QuarryError(f"image {image_id!r}: {what} must be {expected}, got {got}; detect the image again")


def _image_of(bad: BoolArray, offsets: IntArray, image_ids: pa.Array) -> str:
    row = int(np.searchsorted(offsets, int(np.argmax(bad)), side="right")) - 1
    return str(image_ids[row].as_py())
