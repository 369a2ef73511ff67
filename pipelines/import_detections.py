"""Detections made elsewhere, from COCO results or tables, to `images`, `models` and `detections`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from conf.label_map import LabelMap
from conf.settings import settings_hash
from pipelines.detection_source import found_detections
from pipelines.imported_images import (
    check_sizes,
    image_rows,
    own_images,
    require_unique,
    with_identity,
)
from pipelines.local_frame import local_frame
from pipelines.quarantine import IMPORT_STAGE, record_outcomes, settle
from pipelines.run import Run
from pipelines.tables import spark_schema, utc_timestamp
from schemas.tables import DETECTIONS, IMAGES, MODELS
from udfs.coco_results import coco_image_list
from udfs.imported_detections import BAD_DETECTIONS, NAMED_SCHEMA, named_batches
from udfs.views import ORIGINAL_VIEW

IDS_TOLD = 5
MOST_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What is imported, and under which names.

    Attributes:
        detections_uri: COCO results JSON, Parquet file or folder, or Delta table.
        images_uri: COCO JSON with the images; none: a table of detections names them itself.
        image_root: Folder or URI the file names are below; none: they are opened as they are, if ever.
        dataset: Dataset of images that are new.
        model_name: Name people know the detector by.
        head: How its scores were made.
        classes: Class names by category id from 1, instead of the categories of the image list.
        label_map: Renames classes and drops some.
        eta0: Collection threshold.
    """

    detections_uri: str
    images_uri: str | None
    image_root: str | None
    dataset: str
    model_name: str
    head: Literal["softmax", "sigmoid"]
    classes: tuple[str, ...] | None
    label_map: LabelMap | None
    eta0: float


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """The identity under which imported detections are kept.

    Attributes:
        model_id: Hash of name, classes and head.
        labels: Class name to label id, from 1.
        targets: The source's class name to the model's; None: its boxes are dropped.
    """

    model_id: str
    labels: dict[str, int]
    targets: dict[str, str | None]


def import_detections(run: Run, request: ImportRequest) -> dict[str, int]:
    """Adds or replaces the detections of a model per image; every image named gets a row, if an empty one.

    Everything is checked before the first table is written. Images with bad detections go to `quarantine`.

    Args:
        run: The run.
        request: What is imported.

    Returns:
        Counts: images with detections rows, boxes, boxes below eta0, boxes dropped by the label map,
        quarantined images.

    Raises:
        QuarryError: A file is missing or not what it should be, ids or names are not unique, a class is not
            in the label map, no result belongs to the images, or no image is left.
    """
    categories, listed = _image_list(run, request)
    if request.label_map and categories:
        request.label_map.of(categories.values(), all_classes=True)
    found, numbered = found_detections(
        run.store.session, request.detections_uri, categories, request.eta0, has_image_list=listed is not None
    )
    found = (found if listed else found.transform(check_sizes)).persist(StorageLevel.DISK_ONLY)
    require_unique(found, "source_id", request.detections_uri)
    _require_unique_ids(found, request.detections_uri)
    if listed is None:
        listed = found.transform(own_images)
    else:
        key = F.col("source_id") if numbered else F.coalesce("quarry_image_id", "file_name")
        listed = listed.withColumn("source_id", key)
        _tell_unlisted(run, request, found, listed)
    images = listed.transform(with_identity, run.store.read(IMAGES, pinned=True), request.image_root).persist(
        StorageLevel.DISK_ONLY
    )
    require_unique(images, "image_id", request.images_uri or request.detections_uri)
    detected = images.transform(_with_detections, found)
    model = _model(detected, request, categories)
    outcomes = detected.transform(_with_names, model).persist(StorageLevel.DISK_ONLY)
    counts = _counts(run, request, outcomes)
    _require_own_name(run, request, model)
    _tell_others(run, model, outcomes)
    _write(run, request, model, images, outcomes)
    for frame in (outcomes, images, found):
        frame.unpersist()
    return counts


