"""Strategies on the small lake: what they pick, why, and what they refuse."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.acquisition_spec import PriceList
from conf.errors import QuarryError
from conf.export_settings import ExportSettings
from conf.settings import AcquireSettings, Settings
from pipelines import acquire as acquire_module
from pipelines.acquire import acquire
from pipelines.box_dataset import box_dataset
from pipelines.labeling_tasks import labeling_tasks
from pipelines.models import model_named
from pipelines.picked_elsewhere import PickedElsewhere
from pipelines.ranked_images import ScoredOtherwise
from pipelines.run import Run
from pipelines.tables import TableStore, in_schema
from schemas.tables import (
    ACQUISITION,
    DETECTIONS,
    GROUND_TRUTH,
    HARDNESS,
    IMAGES,
    MANIFESTS,
    MODELS,
    TRUTH_BOX_DDL,
)
from tests.small_lake import rows

BUDGET = 8
SENT = "earlier"


@pytest.fixture(scope="module")
def lake(finished: tuple[Run, Settings], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Settings]:
    """The finished cycle's tables, with made-up features: where a box or the most confident box lies."""
    run, settings = finished
    store = TableStore(run.store.session, str(tmp_path_factory.mktemp("acquire")))
    for table in (IMAGES, HARDNESS, MODELS):
        shutil.copytree(run.store.path(table), store.path(table))
    place = F.transform("detections", lambda d: F.array(d.x1.cast("float"), d.y1.cast("float")))
    featured = run.store.read(DETECTIONS).withColumns(
        {
            "detections": F.zip_with("detections", place, lambda d, feature: d.withField("feature", feature)),
            "image_feature": F.coalesce(
                F.get(place, F.lit(0)), F.array(F.lit(0.0), F.lit(0.0)).cast("array<float>")
            ),
        }
    )
    store.merge(DETECTIONS, featured)
    mine = Run(store=store)
    acquire(mine, SENT, model_named(mine, None), AcquireSettings(budget=3), settings.score, seed=5)
    return mine, settings


def picked(lake: tuple[Run, Settings], cycle: str, **settings: Any) -> list[dict[str, Any]]:
    """Rows of `acquisition` these settings write, by strategy and rank."""
    run, whole = lake
    forget_other_picks(run, cycle)
    acquire(run, cycle, model_named(run, None), AcquireSettings.model_validate(settings), whole.score, seed=5)
    mine = [row for row in rows(run.store.root, "acquisition") if row["cycle_id"] == cycle]
    return sorted(mine, key=lambda row: (row["strategy"], row["rank"]))


def forget_other_picks(run: Run, *cycles: str) -> None:
    """What other tests picked is free again."""
    if run.store.exists(ACQUISITION):
        kept = ", ".join(f"'{cycle}'" for cycle in (SENT, *cycles))
        run.store.replace(
            ACQUISITION, run.store.read(ACQUISITION).limit(0), where=f"cycle_id NOT IN ({kept})"
        )


def hardness_of(lake: tuple[Run, Settings], query: str) -> dict[str, float]:
    """Exact hardness by image."""
    table = rows(lake[0].store.root, "hardness")
    return {r["image_id"]: r["hardness"] for r in table if r["query"] == query and r["method"] == "exact"}


def sent_images(lake: tuple[Run, Settings]) -> set[str]:
    """What the earlier cycle picked."""
    return {r["image_id"] for r in rows(lake[0].store.root, "acquisition") if r["cycle_id"] == SENT}


