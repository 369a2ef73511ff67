"""From returned label files to `ground_truth`: parsed on the workers, matched to images, the latest kept."""

from __future__ import annotations

from functools import partial

import pyarrow.fs as pafs
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, StringType, StructType

from conf.errors import QuarryError
from conf.label_map import LabelMap
from pipelines.label_matching import rejected_items, with_image_id, with_reasons
from pipelines.models import Model
from pipelines.partial_labels import with_known_boxes, with_verdicts
from pipelines.run import Run
from pipelines.tables import utc_timestamp
from schemas.table import Table
from schemas.tables import GROUND_TRUTH, GROUND_TRUTH_HISTORY, IMAGES, LABEL_IMPORTS, LABEL_REJECTS
from udfs.formats.registry import FORMATS
from udfs.image_files import filesystem_and_path
from udfs.label_files import import_id_batches, label_file_batches
from udfs.label_frames import original_px_batches
from udfs.labels import LABEL_SCHEMA, label_batches
from udfs.published_file import file_digest_batches

FILES_PER_TASK = 64
REASONS_TOLD = 5
OF_NO_CLASS = "reason RLIKE '(^|: )class .* is (unknown to the model|not mentioned)'"
MAX_PIXELS = 2**31 - 1
NEW_CONTENT = " OR ".join(
    f"NOT (t.{name} <=> s.{name})" for name in ("boxes", "split", "complete", "annotator", "annotated_ts")
)
# An export that was made before a correction may arrive after it. A time after the import that brought it is
# a clock that is wrong: it must not keep later corrections out.
NOT_OLDER = "coalesce(s.annotated_ts >= least(t.annotated_ts, t.ts), true)"


