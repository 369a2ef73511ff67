"""Scores do not depend on partitioning or batch size, and only what is missing is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import CalibrationSettings, ScoreSettings, Settings
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.score import add_hardness, score
from pipelines.score_inputs import detections_of, score_request
from pipelines.tables import TableStore
from schemas.tables import DETECTIONS, MODELS
from tests.small_lake import rows

RAW = CalibrationSettings(method="none")


@pytest.mark.parametrize("estimator", ["exact", "monte_carlo"])
def test_partitions_and_batch_size_change_no_bit(finished: tuple[Run, Settings], estimator: str) -> None:
    run, settings = finished
    model = model_named(run, None)
    scoring = settings.score.model_copy(update={"estimator": estimator})
    request = score_request(model, scoring, settings.seed)
    results = []
    for partitions, batch_rows in ((1, 10_000), (7, 10_000), (7, 3)):
        run.store.session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch_rows))
        detections = detections_of(run, model).repartition(partitions)
        frame = detections.transform(add_hardness, request)
        found = frame.select("image_id", "query", "hardness", "std_error", "n_samples", "estimator").collect()
        results.append(sorted(found, key=lambda row: (row.image_id, row["query"])))
    run.store.session.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert len(results[0]) > 500
    assert results[0] == results[1] == results[2]


def test_monte_carlo_agrees_with_exact_within_its_error(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    model = model_named(run, None)
    many = settings.score.model_copy(update={"estimator": "monte_carlo", "samples": 400})
    values = {}
    for scoring in (settings.score, many):
        request = score_request(model, scoring, settings.seed)
        frame = detections_of(run, model).transform(add_hardness, request)
        kept = frame.where(frame["query"].isin(*scoring.queries)).collect()
        values[scoring.estimator] = {(row.image_id, row["query"]): row for row in kept}
    # Sums over the lake: one image's rare, heavy error can make its own standard error far too small.
    for query in settings.score.queries:
        sampled = {key: row for key, row in values["monte_carlo"].items() if key[1] == query}
        difference = sum(row.hardness - values["exact"][key].hardness for key, row in sampled.items())
        error = sum(row.std_error**2 for row in sampled.values()) ** 0.5
        assert len(sampled) > 60 and error > 0
        assert abs(difference) < 4 * error, query


def test_only_what_is_missing_is_scored(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    run, settings = finished
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    for table in (MODELS, DETECTIONS):
        mine.store.merge(table, run.store.read(table))
    model = model_named(mine, None)
    first = settings.score.model_copy(update={"queries": ("total_fp",), "baselines": ()})
    n_images = len(rows(run.store.root, "detections"))
    assert score(mine, model, first, RAW, 0) == {"images": n_images, "rows": n_images}
    assert score(mine, model, first, RAW, 0) == {"images": 0, "rows": 0}
    before = rows(str(tmp_path), "hardness", volatile=True)
    more = settings.score.model_copy(update={"queries": ("total_fp", "total_fn"), "baselines": ()})
    assert score(mine, model, more, RAW, 0) == {"images": n_images, "rows": n_images}
    after = rows(str(tmp_path), "hardness", volatile=True)
    assert [row for row in after if row["query"] == "total_fp"] == before
    other_eta = first.model_copy(update={"eta": 0.6})
    assert score(mine, model, other_eta, RAW, 0)["rows"] == n_images
    assert len(rows(str(tmp_path), "hardness")) == 2 * n_images


@pytest.fixture
def mine(finished: tuple[Run, Settings], tmp_path: Path) -> Run:
    """Models and detections of the finished cycle under a root of its own."""
    run, _ = finished
    own = Run(store=TableStore(run.store.session, str(tmp_path)))
    for table in (MODELS, DETECTIONS):
        own.store.merge(table, run.store.read(table))
    return own


def _defined(settings: Settings, **queries: dict) -> ScoreSettings:
    given = {"queries": ("total_fp", *queries), "define": queries, "baselines": ()}
    return ScoreSettings.model_validate(settings.score.model_dump() | given)


def test_a_changed_definition_is_scored_again_and_nothing_else(
    finished: tuple[Run, Settings], mine: Run
) -> None:
    model = model_named(mine, None)
    n_images = len(rows(mine.store.root, "detections"))
    missed = {"errors": "fn", "where": {"classes": ["pedestrian"], "bottom": {"min": 0.6}}}
    first = _defined(finished[1], missed=missed, any_fp={"errors": "fp", "reduce": "any"})
    assert score(mine, model, first, RAW, 0) == {"images": n_images, "rows": 3 * n_images}
    before = rows(mine.store.root, "hardness", volatile=True)
    changed = _defined(finished[1], missed={**missed, "reduce": "count"}, any_fp=first.define["any_fp"])
    assert score(mine, model, changed, RAW, 0) == {"images": n_images, "rows": n_images}
    after = rows(mine.store.root, "hardness", volatile=True)
    for kept in ("total_fp", "any_fp"):
        assert [r for r in after if r["query"] == kept] == [r for r in before if r["query"] == kept]
    assert {r["estimator"] for r in after} == {"exact"}
    assert all(0 <= r["hardness"] <= 1 for r in after if r["query"] == "any_fp")
    misspelt = _defined(finished[1], q={"errors": "fn", "where": {"classes": ["pedestrain"]}})
    with pytest.raises(QuarryError, match="'pedestrain' is no class of the model; did you mean 'pedestrian'"):
        score(mine, model, misspelt, RAW, 0)


def test_committees_stand_beside_the_models_own_scores(finished: tuple[Run, Settings], mine: Run) -> None:
    model = model_named(mine, None)
    for table in (MODELS, DETECTIONS):
        name = {"name": F.lit("second")} if table is MODELS else {}
        mine.store.merge(table, mine.store.read(table).withColumns({"model_id": F.lit("other"), **name}))
    scoring = finished[1].score.model_copy(
        update={"queries": ("total_fp", "total_fn"), "baselines": (), "committee": ("second",)}
    )
    n_images = len([r for r in rows(mine.store.root, "detections") if r["model_id"] == model.model_id])
    assert score(mine, model, scoring, RAW, 0)["rows"] == 4 * n_images
    assert score(mine, model, scoring, RAW, 0)["rows"] == 0
    found = rows(mine.store.root, "hardness")
    by_method = {
        method: {(r["image_id"], r["query"]): r["hardness"] for r in found if r["method"] == method}
        for method in ("exact", "committee_score_sampled")
    }
    # The second model found exactly the same: judging by it is judging by oneself.
    assert by_method["committee_score_sampled"] == pytest.approx(by_method["exact"], abs=1e-9)
    with pytest.raises(QuarryError, match="no such model"):
        score(mine, model, scoring.model_copy(update={"committee": ("nobody",)}), RAW, 0)
