"""One greedy pass over ranked candidates: shares, quotas, near-duplicates and a budget at once.

Components take turns as flows share a link in WF²Q (J. Bennett and H. Zhang, "WF²Q: Worst-case Fair Weighted
Fair Queueing", INFOCOM 1996): of the components that are not ahead of their share, the one whose next image
would be due first. As long as all have candidates, at every prefix of the result each is within the cost of
the dearest image of its share.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from udfs.boxes import FloatArray, IntArray
from udfs.near_duplicates import Looks, TakenLooks
from udfs.selection_rules import Candidates, Rejection, Selection, SelectionRules

NOTHING_KNOWN = Looks(image_ids=np.zeros(0, object))
# Costs are added up in floats: a budget of 0.3 holds three images of 0.1.
ROUNDING = 1e-9


def selection(candidates: Candidates, rules: SelectionRules, known: Looks = NOTHING_KNOWN) -> Selection:
    """The candidates that one pass in rank order accepts, each with its reason.

    First come groups below their minimum, then all. A component that has nothing (left) to offer is passed
    over: the others share what it would have got, in proportion. A candidate that breaks a rule is skipped
    for good, and so is one that no longer fits into the budget; the pass ends when nothing fits.

    A component without candidates of the groups below their minimum catches up afterwards.

    Args:
        candidates: Proposals; those of one component in rank order.
        rules: Budget, shares, quotas, near-duplicates.
        known: Images labeled or sent earlier: nothing alike is taken.

    Returns:
        Accepted rows in order, near misses, and groups short of their minimum.

    Raises:
        QuarryError: Columns do not fit each other or the rules.
    """
    candidates.require(rules)
    taking = _Pass(candidates, rules, known)
    if taking.missing():
        taking.run(only_missing=True)
    taking.run(only_missing=False)
    return taking.result()


class _Queue:
    """One component's candidates in rank order, and how far they were looked at."""

    def __init__(self, rows: IntArray, costs: FloatArray) -> None:
        self.rows = rows.tolist()
        # The least cost from each place on: below it, nothing that follows fits.
        self.least = np.minimum.accumulate(costs[rows][::-1])[::-1].tolist()
        self.place = 0
        self.compared = 0  # images taken that the candidate at `place` was compared with

    def skip(self) -> None:
        self.place += 1
        self.compared = 0


