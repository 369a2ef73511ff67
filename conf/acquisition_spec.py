"""How a team writes a labeling strategy in YAML: unit x score x diversity x quotas, or a mixture.

`conf/strategies/presets.yaml` has the shipped ones; `acquire.define` adds a team's own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from conf.section import Section

S_PER_HOUR = 3600.0
# Scores that are no rows of `hardness`.
QUERY, RANDOM, UNCERTAINTY = "query", "random", "uncertainty"
PARTITION = "partition:"

Unit = Literal["image", "box"]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
# Small and large enough for any currency; what a unit costs and a budget buys stay numbers.
Price = Annotated[float, Field(ge=0.001, le=1e9)]
Frames = Annotated[int, Field(ge=0, le=1_000_000)]


class TemporalSpec(Section):
    """Rules over the frames of a sequence (pixel divergence, Eq. 6 and its selection rules)."""

    smooth_frames: Frames = Field(
        0, description="scores are averaged over so many frames to each side, Gaussian of half that; 0: none"
    )
    # Section 4 of "Active Learning for Deep Detection Neural Networks", for videos of 30 Hz.
    block_now: Frames = Field(15, description="a pick blocks this many frames before and after it")
    block_later: Frames = Field(2, description="a pick of an earlier cycle blocks this many")


class NearDuplicateSpec(Section):
    """What counts as the same picture again, within and across sequences."""

    max_hamming: Annotated[int, Field(ge=0, le=63)] | None = Field(
        # Of neighbouring frames of simulated street video at 5 Hz 42 % differ in at most 4 bits; of 194,695
        # pairs of frames of different videos none in less than 7.
        None,
        description="bits of the 64-bit perceptual hash that may differ",
    )
    max_distance: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="the stored features are closer than this (L2)"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> NearDuplicateSpec:
        if (self.max_hamming is None) == (self.max_distance is None):
            raise ValueError("expected max_hamming or max_distance, one of them")
        return self


class KCenterSpec(Section):
    """Core-set selection (fine-grained boxes, section 3.3): spread over the features."""

    of_best: Annotated[float, Field(ge=1.0, le=1000.0)] | None = Field(
        None, description="spread over this many times the budget of the best scored; none: over the pool"
    )


class QuotaSpec(Section):
    """How much of the budget a group may or must get."""

    by: str = Field(
        description="class (of the image's most confident detection, or of the box), dataset, sequence, or "
        "partition:<key>"
    )
    at_most: Share | None = Field(None, description="largest share of the budget of any group")
    at_least: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="group to number of picks that come first"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> QuotaSpec:
        is_partition = self.by.startswith(PARTITION) and self.by != PARTITION
        if not is_partition and self.by not in ("class", "dataset", "sequence"):
            raise ValueError(f"by: expected class, dataset, sequence or partition:<key>, got {self.by!r}")
        if self.at_most is None and not self.at_least:
            raise ValueError("expected at_most, at_least or both")
        return self


class PartSpec(Section):
    """One part of a mixture."""

    share: Share = Field(description="of the budget; shares add up to 1")
    strategy: str = Field(description="a strategy by name, perhaps with a score: hardest:total_fn")


class StrategySpec(Section):
    """A rule that picks what is labeled."""

    description: str = Field("", description="what it is for, and its source")
    unit: Unit = Field("image", description="what is picked")
    score: str = Field(
        QUERY,
        description="query (acquire.query), random, uncertainty (boxes: 1 - P), or a query, baseline or "
        "pixel score of `hardness`",
    )
    k_center: KCenterSpec | None = None
    temporal: TemporalSpec | None = None
    near_duplicates: NearDuplicateSpec | None = None
    quotas: QuotaSpec | None = None
    mixture: tuple[PartSpec, ...] = Field((), description="parts that share the budget; instead of a score")

    @model_validator(mode="after")
    def _fits_together(self) -> StrategySpec:
        if self.mixture and (self.k_center or self.temporal or "score" in self.model_fields_set):
            raise ValueError("a mixture has no score, k_center or temporal of its own: its parts have them")
        total = sum(part.share for part in self.mixture)
        if self.mixture and abs(total - 1.0) > 1e-6:
            raise ValueError(f"shares of a mixture add up to 1, got {total:g}")
        if self.unit == "box" and self.temporal:
            raise ValueError("temporal rules are about frames: unit image")
        if self.unit == "box" and self.near_duplicates:
            raise ValueError("near_duplicates compares whole pictures: unit image, or k_center for boxes")
        if self.unit == "image" and self.score == UNCERTAINTY:
            raise ValueError(
                "score uncertainty is one of boxes; of images take least_confidence_mean (mean of 1 - P)"
            )
        if self.unit == "box" and not self.mixture and self.score not in (RANDOM, UNCERTAINTY):
            raise ValueError(f"boxes have the scores {UNCERTAINTY} and {RANDOM}, got {self.score!r}")
        return self


class PriceList(Section):
    """What labeling costs (s); the defaults are the COCO times of the DeLR paper, section 4."""

    image_s: Price = Field(346.0, description="all objects of one image")
    draw_box_s: Price = Field(35.0, description="draw or correct one box")
    assign_class_s: Annotated[float, Field(ge=0.0, le=1e9)] = Field(
        38.0, description="name the class of one box"
    )
    verify_box_s: Price = Field(1.6, description="say whether a box fits")
    verify_class_s: Price = Field(2.7, description="say whether a class is right")
    money_per_hour: Price | None = Field(None, description="what an hour of labeling costs, in your currency")

    def money(self, seconds: float) -> float | None:
        """What so many seconds cost; None where an hour has no price."""
        return None if self.money_per_hour is None else seconds / S_PER_HOUR * self.money_per_hour

    def of(self, unit: Unit) -> float:
        """Seconds to label one image, or to correct and classify one box."""
        return self.image_s if unit == "image" else self.draw_box_s + self.assign_class_s
