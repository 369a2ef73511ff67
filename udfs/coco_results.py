"""COCO results files: a reader that streams through the boxes, and the image list they refer to."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from conf.errors import QuarryError
from udfs.boxes import FloatArray, IntArray
from udfs.formats.coco import category_names, split_images
from udfs.formats.json_values import json_document
from udfs.formats.returned import NotThisFormat
from udfs.formats.shown_values import shown as shown_value
from udfs.image_files import ImageFault, read_bytes
from udfs.imported_detections import (
    BOX,
    CLASS,
    IMAGES_PER_BATCH,
    SCORE,
    GivenDetections,
    found_rows,
)

IMAGE_SCHEMA = pa.schema(
    [
        ("source_id", pa.string()),
        ("file_name", pa.string()),
        ("quarry_image_id", pa.string()),
        ("coco_url", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
KEYS = ("image_id", "category_id", "bbox", "score")
ITEMS_PER_BLOCK = 50_000
_BLANK = re.compile(r"[ \t\r\n]*")


def coco_image_list(uri: str) -> tuple[pa.Table, dict[int, str]]:
    """The images and categories of a COCO file; its annotations, if any, are not looked at.

    Args:
        uri: A JSON object with the array `images` and perhaps `categories`.

    Returns:
        A table of IMAGE_SCHEMA, `source_id` as `id_text` writes it; category id to name in file order, empty
        when there are none.

    Raises:
        QuarryError: Not such a file, no image in it, or an image that is incomplete or not unique.
    """
    document = _document(uri)
    images = document.get("images")
    if not isinstance(images, list) or not images:
        raise QuarryError(f"image list {uri}: expected a COCO object with a non-empty array `images`")
    sound, rejected = split_images(images)
    if rejected:
        first = rejected[0]
        raise QuarryError(
            f"image list {uri}: {len(rejected):,} of {len(images):,} images cannot be used, the first with "
            f"id {first.item_id}, file_name {shown_value(first.file_name)}: {first.reason}; correct the file"
        )
    listed = document.get("categories") or []
    try:
        if not isinstance(listed, list):
            raise QuarryError(f"expected an array of categories, got {type(listed).__name__}")
        categories = category_names(listed)
    except QuarryError as error:
        raise QuarryError(f"image list {uri}: {error}") from None
    rows = [
        {
            **{name: image.get(name) for name in IMAGE_SCHEMA.names},
            "source_id": id_text(image["id"]),
            "coco_url": image["coco_url"] if isinstance(image.get("coco_url"), str) else None,
        }
        for image in sound
    ]
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), categories


def _document(uri: str) -> dict[str, Any]:
    try:
        document = json_document(io.BytesIO(read_bytes(uri)))
    except ImageFault as fault:
        raise QuarryError(f"image list {uri}: {fault.message}") from None
    except NotThisFormat as error:
        raise QuarryError(f"image list {uri}: {error}") from None
    if not isinstance(document, dict):
        raise QuarryError(
            f"image list {uri}: expected a COCO object with images, annotations and categories, "
            f"got {type(document).__name__}"
        )
    return document


def id_text(image_id: int | str) -> str:
    """An image id of a COCO file as text that tells the number 7 from the string "7"."""
    return json.dumps(image_id)


def coco_result_batches(
    batches: Iterator[pa.RecordBatch], categories: Mapping[int, str], eta0: float
) -> Iterator[pa.RecordBatch]:
    """Rows of COCO results files, one per image that has results; mapInArrow-shaped.

    Args:
        batches: Column `uri`: a JSON list of {image_id, category_id, bbox: x, y, width, height in px, score}.
        categories: Category id to class name; empty: a class is named by its id.
        eta0: Detections with a lower score are counted and left out.

    Yields:
        Batches of FOUND_SCHEMA.

    Raises:
        QuarryError: The file is not such a list, or a result lacks a key.
    """
    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            rows = found_rows(_Results(uri, categories).given(_results(uri)), eta0)
            for start in range(0, rows.num_rows, IMAGES_PER_BATCH):
                yield rows.slice(start, IMAGES_PER_BATCH)


class _Results:
    """Columns of one results file; memory grows by arrays, not by a Python object for each box."""

    def __init__(self, uri: str, categories: Mapping[int, str]) -> None:
        self._uri, self._categories = uri, categories
        self._images: dict[int | str, int] = {}
        self._odd: dict[tuple[int, str], str] = {}
        self._n_read = 0

    def given(self, items: Iterator[Any]) -> GivenDetections:
        """All results of a file."""
        images = [np.zeros(0, np.int64)]
        bboxes, scores, names = [np.zeros((0, 4))], [np.zeros((0, 1))], [pa.array([], pa.string())]
        while block := list(islice(items, ITEMS_PER_BLOCK)):
            image_ids, category_ids, boxes, values = (self._values(block, key) for key in KEYS)
            images.append(self._image_index(image_ids))
            bboxes.append(self._numbers(boxes, 4, BOX))
            scores.append(self._numbers([[value] for value in values], 1, SCORE))
            names.append(self._names(category_ids))
            self._n_read += len(block)
        bbox_xywh = np.concatenate(bboxes)
        with np.errstate(over="ignore", invalid="ignore"):
            corners = np.hstack((bbox_xywh[:, :2], bbox_xywh[:, :2] + bbox_xywh[:, 2:]))
        all_scores = np.concatenate(scores)[:, 0]

        def shown(i: int, fault: str) -> str:
            value = self._odd.get((i, fault))
            if fault == CLASS:
                return f"category_id {value}"
            if fault == SCORE:
                return f"score {value or all_scores[i]}"
            return f"bbox {value or bbox_xywh[i].tolist()}"

        return GivenDetections(
            source_ids=pa.array([id_text(image_id) for image_id in self._images], pa.string()),
            image_index=np.concatenate(images),
            boxes_xyxy=corners,
            scores=all_scores,
            names=pa.concat_arrays(names),
            shown=shown,
        )

    def _values(self, block: list[Any], key: str) -> list[Any]:
        try:
            return [item[key] for item in block]
        except (KeyError, TypeError, IndexError):
            lacking = (i for i, item in enumerate(block) if not isinstance(item, dict) or key not in item)
            i = next(lacking)
            raise QuarryError(
                f"results {self._uri}: result {self._n_read + i + 1:,} has no {key!r}: "
                f"expected an object with {', '.join(KEYS)}, got {shown_value(block[i])}"
            ) from None

    def _image_index(self, image_ids: list[Any]) -> IntArray:
        images, ids = self._images, _identifiers(image_ids)
        if None in ids:
            i = ids.index(None)
            raise QuarryError(
                f"results {self._uri}: result {self._n_read + i + 1:,}: expected image_id as an integer or a "
                f"string, got {shown_value(image_ids[i])}"
            )
        return np.array([images.setdefault(one, len(images)) for one in ids if one is not None], np.int64)

    def _numbers(self, rows: list[Any], width: int, fault: str) -> FloatArray:
        """(n, width); what is no list of that many numbers is a row of NaN and kept to be shown."""
        if set(map(type, rows)) == {list} and set(map(len, rows)) == {width}:
            whole = _floats(list(chain.from_iterable(rows)))
            if whole is not None:
                return whole.reshape(-1, width)
        numbers = np.full((len(rows), width), np.nan)
        for i, row in enumerate(rows):
            floats = _floats(row) if isinstance(row, list) and len(row) == width else None
            if floats is None:
                self._odd[self._n_read + i, fault] = shown_value(row[0] if width == 1 else row)
            else:
                numbers[i] = floats
        return numbers

    def _names(self, category_ids: list[Any]) -> pa.Array:
        ids = _identifiers(category_ids)
        if self._categories:
            names = [self._categories.get(one) if isinstance(one, int) else None for one in ids]
        else:
            names = [str(one) if isinstance(one, int) else None for one in ids]
        if None in names:
            for i, name in enumerate(names):
                if name is None:
                    self._odd[self._n_read + i, CLASS] = shown_value(category_ids[i])
        return pa.array(names, pa.string())


def _results(uri: str) -> Iterator[Any]:
    """The items of a JSON list, decoded one by one."""
    try:
        content = read_bytes(uri)
        text = content.decode(json.detect_encoding(content))
        del content
        yield from _items(text)
    except ImageFault as fault:
        raise QuarryError(f"results {uri}: {fault.message}") from None
    except (ValueError, RecursionError) as error:
        raise QuarryError(f"results {uri}: not a JSON list: {str(error).splitlines()[0]}") from None


def _items(text: str) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    position = _after_blanks(text, 0)
    if text.startswith("{", position):
        raise ValueError(
            "it holds an object, as files of images and annotations do; pass that one as --images, and as "
            "--detections the list of results"
        )
    if not text.startswith("[", position):
        raise json.JSONDecodeError("expecting '['", text, position)
    position = _after_blanks(text, position + 1)
    more = not text.startswith("]", position)
    while more:
        item, position = decode(text, position)
        yield item
        position = _after_blanks(text, position)
        more = text.startswith(",", position)
        position = _after_blanks(text, position + 1) if more else position
    if not text.startswith("]", position):
        raise json.JSONDecodeError("expecting ',' or ']'", text, position)
    if _after_blanks(text, position + 1) != len(text):
        raise json.JSONDecodeError("expecting nothing more", text, position + 1)


def _after_blanks(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    assert found is not None
    return found.end()


def _floats(values: list[Any]) -> FloatArray | None:
    """The values as floats, or None unless all are numbers that fit; a bool is none."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def _identifiers(values: list[Any]) -> list[int | str | None]:
    """Ids as integers or strings; 7.0, which data frames write for 7, is 7; None for what is no id."""
    if set(map(type, values)) <= {int, str}:
        return values
    return [
        int(value)
        if isinstance(value, float) and value.is_integer()
        else value
        if type(value) in (int, str)
        else None
        for value in values
    ]
