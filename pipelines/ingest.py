"""From a lake of files to `images`: find, skip what is known, read headers, quarantine what is unreadable."""

from __future__ import annotations

from functools import partial

import pyarrow.fs as pafs
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.settings import LakeSettings
from pipelines.local_frame import local_frame
from pipelines.quarantine import record_outcomes, settle, unreached
from pipelines.run import Run
from pipelines.tables import differs, utc_timestamp
from schemas.tables import IMAGES
from udfs.image_files import filesystem_and_path
from udfs.ingest import HEADER_SCHEMA, PLACE_SCHEMA, header_batches, place_batches
from udfs.lake_listing import LISTING_SCHEMA, lake_folders, list_batches

FOLDERS_PER_LISTING = 64
FILES_PER_TASK = 2_000
CHANGED_FILE = differs("uri", "size_bytes", "mtime", "width", "height")
PLACES = ("sequence_id", "frame_index")


def ingest(run: Run, lake: LakeSettings) -> dict[str, int]:
    """Adds new and changed images of a lake; known ones are not opened again.

    Args:
        run: The run.
        lake: Where the images are.

    Returns:
        Counts: files found, new or changed, unreadable.

    Raises:
        QuarryError: The lake or listing does not exist or holds no images.
    """
    session = run.store.session
    files = listed(session, lake) if lake.listing else walked(session, lake)
    images = run.store.read(IMAGES, pinned=True)
    files = files.transform(add_image_id, lake, images).persist(StorageLevel.DISK_ONLY)
    n_files = files.count()
    if n_files == 0:
        raise QuarryError(
            f"lake {lake.listing or lake.uri}: no image files found (endings: {', '.join(lake.extensions)})"
        )
    _require_unique_ids(files)
    run.tell(f"{n_files:,} image files found")
    known = images.join(unreached(run), "image_id", "left_anti")
    fresh = files.transform(new_or_changed, known)
    headers = fresh.transform(read_headers, lake, fresh.count()).persist(StorageLevel.DISK_ONLY)
    counts = headers.agg(F.count("*").alias("n"), F.count("error_class").alias("bad")).first()
    assert counts is not None
    if counts.n:
        # Faults first: an image that is in `images` is not opened again.
        record_outcomes(headers, "ingest", run)
        # A file that could not be reached meanwhile may be the same: its detections stay.
        run.store.merge(
            IMAGES, headers.withColumn("ingest_ts", utc_timestamp(run.started_s)), changed=CHANGED_FILE
        )
        settle(run)
    _move_frames(run, files, lake)
    for frame in (headers, files):
        frame.unpersist()
    return {"files": n_files, "new_or_changed": counts.n, "unreadable": counts.bad}


def is_folder(uri: str) -> bool:
    """Whether a path or URI is a folder that can be opened from here."""
    filesystem, path = filesystem_and_path(uri)
    return bool(filesystem.get_file_info(path).type == pafs.FileType.Directory)


def walked(session: SparkSession, lake: LakeSettings) -> DataFrame:
    """Image files below the lake's root: uri, path, size_bytes, mtime."""
    if lake.uri is None:
        raise QuarryError("lake.uri is not set: give the root folder of the images with --set lake.uri=...")
    folders = lake_folders(lake.uri, at_least=FOLDERS_PER_LISTING)
    frame = local_frame(session, folders, "folder STRING, recursive BOOLEAN")
    listing = partial(list_batches, root_uri=lake.uri, extensions=lake.extensions)
    return frame.repartition(min(len(folders), FOLDERS_PER_LISTING)).mapInArrow(
        listing, from_arrow_schema(LISTING_SCHEMA)
    )