def _write(
    run: Run, request: ImportRequest, model: ImportedModel, images: DataFrame, outcomes: DataFrame
) -> None:
    now = utc_timestamp(run.started_s)
    row = {
        "model_id": model.model_id,
        "name": request.model_name,
        "uri": request.detections_uri,
        "classes": {label: name for name, label in model.labels.items()},
        "head": request.head,
        "parent": None,
        "settings": json.dumps({"eta0": request.eta0, "classes": model.targets}),
        "created_ts": None,
    }
    models = local_frame(run.store.session, [row], spark_schema(MODELS)).withColumn("created_ts", now)
    new = images.where("is_new").transform(image_rows, request.dataset, run)
    run.store.merge(IMAGES, new, on_match="keep")
    # The time of its first import stays, which says which model is the latest.
    source = {name: f"s.{name}" for name in ("uri", "settings")}
    run.store.merge(MODELS, models, update=source)
    fine = outcomes.where("error_class IS NULL").withColumns({"run_id": F.lit(run.run_id), "ts": now})
    # What is the same keeps its time stamp, so that nothing is scored again.
    changed = " OR ".join(f"t.{name} <> s.{name}" for name in ("detections", "width", "height"))
    run.store.merge(DETECTIONS, fine, only=f"t.model_id = '{model.model_id}'", changed=changed)
    record_outcomes(outcomes, IMPORT_STAGE, run)
    settle(run)


def _require_unique_ids(found: DataFrame, uri: str) -> None:
    """Fails where a source gives detections the same id, by which boxes are picked and labeled."""
    ids = found.select(F.explode("detections.detection_id").alias("id")).where("id <> ''")
    bad = ids.groupBy("id").count().where("count > 1").first()
    if bad is not None:
        raise QuarryError(
            f"{uri}: {bad['count']} detections have the detection_id {bad['id']!r}; ids must be unique over "
            "all images: make them so or leave the field out"
        )


def _image_list(run: Run, request: ImportRequest) -> tuple[dict[int, str], DataFrame | None]:
    """Category id to class name as far as they are declared, and the images of the image list."""
    categories: dict[int, str] = {}
    listed = None
    if request.images_uri is not None:
        images, categories = coco_image_list(request.images_uri)
        listed = run.store.session.createDataFrame(images)
    if request.classes is not None:
        categories = dict(enumerate(request.classes, start=1))
    return categories, listed


def _tell_unlisted(run: Run, request: ImportRequest, found: DataFrame, listed: DataFrame) -> None:
    """Says which results belong to no image of the list; a results file often covers more than one split."""
    unlisted = found.join(listed, "source_id", "left_anti")
    sums = unlisted.agg(F.count("*").alias("images"), F.sum("n_given").alias("detections")).first()
    assert sums is not None
    if not sums.images:
        return
    examples = ", ".join(
        row.source_id for row in unlisted.select("source_id").orderBy("source_id").limit(IDS_TOLD).collect()
    )
    told = (
        f"{sums.detections:,} detections of {sums.images:,} images that are not in "
        f"{request.images_uri} (for example {examples})"
    )
    if sums.images == found.count():
        raise QuarryError(f"--detections {request.detections_uri}: holds only {told}; give the matching file")
    run.tell(f"left out {told}")


def _with_detections(images: DataFrame, found: DataFrame) -> DataFrame:
    """The images with what was found in them, which for some is nothing."""
    none = F.array().cast(spark_schema(DETECTIONS)["detections"].dataType)
    columns = ("source_id", "detections", "n_below", "fault", "message")
    return images.join(found.select(*columns), "source_id", "left").select(
        "image_id",
        "uri",
        "width",
        "height",
        F.coalesce("detections", none).alias("detections"),
        F.coalesce("n_below", F.lit(0)).alias("n_below"),
        "fault",
        "message",
    )


