"""Pixel scores of detections become rows of hardness, once, and rank images like any other uncertainty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import AcquireSettings, ScoreSettings
from pipelines.acquire import acquire
from pipelines.hardness_rows import query_digest
from pipelines.models import Model
from pipelines.pixel_hardness import score_pixels
from pipelines.rankings import rankings
from pipelines.run import Run
from pipelines.score_inputs import require_known_names
from pipelines.tables import TableStore, spark_schema, utc_timestamp
from schemas.tables import ACQUISITION, DETECTIONS, HARDNESS, IMAGES
from tests.small_lake import rows

MODEL = Model(model_id="m", name="m", head="softmax", classes={1: "car"})
SCORES = {
    "a": {"pixel_divergence": 0.5, "pixel_entropy": 0.1},
    "b": {"pixel_divergence": 0.25, "pixel_entropy": 0.9},
    "c": {"pixel_divergence": 0.75, "pixel_entropy": 0.0},
    "none": None,
}


@pytest.fixture
def run(session: SparkSession, tmp_path: Path) -> Run:
    run = Run(store=TableStore(session, str(tmp_path)), started_s=1000.0)
    write_detections(run, SCORES)
    return run


def write_detections(run: Run, scores: dict[str, Any]) -> None:
    given = [
        {
            "image_id": image_id,
            "model_id": MODEL.model_id,
            "view": view,
            "width": 10,
            "height": 10,
            "detections": [],
            "n_detections": 0,
            "pixel_scores": found and {name: score * (view == "original") for name, score in found.items()},
            "run_id": "r",
        }
        for image_id, found in scores.items()
        for view in ("original", "hflip")
    ]
    frame = run.store.session.createDataFrame(given, spark_schema(DETECTIONS))
    run.store.merge(DETECTIONS, frame.withColumn("ts", utc_timestamp(run.started_s)))


def test_each_image_and_score_gets_one_row_once(run: Run) -> None:
    assert score_pixels(run, MODEL, ScoreSettings()) == {"images": 3, "rows": 6}
    found = rows(run.store.root, "hardness", volatile=True)
    assert {(row["image_id"], row["query"]): row["hardness"] for row in found} == {
        (image_id, name): score for image_id, of in SCORES.items() if of for name, score in of.items()
    }
    assert {(row["method"], row["estimator"], row["std_error"], row["n_samples"]) for row in found} == {
        ("baseline", "baseline", None, None)
    }
    assert score_pixels(run, MODEL, ScoreSettings()) == {"images": 0, "rows": 0}
    assert rows(run.store.root, "hardness", volatile=True) == found


def test_images_seen_again_are_scored_again(run: Run) -> None:
    score_pixels(run, MODEL, ScoreSettings())
    later = Run(store=run.store, started_s=2000.0)
    write_detections(later, {"a": {"pixel_divergence": 0.125, "pixel_entropy": 0.1}})
    assert score_pixels(later, MODEL, ScoreSettings()) == {"images": 1, "rows": 2}
    found = {(r["image_id"], r["query"]): r["hardness"] for r in rows(run.store.root, "hardness")}
    assert len(found) == 6 and found["a", "pixel_divergence"] == 0.125


def test_detections_without_scores_give_no_rows(session: SparkSession, tmp_path: Path) -> None:
    run = Run(store=TableStore(session, str(tmp_path)), started_s=1000.0)
    write_detections(run, {"none": None})
    assert score_pixels(run, MODEL, ScoreSettings()) == {"images": 0, "rows": 0}
    older = run.store.read(DETECTIONS).drop("pixel_scores")
    older.write.format("delta").save(str(tmp_path / "older" / "detections"))
    before = Run(store=TableStore(session, str(tmp_path / "older")), started_s=1000.0)
    assert score_pixels(before, MODEL, ScoreSettings()) == {"images": 0, "rows": 0}


def test_they_rank_images_and_are_compared_with_the_truth(run: Run) -> None:
    score_pixels(run, MODEL, ScoreSettings())
    images = run.store.read(DETECTIONS).select("image_id").distinct()
    text = {name: F.col("image_id") for name in ("uri", "path", "dataset")}
    folders = F.create_map().cast("map<string,string>")
    run.store.merge(
        IMAGES, images.withColumns(text | {"partitions": folders, "ingest_ts": F.current_timestamp()})
    )
    wanted = AcquireSettings(query="pixel_divergence", strategies=("hardest",), budget=2)
    acquire(run, "c1", MODEL, wanted, ScoreSettings(), seed=0)
    picked = run.store.read(ACQUISITION).orderBy("rank").collect()
    assert [(row.image_id, row.score) for row in picked] == [("c", 0.75), ("a", 0.5)]
    truth = (
        run.store.read(HARDNESS)
        .where("query = 'pixel_divergence'")
        .withColumns({"query": F.lit("total_fp"), "method": F.lit("ground_truth")})
    )
    scoring = ScoreSettings(queries=("total_fp",))
    run.store.merge(HARDNESS, truth.withColumn("query_hash", query_digest(scoring)))
    held_out = run.store.read(DETECTIONS).select("image_id", F.col("ts").alias("detected_ts")).distinct()
    ranked = rankings(run, held_out, MODEL, scoring, seed=0).collect()
    assert {row.image_id: row.pixel_entropy for row in ranked} == {"a": 0.1, "b": 0.9, "c": 0.0}


def test_acquiring_by_a_pixel_score_needs_it_asked_for() -> None:
    ranked_by = ("pixel_divergence",)
    with pytest.raises(QuarryError, match="ranks by 'pixel_divergence', which is not in"):
        require_known_names(ScoreSettings(), ranked_by, ("pixel_entropy",))
    require_known_names(ScoreSettings(), ranked_by, ("pixel_divergence",))