def import_labels(
    run: Run,
    labels_uri: str,
    form: str,
    split: str,
    cycle_id: str,
    model: Model | None,
    label_map: LabelMap | None = None,
) -> dict[str, int]:
    """Adds or replaces the ground truth of the images that label files name.

    An image is found by the id in our own manifests, by its path below the lake's root, its id or its URI.
    Labels supersede earlier ones unless the file says that they are older; every import stays readable in
    `ground_truth_history`. An import done twice changes nothing, also when corrections came in between.

    Args:
        run: The run.
        labels_uri: A file, or a folder with any number of them.
        form: Format of the files, a name of `FORMATS`.
        split: train or eval.
        cycle_id: The cycle that brings the labels; where it picked boxes, they are verdicts on those
            (see `pipelines.partial_labels`).
        model: Gives label ids and known classes; none: labels keep their names only.
        label_map: Renames the files' classes to the model's and drops the boxes of some.

    Returns:
        Counts: images with truth, boxes, rejected items, images not in the lake.

    Raises:
        QuarryError: No such file, another format, or no image found in the lake.
    """
    files, n_files = label_files(run, labels_uri, form)
    label_ids = {name: label for label, name in model.classes.items()} if model else {}
    frame = files.repartition(-(-n_files // FILES_PER_TASK))
    import_id = _import_id(frame, form, split, cycle_id, label_map)
    parse = partial(label_batches, form=form, label_ids=label_ids, label_map=label_map)
    parsed = frame.mapInArrow(parse, from_arrow_schema(LABEL_SCHEMA)).persist(StorageLevel.DISK_ONLY)
    images = run.store.require(IMAGES, made_by="ingest")
    judged = parsed.transform(_placed, images).transform(with_reasons).persist(StorageLevel.DISK_ONLY)
    rejects = judged.transform(rejected_items).persist(StorageLevel.DISK_ONLY)
    truth = judged.where("boxes IS NOT NULL").transform(_truth_rows, run, split, cycle_id, import_id)
    truth = truth.persist(StorageLevel.DISK_ONLY)
    counts = _counts(run, truth, rejects)
    _require_usable(labels_uri, counts, parsed, rejects)
    _tell_moved(run, truth, split)
    _write(run, truth, import_id)
    if counts["rejected"] or counts["not_in_lake"]:
        _keep_rejects(run, rejects, import_id)
    source = {
        "vendor": form,
        "split": split,
        "cycle_id": cycle_id,
        "source": labels_uri,
        "n_files": n_files,
    }
    _record(run, import_id, {**source, **{f"n_{name}": number for name, number in counts.items()}})
    for kept in (truth, rejects, judged, parsed, files):
        kept.unpersist()
    return counts


def label_files(run: Run, labels_uri: str, form: str) -> tuple[DataFrame, int]:
    """The files of a format that a path or URI names, itself or all below it, and their number.

    A worker lists a folder: there may be a file an image.

    Returns:
        Column `uri`, persisted where it is a listing, and how many rows it has.

    Raises:
        QuarryError: Nothing is there, or no such file in it.
    """
    filesystem, path = filesystem_and_path(labels_uri)
    kind = filesystem.get_file_info(path).type
    if kind == pafs.FileType.File:
        return run.store.session.createDataFrame([(labels_uri,)], "uri STRING"), 1
    if kind != pafs.FileType.Directory:
        raise QuarryError(f"labels {labels_uri}: no such file or folder")
    suffixes = FORMATS[form].suffixes
    folder = run.store.session.createDataFrame([(labels_uri,)], "folder STRING").coalesce(1)
    listed = folder.mapInArrow(partial(label_file_batches, suffixes=suffixes), "uri STRING")
    listed = listed.persist(StorageLevel.DISK_ONLY)
    n_files = listed.count()
    if n_files == 0:
        raise QuarryError(f"labels {labels_uri}: no {' or '.join(suffixes)} file in it")
    return listed, n_files


def _import_id(files: DataFrame, form: str, split: str, cycle_id: str, label_map: LabelMap | None) -> str:
    """Identity of an import: the files' content, wherever they lie, and how they are read."""
    targets = sorted(label_map.targets.items(), key=str) if label_map else []
    fold = partial(import_id_batches, read_as=(form, split, cycle_id, targets))
    digests = files.mapInArrow(file_digest_batches, "sha256 STRING")
    # One task hashes all digests, 64 bytes a file: Spark sorts them on disk where memory is short.
    digests = digests.repartition(1).sortWithinPartitions("sha256")
    row = digests.mapInArrow(fold, "import_id STRING").first()
    assert row is not None
    return str(row.import_id)


def _placed(parsed: DataFrame, images: DataFrame) -> DataFrame:
    """Rows with their image_id, n_fits and their boxes in px of the image; those outside in `outside`."""
    sizes = images.select("image_id", "uri", "width", "height")
    found = with_image_id(parsed, images).join(sizes, "image_id", "left")
    found = found.withColumn("outside", F.array().cast(ArrayType(StringType())))
    schema = StructType([field for field in found.schema if field.name not in ("uri", "width", "height")])
    place = partial(original_px_batches, max_pixels=MAX_PIXELS)
    return found.mapInArrow(place, found.schema).select(*schema.names)


def _truth_rows(usable: DataFrame, run: Run, split: str, cycle_id: str, import_id: str) -> DataFrame:
    """One row an image: columns of GROUND_TRUTH_HISTORY, and of GROUND_TRUTH among them."""
    is_training = split == "train"  # held-out labels are whole images, whatever was picked
    answers = (
        usable.transform(with_verdicts, run, cycle_id)
        if is_training
        else usable.withColumn("is_whole", F.lit(True))
    )
    # Several files may name one image, one for each class perhaps: their boxes are put together.
    together = F.array_sort(F.array_distinct(F.flatten("lists")))
    people = F.array_join(F.array_sort(F.col("people")), ", ")
    of_whole = F.when(F.col("is_whole"), F.col("boxes"))
    labels = (
        answers.groupBy("image_id")
        .agg(
            F.collect_list(of_whole).alias("lists"),
            F.collect_list(F.struct("annotated_ts", "boxes")).alias("parts"),
            F.coalesce(F.max(F.when(F.col("is_whole"), F.col("complete"))), F.lit(False)).alias("complete"),
            F.collect_set("annotator").alias("people"),
            F.max("annotated_ts").alias("annotated_ts"),
            F.array_sort(F.collect_set("task_id")).alias("task_ids"),
        )
        .withColumn("boxes", F.when(F.size("lists") == 1, F.col("lists")[0]).otherwise(together))
        .withColumn("annotator", F.when(F.size("people") > 0, people))
    )
    if is_training:
        labels = labels.transform(with_known_boxes, run)
    return labels.withColumns(
        {
            "split": F.lit(split),
            "cycle_id": F.lit(cycle_id),
            "import_id": F.lit(import_id),
            "ts": utc_timestamp(run.started_s),
        }
    ).select(*GROUND_TRUTH_HISTORY.column_names)


def _counts(run: Run, truth: DataFrame, rejects: DataFrame) -> dict[str, int]:
    found = truth.agg(
        F.count("*").alias("images"), F.coalesce(F.sum(F.size("boxes")), F.lit(0)).alias("boxes")
    ).first()
    is_unknown = F.expr("reason LIKE 'no image of the lake %'")
    left_out = rejects.agg(
        F.count_if(is_unknown).alias("not_in_lake"), F.count_if(~is_unknown).alias("rejected")
    ).first()
    assert found is not None and left_out is not None
    if left_out.rejected:
        reasons = rejects.where(~is_unknown).groupBy("item_kind", "reason").count()
        for row in reasons.orderBy(F.desc("count")).limit(REASONS_TOLD).collect():
            run.tell(f"rejected {row['count']:,} x {row.item_kind}: {row.reason}")
    return {**found.asDict(), **left_out.asDict()}


def _require_usable(labels_uri: str, counts: dict[str, int], parsed: DataFrame, rejects: DataFrame) -> None:
    if counts["images"] == 0 and counts["rejected"] == 0:
        example = parsed.where("file_name IS NOT NULL").select("file_name").first()
        raise QuarryError(
            f"labels {labels_uri}: none of its images is in the lake; file names must be paths below the "
            "lake's root or image ids, got for example "
            f"{example.file_name if example else 'no image at all'!r}"
        )
    if counts["boxes"] == 0 and counts["rejected"]:
        reasons = rejects.where("reason NOT LIKE 'no image of the lake %'").select("reason")
        # A file of empty images may hold a stray box; images of classes nobody knows must not pass for empty.
        example = (reasons.where(OF_NO_CLASS) if counts["images"] else reasons).first()
        if example is not None:
            raise QuarryError(
                f"labels {labels_uri}: all {counts['rejected']:,} items were rejected: {example.reason}"
            )


def _tell_moved(run: Run, truth: DataFrame, split: str) -> None:
    others = run.store.read(GROUND_TRUTH, pinned=True).where(F.col("split") != split)
    n_moved = others.join(truth.select("image_id"), "image_id", "left_semi").count()
    if n_moved:
        was = "held out to measure with" if split == "train" else "trained on"
        now = "trained on" if split == "train" else "held out to measure with"
        run.tell(f"{n_moved:,} images that were {was} are {now} from now on (--split {split})")


def _write(run: Run, truth: DataFrame, import_id: str) -> None:
    """Truth before history: what history holds of an import is never written again."""
    run.store.create(GROUND_TRUTH_HISTORY)
    done = run.store.read(GROUND_TRUTH_HISTORY, pinned=True).where(F.col("import_id") == import_id)
    new = truth.join(done.select("image_id"), "image_id", "left_anti").persist(StorageLevel.DISK_ONLY)
    run.store.merge(GROUND_TRUTH, new, changed=f"({NEW_CONTENT}) AND {NOT_OLDER}")
    _keep(run, GROUND_TRUTH_HISTORY, new)
    new.unpersist()


def _keep_rejects(run: Run, rejects: DataFrame, import_id: str) -> None:
    # The same files may lie elsewhere by now.
    known = run.store.read(LABEL_REJECTS).where(F.col("import_id") == import_id)
    new = rejects.join(known, ["item_kind", "item_id", "reason"], "left_anti")
    _keep(
        run,
        LABEL_REJECTS,
        new.withColumns({"import_id": F.lit(import_id), "ts": utc_timestamp(run.started_s)}),
    )


def _keep(run: Run, table: Table, rows: DataFrame) -> None:
    run.store.merge(table, rows, on_match="keep")


def _record(run: Run, import_id: str, values: dict[str, object]) -> None:
    row = run.store.session.range(1).withColumns(
        {name: F.lit(value) for name, value in {**values, "import_id": import_id}.items()}
    )
    _keep(run, LABEL_IMPORTS, row.withColumn("ts", utc_timestamp(run.started_s)))
