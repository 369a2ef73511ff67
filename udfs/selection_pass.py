"""One greedy pass over ranked candidates: shares, quotas, near-duplicates and a budget at once.

Components take turns as flows share a link in WF²Q (J. Bennett and H. Zhang, "WF²Q: Worst-case Fair Weighted
Fair Queueing", INFOCOM 1996): of the components that are not ahead of their share, the one whose next image
would be due first. As long as all have candidates, at every prefix of the result each is within the cost of
the dearest image of its share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from udfs.boxes import FloatArray, IntArray
from udfs.near_duplicates import TakenLooks
from udfs.selection_rules import Candidates, Rejection, Selection, SelectionRules

BUDGET_SPENT = "the budget was spent before its turn"
# Costs are added up in floats: a budget of 0.3 holds three images of 0.1.
ROUNDING = 1e-9


def selection(candidates: Candidates, rules: SelectionRules, near_misses: int = 0) -> Selection:
    """The candidates that one pass in rank order accepts, each with its reason.

    First come groups below their minimum, then all. A component that has nothing (left) to offer is passed
    over: the others share what it would have got, in proportion. A candidate that breaks a rule is skipped
    for good, and so is one that no longer fits into the budget; the pass ends when nothing fits.

    A component without candidates of the groups below their minimum catches up afterwards.

    Args:
        candidates: Proposals; those of one component in rank order.
        rules: Budget, shares, quotas, near-duplicates.
        near_misses: How many of those not accepted are told, with the rule that kept each out.

    Returns:
        Accepted rows in order, near misses, groups short of their minimum, and who ran out of candidates.

    Raises:
        QuarryError: Columns do not fit each other or the rules.
    """
    candidates.require(rules)
    taking = _Pass(candidates, rules)
    starved: tuple[str, ...] = ()
    if taking.missing():
        taking.run(only_missing=True)
        starved = taking.starved()
    dry = taking.run(only_missing=False)
    rows = np.array(taking.accepted, np.int64)
    return Selection(
        rows=rows,
        component=candidates.component[rows],
        reasons=tuple(taking.reasons),
        near_misses=tuple(taking.near_misses(near_misses)),
        missing=taking.missing(),
        dry_components=tuple(sorted(dry)),
        dry_groups=starved,
    )


class _Queue:
    """One component's candidates in rank order, and how far they were looked at."""

    def __init__(self, rows: IntArray, costs: FloatArray, least: float) -> None:
        self.rows = rows.tolist()
        # The least cost from each place on: below it, nothing that follows fits.
        self.least = np.minimum.accumulate(costs[rows][::-1])[::-1].tolist()
        self.cheapest: float = min(self.least, default=least)
        self.place = 0
        self.compared = 0  # images taken that the candidate at `place` was compared with

    @property
    def is_at_end(self) -> bool:
        return self.place == len(self.rows)

    def skip(self) -> None:
        self.place += 1
        self.compared = 0


