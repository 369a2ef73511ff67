"""Detection over a lake: chunk by chunk, each image once, whatever happens in between."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from PIL import Image
from pyspark.sql import SparkSession

from conf.settings import LakeSettings, Settings
from pipelines.detect import detect, detect_job
from pipelines.detect_chunks import DetectChunks
from pipelines.ingest import ingest
from pipelines.run import Run
from pipelines.tables import TableStore
from schemas.tables import DETECTIONS, IMAGES, MODELS, QUARANTINE
from tests.small_lake import assert_same_detections, rows

SMALL_CHUNKS = {"commit_every_s": 0.0, "images_per_task": 8}


def with_detect(settings: Settings, **changes: Any) -> Settings:
    """The settings with others for how the detector runs."""
    return settings.model_copy(update={"detect": settings.detect.model_copy(update=changes)})


@pytest.fixture
def ingested(finished: tuple[Run, Settings], tmp_path: Path) -> tuple[TableStore, Settings]:
    """The small lake as ingest leaves it, in a root of its own; a new model tries what is in quarantine."""
    run, settings = finished
    store = TableStore(run.store.session, str(tmp_path / "tables"))
    for table in (IMAGES, QUARANTINE):
        shutil.copytree(run.store.path(table), store.path(table))
    return store, settings


def detected(store: TableStore, settings: Settings, **flags: Any) -> dict[str, int]:
    """Counts of one detection run."""
    return detect(Run(store=store), "c", detect_job(settings, **flags))


def found(store: TableStore) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Detections by image and view; fails when a row is there twice."""
    table = rows(store.root, "detections")
    by_key = {(row["image_id"], row["view"]): row["detections"] for row in table}
    assert len(by_key) == len(table)
    return by_key


def in_quarantine(store: TableStore) -> set[str]:
    """Images that are in quarantine now."""
    return {row["image_id"] for row in rows(store.root, "quarantine") if not row["resolved"]}


def in_quarantine_of_detect(store: TableStore) -> set[str]:
    """Images the detector was tried on in vain."""
    return {row["image_id"] for row in rows(store.root, "quarantine") if row["stage"] == "detect"}


def test_the_tables_tell_where_frames_stand_and_where_time_went(finished: tuple[Run, Settings]) -> None:
    run, _ = finished
    places = {r["image_id"]: (r["sequence_id"], r["frame_index"]) for r in rows(run.store.root, "images")}
    table = rows(run.store.root, "detections")
    assert all((r["sequence_id"], r["frame_index"]) == places[r["image_id"]] for r in table)
    files = DeltaTable(run.store.path(DETECTIONS)).to_pyarrow_dataset().get_fragments()
    for file in files:
        ordered = [(r["sequence_id"], r["frame_index"]) for r in file.to_table().to_pylist()]
        assert ordered == sorted(ordered)
    told = {r["metric"]: r for r in rows(run.store.root, "metrics", volatile=True) if r["method"] == "detect"}
    assert {"images_per_s", "fetch_s", "decode_s", "forward_s", "post_process_s", "write_s"} <= set(told)
    assert told["forward_s"]["value"] > 0 and told["images_per_s"]["value"] > 0
    assert {row["n"] for row in told.values()} == {len(table) + len(in_quarantine_of_detect(run.store))}


def test_chunks_change_nothing_but_the_number_of_commits(
    ingested: tuple[TableStore, Settings], finished: tuple[Run, Settings]
) -> None:
    store, settings = ingested
    counts = detected(store, with_detect(settings, **SMALL_CHUNKS))
    assert rows(store.root, "detections") == rows(finished[0].store.root, "detections")
    appends = [c for c in DeltaTable(store.path(DETECTIONS)).history() if c["operation"] == "WRITE"]
    assert len(appends) >= counts["pending"] // 16
    assert detected(store, settings)["pending"] == 0
    renamed = settings.model_copy(update={"detector": settings.detector.model_copy(update={"name": "alias"})})
    assert detected(store, renamed)["pending"] == 0


