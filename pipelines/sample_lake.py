"""Makes the built-in sample lake: procedural street scenes, written by the workers."""

from __future__ import annotations

from functools import partial

import pyarrow.fs as pafs
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.settings import SampleLakeSettings
from pipelines.run import Run
from udfs.image_files import filesystem_and_path
from udfs.published_file import published
from udfs.sample_lake import WRITTEN_FILES, write_drives
from udfs.street.world import StreetSettings, n_drives


def make_sample_lake(run: Run, lake_uri: str, settings: SampleLakeSettings) -> dict[str, int]:
    """Writes images below `<lake_uri>/images` and COCO labels below `<lake_uri>/labels`.

    The same settings write the same bytes, whatever the number of workers.

    Args:
        run: Only its session and `tell` are used.
        lake_uri: Folder every worker can write to.
        settings: Size, seed and shares.

    Returns:
        Counts: files, damaged files, labeled boxes, drives.
    """
    street = StreetSettings(
        n_images=settings.images,
        frames_per_sequence=settings.frames_per_sequence,
        frames_per_second=settings.frames_per_second,
        harbor_share=settings.unseen_fraction,
        damaged_share=settings.corrupt_fraction,
    )
    drives = n_drives(settings.images, street)
    run.tell(f"writing {settings.images:,} images in {drives:,} drives to {lake_uri}")
    writer = partial(write_drives, lake_uri=lake_uri, seed=settings.seed, settings=street)
    frame = run.store.session.range(drives).select(F.col("id").alias("drive_index"))
    written = frame.repartition(drives, "drive_index").mapInArrow(writer, from_arrow_schema(WRITTEN_FILES))
    counts = written.agg(
        F.count("*").alias("files"), F.count("corrupt").alias("damaged"), F.sum("n_boxes").alias("boxes")
    ).first()
    assert counts is not None
    with published(_marker(lake_uri)) as stream:
        stream.write(settings.model_dump_json())
    return {**counts.asDict(), "drives": drives}


def is_made(lake_uri: str, settings: SampleLakeSettings) -> bool:
    """Whether a lake was written there to its end with these settings."""
    filesystem, path = filesystem_and_path(_marker(lake_uri))
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        return False
    with filesystem.open_input_stream(path) as stream:
        return bool(stream.read().decode() == settings.model_dump_json())


def _marker(lake_uri: str) -> str:
    return f"{lake_uri.rstrip('/')}/sample_lake.json"
