"""The labels a detector is trained on next: completely labeled images of `ground_truth`, as COCO files."""

from __future__ import annotations

from functools import partial

from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines.run import Run
from schemas.tables import GROUND_TRUTH, IMAGES
from udfs.published_file import renames, replace_folder
from udfs.training_files import training_file_batches

IMAGES_PER_FILE = 5_000


def write_training_set(run: Run, folder: str, classes: list[str]) -> int:
    """Writes the train split as COCO files, each by one task; an image is named by its path in the lake.

    Args:
        run: The run.
        folder: Where the files go; what it held is replaced.
        classes: Class names in label order; boxes of others are left out.

    Returns:
        Images written.

    Raises:
        QuarryError: No completely labeled image is there to train on.
    """
    truth = run.store.read(GROUND_TRUTH).where("complete AND split = 'train'").select("image_id", "boxes")
    images = run.store.read(IMAGES).select("image_id", "path", "width", "height")
    rows = truth.join(images, "image_id").where("width IS NOT NULL")
    n_images = rows.count()
    if n_images == 0:
        raise QuarryError(
            f"{run.store.root}: no completely labeled image to train on; import labels with --split train"
        )
    files = -(-n_images // IMAGES_PER_FILE)
    rows = rows.repartition(files, F.xxhash64("image_id")).sortWithinPartitions("image_id")
    rows = rows.withColumn("file", F.spark_partition_id())
    staged = f"{folder}.{run.run_id}" if renames(folder) else folder
    write = partial(training_file_batches, folder=staged, classes=classes)
    rows.mapInArrow(write, "file_name STRING").collect()  # a row per file
    if staged != folder:
        replace_folder(staged, folder)
    return n_images