def test_strategies_side_by_side_leave_out_what_is_sent(lake: tuple[Run, Settings]) -> None:
    names = ("hardest:total_fn", "hardest_in_videos", "random", "guided_random")
    table = picked(lake, "side", strategies=names, budget=BUDGET, near_misses=5)
    by_strategy = {
        name: [r for r in table if r["strategy"] == name] for name in {r["strategy"] for r in table}
    }
    assert set(by_strategy) == {
        "hardest:total_fn",
        "hardest_in_videos:pixel_adj_false",
        "random",
        "guided_random",
    }
    sent = sent_images(lake)
    assert sent and not sent & {row["image_id"] for row in table}
    left = {image: value for image, value in hardness_of(lake, "total_fn").items() if image not in sent}
    assert [r["score"] for r in by_strategy["hardest:total_fn"]] == sorted(left.values(), reverse=True)[
        :BUDGET
    ]
    places = {r["image_id"]: (r["sequence_id"], r["frame_index"]) for r in rows(lake[0].store.root, "images")}
    earlier = {places[image] for image in sent}
    for name in ("hardest_in_videos:pixel_adj_false", "guided_random"):
        frames = [places[r["image_id"]] for r in by_strategy[name]]
        assert len({sequence for sequence, _ in frames}) == len(frames)  # 4 frames a sequence, 15 blocked
        assert not [f for f in frames for e in earlier if f[0] == e[0] and abs(f[1] - e[1]) <= 2]
    assert all(r["reason"].startswith(f"rank {r['rank']} of ") for r in by_strategy["hardest:total_fn"])
    misses = [r for r in rows(lake[0].store.root, "near_misses") if r["cycle_id"] == "side"]
    for text in ("budget was spent before its turn", "picked in this cycle", "picked in an earlier cycle"):
        assert any(r["reason"].endswith(text) for r in misses), text
    assert not {(r["strategy"], r["image_id"]) for r in misses} & {
        (r["strategy"], r["image_id"]) for r in table
    }


def test_the_same_settings_pick_the_same_rows_and_exclusions_can_be_lifted(
    lake: tuple[Run, Settings],
) -> None:
    once = picked(lake, "again", budget=BUDGET, exclude=("labeled",))
    assert picked(lake, "again", budget=BUDGET, exclude=("labeled",)) == once
    hardest = [r["score"] for r in once if r["strategy"] == "hardest:pixel_adj_false"]
    assert hardest == sorted(hardness_of(lake, "pixel_adj_false").values(), reverse=True)[:BUDGET]