class _Pass:
    def __init__(self, candidates: Candidates, rules: SelectionRules) -> None:
        self._rules = rules
        self._candidates = candidates
        self._of_component = [
            np.flatnonzero(candidates.component == index) for index in range(len(rules.components))
        ]
        n = len(candidates)
        self._costs: list[float] = candidates.costs.tolist()
        self._groups = [None] * n if candidates.groups is None else candidates.groups.tolist()
        self._extra = [False] * n if candidates.extra is None else candidates.extra.tolist()
        barred = [None] * n if candidates.barred is None else candidates.barred.tolist()
        self._barred: dict[int, str] = {row: reason for row, reason in enumerate(barred) if reason}
        # Near misses that are told change no pick: what is barred counts for nothing else.
        self._is_free = np.array([not reason for reason in barred], bool)
        costs = candidates.costs[self._is_free] if self._is_free.any() else candidates.costs
        self._cheapest = float(costs.min(initial=np.inf))
        self._image = np.unique(candidates.looks.image_ids, return_inverse=True)[1].tolist()
        self._taken_images: set[int] = set()
        self._taken = TakenLooks(rules.near_duplicates, candidates.looks)
        self._spent = 0.0
        self._spent_by = [0.0] * len(rules.components)
        self._group_count: Counter[str] = Counter()
        self._group_spent: defaultdict[str, float] = defaultdict(float)
        self._rejected: dict[int, str] = {}
        self._rank = self._ranks()
        self.accepted: list[int] = []
        self.reasons: list[str] = []

    def missing(self) -> dict[str, int]:
        """Groups below their minimum, and by how many picks."""
        groups = {*self._rules.quotas, *(group for group in set(self._groups) if group is not None)}
        short = {group: self._rules.quota(group).min_count - self._group_count[group] for group in groups}
        return {group: count for group, count in sorted(short.items()) if count > 0}

    def starved(self) -> tuple[str, ...]:
        """Groups below their minimum for which another candidate might be accepted still."""
        if not self._fits(self._cheapest):
            return ()
        return tuple(group for group in self.missing() if self._full(group, self._cheapest) is None)

    def run(self, *, only_missing: bool) -> set[int]:
        """Accepts in turn until no component has anything to offer.

        Returns:
            Components at their end at a turn that one more candidate of theirs would have changed.
        """
        queues = [
            _Queue(rows[self._is_free[rows]], self._candidates.costs, self._cheapest)
            for rows in self._of_component
        ]
        dry: set[int] = set()
        while True:
            heads = {c: row for c, q in enumerate(queues) if (row := self._head(q, only_missing)) is not None}
            costs = {c: self._costs[row] for c, row in heads.items()}
            turn = self._whose_turn(costs)
            more = {c: q.cheapest for c, q in enumerate(queues) if q.is_at_end and self._fits(q.cheapest)}
            dry.update(self._missed_turns(costs, more))
            if turn is None:
                return dry
            self._accept(turn, heads[turn], only_missing)

    def near_misses(self, most: int) -> Iterator[Rejection]:
        """The best placed of the images no component got, each once."""
        told = set(self._taken_images)
        place = np.zeros(len(self._candidates), np.int64)
        for rows in self._of_component:
            place[rows] = np.arange(len(rows))
        for row in np.argsort(place, kind="stable").tolist() if most else ():
            if len(told) - len(self._taken_images) == most:
                return
            reason = self._why_not(row)
            if reason is not None and self._image[row] not in told:
                told.add(self._image[row])
                yield Rejection(row=row, reason=reason)

    def _ranks(self) -> list[int]:
        """Place of each candidate among its component's that may be taken; of an extra, in its group."""
        ranks = [0] * len(self._candidates)
        for rows in self._of_component:
            in_group: Counter[str | None] = Counter()
            rank = 0
            for row in rows.tolist():
                if row not in self._barred:
                    rank += 1
                    in_group[self._groups[row]] += 1
                    ranks[row] = in_group[self._groups[row]] if self._extra[row] else rank
        return ranks

    def _head(self, queue: _Queue, only_missing: bool) -> int | None:
        """The best candidate of a queue that breaks no rule; those before it are skipped for good."""
        while queue.place < len(queue.rows) and self._fits(queue.least[queue.place]):
            row: int = queue.rows[queue.place]
            wanted = self._is_missing(self._groups[row]) if only_missing else not self._extra[row]
            if wanted and self._is_open(row):
                broken = self._broken_rule(row, queue.compared)
                if broken is None:
                    queue.compared = len(self._taken)
                    return row
                self._rejected[row] = broken
            queue.skip()
        return None

    def _is_open(self, row: int) -> bool:
        return not (self._image[row] in self._taken_images or row in self._rejected)

    def _whose_turn(self, costs: dict[int, float]) -> int | None:
        """The component, of those with something to offer at these costs, that the next image is due to.

        Time is what a component was given over its share. Now is the mean over components, so at least one is
        not ahead of it. Ties go to the first.
        """
        if not costs:
            return None
        shares = {c: self._rules.components[c].share for c in sorted(costs)}
        now = sum(self._spent_by[c] for c in shares) / sum(shares.values())
        started = [c for c in shares if self._spent_by[c] / shares[c] <= now * (1.0 + ROUNDING)]
        return min(started, key=lambda c: (self._spent_by[c] + costs[c]) / shares[c])

    def _missed_turns(self, costs: dict[int, float], more: dict[int, float]) -> Iterator[int]:
        """Components that would change whose turn it is if they offered more too, one of them or all."""
        turn = self._whose_turn(costs)
        for offer in (*({c: cost} for c, cost in more.items()), more):
            due = self._whose_turn({**costs, **offer})
            if due != turn:
                yield from (c for c in offer if c == due or due not in offer)

    def _accept(self, component: int, row: int, only_missing: bool) -> None:
        part = self._rules.components[component]
        group, cost = self._groups[row], self._costs[row]
        reason = self._place_text(row)
        if len(self._rules.components) > 1:
            reason = f"{part.name} {part.share:g}: {reason}"
        if only_missing and group is not None:
            reason += f"; for the minimum of {self._rules.quota(group).min_count} of {group!r}"
        self.accepted.append(row)
        self.reasons.append(reason)
        self._taken_images.add(self._image[row])
        self._taken.take(row)
        self._spent += cost
        self._spent_by[component] += cost
        if group is not None:
            self._group_count[group] += 1
            self._group_spent[group] += cost

    def _place_text(self, row: int) -> str:
        ranked_by = self._rules.components[self._candidates.component[row]].ranked_by
        among = f" in {self._groups[row]!r}" if self._extra[row] else ""
        return f"rank {self._rank[row]}{among} of {ranked_by}, {self._candidates.values[row]:.6g}"

    def _broken_rule(self, row: int, compared: int) -> str | None:
        cost = self._costs[row]
        if not self._fits(cost):
            return self._too_dear(cost)
        if (full := self._full(self._groups[row], cost)) is not None:
            return full
        if (like := self._taken.likeness(row, compared)) is not None:
            return like.reason
        return None

    def _why_not(self, row: int) -> str | None:
        """Why a candidate was not accepted, once the pass is over; none of an extra nobody looked at."""
        if row in self._barred:
            return self._barred[row]
        reason = self._rejected.get(row)
        if reason is None and self._extra[row]:
            return None
        reason = reason or self._full(self._groups[row], self._costs[row]) or self._too_dear(self._costs[row])
        return f"{self._place_text(row)}: {reason}"

    def _too_dear(self, cost: float) -> str:
        left = self._rules.budget - self._spent
        if left <= self._rules.budget * ROUNDING:
            return BUDGET_SPENT
        return f"costs {cost:g}, of the budget {left:g} are left"

    def _full(self, group: str | None, cost: float) -> str | None:
        """Why a group takes no more of this cost."""
        if group is None:
            return None
        quota = self._rules.quota(group)
        if quota.max_share is not None:
            most = quota.max_share * self._rules.budget
            if self._group_spent[group] + cost > most * (1.0 + ROUNDING):
                return f"group {group!r} has its share {quota.max_share:g} of the budget"
        return None

    def _is_missing(self, group: str | None) -> bool:
        return group is not None and self._group_count[group] < self._rules.quota(group).min_count

    def _fits(self, cost: float) -> bool:
        return self._spent + cost <= self._rules.budget * (1.0 + ROUNDING)
