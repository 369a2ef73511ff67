"""The labels a detector is trained on next, as COCO files: what people said, and boxes nobody has checked."""

from __future__ import annotations

from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines.box_dataset import NOISY, box_dataset
from pipelines.models import Model
from pipelines.run import Run
from schemas.tables import GROUND_TRUTH, IMAGES
from udfs.published_file import renames, replace_folder
from udfs.training_files import training_file_batches

IMAGES_PER_FILE = 5_000


def write_training_set(run: Run, folder: str, model: Model, threshold: float) -> dict[str, int]:
    """Writes the train split as COCO files, each by one task; an image is named by where it is.

    An image of which only boxes were labeled is in with them, and with the model's other boxes as noisy ones
    (see `pipelines.box_dataset`).

    Args:
        run: The run.
        folder: Where the files go; what it held is replaced.
        model: Gives the classes, boxes of others are left out, and the noisy boxes.
        threshold: t_d of the paper: its boxes below are no noisy labels.

    Returns:
        Counts of images, and of those partly_labeled.

    Raises:
        QuarryError: No labeled image is there to train on.

    Source: fine-grained boxes, section 3 ("Updating the Training Dataset").
    """
    truth = run.store.read(GROUND_TRUTH).where("split = 'train' AND (complete OR size(boxes) > 0)")
    images = run.store.read(IMAGES).select("image_id", "uri", "width", "height", "sequence_id")
    rows = truth.select("image_id", "boxes", "complete").join(images, "image_id").where("width IS NOT NULL")
    counts = rows.agg(
        F.count("*").alias("images"), F.count_if(~F.col("complete")).alias("partly_labeled")
    ).first()
    assert counts is not None
    n_images = counts.images
    if n_images == 0:
        raise QuarryError(f"{run.store.root}: no labeled image to train on; import labels with --split train")
    rows = rows.join(_noisy_boxes(run, model, threshold), "image_id", "left")
    classes = [name for _, name in sorted(model.classes.items())]
    files = -(-n_images // IMAGES_PER_FILE)
    rows = rows.repartition(files, F.xxhash64("image_id")).sortWithinPartitions("image_id")
    rows = rows.withColumn("file", F.spark_partition_id())
    staged = f"{folder}.{run.run_id}" if renames(folder) else folder
    write = partial(training_file_batches, folder=staged, classes=classes)
    rows.mapInArrow(write, "file_name STRING").collect()  # a row per file
    if staged != folder:
        replace_folder(staged, folder)
    return counts.asDict()


def _noisy_boxes(run: Run, model: Model, threshold: float) -> DataFrame:
    """image_id and, as `noisy`, the model's boxes on partly labeled images that no label is about."""
    boxes = box_dataset(run, model, threshold, only_partly_labeled=True).where(F.col("status") == NOISY)
    box = F.struct("label_name", "x1", "y1", "x2", "y2")
    return boxes.groupBy("image_id").agg(F.array_sort(F.collect_list(box)).alias("noisy"))
