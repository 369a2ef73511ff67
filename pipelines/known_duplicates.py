"""Which candidates look like a picture that is labeled or sent, compared in parallel before the selection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from conf.acquisition_spec import NearDuplicateSpec
from conf.errors import QuarryError
from pipelines.feature_check import feature_width, presence
from udfs.near_duplicates import NearDuplicateRule
from udfs.selection_rows import LIKENESS_SCHEMA, likeness_rows

# A task compares so many pictures with so many: measured 0.5 s by hashes, 3 s by features of 256, one core.
ROWS_PER_BLOCK = 16_384
_REMEDY = {
    "image_hash": ("hash", "run `quarry detect` on them; imported detections have none"),
    "feature": ("feature", "run `quarry detect --set detector.keep_image_feature=true` and `quarry score`"),
}
_LOOKS = ("image_id", "detection_id", "image_hash", "feature")


@dataclass(frozen=True, kw_only=True)
class KnownPictures:
    """What new picks must not look like.

    Attributes:
        rows: Columns image_id, image_hash and feature.
        count: Rows.
        rule: When pictures are near-duplicates.
    """

    rows: DataFrame
    count: int
    rule: NearDuplicateRule


def duplicate_rule(spec: NearDuplicateSpec | None) -> NearDuplicateRule:
    """The rule as the arrays take it."""
    if spec is None:
        return NearDuplicateRule()
    return NearDuplicateRule(max_hamming_bits=spec.max_hamming, below_feature_l2=spec.max_distance)


def compared_by(spec: NearDuplicateSpec) -> str:
    """The column that tells near-duplicates."""
    return "feature" if spec.max_hamming is None else "image_hash"


def require_looks(pool: DataFrame, spec: NearDuplicateSpec, strategy: str) -> int:
    """Values of a picture's feature, 0 where hashes are compared.

    Raises:
        QuarryError: Pictures without what the rule compares, or features of several widths.
    """
    column = compared_by(spec)
    width = feature_width() if column == "feature" else F.lit(0)
    found = presence(pool, "image_id", missing=_is_missing(column), width=width)
    if found.n_missing:
        what, remedy = _REMEDY[column]
        raise QuarryError(
            f"strategy {strategy}: near_duplicates compares the {what} of pictures, but "
            f"{found.n_missing:,} of {found.n:,} have none (such as {found.example}): {remedy}"
        )
    if found.least != found.most:
        raise QuarryError(
            f"strategy {strategy}: near_duplicates: features have {found.least} to {found.most} values: all "
            "must come from one model"
        )
    return int(found.most or 0)


def comparable(known: DataFrame, spec: NearDuplicateSpec) -> DataFrame:
    """image_id, image_hash and feature of known pictures, the one that is not compared null."""
    other = {"feature": "image_hash", "image_hash": "feature"}[compared_by(spec)]
    return known.withColumn(other, F.lit(None).cast(known.schema[other].dataType))


def lacks_look(spec: NearDuplicateSpec) -> Column:
    """Whether a picture has nothing to compare."""
    return _is_missing(compared_by(spec))


def likenesses(candidates: DataFrame, known: KnownPictures, most: int) -> DataFrame:
    """image_id and `likeness` of the candidates that look like a known picture: as which, and how that shows.

    Each task compares a block of candidates with a block of known pictures.

    Args:
        candidates: Columns image_id, detection_id, image_hash and feature.
        known: The pictures.
        most: Candidates there are at most.
    """
    n_known, n_candidates = ceil(known.count / ROWS_PER_BLOCK), ceil(most / ROWS_PER_BLOCK)
    rows = known.rows.withColumn("detection_id", F.lit(None).cast("string"))
    right = _in_blocks(rows, "known_block", n_known, "block", n_candidates)
    left = _in_blocks(candidates, "block", n_candidates, "known_block", n_known)
    calculation = partial(likeness_rows, rule=known.rule)

    # Spark counts the arguments of the function it is given: a partial has others.
    def compared(candidates: pa.Table, known: pa.Table) -> pa.Table:
        return calculation(candidates, known)

    keys = ("block", "known_block")
    pairs = left.groupBy(*keys).cogroup(right.groupBy(*keys))
    found = pairs.applyInArrow(compared, from_arrow_schema(LIKENESS_SCHEMA))
    nearest = F.min(F.struct("distance", "known_id", "text"))["text"]
    return found.groupBy("image_id").agg(nearest.alias("likeness"))


def _in_blocks(rows: DataFrame, own: str, n_own: int, other: str, n_other: int) -> DataFrame:
    """Each row in its own block, once for every block of the other side."""
    blocks = F.explode(F.sequence(F.lit(0), F.lit(max(n_other, 1) - 1)))
    mine = F.pmod(F.xxhash64("image_id"), F.lit(max(n_own, 1)))
    return rows.select(*_LOOKS, mine.cast("int").alias(own), blocks.alias(other))


def _is_missing(column: str) -> Column:
    if column == "feature":
        return feature_width() < 1
    return F.col("image_hash").isNull()
