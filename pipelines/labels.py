"""From COCO label files to `ground_truth`: parse on the workers, find the images, keep the latest."""

from __future__ import annotations

from functools import partial

import pyarrow.fs as pafs
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.label_map import LabelMap
from pipelines.models import Model
from pipelines.partial_labels import with_queried_boxes
from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.tables import GROUND_TRUTH, IMAGES
from udfs.image_files import filesystem_and_path
from udfs.labels import LABEL_SCHEMA, coco_label_batches

FILES_PER_TASK = 64
REASONS_TOLD = 5


def import_coco_labels(
    run: Run,
    labels_uri: str,
    split: str,
    cycle_id: str,
    model: Model | None,
    label_map: LabelMap | None = None,
) -> dict[str, int]:
    """Adds or replaces the ground truth of the images that COCO files name.

    An image is found by its path below the lake's root, by its image_id, or by the id in our own manifests.

    Args:
        run: The run.
        labels_uri: A COCO JSON file, or a folder with any number of them.
        split: train or eval.
        cycle_id: The cycle that brings the labels; where it picked boxes, they are verdicts on those
            (see `pipelines.partial_labels`).
        model: Gives label ids and known classes; none: labels keep their names only.
        label_map: Renames the file's classes to the model's and drops the boxes of some.

    Returns:
        Counts: images with truth, boxes, rejected items, images not in the lake.

    Raises:
        QuarryError: No such file, not COCO, a class that the map or the model does not know, or no image
            found in the lake.
    """
    files = label_files(labels_uri)
    label_ids = {name: label for label, name in model.classes.items()} if model else {}
    parse = partial(coco_label_batches, label_ids=label_ids, label_map=label_map)
    frame = run.store.session.createDataFrame([(uri,) for uri in files], "uri STRING")
    tasks = -(-len(files) // FILES_PER_TASK)
    parsed = (
        frame.repartition(tasks)
        .mapInArrow(parse, from_arrow_schema(LABEL_SCHEMA))
        .persist(StorageLevel.DISK_ONLY)
    )
    images = run.store.require(IMAGES, made_by="ingest")
    found = parsed.where("boxes IS NOT NULL").transform(with_image_id, images).persist(StorageLevel.DISK_ONLY)
    rejected = _tell_rejected(run, parsed)
    rows = found.where("image_id IS NOT NULL").transform(_truth_rows, split, cycle_id, run)
    rows = rows.persist(StorageLevel.DISK_ONLY)
    counts = rows.agg(
        F.count("*").alias("images"), F.coalesce(F.sum(F.size("boxes")), F.lit(0)).alias("boxes")
    ).first()
    assert counts is not None
    if counts.images == 0:
        example = parsed.where("file_name IS NOT NULL").select("file_name").first()
        raise QuarryError(
            f"labels {labels_uri}: none of its images is in the lake; file names must be paths below the "
            "lake's root or image ids, got for example "
            f"{example.file_name if example else 'no image at all'!r}"
        )
    if counts.boxes == 0 and rejected:
        raise QuarryError(f"labels {labels_uri}: all {rejected:,} items were rejected, for the reasons above")
    not_in_lake = found.where("image_id IS NULL").count()
    run.store.merge(
        GROUND_TRUTH, rows, changed="t.boxes <> s.boxes OR t.split <> s.split OR t.complete <> s.complete"
    )
    for kept in (rows, found, parsed):
        kept.unpersist()
    return {**counts.asDict(), "not_in_lake": not_in_lake, "rejected": rejected}


def label_files(labels_uri: str) -> list[str]:
    """The JSON files a path or URI names: itself, or all below it.

    Raises:
        QuarryError: Nothing is there, or no JSON file in it.
    """
    filesystem, path = filesystem_and_path(labels_uri)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [labels_uri]
    if info.type == pafs.FileType.NotFound:
        raise QuarryError(f"labels {labels_uri}: no such file or folder")
    base = path.rstrip("/")
    entries = filesystem.get_file_info(pafs.FileSelector(base, recursive=True))
    names = sorted(
        e.path[len(base) :] for e in entries if e.type == pafs.FileType.File and e.path.endswith(".json")
    )
    if not names:
        raise QuarryError(f"labels {labels_uri}: no .json file in it")
    return [labels_uri.rstrip("/") + name for name in names]


def with_image_id(labels: DataFrame, images: DataFrame) -> DataFrame:
    """Labels with the image they belong to, null where the lake has none.

    Raises:
        QuarryError: A file name fits several images.
    """
    by_path = images.select(F.col("path").alias("key"), "image_id")
    by_id = images.select(F.col("image_id").alias("key"), "image_id")
    names = by_path.unionByName(by_id).distinct()
    keyed = labels.withColumn("key", F.coalesce("quarry_image_id", "file_name"))
    joined = keyed.join(names, "key", "left")
    twice = joined.groupBy("key").agg(F.count_distinct("image_id").alias("n")).where("n > 1").first()
    if twice is not None:
        raise QuarryError(
            f"{twice.key!r} fits {twice.n} images of the lake; give unique paths, or quarry_image_id"
        )
    return joined.drop("key")


def _truth_rows(found: DataFrame, split: str, cycle_id: str, run: Run) -> DataFrame:
    # Several files may name one image, one for each class perhaps: their boxes are put together.
    lists = found.groupBy("image_id").agg(F.collect_list("boxes").alias("lists"))
    together = F.array_sort(F.array_distinct(F.flatten("lists")))
    boxes = F.when(F.size("lists") == 1, F.col("lists")[0]).otherwise(together)
    labels = lists.select("image_id", boxes.alias("boxes"), F.lit(True).alias("complete"))
    if split == "train":  # held-out labels are whole images, whatever was picked
        labels = labels.transform(with_queried_boxes, run, cycle_id)
    return labels.withColumns(
        {
            "split": F.lit(split),
            "cycle_id": F.lit(cycle_id),
            "ts": utc_timestamp(run.started_s),
        }
    )


def _tell_rejected(run: Run, parsed: DataFrame) -> int:
    reasons = parsed.where("reject_reason IS NOT NULL").groupBy("reject_kind", "reject_reason").count()
    total = reasons.agg(F.coalesce(F.sum("count"), F.lit(0)).alias("n")).first()
    assert total is not None
    for row in reasons.orderBy(F.desc("count")).limit(REASONS_TOLD).collect():
        run.tell(f"rejected {row['count']:,} x {row.reject_kind}: {row.reject_reason}")
    return int(total.n)
