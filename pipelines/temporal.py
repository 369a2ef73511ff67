"""Temporal rules over the videos of a lake: one task a sequence, still images pass untouched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.errors import QuarryError
from udfs.boxes import FloatArray
from udfs.temporal_selection import NO_PICK, TemporalPicks, smoothed, survivors

# Nineteen hours at 30 Hz. A task holds a whole sequence, at about 0.4 kB a frame.
MOST_FRAMES = 2_000_000
SURVIVOR_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("score", pa.float64()),
        ("survives", pa.bool_()),
        ("blocked_by", pa.string()),
        ("rule", pa.string()),
    ]
)
_FRAME_COLUMNS = ("image_id", "sequence_id", "frame_index", "score")


@dataclass(frozen=True, kw_only=True)
class TemporalRules:
    """How frames of one sequence keep apart; distances in frames.

    Attributes:
        smooth_half_width: Frames to each side that a score is averaged over; 0: scores as they are.
        smooth_sigma: Standard deviation of the weights.
        block_now: A pick blocks frames up to here in its own cycle.
        block_later: A pick of an earlier cycle blocks frames up to here.
    """

    smooth_half_width: int
    smooth_sigma: float
    block_now: int
    block_later: int


def temporal_survivors(
    candidates: DataFrame, picked_before: DataFrame, rules: TemporalRules, tie: Column
) -> DataFrame:
    """Which candidates the temporal rules leave, and what blocked the others.

    The best b survivors by (falling score, tie) are what picking one by one over the whole lake would give:
    a pick blocks frames of its own sequence only.

    Args:
        candidates: Columns image_id (unique), sequence_id, frame_index (both null for a still image) and
            score (finite). Smoothing sees these frames and no others.
        picked_before: Columns sequence_id and frame_index of the picks of earlier cycles.
        rules: Distances.
        tie: Integer expression over image_id that orders equal scores, smallest first; rank the survivors
            by the same one.

    Returns:
        A row per candidate: image_id; score, smoothed for frames of a sequence; survives; blocked_by, the
        image whose pick blocked this one (null where it survives, or where the pick is of an earlier cycle);
        rule, what blocked it in words (null where it survives).

    Raises:
        QuarryError: In the task: a sequence has more than `MOST_FRAMES` frames.
    """
    is_frame = F.col("sequence_id").isNotNull() & F.col("frame_index").isNotNull()
    frames = candidates.where(is_frame).select(*_FRAME_COLUMNS, tie.cast("bigint").alias("tie"))
    earlier = picked_before.where(is_frame).select("sequence_id", "frame_index")

    # Spark reads the annotations of the function it is given.
    def sequence(frames: pa.Table, earlier: pa.Table) -> pa.Table:
        return survivors_of_sequence(frames, earlier, rules)

    of_videos = (
        frames.groupBy("sequence_id")
        .cogroup(earlier.groupBy("sequence_id"))
        .applyInArrow(sequence, from_arrow_schema(SURVIVOR_SCHEMA))
    )
    none = F.lit(None).cast("string")
    stills = candidates.where(~is_frame).select(
        "image_id",
        F.col("score").cast("double").alias("score"),
        F.lit(True).alias("survives"),
        none.alias("blocked_by"),
        none.alias("rule"),
    )
    return of_videos.unionByName(stills)


def survivors_of_sequence(frames: pa.Table, earlier: pa.Table, rules: TemporalRules) -> pa.Table:
    """The rows of SURVIVOR_SCHEMA for one sequence, by image_id; none where only earlier picks are left.

    Args:
        frames: Columns image_id, sequence_id, frame_index, score, tie, in any order.
        earlier: Column frame_index.
        rules: Distances.

    Raises:
        QuarryError: More than `MOST_FRAMES` frames, or a score that is no finite number.
    """
    if frames.num_rows > MOST_FRAMES:
        raise QuarryError(
            f"sequence {frames['sequence_id'][0].as_py()!r} has {frames.num_rows:,} frames, one task holds "
            f"{MOST_FRAMES:,}: split the video into several sequences"
        )
    # Neither sums of scores nor ties may depend on how Spark brought the rows here.
    frames = frames.sort_by("image_id")
    frame_index = frames["frame_index"].to_numpy().astype(np.int64)
    scores = frames["score"].to_numpy().astype(np.float64)
    scores = smoothed(scores, frame_index, rules.smooth_half_width, rules.smooth_sigma)
    picked_before = earlier["frame_index"].to_numpy().astype(np.int64)
    picks = survivors(
        scores,
        frame_index,
        frames["tie"].to_numpy(),
        picked_before,
        block_now=rules.block_now,
        block_later=rules.block_later,
    )
    return _survivor_rows(frames, scores, picks, rules)


def _survivor_rows(
    frames: pa.Table, scores: FloatArray, picks: TemporalPicks, rules: TemporalRules
) -> pa.Table:
    image_ids = frames["image_id"].combine_chunks()
    survives = np.zeros(len(scores), bool)
    survives[picks.order] = True
    is_blocked_now = picks.blocked_by != NO_PICK
    blocker = pa.array(picks.blocked_by, mask=~is_blocked_now)
    blocking_frame = np.where(
        is_blocked_now, frames["frame_index"].to_numpy()[picks.blocked_by], picks.blocked_by_earlier
    )
    now, later = rules.block_now, rules.block_later
    texts = [
        f"within {now} frames of frame {frame}, picked in this cycle"
        if is_now
        else f"within {later} frames of frame {frame}, picked in an earlier cycle"
        for frame, is_now in zip(
            blocking_frame[~survives].tolist(), is_blocked_now[~survives].tolist(), strict=True
        )
    ]
    rule = np.full(len(scores), None, object)
    rule[~survives] = texts
    columns = [image_ids, scores, survives, image_ids.take(blocker), rule]
    arrays = [pa.array(v, f.type) for v, f in zip(columns, SURVIVOR_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SURVIVOR_SCHEMA)