class _Pass:
    def __init__(self, candidates: Candidates, rules: SelectionRules, known: Looks) -> None:
        self._rules = rules
        self._of_component = [
            np.flatnonzero(candidates.component == index) for index in range(len(rules.components))
        ]
        self._rank = np.zeros(len(candidates), np.int64)
        for rows in self._of_component:
            self._rank[rows] = np.arange(1, len(rows) + 1)
        self._candidates = candidates
        self._costs: list[float] = candidates.costs.tolist()
        self._groups = [None] * len(candidates) if candidates.groups is None else candidates.groups.tolist()
        self._image = np.unique(candidates.looks.image_ids, return_inverse=True)[1].tolist()
        self._taken_images: set[int] = set()
        self._taken = TakenLooks(rules.near_duplicates, known, candidates.looks)
        self._spent = 0.0
        self._spent_by = [0.0] * len(rules.components)
        self._group_count: Counter[str] = Counter()
        self._group_spent: defaultdict[str, float] = defaultdict(float)
        self._accepted: list[int] = []
        self._reasons: list[str] = []
        self._rejected: dict[int, str] = {}

    def missing(self) -> dict[str, int]:
        """Groups below their minimum, and by how many images."""
        groups = {*self._rules.quotas, *(group for group in set(self._groups) if group is not None)}
        short = {group: self._rules.quota(group).min_count - self._group_count[group] for group in groups}
        return {group: count for group, count in sorted(short.items()) if count > 0}

    def run(self, *, only_missing: bool) -> None:
        """Accepts in turn until no component has anything to offer."""
        queues = [_Queue(rows, self._candidates.costs) for rows in self._of_component]
        while True:
            heads = {c: row for c, q in enumerate(queues) if (row := self._head(q, only_missing)) is not None}
            if not heads:
                return
            self._accept(self._whose_turn(heads), heads, only_missing)

    def _head(self, queue: _Queue, only_missing: bool) -> int | None:
        """The best candidate of a queue that breaks no rule; those before it are skipped for good."""
        while queue.place < len(queue.rows) and self._fits(queue.least[queue.place]):
            row: int = queue.rows[queue.place]
            is_settled = self._image[row] in self._taken_images or row in self._rejected
            if not is_settled and not (only_missing and not self._is_missing(self._groups[row])):
                broken = self._broken_rule(row, queue.compared)
                if broken is None:
                    queue.compared = len(self._taken)
                    return row
                self._rejected[row] = broken
            queue.skip()
        return None

    def _whose_turn(self, heads: dict[int, int]) -> int:
        """The component, of those with something to offer, that the next image is due to.

        Time is what a component was given over its share. Now is the mean over components, so at least one is
        not ahead of it.
        """
        shares = {c: self._rules.components[c].share for c in heads}
        now = sum(self._spent_by[c] for c in heads) / sum(shares.values())
        started = [c for c in heads if self._spent_by[c] / shares[c] <= now * (1.0 + ROUNDING)]
        return min(started, key=lambda c: (self._spent_by[c] + self._costs[heads[c]]) / shares[c])

    def _accept(self, component: int, heads: dict[int, int], only_missing: bool) -> None:
        row, part = heads[component], self._rules.components[component]
        group, cost = self._groups[row], self._costs[row]
        reason = f"rank {self._rank[row]} of {part.ranked_by}, {self._candidates.values[row]:.6g}"
        if len(self._rules.components) > 1:
            reason = f"{part.name} {part.share:g}: {reason}"
        if only_missing and group is not None:
            reason += f"; for the minimum of {self._rules.quota(group).min_count} of {group!r}"
        self._accepted.append(row)
        self._reasons.append(reason)
        self._taken_images.add(self._image[row])
        self._taken.take(row)
        self._spent += cost
        self._spent_by[component] += cost
        if group is not None:
            self._group_count[group] += 1
            self._group_spent[group] += cost

    def _broken_rule(self, row: int, compared: int) -> str | None:
        cost = self._costs[row]
        if not self._fits(cost):
            return f"costs {cost:g}, of the budget {self._rules.budget - self._spent:g} are left"
        if (full := self._full_group(row)) is not None:
            return full
        if (like := self._taken.likeness(row, compared)) is not None:
            return f"near-duplicate of {like.image_id}: {like.text}"
        return None

    def _full_group(self, row: int) -> str | None:
        group = self._groups[row]
        if group is None:
            return None
        quota = self._rules.quota(group)
        if quota.max_count is not None and self._group_count[group] >= quota.max_count:
            return f"group {group!r} has its {quota.max_count} images"
        if quota.max_share is not None:
            most = quota.max_share * self._rules.budget
            if self._group_spent[group] + self._costs[row] > most * (1.0 + ROUNDING):
                return f"group {group!r} has its share {quota.max_share:g} of the budget"
        return None

    def _is_missing(self, group: str | None) -> bool:
        return group is not None and self._group_count[group] < self._rules.quota(group).min_count

    def _fits(self, cost: float) -> bool:
        return self._spent + cost <= self._rules.budget * (1.0 + ROUNDING)

    def result(self) -> Selection:
        """What was accepted, with the near misses above it."""
        rows = np.array(self._accepted, np.int64)
        component = self._candidates.component[rows]
        rejected = []
        for index, mine in enumerate(self._of_component):
            last = self._rank[rows[component == index]].max(initial=0)
            above = (row for row in mine[: max(last - 1, 0)].tolist() if row in self._rejected)
            rejected += [Rejection(row=row, reason=self._rejected[row]) for row in above]
        return Selection(
            rows=rows,
            component=component,
            reasons=tuple(self._reasons),
            rejected=tuple(rejected),
            missing=self.missing(),
        )
