"""Wiring of the temporal rules: every candidate comes back once, whatever the partitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import QuarryError
from pipelines import temporal
from pipelines.temporal import TemporalRules, survivors_of_sequence, temporal_survivors

RULES = TemporalRules(smooth_half_width=0, smooth_sigma=1.0, block_now=3, block_later=1)
COLUMNS = "image_id STRING, sequence_id STRING, frame_index INT, score DOUBLE"


def _tie() -> Column:
    return F.xxhash64(F.lit(7), "image_id")


def _lake(session: SparkSession) -> tuple[DataFrame, DataFrame]:
    """Three videos of many equal scores, still images, and earlier picks, some in unknown videos."""
    rng = np.random.default_rng(11)
    rows: list[tuple[str, str | None, int | None, float]] = [
        (f"{s}-{t}", s, t, float(rng.integers(0, 4))) for s in "abc" for t in range(25) if rng.random() < 0.8
    ]
    rows += [("still-0", None, None, 3.0), ("still-1", None, 4, 3.0), ("still-2", "a", None, 0.5)]
    earlier = [("a", 4), ("a", 20), ("c", 0), ("unknown", 3), (None, 2)]
    return (
        session.createDataFrame(rows, COLUMNS),
        session.createDataFrame(earlier, "sequence_id STRING, frame_index INT"),
    )


def _rows(frame: DataFrame) -> dict[str, dict[str, Any]]:
    rows = frame.toArrow().to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in sorted(rows, key=lambda row: str(row["image_id"]))}


def test_the_rules_hold_in_videos_and_leave_still_images_alone(session: SparkSession) -> None:
    candidates, earlier = _lake(session)
    found = _rows(temporal_survivors(candidates, earlier, RULES, _tie()))
    lake = {row.image_id: row for row in candidates.withColumn("tie", _tie()).collect()}
    assert found.keys() == lake.keys()
    for image_id in ("still-0", "still-1", "still-2"):
        expected = {"image_id": image_id, "score": lake[image_id].score, "survives": True}
        assert found[image_id] == {**expected, "blocked_by": None, "rule": None}
    assert found["a-4"]["rule"] == "within 1 frames of frame 4, picked in an earlier cycle"
    for image_id, row in found.items():
        if (by := row["blocked_by"]) is None:
            assert row["survives"] == (row["rule"] is None)
            continue
        pick, frame = lake[by], lake[image_id]
        assert found[by]["survives"] and pick.sequence_id == frame.sequence_id
        assert abs(pick.frame_index - frame.frame_index) <= 3
        assert (-pick.score, pick.tie) < (-frame.score, frame.tie)
        assert row["rule"] == f"within 3 frames of frame {pick.frame_index}, picked in this cycle"

    again = temporal_survivors(candidates.repartition(7), earlier.repartition(3), RULES, _tie())
    assert _rows(again) == found


def test_the_score_is_smoothed_over_the_frames_of_the_video(session: SparkSession) -> None:
    rows = [("x", "v", 0, 1.0), ("y", "v", 1, 3.0), ("z", "w", 1, 9.0)]
    candidates = session.createDataFrame(rows, COLUMNS)
    nothing = session.createDataFrame([], "sequence_id STRING, frame_index INT")
    rules = TemporalRules(smooth_half_width=1, smooth_sigma=1.0, block_now=15, block_later=2)
    found = _rows(temporal_survivors(candidates, nothing, rules, _tie()))
    near = np.exp(-0.5)
    assert found["x"]["score"] == pytest.approx((1 + 3 * near) / (1 + near))
    assert found["z"]["score"] == 9.0
    assert (found["x"]["survives"], found["x"]["blocked_by"]) == (False, "y")


def test_a_sequence_one_task_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "MOST_FRAMES", 1)
    frames = pa.table(
        {
            "image_id": ["x", "y"],
            "sequence_id": ["v", "v"],
            "frame_index": [0, 1],
            "score": [1.0, 2.0],
            "tie": [0, 1],
        }
    )
    earlier = pa.table({"frame_index": pa.array([], pa.int32())})
    with pytest.raises(QuarryError, match="sequence 'v' has 2 frames, one task holds 1"):
        survivors_of_sequence(frames, earlier, RULES)