def test_a_run_that_dies_loses_one_chunk_and_the_next_repeats_nothing(
    ingested: tuple[TableStore, Settings], finished: tuple[Run, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = ingested
    commit = DetectChunks._commit
    commits: list[int] = []

    def dying(self: DetectChunks, *args: Any) -> None:
        commits.append(1)
        if len(commits) == 3:
            raise RuntimeError("power cut")
        commit(self, *args)

    monkeypatch.setattr(DetectChunks, "_commit", dying)
    small = with_detect(settings, **SMALL_CHUNKS)
    with pytest.raises(RuntimeError, match="power cut"):
        detected(store, small)
    kept = rows(store.root, "detections", volatile=True)
    assert 0 < len(kept) <= 2 * 16
    counts = detected(store, small)
    n_images = len({row["image_id"] for row in rows(finished[0].store.root, "detections")})
    assert counts["detected"] == n_images - len(kept)
    after = {row["image_id"]: row["run_id"] for row in rows(store.root, "detections", volatile=True)}
    assert all(after[row["image_id"]] == row["run_id"] for row in kept)
    assert_same_detections(store.root, finished[0].store.root)


def test_two_runs_at_once_share_the_lake(
    ingested: tuple[TableStore, Settings], finished: tuple[Run, Settings]
) -> None:
    store, settings = ingested
    small = with_detect(settings, **SMALL_CHUNKS)
    counts: list[dict[str, int]] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            counts.append(detected(store, small))
        except BaseException as error:
            failures.append(error)

    runs = [threading.Thread(target=work) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert not failures
    assert all(found["detected"] > 0 for found in counts)
    assert_same_detections(store.root, finished[0].store.root)


def test_a_second_view_is_added_beside_the_first(
    ingested: tuple[TableStore, Settings], finished: tuple[Run, Settings]
) -> None:
    store, settings = ingested
    for table in (DETECTIONS, MODELS):
        shutil.copytree(finished[0].store.path(table), store.path(table))
    before = {r["image_id"]: r["run_id"] for r in rows(store.root, "detections", volatile=True)}
    counts = detected(store, with_detect(settings, views=("original", "hflip")))
    assert counts["detected"] == len(before)
    table = rows(store.root, "detections", volatile=True)
    assert {r["image_id"]: r["run_id"] for r in table if r["view"] == "original"} == before
    assert {r["image_id"] for r in table if r["view"] == "hflip"} == before.keys()
    both = found(store)
    # The mirrored image shows the same objects: most confident boxes are found in both views.
    paired = total = 0
    for image_id in before:
        flipped = both[image_id, "hflip"]
        for box in both[image_id, "original"]:
            if box["score"] >= 0.9:
                total += 1
                paired += any(overlap(box, other) > 0.5 for other in flipped)
    assert total > 50 and paired > 0.9 * total


def overlap(a: dict[str, float], b: dict[str, float]) -> float:
    """Intersection over union of two boxes."""
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_quarantined_images_are_tried_again_on_request_and_leave_when_they_succeed(
    session: SparkSession, finished: tuple[Run, Settings], tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    for name in ("good.png", "late.png"):
        Image.fromarray(np.random.default_rng(7).integers(0, 255, (90, 120, 3), np.uint8)).save(lake / name)
    whole = (lake / "late.png").read_bytes()
    (lake / "late.png").write_bytes(whole[:2000])
    store = TableStore(session, str(tmp_path / "tables"))
    settings = finished[1].model_copy(update={"lake": LakeSettings(uri=str(lake), image_id="path")})
    ingest(Run(store=store), settings.lake)
    assert detected(store, settings)["quarantined"] == 1
    (broken,) = rows(store.root, "quarantine")
    assert (broken["stage"], broken["error_class"], broken["attempts"]) == ("detect", "truncated", 1)
    assert detected(store, settings)["pending"] == 0
    assert detected(store, settings, retry_quarantined=True)["quarantined"] == 1
    assert [r["attempts"] for r in rows(store.root, "quarantine")] == [2]
    (lake / "late.png").write_bytes(whole)
    assert detected(store, settings, retry_quarantined=True)["detected"] == 1
    assert not in_quarantine(store) and len(found(store)) == 2
