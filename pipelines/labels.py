"""From returned label files to `ground_truth`: parsed on the workers, matched to images, kept as answers."""

from __future__ import annotations

from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, StringType, StructType

from conf.errors import QuarryError
from conf.label_map import LabelMap
from pipelines.current_labels import current_labels
from pipelines.label_files import import_id_of, label_files
from pipelines.label_matching import rejected_items, with_image_id, with_reasons
from pipelines.labeling_tasks import CYCLE_NAME, image_task_id, task_cycle, task_kind
from pipelines.models import Model
from pipelines.partial_labels import with_verdicts
from pipelines.run import Run
from pipelines.tables import differs, utc_timestamp
from schemas.table import Table
from schemas.tables import GROUND_TRUTH, GROUND_TRUTH_HISTORY, IMAGES, LABEL_IMPORTS, LABEL_REJECTS
from udfs.formats.shown_values import without_query
from udfs.label_frames import original_px_batches
from udfs.labels import LABEL_SCHEMA, label_batches

FILES_PER_TASK = 64
REASONS_TOLD = 5
UNKNOWN_CLASS = "(?s)^(?:.*: )?class (.*?) is unknown to the model"
OF_NO_CLASS = "reason RLIKE '(^|: )class .* is (unknown to the model|not mentioned)'"
MAX_PIXELS = 2**31 - 1
NEW_CONTENT = differs("boxes", "split", "complete", "annotator", "annotated_ts")
# An import beside this one may have written labels that were made from more answers.
NOT_BEHIND = "s.n_answers >= coalesce(t.n_answers, 0)"


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
    Every answer stays readable in `ground_truth_history`, and labels are made from all of them: corrections
    supersede, in whatever order they arrive (see `pipelines.current_labels`). An import done twice changes
    nothing, also when corrections came in between, unless the model now knows a class that it did not; and
    imports may run side by side.

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
    parse = partial(label_batches, form=form, label_ids=label_ids, label_map=label_map)
    parsed = frame.mapInArrow(parse, from_arrow_schema(LABEL_SCHEMA)).persist(StorageLevel.DISK_ONLY)
    images = run.store.require(IMAGES, made_by="ingest")
    placed = parsed.transform(_placed, images).transform(_with_tasks, split, cycle_id)
    judged = placed.transform(with_reasons).persist(StorageLevel.DISK_ONLY)
    rejects = judged.transform(rejected_items).persist(StorageLevel.DISK_ONLY)
    targets = sorted(label_map.targets.items(), key=str) if label_map else []
    import_id = _import_id(run, frame, (form, split, cycle_id, targets), rejects)
    answers = judged.where("boxes IS NOT NULL").transform(_answers, run, form, split, cycle_id, import_id)
    answers = answers.persist(StorageLevel.DISK_ONLY)
    counts = _counts(run, answers, rejects)
    _require_usable(labels_uri, counts, parsed, rejects)
    _write(run, answers, split)
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
    for kept in (answers, rejects, judged, parsed, files):
        kept.unpersist()
    return counts


def _import_id(run: Run, files: DataFrame, read_as: tuple[object, ...], rejects: DataFrame) -> str:
    """Of the files and how they are read; those of which a model did not know all classes are another import.

    So a model that knows them takes what one before it could not, and one that knows less undoes nothing.
    """
    import_id = import_id_of(files, read_as)
    unknown = rejects.select(F.regexp_extract("reason", UNKNOWN_CLASS, 1).alias("name")).where("name <> ''")
    row = unknown.distinct().agg(F.bit_xor(F.xxhash64("name")).alias("names")).first()
    assert row is not None
    is_known = F.col("import_id") == import_id
    if row.names is None or not run.store.read(LABEL_IMPORTS).where(is_known).isEmpty():
        return import_id
    return import_id_of(files, (*read_as, row.names))


def _placed(parsed: DataFrame, images: DataFrame) -> DataFrame:
    """Rows with their image_id, n_fits and their boxes in px of the image; those outside in `outside`."""
    sizes = images.select("image_id", "uri", "width", "height")
    found = with_image_id(parsed, images).join(sizes, "image_id", "left")
    found = found.withColumn("outside", F.array().cast(ArrayType(StringType())))
    schema = StructType([field for field in found.schema if field.name not in ("uri", "width", "height")])
    place = partial(original_px_batches, max_pixels=MAX_PIXELS)
    return found.mapInArrow(place, found.schema).select(*schema.names)