def listed(session: SparkSession, lake: LakeSettings) -> DataFrame:
    """Image files of a Parquet or CSV listing: column `uri`, perhaps path, size_bytes, mtime, image_id."""
    assert lake.listing is not None
    reader = session.read.option("header", True)
    try:
        frame = reader.csv(lake.listing) if lake.listing.endswith(".csv") else reader.parquet(lake.listing)
    except Exception as error:
        raise QuarryError(
            f"lake.listing {lake.listing}: cannot be read: {str(error).splitlines()[0]}"
        ) from None
    if "uri" not in frame.columns:
        raise QuarryError(
            f"lake.listing {lake.listing}: expected a column `uri`, found {', '.join(frame.columns)}"
        )
    prefix = f"{lake.uri.rstrip('/')}/" if lake.uri else ""
    below_root = F.when(F.col("uri").startswith(prefix), F.substring("uri", len(prefix) + 1, 1 << 20))
    defaults = {
        "path": F.coalesce(below_root, F.col("uri")),
        "size_bytes": F.lit(-1),
        "mtime": F.timestamp_seconds(F.lit(0)),
    }
    for name, default in defaults.items():
        frame = frame.withColumn(name, F.coalesce(F.col(name), default) if name in frame.columns else default)
    frame = frame.withColumns(
        {"size_bytes": F.col("size_bytes").cast("bigint"), "mtime": F.col("mtime").cast("timestamp")}
    )
    kept = ["uri", *defaults, *({"image_id"} & set(frame.columns))]
    return frame.select(*kept).where("uri IS NOT NULL")


def add_image_id(files: DataFrame, lake: LakeSettings, images: DataFrame) -> DataFrame:
    """image_id: the user's own where the listing has one, else 24 hexadecimal characters of SHA-256.

    An image that came by an import under its path as its id keeps it.
    """
    if "image_id" in files.columns:
        return files
    imported = images.where("image_id = path").select("path", "image_id")
    digest = F.substring(F.sha2(F.col(lake.image_id), 256), 1, 24)
    return files.join(imported, "path", "left").withColumn("image_id", F.coalesce("image_id", digest))


def new_or_changed(files: DataFrame, images: DataFrame) -> DataFrame:
    """Files that are not in `images` with this size and time stamp."""
    return files.join(
        images.select("image_id", "size_bytes", "mtime"),
        ["image_id", "size_bytes", "mtime"],
        "left_anti",
    )


def read_headers(files: DataFrame, lake: LakeSettings, n_files: int) -> DataFrame:
    """One row per file with its size in pixels, partition values and sequence position, or its fault."""
    reader = partial(
        header_batches,
        dataset=lake.dataset,
        sequence_pattern=lake.sequence_pattern,
        max_pixels=lake.max_pixels,
    )
    tasks = max(2, n_files // FILES_PER_TASK)
    columns = ("image_id", "uri", "path", "size_bytes", "mtime")
    return files.select(*columns).repartition(tasks).mapInArrow(reader, from_arrow_schema(HEADER_SCHEMA))


def _move_frames(run: Run, files: DataFrame, lake: LakeSettings) -> None:
    """Known images get their place in a video when `lake.sequence_pattern` came or changed after them."""
    if lake.sequence_pattern is None:
        return
    reader = partial(place_batches, sequence_pattern=lake.sequence_pattern)
    found = files.select("image_id", "path").mapInArrow(reader, from_arrow_schema(PLACE_SCHEMA))
    new = {name: f"new_{name}" for name in PLACES}
    stored = run.store.read(IMAGES).join(found.withColumnsRenamed(new), "image_id")
    differs = " OR ".join(f"NOT ({name} <=> {new[name]})" for name in PLACES)
    moved = stored.where(differs).withColumns({name: F.col(new[name]) for name in PLACES})
    moved = moved.persist(StorageLevel.DISK_ONLY)
    n_moved = moved.count()
    if n_moved:
        # The pictures are the same: ingest_ts stays, and so do their detections.
        run.store.merge(IMAGES, moved, update={name: f"s.{name}" for name in PLACES})
        run.tell(f"{n_moved:,} known images have another place in a video now (lake.sequence_pattern)")
    moved.unpersist()


def _require_unique_ids(files: DataFrame) -> None:
    twice = (
        files.groupBy("image_id")
        .agg(F.count("*").alias("n"), F.min("uri").alias("uri"))
        .where("n > 1")
        .first()
    )
    if twice is not None:
        raise QuarryError(
            f"image_id {twice.image_id} stands for {twice.n} files, among them {twice.uri}: "
            "remove double rows from the listing, or set lake.image_id=uri"
        )
