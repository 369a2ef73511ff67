"""What a selection may take: budget, shares of its components, quotas of groups, near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs.boxes import BoolArray, FloatArray, IntArray
from udfs.near_duplicates import Looks, NearDuplicateRule


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a mixture of strategies.

    Attributes:
        name: As reasons call it: hardest, random ...
        share: Part of the accepted cost it is due, above 0; only ratios between components count.
        ranked_by: What orders its candidates: a query, a draw ...
    """

    name: str
    share: float
    ranked_by: str

    def __post_init__(self) -> None:
        if not (self.share > 0.0 and np.isfinite(self.share)):
            raise QuarryError(f"component {self.name!r}: share must be above 0, got {self.share}")


@dataclass(frozen=True, kw_only=True)
class GroupQuota:
    """How much of a selection one group may and shall make up.

    Attributes:
        min_count: Picks that come before any others, as long as there are candidates of the group.
        max_share: Most of the budget (0..1) spent on the group, used up or not.
    """

    min_count: int = 0
    max_share: float | None = None

    def __post_init__(self) -> None:
        if self.min_count < 0:
            raise QuarryError(f"min_count of a group must be at least 0, got {self.min_count}")
        if self.max_share is not None and not 0.0 <= self.max_share <= 1.0:
            raise QuarryError(f"max_share of a group must be in 0..1, got {self.max_share}")


@dataclass(frozen=True, kw_only=True)
class SelectionRules:
    """All rules of one selection.

    Attributes:
        budget: Most cost of all accepted together, in the unit of the candidates' costs.
        components: Parts of the mixture, in the order that settles ties between them.
        quotas: Group to its quota.
        other_quota: The quota of each group not named there.
        near_duplicates: When images are too alike to take both.
    """

    budget: float
    components: tuple[Component, ...]
    quotas: Mapping[str, GroupQuota] = field(default_factory=dict)
    other_quota: GroupQuota = GroupQuota()
    near_duplicates: NearDuplicateRule = NearDuplicateRule()

    def __post_init__(self) -> None:
        if not (self.budget >= 0.0 and np.isfinite(self.budget)):
            raise QuarryError(f"a budget must be finite and at least 0, got {self.budget}")
        if not self.components:
            raise QuarryError("a selection needs at least one component, got none")

    def quota(self, group: str) -> GroupQuota:
        """The quota of a group."""
        return self.quotas.get(group, self.other_quota)


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """n proposals; those of one component stand in its rank order. An image may be proposed by several.

    Attributes:
        looks: Image ids, and how the images look.
        component: (n,), index into `SelectionRules.components`.
        values: (n,), what the component ranked by; for the reasons only.
        costs: (n,), above 0.
        groups: (n,) strings, None for an image of no group; None: quotas do not apply.
        barred: (n,) strings: why an earlier rule keeps the image out, None for an image that may be taken;
            None: all may.
        extra: (n,), whether the image stands behind others that were left out, and may fill the minimum of
            its group only; None: none does.
    """

    looks: Looks
    component: IntArray
    values: FloatArray
    costs: FloatArray
    groups: NDArray[np.object_] | None = None
    barred: NDArray[np.object_] | None = None
    extra: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.component)

    def require(self, rules: SelectionRules) -> None:
        """Refuses candidates the rules cannot be applied to.

        Raises:
            QuarryError: Arrays of different lengths, an unknown component, or a cost that is not above 0.
        """
        lengths = {
            name: len(column)
            for name, column in {
                "component": self.component,
                "image_ids": self.looks.image_ids,
                "values": self.values,
                "costs": self.costs,
                "groups": self.groups,
                "barred": self.barred,
                "extra": self.extra,
                "hashes": self.looks.hashes,
                "has_hash": self.looks.has_hash,
                "features": self.looks.features,
            }.items()
            if column is not None
        }
        if len(set(lengths.values())) > 1:
            raise QuarryError(f"columns of candidates must be of equal length, got {lengths}")
        unknown = ~np.isin(self.component, np.arange(len(rules.components)))
        if unknown.any():
            row = int(unknown.argmax())
            raise QuarryError(
                f"image {self.looks.image_ids[row]!r}: component must be in 0..{len(rules.components) - 1}, "
                f"got {self.component[row]}"
            )
        bad = ~(np.isfinite(self.costs) & (self.costs > 0.0))
        if bad.any():
            row = int(bad.argmax())
            raise QuarryError(
                f"image {self.looks.image_ids[row]!r}: cost must be finite and above 0, got {self.costs[row]}"
            )


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A candidate that was not accepted, and the rule that kept it out."""

    row: int
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What one pass accepted.

    Attributes:
        rows: (k,), candidates in the order they were accepted.
        component: (k,), who proposed each.
        reasons: (k,), why each is in, in words.
        near_misses: Images that were not accepted, as many as asked for, the best placed of their component
            first.
        missing: Group to the number of picks it is short of its minimum.
        dry_components: Those that would have got more, had they had more candidates.
        dry_groups: Those of `missing` that more candidates may fill.
    """

    rows: IntArray
    component: IntArray
    reasons: tuple[str, ...]
    near_misses: tuple[Rejection, ...]
    missing: Mapping[str, int]
    dry_components: tuple[int, ...]
    dry_groups: tuple[str, ...]
