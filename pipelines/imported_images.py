"""Which images imported detections belong to: those of the lake, or new ones known by name and size only."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines.label_matching import with_image_id
from pipelines.run import Run
from pipelines.tables import utc_timestamp


def with_identity(listed: DataFrame, known: DataFrame, image_root: str | None) -> DataFrame:
    """Adds image_id, uri, path and is_new: as `images` has them, else the file name and where it lies.

    Args:
        listed: Columns source_id, file_name, quarry_image_id, coco_url, width, height.
        known: The table `images`.
        image_root: Folder or URI that new file names are below.

    Raises:
        QuarryError: An image of the lake has another size than the list says, or a name fits several images.
    """
    name = F.col("file_name")
    is_whole = name.rlike("^(/|[A-Za-z][A-Za-z0-9+.-]*://)")
    place = F.coalesce("coco_url", name)
    if image_root is not None:
        place = F.when(is_whole, name).otherwise(F.concat(F.lit(image_root.rstrip("/") + "/"), name))
    image_id = F.coalesce("image_id", "quarry_image_id", "file_name")
    there = known.select("image_id", *[F.col(c).alias(f"known_{c}") for c in ("uri", "width", "height")])
    found = with_image_id(listed, known)
    twice = found.where("n_fits > 1").first()
    if twice is not None:
        raise QuarryError(
            f"{twice.file_name!r} fits {twice.n_fits} images of the lake; give unique paths, or ids"
        )
    resolved = found.withColumn("image_id", image_id).join(there, "image_id", "left")
    other_size = resolved.where("known_width <> width OR known_height <> height")
    example = other_size.first()
    if example is not None:
        raise QuarryError(
            f"{other_size.count():,} images have another size than in the lake, for example "
            f"{example.file_name}: {example.width} x {example.height} px, there {example.known_width} x "
            f"{example.known_height}; give detections of the original images, or other names"
        )
    return resolved.select(
        "source_id",
        "image_id",
        F.coalesce("known_uri", place).alias("uri"),
        name.alias("path"),
        F.col("known_uri").isNull().alias("is_new"),
        "width",
        "height",
    )


def image_rows(new: DataFrame, dataset: str, run: Run) -> DataFrame:
    """Rows of `images` of images whose files nobody opened."""
    unknown = {name: F.lit(None) for name in ("sequence_id", "frame_index", "size_bytes", "mtime")}
    return new.withColumns(
        {
            **unknown,
            "dataset": F.lit(dataset),
            "partitions": F.create_map().cast("map<string, string>"),
            "ingest_ts": utc_timestamp(run.started_s),
        }
    )


def own_images(found: DataFrame) -> DataFrame:
    """The images that a table of detections names itself, as an image list has them."""
    unknown = F.lit(None).cast("string")
    return found.select(
        "source_id",
        F.col("source_id").alias("file_name"),
        unknown.alias("quarry_image_id"),
        unknown.alias("coco_url"),
        "width",
        "height",
    )


def check_sizes(found: DataFrame) -> DataFrame:
    """A table that comes without an image list has the sizes of the images; one without is at fault."""
    has_size = F.coalesce(F.expr("width >= 1 AND height >= 1"), F.lit(False))
    unsized = ~has_size & F.col("fault").isNull()
    got = F.concat(F.lit("expected width and height from 1 px, got "), F.to_json(F.struct("width", "height")))
    return found.withColumns(
        {
            "fault": F.when(unsized, "image size").otherwise(F.col("fault")),
            "message": F.when(unsized, got).otherwise(F.col("message")),
        }
    )


def require_unique(frame: DataFrame, key: str, uri: str) -> None:
    """Fails unless every row has a key of its own.

    Raises:
        QuarryError: Names the file and the first such image.
    """
    bad = frame.groupBy(key).count().where((F.col("count") > 1) | F.col(key).isNull()).first()
    if bad is not None and bad[key] is None:
        raise QuarryError(f"{uri}: a row has no image_id; every row needs one")
    if bad is not None:
        raise QuarryError(
            f"{uri}: image {bad[key]!r} is there {bad['count']} times; expected one row an image "
            "(of a table that holds several models, give one model's rows)"
        )
