"""From `detections` and held-out `ground_truth` to the curves that make scores probabilities."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import CalibrationSettings, ScoreSettings
from pipelines.local_frame import local_frame
from pipelines.models import Model
from pipelines.one_table import one_table
from pipelines.reliability import detection_matches
from pipelines.run import Run
from pipelines.score_inputs import score_request
from pipelines.true_hardness import held_out_truth
from schemas.tables import IMAGES
from udfs.score_calibration import (
    FOLD_COLUMN,
    CalibrationMethod,
    ScoreCalibration,
    calibration_of_matches,
)


class FittedCalibration(NamedTuple):
    """Curves, and who they were fitted on.

    Attributes:
        calibration: The curves; their digest belongs into the hash of the settings of every row made with
            them, so that new labels put those rows out of date.
        folds: Columns image_id, calibration_fold of the images fitted on; at most
            `CalibrationSettings.max_images` rows.
    """

    calibration: ScoreCalibration
    folds: DataFrame


def fitted_calibration(
    run: Run, model: Model, scoring: ScoreSettings, settings: CalibrationSettings, seed: int
) -> FittedCalibration | None:
    """Curves from the completely labeled images that the detector was not trained on, where they pay.

    Args:
        run: The run; told what was found.
        model: Whose scores are calibrated.
        scoring: IoU threshold and classes.
        settings: Method, bounds, folds.
        seed: Of the draw of images and of the folds.

    Returns:
        None where the raw scores shall stay: method `none`, too few labeled images or no detection on them,
        or a gain out of fold below `min_gain`. The same tables and settings give the same curves.
    """
    if settings.method == "none":
        return None
    truth = held_out_truth(run, model)
    folds = truth.transform(image_folds, run.store.read(IMAGES), settings, seed)
    rows = folds.collect()  # at most max_images: fixed, and cheap to join again and again
    n_images = len(rows)
    folds = local_frame(run.store.session, rows, folds.schema)
    if n_images < settings.min_images:
        run.tell(
            f"raw scores: {n_images:,} held-out labeled images, calibration.min_images is "
            f"{settings.min_images:,}"
        )
        return None
    # Which objects were found does not depend on how hardness matches: see udfs.score_calibration.
    request = replace(score_request(model, scoring, seed), matcher="coco")
    matches = truth.join(F.broadcast(folds.select("image_id")), "image_id").transform(
        detection_matches, request
    )
    text = matches.join(F.broadcast(folds), "image_id").transform(fit_in_one_task, settings).first()
    if text is None:
        run.tell(f"raw scores: no detection on {n_images:,} held-out labeled images")
        return None
    calibration = ScoreCalibration.from_json(text[0])
    found = f"log loss {calibration.raw_log_loss:.3f} to {calibration.log_loss:.3f} on {n_images:,} images"
    if calibration.gain < settings.min_gain:
        run.tell(f"raw scores: calibration changes {found}, a gain below {settings.min_gain:.0%}")
        return None
    run.tell(f"scores calibrated per class ({settings.method}): {found}")
    return FittedCalibration(calibration, folds)


def image_folds(truth: DataFrame, images: DataFrame, settings: CalibrationSettings, seed: int) -> DataFrame:
    """At most `max_images` labeled images with their folds; all frames of a video are in one.

    Args:
        truth: Column image_id.
        images: Columns image_id, sequence_id.
        settings: Most images, number of folds.
        seed: Of both draws.

    Returns:
        Columns image_id, calibration_fold (0..folds - 1).
    """
    drawn = truth.select("image_id").orderBy(F.xxhash64(F.lit(seed), "image_id"), "image_id")
    drawn = drawn.limit(settings.max_images)
    alike = F.coalesce("sequence_id", "image_id")
    fold = F.pmod(F.xxhash64(F.lit(seed), F.lit(FOLD_COLUMN), alike), F.lit(settings.folds)).cast("int")
    known = images.select("image_id", "sequence_id")
    return drawn.join(known, "image_id", "left").select("image_id", fold.alias(FOLD_COLUMN))


def fit_in_one_task(matches: DataFrame, settings: CalibrationSettings) -> DataFrame:
    """The curves as one row of JSON; no row without detections.

    Args:
        matches: Columns label, score, is_true_positive, calibration_fold; of at most `max_images` images.
        settings: Method, number of folds.
    """
    assert settings.method != "none"
    fit = partial(_calibration_row, n_folds=settings.folds, method=settings.method)
    columns = ("label", "score", "is_true_positive", FOLD_COLUMN)
    one_group = matches.select(*columns, F.lit(settings.method).alias("method"))
    return one_group.groupBy("method").applyInArrow(one_table(fit), "calibration STRING")


def with_calibration_folds(detections: DataFrame, folds: DataFrame) -> DataFrame:
    """Detections with the column `with_presence` reads: null for images that had no part in the fit.

    Args:
        detections: Column image_id.
        folds: From `fitted_calibration`.
    """
    return detections.join(F.broadcast(folds), "image_id", "left")


def _calibration_row(table: pa.Table, n_folds: int, method: CalibrationMethod) -> pa.Table:
    calibration = calibration_of_matches(table, n_folds=n_folds, method=method)
    return pa.table({"calibration": [calibration.to_json()]})
