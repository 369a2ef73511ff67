"""What an evaluation measures on the finished cycle, and how it is read back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from conf.settings import EvaluateSettings, ScoreSettings, Settings
from pipelines.evaluate import evaluate
from pipelines.hardness_rows import query_digest
from pipelines.models import Model, model_named
from pipelines.rankings import rankings
from pipelines.reliability import reliability_bins, reliability_rows
from pipelines.report import write_report
from pipelines.report_evaluation import read_evaluation, write_pictures
from pipelines.report_source import ReportSource
from pipelines.run import Run
from pipelines.tables import TableStore
from pipelines.true_hardness import held_out_truth
from schemas.tables import HARDNESS, IMAGES, TABLES
from tests.small_lake import CYCLE, rows


def _metrics(root: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(row["metric"], row["query"], row["method"]): row for row in rows(root, "metrics")}


def test_every_query_and_method_is_measured_with_intervals(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    found = _metrics(run.store.root)
    methods = {method for metric, _, method in found if metric == "ndcg"}
    assert methods == {"score_sampling", "random", *settings.score.baselines}
    for query in settings.score.queries:
        for method in methods:
            for metric in ("ndcg", "mauc", "auroc_25", "area_under_curve"):
                row = found[metric, query, method]
                assert 0.0 <= row["low"] <= row["high"] <= 1.0 and 0.0 <= row["value"] <= 1.0
                assert row["high"] > row["low"]
            if method != "random":
                gain = found["ndcg_over_random", query, method]["value"]
                own, chance = found["ndcg", query, method]["value"], found["ndcg", query, "random"]["value"]
                assert gain == pytest.approx(own - chance) and ("spearman:random", query, method) in found
        for other in settings.score.queries:
            assert ((f"spearman:{other}", query, "ground_truth") in found) == (other != query)
        for size in settings.evaluate.sample_sizes:
            assert found[f"error_to_exact:{size}_samples", query, "score_sampling_mc"]["value"] < 3.0
        exact = found["ndcg:exact", query, "score_sampling"]["value"]
        assert exact == pytest.approx(found["ndcg", query, "score_sampling"]["value"])


def test_the_detector_is_measured_overall_and_per_class(finished: tuple[Run, Settings]) -> None:
    run, _ = finished
    found = _metrics(run.store.root)
    ap50, ap = (found[metric, "all", "detector"]["value"] for metric in ("ap50", "ap"))
    assert 0.2 < ap50 <= 1.0 and ap < ap50
    classes = set(model_named(run, None).classes.values())
    for metric in ("ap50", "ece"):
        assert {query for name, query, _ in found if name == metric} == {"all", *classes}
    assert all(0.0 <= found["ece", name, "detector"]["value"] < 0.5 for name in classes)
    for name in ("all", *classes):
        counts = [
            row["n"]
            for (m, query, _), row in found.items()
            if m.startswith("precision_bin_") and query == name
        ]
        assert sum(counts) == found["ece", name, "detector"]["n"]


def test_images_that_were_trained_on_are_not_measured(finished: tuple[Run, Settings]) -> None:
    run, settings = finished
    model = model_named(run, None)
    truth = held_out_truth(run, model).limit(5)
    ranked = rankings(run, truth, model, settings.score, settings.seed)
    assert ranked.select("image_id").distinct().count() == 5
    other = settings.score.model_copy(update={"eta": 0.7})
    assert rankings(run, truth, model, other, settings.seed).isEmpty()


def test_a_ranking_is_called_after_its_method(session: SparkSession, tmp_path: Path) -> None:
    run = Run(store=TableStore(session, str(tmp_path)))
    scoring = ScoreSettings(queries=("total_fp", "total_fn"), baselines=("entropy",))
    values = [
        (image, query, method, float(image) + place)
        for image in "12"
        for query in scoring.queries
        for place, method in enumerate(("ground_truth", "exact", "monte_carlo", "committee_uniform"))
        if (image, method) != ("2", "committee_uniform")
    ]
    values += [(image, "entropy", "baseline", 7.0) for image in "123"]
    frame = session.createDataFrame(values, "image_id STRING, query STRING, method STRING, hardness DOUBLE")
    digest = F.when(F.col("method") == "baseline", query_digest(scoring, is_baseline=True))
    constant = {
        "model_id": F.lit("m"),
        "std_error": F.lit(0.0),
        "estimator": F.lit("exact"),
        "n_samples": F.lit(None).cast("int"),
        "eta": F.lit(0.5),
        "query_hash": digest.otherwise(query_digest(scoring)),
        "settings_hash": F.lit("any"),
        "run_id": F.lit("r"),
        "ts": F.timestamp_seconds(F.lit(time.time())),
    }
    run.store.merge(HARDNESS, frame.withColumns(constant).select(*HARDNESS.column_names))
    model = Model(model_id="m", name="m", classes={1: "car"}, head="softmax")
    held_out = session.createDataFrame([("1",), ("2",), ("4",)], "image_id STRING")
    held_out = held_out.withColumn("detected_ts", F.timestamp_seconds(F.lit(0)))
    found = {(r["query"], r.image_id): r for r in rankings(run, held_out, model, scoring, 0).collect()}
    assert set(found) == {(query, image) for query in scoring.queries for image in "12"}
    row = found["total_fn", "1"].asDict()
    chance = row.pop("random")
    assert row == {
        "image_id": "1",
        "query": "total_fn",
        "truth": 1.0,
        "score_sampling": 2.0,
        "score_sampling_mc": 3.0,
        "committee_uniform": 4.0,
        "entropy": 7.0,
    }
    assert found["total_fp", "2"].committee_uniform is None
    assert found["total_fp", "1"].random == chance != found["total_fp", "2"].random


def test_reliability_of_classes_equals_a_direct_sum(session: SparkSession) -> None:
    matches = session.createDataFrame(
        [(1, 0.04, False), (1, 0.05, True), (1, 0.52, True), (2, 0.58, False), (1, 1.0, True)],
        "label INT, score DOUBLE, is_true_positive BOOLEAN",
    )
    table = (
        matches.transform(reliability_bins, 10, {1: "car", 2: "bus"}).transform(reliability_rows).collect()
    )
    found = {(row["query"], row.metric): (pytest.approx(row.value), row.n) for row in table}
    # Bins [0, .1), [.5, .6), [.9, 1]: |1/2 - .045| * 2 + |1/2 - .55| * 2 + 0, over 5 detections.
    assert found["all", "ece"] == ((0.91 + 0.1) / 5, 5)
    assert found["car", "ece"] == ((0.91 + 0.48) / 4, 4) and found["bus", "ece"] == (0.58, 1)
    assert found["all", "precision_bin_05"] == (0.5, 2) and found["all", "mean_score_bin_05"] == (0.55, 2)
    assert {metric for query, metric in found if query == "bus"} == {
        "ece",
        "precision_bin_05",
        "mean_score_bin_05",
    }


def test_intervals_and_samples_can_be_left_out_and_it_is_told(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    told: list[str] = []
    mine = Run(store=_copied(run, tmp_path), tell=told.append)
    few = EvaluateSettings(bootstrap_images=10, sample_sizes=())
    scoring = settings.score.model_copy(update={"queries": ("total_fp",), "eta": 0.6})
    counts = evaluate(mine, "other", model_named(mine, None), scoring, few, settings.seed)
    assert counts["labeled"] > 10 and any("evaluate.bootstrap_images (10)" in line for line in told)
    assert any("not measured" in line and "score_sampling;" in line for line in told)
    evaluation = read_evaluation(mine, "other", model_named(mine, None).model_id, scoring)
    assert {cell.low for cells in evaluation.tables[0].rows for cell in cells} == {None}
    assert evaluation.sensitivity == () and evaluation.between_queries is None
    assert evaluation.tables[0].queries == ("total_fp",)


def test_a_report_without_image_files_says_so_and_one_of_an_unknown_cycle_is_refused(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    mine = Run(store=_copied(run, tmp_path))
    there = settings.model_copy(
        update={"report": settings.report.model_copy(update={"path": str(tmp_path / "r.html")})}
    )
    with pytest.raises(QuarryError, match=f"no cycle 'cycle-9'.*{CYCLE}"):
        write_report(mine, "cycle-9", model_named(mine, None), there)
    assert not (tmp_path / "r.html").exists()
    page = Path(write_report(mine, CYCLE, model_named(mine, None), there)).read_text()
    assert "no picture: " in page and "data:image/jpeg" not in page and "Methods compared" in page


def test_pictures_of_an_evaluation_are_files(finished: tuple[Run, Settings], tmp_path: Path) -> None:
    run, settings = finished
    source = ReportSource(run, CYCLE, model_named(run, None), settings)
    n_files = write_pictures(source, str(tmp_path / "new" / "charts"))
    names = {path.name for path in (tmp_path / "new" / "charts").iterdir()}
    assert len(names) == n_files and {"ndcg.svg", "mauc.svg", "spearman-queries.svg"} <= names
    for query in settings.score.queries:
        assert {f"curves-{query}.svg", f"hardness-{query}.svg", f"spearman-{query}.svg"} <= names


def _copied(run: Run, folder: Path) -> TableStore:
    """The tables of a run under another root, with image files that are not there."""
    store = TableStore(run.store.session, str(folder / "tables"))
    for table in TABLES:
        frame = run.store.read(table)
        store.merge(
            table, frame.withColumn("uri", F.concat("uri", F.lit(".gone"))) if table == IMAGES else frame
        )
    return store