def _model(detected: DataFrame, request: ImportRequest, categories: Mapping[int, str]) -> ImportedModel:
    """The model's classes: the declared ones, else those met, after the label map, in order."""
    names = list(categories.values()) or _names_met(detected)
    targets: dict[str, str | None] = {name: name for name in names}
    if request.label_map is not None:
        targets = request.label_map.of(names, all_classes=bool(categories))
    kept = dict.fromkeys(name for name in targets.values() if name is not None)
    if not kept:
        raise QuarryError(
            f"--detections {request.detections_uri}: no class is known; give the categories in --images, or "
            "--classes"
        )
    labels = {name: label for label, name in enumerate(kept, start=1)}
    model_id = settings_hash("imported", request.model_name, request.head, *labels)
    return ImportedModel(model_id=model_id, labels=labels, targets=targets)


def _names_met(detected: DataFrame) -> Sequence[str]:
    """Class names of the detections, ids in the order of numbers."""
    names = F.array_distinct(F.transform("detections", lambda detection: detection.label_name))
    rows = detected.select(F.explode(names).alias("name")).distinct().limit(MOST_CLASSES + 1).collect()
    if len(rows) > MOST_CLASSES:
        raise QuarryError(f"expected at most {MOST_CLASSES:,} classes, got more; is label_name a class?")
    return sorted((row["name"] for row in rows), key=lambda name: (name.isdecimal() and len(name), name))


def _with_names(detected: DataFrame, model: ImportedModel) -> DataFrame:
    """Outcomes as the tables hold them: rows of `detections`, or error_class and message."""
    worker = partial(named_batches, model_id=model.model_id, targets=model.targets, labels=model.labels)
    rows = detected.mapInArrow(worker, from_arrow_schema(NAMED_SCHEMA))
    return rows.withColumns(
        {
            "model_id": F.lit(model.model_id),
            "view": F.lit(ORIGINAL_VIEW),
            "latency_ms": F.lit(None).cast("float"),
            "error_class": F.when(F.col("fault").isNotNull(), BAD_DETECTIONS),
        }
    )


def _require_own_name(run: Run, request: ImportRequest, model: ImportedModel) -> None:
    same = run.store.read(MODELS).where(F.col("name") == request.model_name)
    other = same.where(F.col("model_id") != model.model_id).first()
    if other is not None:
        raise QuarryError(
            f"--model-name {request.model_name}: a model with other classes or another head has this name "
            f"({', '.join(other.classes.values())}; now {', '.join(model.labels)}): give another name, or "
            "all classes with --classes or in --images"
        )


def _tell_others(run: Run, model: ImportedModel, outcomes: DataFrame) -> None:
    """Says what an earlier import under the same name leaves beside this one."""
    others = run.store.read(DETECTIONS).where(F.col("model_id") == model.model_id)
    n_others = others.join(outcomes.select("image_id"), "image_id", "left_anti").count()
    if n_others:
        run.tell(
            f"{n_others:,} other images keep the detections of an earlier import under this name; another "
            "detector needs a --model-name of its own"
        )


def _counts(run: Run, request: ImportRequest, outcomes: DataFrame) -> dict[str, int]:
    """What came in; faults are told by kind.

    Raises:
        QuarryError: No image is left.
    """
    total = outcomes.agg(
        F.count_if(F.col("fault").isNull()).alias("images"),
        F.coalesce(F.sum("n_detections"), F.lit(0)).alias("boxes"),
        F.coalesce(F.sum("n_below"), F.lit(0)).alias("below"),
        F.coalesce(F.sum("n_dropped"), F.lit(0)).alias("dropped"),
        F.count("fault").alias("quarantined"),
    ).first()
    assert total is not None
    faulty = outcomes.where("fault IS NOT NULL")
    kinds = faulty.groupBy("fault").agg(
        F.count("*").alias("n"), F.min(F.struct("image_id", "message")).alias("e")
    )
    told = [
        f"{row.n:,} images with bad detections ({row.fault}), for example {row.e.image_id}: {row.e.message}"
        for row in kinds.orderBy(F.desc("n"), "fault").collect()
    ]
    if total.images == 0:
        raise QuarryError(f"--detections {request.detections_uri}: no image is left: {'; '.join(told)}")
    for line in told:
        run.tell(line)
    return dict(total.asDict())
