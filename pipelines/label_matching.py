"""Which image of the lake a returned label belongs to, and what cannot be used, with its reason."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from udfs.formats.newest_returns import IS_OLDER
from udfs.formats.shown_values import PASSWORD, QUERY

KEYS = ("path", "image_id", "uri")


def with_image_id(labels: DataFrame, images: DataFrame) -> DataFrame:
    """Labels with the image they name, by our own id where a tool carried it back, else by path, id or URI.

    Args:
        labels: Columns file_name and quarry_image_id, and any others.
        images: The table `images`.

    Returns:
        The same with `image_id`, null where no image or more than one fits; `n_fits`, how many do; and
        `of_other`, true where the id is one image's and the name another's, as of a frame that a tag was
        copied to. A name may be the end of a path: tools flatten folders.
    """
    keyed = labels.withColumn("key", F.coalesce("quarry_image_id", "file_name"))
    wanted = keyed.select("key").union(labels.select("file_name")).distinct()
    fits = [
        images.select(F.col(name).alias("key"), "image_id", "path").join(wanted, "key", "left_semi")
        for name in KEYS
    ]
    by_key = fits[0].unionByName(fits[1]).unionByName(fits[2]).groupBy("key")
    found = by_key.agg(
        F.min("image_id").alias("found"),
        F.min_by("path", "image_id").alias("found_path"),
        F.count_distinct("image_id").alias("n_fits"),
    )
    named = found.where("n_fits = 1").select(F.col("key").alias("file_name"), F.col("found").alias("named"))
    joined = keyed.join(found, "key", "left").withColumn("n_fits", F.coalesce("n_fits", F.lit(0)))
    joined = joined.join(named, "file_name", "left")
    is_end = F.endswith("found_path", F.concat(F.lit("/"), "file_name"))
    of_other = F.coalesce((F.col("n_fits") == 1) & (F.col("named") != F.col("found")) & ~is_end, F.lit(False))
    image_id = F.when((F.col("n_fits") == 1) & ~of_other, F.col("found"))
    joined = joined.withColumns({"of_other": of_other, "image_id": image_id})
    return joined.drop("key", "found", "found_path", "named")


def with_reasons(placed: DataFrame) -> DataFrame:
    """Rows of images that cannot be used get a reason and lose their boxes; the others stay.

    Unusable are images the lake does not have or has twice under this name, those whose id and name are two
    images', and, of several answers to one task (a tool imported it twice, or several people labeled it), all
    but the newest.
    """
    # What has no task is never compared: spread out, or all of unknown images would be one worker's.
    alone = F.when(F.col("task_id").isNull(), F.xxhash64("source", "item_kind", "item_id"))
    same_task = Window.partitionBy("image_id", "task_id", alone)
    newest = same_task.orderBy(F.desc_nulls_last("annotated_ts"), "source", "item_id")
    is_older = F.col("task_id").isNotNull() & (F.row_number().over(newest) > 1)
    reason = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(F.col("n_fits") == 0, "no image of the lake has this path, URI or id")
        .when(F.col("of_other"), "its id is one image's and its name another's: copied from there?")
        .when(F.col("n_fits") > 1, F.format_string("fits %d images of the lake", F.col("n_fits")))
        .when(is_older, IS_OLDER)
    )
    judged = placed.withColumn("reason", reason)
    return judged.withColumn("boxes", F.when(F.col("reason").isNull(), F.col("boxes")))


def rejected_items(judged: DataFrame) -> DataFrame:
    """One row per image or box that was left out: source, item_kind, item_id, file_name, image_id, reason."""
    names = ("source", "item_kind", "item_id", "file_name", "image_id", "reason")
    whole = judged.where("reason IS NOT NULL").select(*names)
    boxes = judged.where("reason IS NULL").withColumn("reason", F.explode("outside"))
    boxes = boxes.withColumn("item_kind", F.lit("annotation"))
    # Some tools number the boxes of each image from one.
    rows = whole.unionByName(boxes.select(*names))
    return rows.withColumns({name: _without_query(name) for name in ("item_id", "file_name")}).dropDuplicates(
        ["source", "item_kind", "item_id", "file_name", "reason"]
    )


def _without_query(name: str) -> Column:
    """As `without_query` of a column of texts; a mark tells apart what only differed in what is left out."""
    left = F.regexp_replace(F.regexp_replace(name, QUERY, "$1"), PASSWORD, "$1")
    mark = F.concat(left, F.lit(" #"), F.left(F.sha2(name, 256), F.lit(8)))
    return F.when(left == F.col(name), left).otherwise(mark)
