"""Scores do not depend on partitioning or batch size, and only what is missing is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.settings import Settings
from pipelines.models import model_named
from pipelines.run import Run
from pipelines.score import add_hardness, detections_of, score, score_request
from pipelines.tables import TableStore
from schemas.tables import DETECTIONS, MODELS
from tests.small_lake import rows

HASHES = {"exact": "e", "monte_carlo": "m", "baseline": "b"}


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
        frame = detections.transform(add_hardness, request, HASHES, 0.5, run)
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
        frame = detections_of(run, model).transform(add_hardness, request, HASHES, 0.5, run)
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
    assert score(mine, model, first, 0) == {"images": n_images, "rows": n_images}
    assert score(mine, model, first, 0) == {"images": 0, "rows": 0}
    before = rows(str(tmp_path), "hardness", volatile=True)
    more = settings.score.model_copy(update={"queries": ("total_fp", "total_fn"), "baselines": ()})
    assert score(mine, model, more, 0) == {"images": n_images, "rows": n_images}
    after = rows(str(tmp_path), "hardness", volatile=True)
    assert [row for row in after if row["query"] == "total_fp"] == before
    other_eta = first.model_copy(update={"eta": 0.6})
    assert score(mine, model, other_eta, 0)["rows"] == n_images
    assert len(rows(str(tmp_path), "hardness")) == 2 * n_images
