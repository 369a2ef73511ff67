"""From `acquisition` to folders that labeling tools import: written by tasks, published whole, recorded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import partial

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.acquisition_spec import PriceList
from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from pipelines.labeling_tasks import (
    boxes_to_show,
    has_something_to_show,
    tasks_only_in_one,
    tasks_to_send,
)
from pipelines.local_frame import local_frame
from pipelines.models import Model
from pipelines.run import Run
from pipelines.score_inputs import detections_of
from pipelines.tables import spark_schema, sql_literal, utc_timestamp
from schemas.tables import ACQUISITION, MANIFESTS, MODELS, SENT_TASKS
from udfs.formats.registry import FORMATS
from udfs.formats.task import QUESTION_KINDS, Manifest, is_question
from udfs.manifest_files import FILE_SCHEMA, TASK_FILES, ManifestJob, folder_names, manifest_file_batches
from udfs.published_file import (
    published,
    remove_abandoned,
    remove_files,
    remove_folder,
    renames,
    replace_folder,
)
from udfs.sent_uris import SentUris

MOST_STRATEGIES = 1_000
MOST_FILES = 99_999
BYTES_PER_MB = 1e6
SECONDS_PER_DAY = 86_400.0
STAGING_FOLDERS = re.compile(r"\.[0-9a-f]{12}")  # of runs, while they write


def export_manifests(
    run: Run, cycle_id: str, model: Model, settings: ExportSettings, prices: PriceList
) -> dict[str, int]:
    """Writes a folder per strategy and format; the same selection gives the same bytes and rows.

    A folder is whole or absent, whenever the job is killed. On object stores, which cannot rename, its files
    appear one by one, and then those of an earlier export go away: there the rows of `manifests`, written
    last, say that it is whole.

    Args:
        run: The run.
        cycle_id: Whose acquisition is exported.
        model: Whose detections become pre-annotations.
        settings: Formats, kind of tasks, folder, threshold, URIs, file sizes.
        prices: What verifications cost.

    Returns:
        Counts of manifests, files, tasks and boxes.

    Raises:
        QuarryError: Nothing was acquired in the cycle, a format that cannot ask what `export.tasks` wants, a
            picked box that is another model's, or a task that a labeling tool would refuse.
    """
    _require_formats_that_ask(settings)
    uris = SentUris.of(settings)
    acquired = run.store.require(ACQUISITION, made_by="acquire").where(F.col("cycle_id") == cycle_id)
    if settings.strategies:
        acquired = acquired.where(F.col("strategy").isin(*settings.strategies))
    _require_boxes_of_model(acquired, run, model)
    shown = boxes_to_show(acquired, run, model, settings).persist(StorageLevel.DISK_ONLY)
    tasks = tasks_to_send(shown, settings, prices)
    n_lost = _tell_left_out(shown, run)
    if is_question(settings.tasks):
        _require_boxes_to_ask_about(acquired, tasks, run, settings)
    folder = f"{(settings.folder or run.store.root + '/exports').rstrip('/')}/{cycle_id}"
    staging = f"{folder}/.{run.run_id}" if renames(folder) else folder
    if staging != folder:
        remove_abandoned(folder, STAGING_FOLDERS, older_than_s=SECONDS_PER_DAY)
    manifests = _manifests(tasks, run, cycle_id, model, settings)
    _require_same_tasks_beside(run, cycle_id, tasks, manifests, settings)
    names: dict[tuple[str, str], str] = {
        (strategy, vendor): f"{name}.{vendor}"
        for strategy, name in folder_names(
            (*manifests, *_kept_beside(run, cycle_id, folder, settings))
        ).items()
        if strategy in manifests
        for vendor in settings.formats
    }
    job = ManifestJob(
        folders={key: f"{staging}/{name}" for key, name in names.items()},
        manifests=manifests,
        uris=uris,
        most_tasks=settings.tasks_per_file,
        largest_bytes=settings.mb_per_file * BYTES_PER_MB,
    )
    try:
        files = _written(tasks, settings, job)
        n_wanted = _n_wanted(acquired, manifests, n_lost, settings)
        _require_all(n_wanted, settings.formats, files, is_staged=staging != folder)
        for (strategy, vendor), path in job.folders.items():
            _write_companions(path, FORMATS[vendor].companions(manifests[strategy]))
            mine = {file.file_name for file in files if (file.strategy, file.vendor) == (strategy, vendor)}
            remove_files(path, TASK_FILES, keep=mine)
        if staging != folder:
            for key, name in names.items():
                replace_folder(job.folders[key], f"{folder}/{name}")
        _record_tasks(run, cycle_id, tasks, manifests, settings)
    finally:
        shown.unpersist()
        if staging != folder:
            remove_folder(staging)
    final = {key: f"{folder}/{name}" for key, name in names.items()}
    _record(run, files, final, manifests, settings, cycle_id)
    if not settings.strategies:
        _remove_gone(run, cycle_id, folder, manifests)
    for (strategy, vendor), path in final.items():
        run.tell(f"{manifests[strategy].n_tasks:,} tasks for {FORMATS[vendor].tool}: {path}")
    return {
        "manifests": len(final),
        "files": len(files),
        "tasks": sum(manifest.n_tasks for manifest in manifests.values()),
        "boxes": sum(file.n_boxes for file in files if file.vendor == settings.formats[0]),
    }


def _kept_beside(run: Run, cycle_id: str, folder: str, settings: ExportSettings) -> list[str]:
    """Strategies whose files are in the cycle's folder and stay there, as only others are exported."""
    if not settings.strategies:
        return []
    files = run.store.read(MANIFESTS).where(F.col("cycle_id") == cycle_id)
    files = files.where(
        F.startswith("path", F.lit(f"{folder}/")) & ~F.col("strategy").isin(*settings.strategies)
    )
    rows = files.select("strategy").distinct().orderBy("strategy").limit(MOST_STRATEGIES).collect()
    return [row.strategy for row in rows]