def test_cycles_that_pick_at_once_share_nothing(
    lake: tuple[Run, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked at what is out before either picks."""
    run, settings = lake
    names = ("one", "two")
    forget_other_picks(run)
    both_looked, first_looks = threading.Barrier(len(names)), set(names)
    look = acquire_module.picked_elsewhere

    def look_together(run: Run, cycle: str, digest: str) -> PickedElsewhere:
        found = look(run, cycle, digest)
        if cycle in first_looks:
            first_looks.remove(cycle)
            both_looked.wait(timeout=120)
        return found

    def pick(name: str) -> None:
        model = model_named(run, None)
        mine = AcquireSettings(budget=BUDGET, strategies=("hardest:total_fn",))
        acquire(run, name, model, mine, settings.score, seed=5)

    monkeypatch.setattr(acquire_module, "picked_elsewhere", look_together)
    with ThreadPoolExecutor() as pool:
        list(pool.map(pick, names))
    once = [r for r in rows(run.store.root, "acquisition", volatile=True) if r["cycle_id"] in names]
    assert len({r["image_id"] for r in once}) == len(once) == 2 * BUDGET
    for name in names:
        pick(name)
    assert [r for r in rows(run.store.root, "acquisition", volatile=True) if r["cycle_id"] in names] == once


def test_a_mixture_keeps_shares_quotas_and_distances(lake: tuple[Run, Settings]) -> None:
    define = {
        "mine": {
            "quotas": {"by": "dataset", "at_most": 0.5},
            "mixture": [
                {"share": 0.5, "strategy": "hardest"},
                {"share": 0.25, "strategy": "k_center_images"},
                {"share": 0.25, "strategy": "random"},
            ],
        }
    }
    table = picked(lake, "mixture", strategies=("mine",), define=define, budget=BUDGET)
    parts = [row["part"] for row in table]
    assert {part: parts.count(part) for part in set(parts)} == {
        "hardest:pixel_adj_false": 4,
        "k_center_images": 2,
        "random": 2,
    }
    assert len({row["image_id"] for row in table}) == BUDGET
    dataset = {r["image_id"]: r["dataset"] for r in rows(lake[0].store.root, "images")}
    counts = [[dataset[r["image_id"]] for r in table].count(name) for name in set(dataset.values())]
    assert max(counts) <= BUDGET / 2


def test_boxes_cost_what_the_price_list_says(lake: tuple[Run, Settings]) -> None:
    names = ("uncertain_boxes", "k_center_boxes", "hardest")
    prices = {"image_s": 100, "draw_box_s": 7, "assign_class_s": 3, "money_per_hour": 36}
    table = picked(lake, "money", strategies=names, budget=3.5, budget_in="money", prices=prices)
    by_strategy = {
        name: [r for r in table if r["strategy"] == name] for name in {r["strategy"] for r in table}
    }
    assert {name: len(found) for name, found in by_strategy.items()} == {
        "uncertain_boxes": 35,
        "k_center_boxes": 35,
        "hardest:pixel_adj_false": 3,
    }
    assert all(
        r["cost_s"] == 10 and r["cost_money"] == pytest.approx(0.1) for r in by_strategy["uncertain_boxes"]
    )
    run, _ = lake
    boxes = box_dataset(run, model_named(run, None), threshold=0.05).select("image_id", "score").collect()
    left = sorted(1 - box.score for box in boxes if box.image_id not in sent_images(lake))
    assert [r["score"] for r in by_strategy["uncertain_boxes"]] == pytest.approx(left[::-1][:35])
    spread = [r["score"] for r in by_strategy["k_center_boxes"]]
    assert (
        spread[1:] == sorted(spread[1:], reverse=True)
        and len({r["detection_id"] for r in table if r["detection_id"]}) > 35
    )
    chosen = run.store.read(ACQUISITION).where("cycle_id = 'money' AND strategy = 'uncertain_boxes'")
    model = model_named(run, None)
    tasks = labeling_tasks(chosen, run, model, ExportSettings(), PriceList()).collect()
    assert len(tasks) == len({r["image_id"] for r in by_strategy["uncertain_boxes"]})
    assert {d.detection_id for task in tasks for d in task.boxes} == {
        r["detection_id"] for r in by_strategy["uncertain_boxes"]
    }


def test_a_partly_labeled_image_keeps_its_other_boxes_as_noisy(
    lake: tuple[Run, Settings], request: pytest.FixtureRequest
) -> None:
    run, _ = lake
    model = model_named(run, None)
    found = box_dataset(run, model, threshold=0.3).orderBy("image_id", "detection_id").collect()
    assert {box.status for box in found} == {"unlabeled"}
    counts = {image: sum(b.image_id == image for b in found) for image in sorted({b.image_id for b in found})}
    partly, whole, held_out = [image for image, n in counts.items() if n >= 3][:3]
    first, second = [box for box in found if box.image_id == partly][:2]
    labels = [
        (partly, [truth(first, "labeled"), truth(second, "background")], False, "train"),
        (whole, [], True, "train"),
        (held_out, [], True, "eval"),
    ]
    frame = run.store.session.createDataFrame(
        labels, f"image_id STRING, boxes ARRAY<{TRUTH_BOX_DDL}>, complete BOOLEAN, split STRING"
    )
    constants = {"cycle_id": F.lit("c"), "ts": F.current_timestamp()}
    run.store.merge(GROUND_TRUTH, in_schema(frame.withColumns(constants), GROUND_TRUTH))
    request.addfinalizer(lambda: run.store.delete(GROUND_TRUTH, frame.select("image_id")))
    status = {b.detection_id: (b.image_id, b.status) for b in box_dataset(run, model, 0.3).collect()}
    assert status[first.detection_id][1] == "labeled" and status[second.detection_id][1] == "background"
    assert {s for image, s in status.values() if image == whole} == {"background"}
    assert {s for image, s in status.values() if image == partly} >= {"labeled", "noisy"}
    still = {i for i, (image, s) in status.items() if s in ("unlabeled", "noisy")}
    assert {s for image, s in status.values() if image == held_out} == {"unlabeled"}
    still -= {i for i in still if status[i][0] in {held_out, *sent_images(lake)}}
    whole_pool = {"strategies": ("uncertain_boxes",), "budget": len(still), "budget_in": "boxes"}
    table = picked(lake, "boxes", **whole_pool, box_threshold=0.3)
    assert {row["detection_id"] for row in table} == still
    assert {status[i][1] for i in still} == {"unlabeled", "noisy"}


def test_boxes_out_for_labeling_stay_out_when_the_next_model_finds_them(lake: tuple[Run, Settings]) -> None:
    run, whole = lake
    model = model_named(run, None)
    settings = AcquireSettings(strategies=("uncertain_boxes",), budget=4, budget_in="boxes")
    first = picked(lake, "first", **settings.model_dump(include={"strategies", "budget", "budget_in"}))
    other = F.transform(
        "detections", lambda d: d.withField("detection_id", F.concat(F.lit("new-"), d.detection_id))
    )
    seen = run.store.read(DETECTIONS).where(F.col("model_id") == model.model_id)
    retrained = seen.withColumns({"detections": other, "model_id": F.lit("retrained")})
    run.store.merge(DETECTIONS, retrained)
    try:
        acquire(run, "second", replace(model, model_id="retrained"), settings, whole.score, seed=5)
        second = [r for r in rows(run.store.root, "acquisition") if r["cycle_id"] == "second"]
        sent = {f"new-{row['detection_id']}" for row in first}
        assert len(second) == 4 and not sent & {row["detection_id"] for row in second}
    finally:
        run.store.delete(DETECTIONS, retrained.select("model_id").distinct())


def test_what_labelers_have_is_not_picked_anew(lake: tuple[Run, Settings]) -> None:
    run, whole = lake
    few = AcquireSettings(strategies=("random",), budget=3)
    before = picked(lake, "out", **few.model_dump())
    manifest = dict.fromkeys(("n_tasks", "n_images", "n_boxes"), 3)
    texts = dict.fromkeys(("vendor", "strategy", "path", "sha256", "status"), "test")
    frame = run.store.session.createDataFrame([texts | manifest | {"cycle_id": "out"}])
    run.store.merge(MANIFESTS, in_schema(frame.withColumn("ts", F.current_timestamp()), MANIFESTS))
    assert picked(lake, "out", **few.model_dump()) == before, "the same picks may be written again"
    more, model = few.model_copy(update={"budget": 4}), model_named(run, None)
    with pytest.raises(QuarryError, match="was exported"):
        picked(lake, "out", **more.model_dump())
    counts = acquire(run, "out", model, more, whole.score, seed=5, replace_exported=True)
    assert counts == {"random": 4}


def test_images_without_a_score_are_counted(lake: tuple[Run, Settings]) -> None:
    run, whole = lake
    told: list[str] = []
    mine = Run(store=run.store, tell=told.append)
    model = model_named(run, None)
    forget_other_picks(run)
    n = run.store.read(DETECTIONS).count() - len(sent_images(lake))
    of_query = run.store.read(HARDNESS).where("query = 'total_fn' AND method = 'exact'")
    others = of_query.join(image_ids_left(lake).limit(5), "image_id", "left_anti").localCheckpoint()
    run.store.merge(HARDNESS, others.withColumns({"query_hash": F.lit("another team's")}))
    settings = AcquireSettings(strategies=("hardest:total_fn",), budget=3)
    acquire(mine, "few", model, settings, whole.score, seed=5)
    assert told == [
        f"{n - 5} of {n} images have no 'total_fn' since they were last detected and are not picked by it: "
        "run `quarry score`"
    ]
    with pytest.raises(QuarryError, match="the 5 images with 'total_fn' that are left"):
        acquire(
            mine,
            "few",
            model,
            AcquireSettings(strategies=("hardest:total_fn",), budget=6),
            whole.score,
            seed=5,
        )
    stricter = whole.score.model_copy(update={"eta": 0.9})
    with pytest.raises(ScoredOtherwise, match="'total_fn' was scored last with other settings"):
        acquire(mine, "few", model, settings, stricter, seed=5)


def image_ids_left(lake: tuple[Run, Settings]) -> DataFrame:
    """Detected images that no cycle has sent, in fixed order."""
    run, _ = lake
    seen = run.store.read(DETECTIONS).select("image_id")
    return seen.where(~F.col("image_id").isin(list(sent_images(lake)))).orderBy("image_id")


def truth(box: Any, status: str) -> tuple[Any, ...]:
    """A label where a detection is, as `ground_truth.boxes` holds it."""
    return (
        box.label,
        box.label_name,
        box.x1,
        box.y1,
        box.x2,
        box.y2,
        False,
        status,
        "test",
        box.detection_id,
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"budget": 10_000}, "above the pool"),
        ({"strategies": ("hardest:entropi",)}, "did you mean 'entropy'"),
        ({"strategies": ("pixel_divergence",)}, "detector.pixel_scores"),
        ({"budget": 10, "budget_in": "seconds"}, "buys 0 image"),
        (
            {
                "strategies": ("q",),
                "define": {"q": {"quotas": {"by": "partition:dates", "at_most": 0.5}}},
                "budget": 3,
            },
            "no image has the partition 'dates'; did you mean 'date'",
        ),
    ],
)
def test_what_cannot_be_picked_is_told_and_nothing_is_written(
    lake: tuple[Run, Settings], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(QuarryError, match=told):
        picked(lake, "refused", **settings)
    assert {r["cycle_id"] for r in rows(lake[0].store.root, "acquisition")} == {SENT}


def test_missing_features_name_the_job_that_makes_them(
    finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    run, settings = finished
    mine = Run(store=TableStore(run.store.session, str(tmp_path)))
    for table in (IMAGES, DETECTIONS, MODELS):
        shutil.copytree(run.store.path(table), mine.store.path(table))
    with pytest.raises(QuarryError, match="keep_image_feature"):
        picked((mine, settings), "c", strategies=("k_center_images",), budget=3)
    assert not mine.store.exists(ACQUISITION)


@pytest.mark.parametrize(
    ("strategy", "named"),
    [
        ("guided_random", "strategy guided_random: temporal rules"),
        ("mixed", "strategy hardest_of_sequences:pixel_adj_false: temporal rules"),
        ("q", "strategy q: quotas.by sequence"),
    ],
)
def test_rules_over_videos_need_videos_and_name_the_setting_that_finds_them(
    lake: tuple[Run, Settings], tmp_path: Path, strategy: str, named: str
) -> None:
    run, settings = lake
    stills = Run(store=TableStore(run.store.session, str(tmp_path)))
    for table in (DETECTIONS, HARDNESS, MODELS):
        shutil.copytree(run.store.path(table), stills.store.path(table))
    nothing = {"sequence_id": F.lit(None), "frame_index": F.lit(None)}
    stills.store.merge(IMAGES, run.store.read(IMAGES).withColumns(nothing))
    define = {"q": {"score": "random", "quotas": {"by": "sequence", "at_most": 0.5}}}
    with pytest.raises(QuarryError, match=rf"^{named}.*`quarry ingest`.*lake\.sequence_pattern"):
        picked((stills, settings), "c", strategies=(strategy,), define=define, budget=3)
    assert not stills.store.exists(ACQUISITION)
