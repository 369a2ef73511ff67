"""Curves come from held-out labels only, in one bounded task, and reach detections as a fold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyspark.sql import functions as F

from conf.settings import CalibrationSettings, Settings
from pipelines.calibrate import fitted_calibration, image_folds, with_calibration_folds
from pipelines.models import model_named
from pipelines.reliability import detection_matches
from pipelines.run import Run
from pipelines.score_inputs import detections_of, score_request
from pipelines.tables import TableStore
from pipelines.true_hardness import held_out_truth
from schemas.tables import DETECTIONS, GROUND_TRUTH, IMAGES, MODELS
from udfs.score_calibration import fit_calibration

ALWAYS = CalibrationSettings(min_gain=0.0, min_images=2, max_images=30, folds=3)


def test_the_fit_is_that_of_the_matches_and_does_not_depend_on_partitions(
    finished: tuple[Run, Settings],
) -> None:
    run, settings = finished
    model = model_named(run, None)
    told: list[str] = []
    fitted = fitted_calibration(replace(run, tell=told.append), model, settings.score, ALWAYS, seed=1)
    assert fitted is not None and "log loss" in told[0]
    fold_of = {row.image_id: row.calibration_fold for row in fitted.folds.collect()}
    assert len(fold_of) == 30 and set(fold_of.values()) <= {0, 1, 2}
    sequences = run.store.read(IMAGES).select("image_id", "sequence_id").collect()
    of_sequence = {(r.sequence_id, fold_of[r.image_id]) for r in sequences if r.image_id in fold_of}
    assert len(of_sequence) == len({sequence for sequence, _ in of_sequence})

    request = score_request(model, settings.score, 1)
    matches = held_out_truth(run, model).repartition(5).transform(detection_matches, request)
    matches = matches.toArrow().to_pandas()
    matches = matches[matches.image_id.isin(fold_of)]
    expected = fit_calibration(
        matches.label.to_numpy("int64"),
        matches.score.to_numpy(),
        matches.is_true_positive.to_numpy(bool),
        matches.image_id.map(fold_of).to_numpy("int64"),
        n_folds=3,
    )
    assert fitted.calibration == expected

    tagged = detections_of(run, model).transform(with_calibration_folds, fitted.folds)
    counts = tagged.agg(F.count("*").alias("n"), F.count("calibration_fold").alias("fitted")).first()
    assert counts is not None
    assert (counts.n, counts.fitted) == (detections_of(run, model).count(), 30)


def test_raw_scores_stay_where_calibration_is_not_asked_for_or_does_not_pay(
    finished: tuple[Run, Settings],
) -> None:
    run, settings = finished
    model = model_named(run, None)
    told: list[str] = []
    mine = replace(run, tell=told.append)
    for change, message in (
        ({"method": "none"}, None),
        ({"min_images": 1000}, "calibration.min_images is 1,000"),
        ({"min_gain": 0.99}, "gain below 99%"),
    ):
        told.clear()
        changed = ALWAYS.model_copy(update=change)
        assert fitted_calibration(mine, model, settings.score, changed, seed=1) is None
        assert (message in told[0]) if message else not told


def test_labels_the_detector_was_trained_on_are_not_fitted_on(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    told: list[str] = []
    mine = Run(store=TableStore(run.store.session, str(tmp_path)), tell=told.append)
    for table in (MODELS, IMAGES, DETECTIONS):
        mine.store.merge(table, run.store.read(table))
    trained_on = run.store.read(GROUND_TRUTH).withColumn("split", F.lit("train"))
    mine.store.merge(GROUND_TRUTH, trained_on)
    assert fitted_calibration(mine, model_named(mine, None), settings.score, ALWAYS, seed=1) is None
    assert told == ["raw scores: 0 held-out labeled images, calibration.min_images is 2"]


def test_another_seed_draws_other_images(finished: tuple[Run, Settings]) -> None:
    run, _ = finished
    truth, images = run.store.read(GROUND_TRUTH), run.store.read(IMAGES)
    drawn = [{r.image_id for r in image_folds(truth, images, ALWAYS, seed).collect()} for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
