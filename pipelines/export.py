"""From `acquisition` to files that labeling tools import, each recorded in `manifests`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import spark_schema, utc_timestamp
from schemas.tables import ACQUISITION, DETECTIONS, IMAGES, MANIFESTS
from udfs.formats.coco import write_coco
from udfs.formats.label_studio import labeling_config, write_label_studio
from udfs.formats.task import LabelingTask, ManifestCounts, TaskBox
from udfs.published_file import file_sha256, published
from udfs.views import ORIGINAL_VIEW

MOST_STRATEGIES = 1_000


def export_manifests(run: Run, cycle_id: str, model: Model, settings: ExportSettings) -> list[str]:
    """Writes one file per strategy and format; the same selection gives the same bytes and rows.

    Args:
        run: The run.
        cycle_id: Whose acquisition is exported.
        model: Whose detections become pre-annotations.
        settings: Formats, folder, threshold, URI prefix.

    Returns:
        Paths of the files.

    Raises:
        QuarryError: Nothing was acquired in the cycle.
    """
    acquired = run.store.require(ACQUISITION, made_by="acquire").where(F.col("cycle_id") == cycle_id)
    strategies = [
        row.strategy
        for row in acquired.select("strategy").distinct().orderBy("strategy").limit(MOST_STRATEGIES).collect()
    ]
    if not strategies:
        raise QuarryError(
            f"cycle {cycle_id!r} has no acquisition: run `quarry acquire --cycle {cycle_id}` first"
        )
    folder = f"{(settings.folder or run.store.root + '/exports').rstrip('/')}/{cycle_id}"
    classes = [name for _, name in sorted(model.classes.items())]
    selected = acquired.transform(with_boxes, run, model.model_id, settings.pre_annotate_above)
    paths = []
    rows = []
    for strategy in strategies:
        chosen = selected.where(F.col("strategy") == strategy).orderBy("rank")
        images = partial(_manifest_images, chosen, settings.uri_prefix)
        for vendor in settings.formats:
            path = f"{folder}/{_file_name(strategy)}.{vendor}.json"
            with published(path) as stream:
                counts = _write(vendor, stream, images, classes, model.name)
            rows.append(_manifest_row(cycle_id, vendor, strategy, path, counts))
            paths.append(path)
    if "label_studio" in settings.formats:
        paths.append(f"{folder}/label_studio_config.xml")
        with published(paths[-1]) as stream:
            stream.write(labeling_config(classes))
    frame = run.store.session.createDataFrame(rows, spark_schema(MANIFESTS))
    frame = frame.withColumn("ts", utc_timestamp(run.started_s))
    run.store.merge(MANIFESTS, frame, changed="t.sha256 <> s.sha256")
    return paths


def with_boxes(acquired: DataFrame, run: Run, model_id: str, threshold: float) -> DataFrame:
    """One row per strategy and image: where it is, its best rank, and the boxes to show.

    Those are the model's boxes at or above a score; where boxes were picked, the picked ones and no others,
    all in one task, so that a labeler opens an image once.
    """
    images = run.store.read(IMAGES).select("image_id", "uri", "path", "width", "height")
    detections = run.store.read(DETECTIONS).where(
        (F.col("model_id") == model_id) & (F.col("view") == ORIGINAL_VIEW)
    )
    tasks = acquired.groupBy("strategy", "image_id").agg(
        F.min("rank").alias("rank"),
        F.min_by("score", "rank").alias("score"),
        F.collect_set("detection_id").alias("picked"),
    )
    rows = tasks.join(images, "image_id").join(
        detections.select("image_id", "detections"), "image_id", "left"
    )

    def is_shown(d: Column) -> Column:
        whole_image = F.size("picked") == 0
        return F.when(whole_image, d.score >= threshold).otherwise(F.array_contains("picked", d.detection_id))

    return rows.withColumn("boxes", F.filter("detections", is_shown)).drop("detections")


def _write(
    vendor: str,
    stream: IO[str],
    images: Callable[[], Iterator[LabelingTask]],
    classes: Sequence[str],
    model: str,
) -> ManifestCounts:
    if vendor == "coco":
        return write_coco(stream, images(), classes)
    return write_label_studio(stream, images(), classes, model_version=model)


def _manifest_images(chosen: DataFrame, uri_prefix: str | None) -> Iterator[LabelingTask]:
    # The budget bounds the rows; they stream through the driver one partition at a time.
    for row in chosen.toLocalIterator():
        yield LabelingTask(
            image_id=row.image_id,
            uri=_sent_uri(row.uri, row.path, uri_prefix),
            file_name=row.path,
            width=row.width,
            height=row.height,
            rank=row["rank"],
            score=row.score,
            strategy=row.strategy,
            boxes=tuple(map(_manifest_box, row.boxes or ())),
        )


def _manifest_box(box: Row) -> TaskBox:
    return TaskBox(
        detection_id=box.detection_id,
        label_name=box.label_name,
        score=box.score,
        x1=box.x1,
        y1=box.y1,
        x2=box.x2,
        y2=box.y2,
    )


def _sent_uri(uri: str, path: str, uri_prefix: str | None) -> str:
    # A listing without a lake root has paths that are whole URIs.
    return uri if uri_prefix is None or path == uri else f"{uri_prefix.rstrip('/')}/{path}"


def _file_name(strategy: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in strategy)


def _manifest_row(
    cycle_id: str, vendor: str, strategy: str, path: str, counts: ManifestCounts
) -> dict[str, object]:
    return {
        "cycle_id": cycle_id,
        "vendor": vendor,
        "strategy": strategy,
        "path": path,
        "n_tasks": counts.n_images,
        "n_images": counts.n_images,
        "n_boxes": counts.n_boxes,
        "cost_s": None,
        "sha256": file_sha256(path),
        "status": "published",
        "ts": None,
    }