def _require_boxes_of_model(acquired: DataFrame, run: Run, model: Model) -> None:
    """A pick whose box cannot be shown would be sent, and come back, as an image without that box."""
    picks = acquired.where("detection_id IS NOT NULL")
    if picks.isEmpty():
        return
    mine = detections_of(run, model).join(picks.select("image_id").distinct(), "image_id", "left_semi")
    boxes = mine.select("image_id", F.explode("detections.detection_id").alias("detection_id"))
    lost = picks.join(boxes, ["image_id", "detection_id"], "left_anti").first()
    if lost is not None:
        raise QuarryError(
            f"strategy {lost.strategy!r} picked box {lost.detection_id} of image {lost.image_id}, which "
            f"model {model.model_id} has not detected; export with the model that acquired it (--model)"
        )


def _require_formats_that_ask(settings: ExportSettings) -> None:
    unable = [name for name in settings.formats if settings.tasks not in FORMATS[name].kinds]
    if unable:
        able = [name for name, form in FORMATS.items() if form.write and settings.tasks in form.kinds]
        raise QuarryError(
            f"export.tasks {settings.tasks}: {', '.join(unable)} has no way to ask that; "
            f"formats that have (export.formats): {', '.join(able)}"
        )


def _manifests(
    tasks: DataFrame, run: Run, cycle_id: str, model: Model, settings: ExportSettings
) -> dict[str, Manifest]:
    """What the tasks of each strategy share."""
    sums = F.count("*").alias("n_tasks"), F.max("rank").alias("last_rank")
    of_strategy = tasks.groupBy("strategy", "kind").agg(*sums).orderBy("strategy")
    rows = of_strategy.limit(MOST_STRATEGIES).collect()
    names = [row.strategy for row in rows]
    missing = sorted(set(settings.strategies).difference(names))
    if missing or not names:
        what = f"strategy {missing[0]!r}" if missing else "acquisition"
        raise QuarryError(
            f"cycle {cycle_id!r}: no {what} to make tasks of; run `quarry acquire --cycle {cycle_id}` first"
            + (f"; it has {', '.join(names)}" if names else "")
        )
    created = _created(run, model)
    return {
        row.strategy: Manifest(
            name=f"{cycle_id} {row.strategy}",
            classes=tuple(name for _, name in sorted(model.classes.items())),
            model_version=model.name,
            kind=row.kind,
            n_tasks=row.n_tasks,
            last_rank=row.last_rank,
            created=created,
        )
        for row in rows
    }


def _tell_left_out(shown: DataFrame, run: Run) -> dict[str, int]:
    """Strategies of which images have nothing to show but boxes outside them, and how many these are."""
    rows = shown.groupBy("strategy").agg(
        F.sum("n_left_out").alias("n_boxes"),
        F.count_if(~has_something_to_show()).alias("n_lost"),
        F.count("*").alias("n_images"),
    )
    n_lost: dict[str, int] = {}
    for row in rows.where("n_boxes > 0").orderBy("strategy").limit(MOST_STRATEGIES).collect():
        what = f"strategy {row.strategy!r}: {row.n_boxes:,} boxes have no part inside their image"
        if row.n_lost == row.n_images:
            raise QuarryError(f"{what}, and there are no others to send; import its detections again")
        n_lost[row.strategy] = row.n_lost
        of_images = f"; nothing is sent of {row.n_lost:,} images that have no other" if row.n_lost else ""
        run.tell(f"{what} and are left out{of_images}")
    return n_lost


