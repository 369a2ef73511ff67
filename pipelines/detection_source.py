"""Where imported detections come from: COCO results, Parquet or Delta, read and checked on the workers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import pyarrow.fs as pafs
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, DataType, IntegralType, NumericType, StringType, StructType

from conf.errors import QuarryError
from pipelines.local_frame import local_frame
from udfs.coco_results import coco_result_batches
from udfs.image_files import filesystem_and_path
from udfs.imported_detections import FOUND_SCHEMA, table_batches
from udfs.views import ORIGINAL_VIEW

NUMBERS = ("score", "x1", "y1", "x2", "y2")
SCHEMA_TOLD = 500


def found_detections(
    session: SparkSession, uri: str, categories: Mapping[int, str], eta0: float, *, has_image_list: bool
) -> tuple[DataFrame, bool]:
    """One row of FOUND_SCHEMA per image that a source of detections names.

    Args:
        session: The session.
        uri: COCO results JSON, a Parquet file or folder, or a Delta table.
        categories: Category id to class name; empty: any class is known.
        eta0: Detections with a lower score are counted and left out.
        has_image_list: The sizes of the images are known, and what their numbers stand for.

    Returns:
        The rows, not yet read, and whether `source_id` is the number of an image rather than its name.

    Raises:
        QuarryError: Nothing is there, or not what it should be.
    """
    kind = source_kind(uri)
    schema = from_arrow_schema(FOUND_SCHEMA)
    if kind == "json":
        if not has_image_list:
            raise QuarryError(
                f"--detections {uri}: COCO results name images by number only; give the COCO file that lists "
                "them with --images"
            )
        reader = partial(coco_result_batches, categories=categories, eta0=eta0)
        return local_frame(session, [(uri,)], "uri STRING").mapInArrow(reader, schema), True
    try:
        frame = session.read.format(kind).load(uri)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if not line.startswith("An error occurred")]
        reason = lines[0].lstrip(": ") if lines else type(error).__name__
        raise QuarryError(f"--detections {uri}: not readable as {kind}: {reason}") from None
    item = _detection_type(frame, uri, has_image_list=has_image_list, has_categories=bool(categories))
    checker = partial(table_batches, categories=categories or None, eta0=eta0)
    numbered = isinstance(frame.schema["image_id"].dataType, IntegralType)
    return frame.transform(_plain_rows, item).mapInArrow(checker, schema), numbered


def source_kind(uri: str) -> Literal["json", "parquet", "delta"]:
    """What a path or URI of detections holds.

    Raises:
        QuarryError: Nothing is there.
    """
    filesystem, path = filesystem_and_path(uri)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise QuarryError(f"--detections {uri}: no such file or folder")
    if info.type == pafs.FileType.Directory:
        log = filesystem.get_file_info(f"{path.rstrip('/')}/_delta_log")
        return "delta" if log.type == pafs.FileType.Directory else "parquet"
    with filesystem.open_input_stream(path) as stream:
        return "parquet" if stream.read(4) == b"PAR1" else "json"


def _detection_type(frame: DataFrame, uri: str, *, has_image_list: bool, has_categories: bool) -> StructType:
    """The struct of a detection in a table that holds all that is needed."""
    needed = ("image_id", "detections") + (() if has_image_list else ("width", "height"))
    listed = frame.schema["detections"].dataType if "detections" in frame.columns else None
    item = listed.elementType if isinstance(listed, ArrayType) else None
    if not set(needed) <= set(frame.columns) or not isinstance(item, StructType):
        raise QuarryError(
            f"--detections {uri}: expected the columns {', '.join(needed)}, where detections is an array of "
            f"structs, got {frame.schema.simpleString()[:SCHEMA_TOLD]}"
        )
    kinds = _kinds(item)
    has_numbers = all(isinstance(kinds.get(name), NumericType) for name in NUMBERS)
    has_label = has_categories and isinstance(kinds.get("label"), IntegralType)
    if not has_numbers or not (has_label or isinstance(kinds.get("label_name"), StringType)):
        raise QuarryError(
            f"--detections {uri}: a detection needs the numbers {', '.join(NUMBERS)} and label_name, or an "
            "integer label with --classes or the categories of --images; "
            f"got {item.simpleString()[:SCHEMA_TOLD]}"
        )
    return item


def _plain_rows(frame: DataFrame, item: StructType) -> DataFrame:
    """The columns source_id, width, height and detections, every detection with all its fields."""
    kinds = _kinds(item)

    def plain(detection: Column) -> Column:
        def value(name: str, kind: str, accepted: type[DataType]) -> Column:
            has_it = isinstance(kinds.get(name), accepted)
            return (detection[name].try_cast(kind) if has_it else F.lit(None).cast(kind)).alias(name)

        return F.struct(
            value("detection_id", "string", StringType),
            value("label", "int", IntegralType),
            value("label_name", "string", StringType),
            *(value(name, "double", NumericType) for name in NUMBERS),
            value("logits", "array<float>", ArrayType),
        )

    sides = [
        (F.col(side).try_cast("int") if side in frame.columns else F.lit(None).cast("int")).alias(side)
        for side in ("width", "height")
    ]
    if "view" in frame.columns:
        frame = frame.where(F.col("view") == ORIGINAL_VIEW)
    source_id = F.col("image_id").cast("string").alias("source_id")
    return frame.select(source_id, *sides, F.transform("detections", plain).alias("detections"))


def _kinds(item: StructType) -> dict[str, DataType]:
    return {one.name: one.dataType for one in item}