def _with_tasks(placed: DataFrame, split: str, cycle_id: str) -> DataFrame:
    """Rows with the ids of tasks that the tool only implies, and a reason where an answer must not count.

    An answer to boxes of another cycle would be taken for labels of the whole image.
    """
    rows = placed.withColumn("cycle_id", F.lit(cycle_id))
    task_id = F.coalesce("task_id", F.when(F.col("is_image_task"), image_task_id()))
    of_cycle = task_cycle(task_id)
    is_partial = task_kind(task_id) != "image"
    reason = (
        F.when(F.col("reason").isNotNull(), F.col("reason"))
        .when(
            of_cycle != cycle_id,
            F.when(
                of_cycle.rlike(rf"\A{CYCLE_NAME}\z"),
                F.format_string("answers a task of cycle %s: import it with --cycle %s", of_cycle, of_cycle),
            ).otherwise("answers a task of another cycle: import it with that one's --cycle"),
        )
        .when(
            is_partial & F.lit(split == "eval"),
            "answers for boxes of the image, which cannot be held out to measure with: --split train",
        )
    )
    return rows.withColumns({"reason": reason, "task_id": task_id})


def _answers(usable: DataFrame, run: Run, form: str, split: str, cycle_id: str, import_id: str) -> DataFrame:
    """One row an image and task: columns of GROUND_TRUTH_HISTORY, and n_drawn, the boxes that came back."""
    # Several files may name one image, one for each class perhaps: their boxes are put together.
    together = F.array_sort(F.array_distinct(F.flatten("lists")))
    own_task_id = F.when(task_cycle(F.col("task_id")).isNotNull(), F.col("task_id"))
    people = F.array_join(F.array_sort(F.col("people")), ", ")
    answers = (
        usable.groupBy("image_id", "cycle_id", own_task_id.alias("task_id"))
        .agg(
            F.collect_list("boxes").alias("lists"),
            F.bool_and("complete").alias("complete"),
            F.collect_set("annotator").alias("people"),
            F.max("annotated_ts").alias("annotated_ts"),
        )
        .withColumn("boxes", F.when(F.size("lists") == 1, F.col("lists")[0]).otherwise(together))
        .withColumn("annotator", F.when(F.size("people") > 0, people))
        .withColumn("n_drawn", F.size("boxes"))
    )
    # A data set may have more classes than the model, and boxes without area; an answer to a task should not.
    is_complete = F.col("complete") | (F.col("task_id").isNull() & F.lit(form == "coco"))
    if split == "train":  # held-out labels are whole images, whatever was picked
        answers = answers.transform(with_verdicts, run, cycle_id)
        answers = answers.withColumn("boxes", F.concat("boxes", "refused"))
        is_complete = is_complete & F.col("is_whole")
    constants = {"split": F.lit(split), "import_id": F.lit(import_id), "ts": utc_timestamp(run.started_s)}
    answers = answers.withColumns({"complete": is_complete, **constants})
    return answers.select(*GROUND_TRUTH_HISTORY.column_names, "n_drawn")


def _counts(run: Run, answers: DataFrame, rejects: DataFrame) -> dict[str, int]:
    found = answers.agg(
        F.count_distinct("image_id").alias("images"), F.coalesce(F.sum("n_drawn"), F.lit(0)).alias("boxes")
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
            f"{without_query(example.file_name) if example else 'no image at all'!r}"
        )
    if counts["boxes"] == 0 and counts["rejected"]:
        reasons = rejects.where("reason NOT LIKE 'no image of the lake %'").select("reason")
        # A file of empty images may hold a stray box; images of classes nobody knows must not pass for empty.
        example = (reasons.where(OF_NO_CLASS) if counts["images"] else reasons).first()
        if example is not None:
            raise QuarryError(
                f"labels {labels_uri}: all {counts['rejected']:,} items were rejected: {example.reason}"
            )


def _write(run: Run, answers: DataFrame, split: str) -> None:
    """History before truth, which is made from all of it: answers of an import beside this one count too."""
    _keep(run, GROUND_TRUTH_HISTORY, answers)
    images = answers.select("image_id").distinct()
    history = run.store.read(GROUND_TRUTH_HISTORY).join(images, "image_id", "left_semi")
    current = history.transform(current_labels).persist(StorageLevel.DISK_ONLY)
    _tell_moved(run, current, split)
    run.store.merge(GROUND_TRUTH, current, changed=f"({NEW_CONTENT}) AND {NOT_BEHIND}")
    current.unpersist()


def _tell_moved(run: Run, current: DataFrame, split: str) -> None:
    was = run.store.read(GROUND_TRUTH, pinned=True).select("image_id", F.col("split").alias("was"))
    n_moved = was.join(current, "image_id").where("split <> was").count()
    if n_moved:
        before = "held out to measure with" if split == "train" else "trained on"
        now = "trained on" if split == "train" else "held out to measure with"
        run.tell(f"{n_moved:,} images that were {before} are {now} from now on (--split {split})")


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
