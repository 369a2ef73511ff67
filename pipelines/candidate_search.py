"""From the pool to picks: the selection sees the best candidates, and more where its rules turn many down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from conf.strategy import Strategy
from pipelines.budget import Budget
from pipelines.candidates import Part, Ranking, Reach, best_blocked, best_candidates, scored_pool
from pipelines.coverage import Coverage, Spread, coverage
from pipelines.feature_check import feature_width
from pipelines.known_duplicates import (
    KnownPictures,
    comparable,
    compared_by,
    duplicate_rule,
    lacks_look,
    likenesses,
    require_looks,
)
from pipelines.pool import known_features, known_pictures
from pipelines.selection import CANDIDATE_COLUMNS, require_possible_minimums, selected

PLURAL = {"image": "images", "box": "boxes"}
# What a near miss may be taken from, beyond the budget itself.
SPARE_CANDIDATES = 1_000
WIDER = 4
# One task holds the candidates of all parts: so many rows, so many values of features (1 GiB).
MOST_CANDIDATES = 2_000_000
MOST_VALUES = 2**28


class Outcome(NamedTuple):
    """What a strategy picks and nearly picked.

    Attributes:
        rows: Columns of `acquisition` but cycle_id, settings_hash and ts, and `picked`; persisted.
        coverage: What the picks of its k-center parts reach.
    """

    rows: DataFrame
    coverage: tuple[Coverage, ...]


def picks_and_near_misses(strategy: Strategy, pool: DataFrame, budget: Budget, ranking: Ranking) -> Outcome:
    """What a strategy picks and nearly picked; all that it was made of is released.

    Args:
        strategy: The strategy.
        pool: POOL_COLUMNS and prices.
        budget: What it may spend.
        ranking: What ranks.

    Raises:
        QuarryError: Minimums beyond the budget, or a score, hash or feature that no job computed yet.
    """
    require_possible_minimums(strategy, budget)
    with ExitStack() as kept:
        search = _Search(strategy, pool, budget, ranking, kept)
        return search.outcome()


@dataclass(kw_only=True)
class _Shortlist:
    """Candidates of one part.

    Attributes:
        rows: CANDIDATE_COLUMNS.
        reach: How many were asked for.
        cut: The groups, None for the best of all, that had as many: there may be more.
        spread: What k-center did to find the best of all.
    """

    rows: DataFrame
    reach: Reach
    cut: frozenset[str | None]
    spread: Spread | None


class _Search:
    def __init__(
        self, strategy: Strategy, pool: DataFrame, budget: Budget, ranking: Ranking, kept: ExitStack
    ) -> None:
        self._strategy, self._budget, self._ranking, self._kept = strategy, budget, ranking, kept
        self._pool = pool
        self._known, width = self._known_pictures()
        centers = self._known_centers()
        n_parts = len(strategy.ranked_parts)
        self._most = min(MOST_CANDIDATES, MOST_VALUES // max(1, width)) // n_parts
        self._parts = [
            Part(
                strategy=part,
                scored=self._scored(part),
                features=pool.select(part.key, "feature"),
                known=centers if part.spec.k_center else None,
            )
            for _, part in strategy.ranked_parts
        ]

    def outcome(self) -> Outcome:
        """Picks of the first pass that more candidates would not change, or of the last that is allowed."""
        lists = [self._shortlist(part, self._first_reach(part)) for part in self._parts]
        while True:
            frames = [self._with_blocked(part, found) for part, found in zip(self._parts, lists, strict=True)]
            outcome = self._keep(
                selected(frames, self._strategy, self._budget.amount, self._ranking.settings.near_misses)
            )
            summary = outcome.where("picked IS NULL").first()
            wider = {} if summary is None else self._wider(lists, summary)
            if not wider:
                break
            for index, reach in wider.items():
                lists[index] = self._shortlist(self._parts[index], reach)
        self._tell(lists, summary)
        names = {"strategy": self._strategy.name, "unit": self._strategy.spec.unit}
        rows = outcome.where("picked IS NOT NULL").drop("dry_parts", "dry_groups", "missing")
        rows = rows.withColumns({name: F.lit(value) for name, value in names.items()})
        rows = rows.persist(StorageLevel.DISK_ONLY)
        rows.count()  # all are kept before what they were made of is released
        return Outcome(rows=rows, coverage=self._coverage(lists, rows))

    def _coverage(self, lists: Sequence[_Shortlist], rows: DataFrame) -> tuple[Coverage, ...]:
        settings, found = self._ranking.settings, []
        for part, shortlist in zip(self._parts, lists, strict=True):
            if shortlist.spread is None:
                continue
            name, mine = self._strategy.name, part.strategy.name
            picked = rows.where("picked").where(F.col("part") == mine)
            found.append(
                coverage(
                    f"{name}/{mine}" if self._strategy.parts else name,
                    shortlist.spread,
                    picked.select(F.col(part.strategy.key).alias("id")),
                    seed=self._ranking.seed,
                    max_rows_per_task=settings.k_center_rows,
                    device=settings.device,
                )
            )
        return tuple(one for one in found if one is not None)

    def _keep(self, rows: DataFrame) -> DataFrame:
        kept = rows.persist(StorageLevel.DISK_ONLY)
        self._kept.callback(kept.unpersist)
        return kept

    def _known_pictures(self) -> tuple[KnownPictures | None, int]:
        """What picks must not look like, and the values of a feature, 0 where none is compared."""
        spec, ranking = self._strategy.spec.near_duplicates, self._ranking
        if spec is None:
            return None, 0
        width = require_looks(self._pool, spec, self._strategy.name)
        known = known_pictures(ranking.run, ranking.others, ranking.model, ranking.settings)
        known = self._keep(comparable(known, spec))
        n_missing = known.where(lacks_look(spec)).count()
        if n_missing:
            what = compared_by(spec).removeprefix("image_")
            ranking.run.tell(
                f"{self._strategy.name}: {n_missing:,} labeled or sent pictures have no {what}: "
                "what looks like them is picked all the same"
            )
        rows = known.where(~lacks_look(spec))
        return KnownPictures(rows=rows, count=rows.count(), rule=duplicate_rule(spec)), width

    def _known_centers(self) -> DataFrame | None:
        """What k-center starts from; none where no part spreads."""
        strategy, ranking = self._strategy, self._ranking
        if not any(part.spec.k_center for _, part in strategy.ranked_parts):
            return None
        unit = strategy.spec.unit
        known = known_features(ranking.run, ranking.others, ranking.model, ranking.settings, unit)
        known = self._keep(known)
        is_missing = feature_width() < 1
        n_missing = known.where(is_missing).count()
        if n_missing:
            ranking.run.tell(
                f"{strategy.name}: {n_missing:,} labeled or sent {PLURAL[unit]} have no feature: "
                "k-center does not start from them"
            )
        return known.where(~is_missing)

    def _scored(self, part: Strategy) -> DataFrame:
        """Kept where it is read more than once."""
        rows = scored_pool(self._pool, part, self._ranking)
        is_read_again = self._has_rules() or part.spec.temporal or part.spec.k_center
        return self._keep(rows) if is_read_again else rows

    def _has_rules(self) -> bool:
        spec = self._strategy.spec
        return bool(self._strategy.parts or spec.near_duplicates or spec.quotas)

    def _first_reach(self, part: Part) -> Reach:
        """Rules turn some candidates down, and one more than the budget shows who came next."""
        units, quotas = self._budget.most_units, self._strategy.spec.quotas
        best = (2 * units if self._has_rules() else units) + SPARE_CANDIDATES
        is_spread = part.strategy.spec.k_center is not None and not self._has_rules()
        if is_spread:
            best = units
        minimums = {} if quotas is None else quotas.at_least
        of_group = {group: 2 * count + SPARE_CANDIDATES for group, count in minimums.items()}
        spare = self._ranking.settings.near_misses if is_spread else 0
        return Reach(units=units, best=best, of_group=of_group, spare=spare).widened(1, self._most)

    def _shortlist(self, part: Part, reach: Reach) -> _Shortlist:
        """The candidates within reach, each once, with what bars those that look like a known picture."""
        key, spec = part.strategy.key, self._strategy.spec.near_duplicates
        rows, spread = best_candidates(part, self._ranking, reach, self._kept)
        if spec is not None and compared_by(spec) == "feature":
            rows = rows.join(part.features, key)
        else:
            rows = rows.withColumn("feature", F.lit(None).cast("array<float>"))
        rows = self._keep(rows)
        counts = {row.of_group: row["count"] for row in rows.groupBy("of_group").count().collect()}
        limits = {None: reach.best, **dict[str | None, int](reach.of_group.items())}
        best = rows.where("of_group IS NULL")
        if reach.of_group:
            beyond = rows.where("of_group IS NOT NULL").join(best.select(key), key, "left_anti")
            rows = best.unionByName(beyond)
        return _Shortlist(
            rows=self._with_likeness(part, rows.withColumn("extra", F.col("of_group").isNotNull()), counts),
            reach=reach,
            cut=frozenset(name for name, most in limits.items() if counts.get(name, 0) >= most),
            spread=spread,
        )

    def _with_likeness(self, part: Part, rows: DataFrame, counts: Mapping[str | None, int]) -> DataFrame:
        """The rows with `barred`: which known picture they look like, null for none."""
        if self._known is None or not self._known.count:
            return rows.withColumn("barred", F.lit(None).cast("string"))
        found = self._keep(likenesses(rows, self._known, sum(counts.values())))
        value = F.format_string("%s %.6g: ", F.lit(part.strategy.score_text), F.col("score"))
        rows = rows.join(found, "image_id", "left")
        return rows.withColumn("barred", F.concat(F.when(F.col("likeness").isNotNull(), value), "likeness"))

    def _with_blocked(self, part: Part, found: _Shortlist) -> DataFrame:
        """The shortlist, and for near misses the best rows that temporal rules block."""
        most = self._ranking.settings.near_misses
        rows = found.rows.select(*CANDIDATE_COLUMNS)
        if not most or part.strategy.spec.temporal is None:
            return rows
        nulls = {"feature": F.lit(None).cast("array<float>"), "extra": F.lit(False)}
        return rows.unionByName(best_blocked(part, most).withColumns(nulls).select(*CANDIDATE_COLUMNS))

    def _wider(self, lists: Sequence[_Shortlist], summary: Row) -> dict[int, Reach]:
        """Parts that would pick more had they more candidates, and that have more."""
        wider = {}
        for index, found in enumerate(lists):
            wanted = {*summary.dry_groups, *([None] if index in summary.dry_parts else [])}
            reach = found.reach.widened(WIDER, self._most)
            if wanted & found.cut and reach != found.reach:
                wider[index] = reach
        return wider

    def _tell(self, lists: Sequence[_Shortlist], summary: Row | None) -> None:
        """What the picks lack, for people."""
        name, tell, quotas = self._strategy.name, self._ranking.run.tell, self._strategy.spec.quotas
        if summary is None:
            tell(f"{name}: it has no candidates")
            return
        for group, short in sorted(summary.missing.items()):
            wanted = 0 if quotas is None else quotas.at_least[group]
            tell(f"{name}: {group!r} got {wanted - short:,} of at least {wanted:,} picks")
        for index in summary.dry_parts:
            part, found = self._parts[index].strategy.name, lists[index]
            if None in found.cut:
                tell(
                    f"{part}: its rules turn down too many: only its best {found.reach.best:,} were looked at"
                )
            elif self._strategy.parts:
                tell(f"{name}: {part} ran out of candidates; the other parts may have got its share")
            else:
                tell(f"{name}: its rules leave fewer candidates than {self._budget.name} buy")