def _require_boxes_to_ask_about(
    acquired: DataFrame, tasks: DataFrame, run: Run, settings: ExportSettings
) -> None:
    """Of images, the boxes at or above a threshold are asked about: none may reach it."""
    shown = tasks.groupBy("strategy").agg(F.count_distinct("image_id").alias("n_shown"))
    picked = acquired.groupBy("strategy").agg(F.count_distinct("image_id").alias("n_picked"))
    rows = picked.join(shown, "strategy", "left").fillna(0).orderBy("strategy")
    for row in rows.limit(MOST_STRATEGIES).collect():
        if row.n_shown == 0:
            raise QuarryError(
                f"strategy {row.strategy!r}: export.tasks {settings.tasks} asks about boxes, and of "
                f"{row.n_picked:,} images none has a box inside it at or above export.pre_annotate_above "
                f"({settings.pre_annotate_above}); lower it, or pick boxes"
            )
        if row.n_shown < row.n_picked:
            run.tell(
                f"{row.strategy}: nothing to ask about {row.n_picked - row.n_shown:,} of {row.n_picked:,} "
                f"images, without a box inside that was picked or reaches export.pre_annotate_above "
                f"({settings.pre_annotate_above})"
            )


def _created(run: Run, model: Model) -> str:
    """When the model was registered: every export, also one made at the same time, has the same bytes."""
    seconds = F.unix_timestamp("created_ts").alias("seconds")
    row = run.store.read(MODELS).where(F.col("model_id") == model.model_id).select(seconds).first()
    assert row is not None, "a model that is not registered"
    return datetime.fromtimestamp(row.seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _written(tasks: DataFrame, settings: ExportSettings, job: ManifestJob) -> list[Row]:
    """Writes all files, each by one task, and says what is in them."""
    vendors = F.array(*map(F.lit, settings.formats))
    shard = ((F.col("rank") - 1) / settings.tasks_per_file).cast("int")
    rows = tasks.withColumns({"vendor": F.explode(vendors), "shard": shard})
    group = ("strategy", "vendor", "shard")
    rows = rows.repartition(*group).sortWithinPartitions(*group, "rank", "task_id")
    write = partial(manifest_file_batches, job=job)
    last_rank = max(manifest.last_rank for manifest in job.manifests.values())
    files: list[Row] = []
    if last_rank <= MOST_FILES * settings.tasks_per_file:  # else names would not sort
        files = rows.mapInArrow(write, from_arrow_schema(FILE_SCHEMA)).limit(MOST_FILES + 1).collect()
    if not 0 < len(files) <= MOST_FILES:
        raise QuarryError(
            f"over {MOST_FILES:,} files: raise export.tasks_per_file ({settings.tasks_per_file:,}) or "
            f"export.mb_per_file ({settings.mb_per_file:g})"
        )
    return sorted(files, key=lambda file: (file.strategy, file.vendor, file.file_name))


def _n_wanted(
    acquired: DataFrame,
    manifests: Mapping[str, Manifest],
    n_lost: Mapping[str, int],
    settings: ExportSettings,
) -> dict[str, int]:
    """How many tasks each strategy should have: one an image it picked of, but for images that are left out.

    How many questions there are depends on the boxes; there the tasks themselves are what should be in files.
    """
    if is_question(settings.tasks):
        return {strategy: manifest.n_tasks for strategy, manifest in manifests.items()}
    rows = acquired.groupBy("strategy").agg(F.count_distinct("image_id").alias("n_images"))
    picked = rows.orderBy("strategy").limit(MOST_STRATEGIES).collect()
    return {row.strategy: row.n_images - n_lost.get(row.strategy, 0) for row in picked}


def _require_all(
    n_wanted: Mapping[str, int], vendors: Iterable[str], files: list[Row], *, is_staged: bool
) -> None:
    """No task may be lost between the tables and the files, before anybody is told of them."""
    state = "nothing was published" if is_staged else "files of this export are there: do not import them"
    for strategy, n_tasks in n_wanted.items():
        for vendor in vendors:
            found = sum(f.n_tasks for f in files if (f.strategy, f.vendor) == (strategy, vendor))
            if found != n_tasks:
                raise QuarryError(
                    f"strategy {strategy!r}, format {vendor}: {found:,} tasks written, {n_tasks:,} acquired; "
                    f"{state}, run the export again"
                )


def _write_companions(folder: str, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        with published(f"{folder}/{name}") as stream:
            stream.write(text)


def _require_same_tasks_beside(
    run: Run, cycle_id: str, tasks: DataFrame, manifests: Mapping[str, Manifest], settings: ExportSettings
) -> None:
    """Files in formats that this export does not write must go on holding the cycle's tasks."""
    beside = run.store.read(MANIFESTS).where(
        (F.col("cycle_id") == cycle_id)
        & F.col("strategy").isin(*manifests)
        & ~F.col("vendor").isin(*settings.formats)
    )
    rows = beside.select("strategy", "vendor").distinct().orderBy("strategy", "vendor").collect()
    if not rows:
        return
    strategies = {row.strategy for row in rows}
    sent = run.store.read(SENT_TASKS).where(F.col("cycle_id") == cycle_id)
    other = tasks_only_in_one(*(side.where(F.col("strategy").isin(*strategies)) for side in (tasks, sent)))
    first = other.orderBy("strategy", "task_id").first()
    if first is None:
        return
    formats = sorted({row.vendor for row in rows if row.strategy == first.strategy})
    every = sorted({*settings.formats, *formats})
    can_ask = all(settings.tasks in FORMATS[name].kinds for name in every)
    for_all = f"for all of them (--formats {','.join(every)}), or " if can_ask else ""
    raise QuarryError(
        f"strategy {first.strategy!r} of cycle {cycle_id!r} was exported for {', '.join(formats)} too, with "
        f"other tasks than these (for one, {first.task_id}); every format of a cycle gets the same ones: "
        f"export {for_all}in another cycle"
    )


def _record_tasks(
    run: Run, cycle_id: str, tasks: DataFrame, manifests: Mapping[str, Manifest], settings: ExportSettings
) -> None:
    """Rows of the tasks, in the place of the last export's; a known task keeps its time."""
    asked_about = F.when(F.col("kind").isin(*QUESTION_KINDS), F.get("boxes.detection_id", F.lit(0)))
    where = f"cycle_id = {sql_literal(cycle_id)}"
    if settings.strategies:
        where += f" AND strategy IN ({', '.join(map(sql_literal, manifests))})"
    known = run.store.read(SENT_TASKS, pinned=True).where(F.col("cycle_id") == cycle_id)
    known = known.groupBy("task_id").agg(F.min("ts").alias("sent_ts"))  # strategies share tasks
    rows = tasks.withColumns(
        {
            "cycle_id": F.lit(cycle_id),
            "detection_id": asked_about,
            "n_boxes": F.coalesce(F.size("boxes"), F.lit(0)),
        }
    )
    rows = rows.join(known, "task_id", "left")
    rows = rows.withColumn("ts", F.coalesce("sent_ts", utc_timestamp(run.started_s)))
    run.store.replace(SENT_TASKS, rows, where)


def _record(
    run: Run,
    files: list[Row],
    folders: Mapping[tuple[str, str], str],
    manifests: Mapping[str, Manifest],
    settings: ExportSettings,
    cycle_id: str,
) -> None:
    """Rows of the files, in the place of the last export's; an unchanged file keeps its time."""
    rows = [
        {
            **file.asDict(),
            "cycle_id": cycle_id,
            "path": f"{folders[file.strategy, file.vendor]}/{file.file_name}",
            "tasks": manifests[file.strategy].kind,
            "status": "published",
        }
        for file in files
    ]
    frame = local_frame(run.store.session, rows, spark_schema(MANIFESTS)).drop("ts")
    strategies, vendors = (", ".join(map(sql_literal, names)) for names in (manifests, settings.formats))
    where = f"cycle_id = {sql_literal(cycle_id)} AND strategy IN ({strategies}) AND vendor IN ({vendors})"
    same = [*MANIFESTS.key, "sha256"]
    known = run.store.read(MANIFESTS, pinned=True).where(where).select(*same, F.col("ts").alias("written_ts"))
    frame = frame.join(known, same, "left")
    frame = frame.withColumn("ts", F.coalesce("written_ts", utc_timestamp(run.started_s)))
    run.store.replace(MANIFESTS, frame, where)


def _remove_gone(run: Run, cycle_id: str, folder: str, manifests: Mapping[str, Manifest]) -> None:
    """Folders and rows of strategies that the cycle once acquired by and has no picks of any more."""
    gone = run.store.read(MANIFESTS).where(
        (F.col("cycle_id") == cycle_id) & ~F.col("strategy").isin(*manifests)
    )
    place = F.regexp_replace("path", "/[^/]*$", "")
    folders = gone.select("strategy", place.alias("place")).distinct().limit(MOST_STRATEGIES).collect()
    for row in folders:
        if row.place.rpartition("/")[0] == folder:
            remove_folder(row.place)
            run.tell(f"strategy {row.strategy!r} has no picks any more: removed {row.place}")
    run.store.delete(MANIFESTS, gone.select(*MANIFESTS.key))
