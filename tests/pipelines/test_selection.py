"""From a made-up pool to picks: how far the search looks, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.acquisition_spec import UNCERTAINTY, StrategySpec
from conf.errors import QuarryError
from conf.settings import AcquireSettings, ScoreSettings
from conf.strategy import Strategy
from pipelines import candidate_search
from pipelines.budget import budget_of, priced
from pipelines.candidate_search import picks_and_near_misses
from pipelines.candidates import Ranking
from pipelines.coverage import Coverage
from pipelines.models import Model
from pipelines.run import Run
from pipelines.tables import TableStore

POOL = (
    "image_id STRING, detection_id STRING, sequence_id STRING, frame_index INT, image_hash BIGINT, "
    "feature ARRAY<FLOAT>, n_boxes INT, uncertainty DOUBLE, group STRING"
)
KNOWN = "image_id STRING, image_hash BIGINT, feature ARRAY<FLOAT>"


@pytest.fixture(autouse=True)
def few_spare_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pools are cut as large ones are."""
    monkeypatch.setattr(candidate_search, "SPARE_CANDIDATES", 2)


class Acquisition:
    """A pool of images by falling uncertainty, i000 first; at night the last ones."""

    def __init__(self, session: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._session, self._root, self._monkeypatch = session, root, monkeypatch
        self.told: list[str] = []
        self.passes = 0
        self.coverage: dict[str, Coverage] = {}

    def picks(
        self,
        spec: dict[str, Any],
        *,
        looks: list[int | None],
        nights: int = 0,
        known: tuple[tuple[Any, ...], ...] = (),
        **settings: Any,
    ) -> tuple[list[str], dict[str, str]]:
        """Images picked in order, and near misses with their reasons."""
        n, settings = len(looks), {"budget": 6, "near_misses": 50, **settings}
        rows = [
            (
                f"i{i:03}",
                None,
                "s",
                i,
                look,
                [float(i), 0.0],
                1,
                1.0 - i / n,
                "night" if i >= n - nights else "day",
            )
            for i, look in enumerate(looks)
        ]
        acquire = AcquireSettings.model_validate(settings)
        pool = priced(self._session.createDataFrame(rows, POOL), acquire, "image")
        old = self._session.createDataFrame(list(known), KNOWN)
        self._monkeypatch.setattr(candidate_search, "known_pictures", lambda *_: old)
        centers = old.select(F.col("image_id").alias("id"), "feature")
        self._monkeypatch.setattr(candidate_search, "known_features", lambda *_: centers)
        self._monkeypatch.setattr(candidate_search, "selected", self._counted)
        model = Model(model_id="m", name="m", head="softmax", classes={})
        run = Run(store=TableStore(self._session, str(self._root)), tell=self.told.append)
        ranking = Ranking(
            run=run,
            model=model,
            method="exact",
            scoring=ScoreSettings(),
            seed=1,
            others="true",
            settings=acquire,
        )
        plain = {"score": "random", "description": "by uncertainty"}
        strategy = Strategy(name="mine", score=UNCERTAINTY, spec=StrategySpec.model_validate(plain | spec))
        found = picks_and_near_misses(strategy, pool, budget_of(acquire, "image"), ranking)
        table = found.rows.orderBy("rank").collect()
        found.rows.unpersist()
        self.coverage = {one.name: one for one in found.coverage}
        return (
            [row.image_id for row in table if row.picked],
            {row.image_id: row.reason for row in table if not row.picked},
        )

    def _counted(self, *given: Any) -> DataFrame:
        from pipelines.selection import selected

        self.passes += 1
        return selected(*given)


@pytest.fixture
def acquisition(session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acquisition:
    """Nothing labeled, nothing sent."""
    return Acquisition(session, tmp_path, monkeypatch)


def persisted(session: SparkSession) -> int:
    """Frames and tables Spark keeps."""
    return int(session.sparkContext._jsc.getPersistentRDDs().size())


def far_apart(n: int) -> list[int | None]:
    """Hashes that differ in many bits."""
    return [(i * 0x9E3779B97F4A7C15) % 2**63 for i in range(n)]


def test_minimums_are_met_from_behind_the_best(acquisition: Acquisition, session: SparkSession) -> None:
    before = persisted(session)
    quotas = {"by": "class", "at_least": {"night": 2, "fog": 1}}
    picks, _ = acquisition.picks({"quotas": quotas}, looks=[None] * 60, nights=5)
    assert picks == ["i055", "i056", "i000", "i001", "i002", "i003"]
    assert acquisition.told == ["mine: 'fog' got 0 of at least 1 picks"]
    assert (acquisition.passes, persisted(session)) == (1, before)


def test_the_search_widens_until_the_budget_is_spent(acquisition: Acquisition, session: SparkSession) -> None:
    before = persisted(session)
    # The first 30 look the same, and so do the nights.
    looks = [0] * 30 + far_apart(31)[1:] + [2**62 - 1] * 9
    spec = {"near_duplicates": {"max_hamming": 1}}
    picks, missed = acquisition.picks(spec, looks=looks)
    assert picks == ["i000", *(f"i{i:03}" for i in range(30, 35))]
    assert (
        missed["i001"]
        == "rank 2 of uncertainty, 0.985507: near-duplicate of i000: hashes differ in 0 of 64 bits"
    )
    assert (acquisition.passes, acquisition.told, persisted(session)) == (2, [], before)


def test_the_search_ends_where_nothing_more_can_come(acquisition: Acquisition) -> None:
    spec = {"near_duplicates": {"max_hamming": 1}}
    picks, _ = acquisition.picks(spec, looks=[0] * 20)
    assert picks == ["i000"]
    assert acquisition.passes == 2  # 14 of 20, then all
    assert acquisition.told == ["mine: its rules leave fewer candidates than 6 images buy"]


def test_the_search_ends_at_its_bound_and_says_so(
    acquisition: Acquisition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate_search, "MOST_CANDIDATES", 20)
    spec = {"near_duplicates": {"max_hamming": 1}}
    picks, _ = acquisition.picks(spec, looks=[0] * 30 + far_apart(31)[1:])
    assert picks == ["i000"] and acquisition.passes == 2
    assert acquisition.told == ["mine: its rules turn down too many: only its best 20 were looked at"]
    monkeypatch.setattr(candidate_search, "MOST_VALUES", 30)  # of two values each
    acquisition.picks({"near_duplicates": {"max_distance": 90.0}}, looks=[0] * 30)
    assert acquisition.told[1:] == ["mine: its rules turn down too many: only its best 15 were looked at"]


def test_k_center_goes_on_where_rules_turn_its_picks_down(acquisition: Acquisition) -> None:
    looks = [0 if i % 3 else look for i, look in enumerate(far_apart(30))]
    spec = {"k_center": {}, "near_duplicates": {"max_hamming": 1}}
    picks, _ = acquisition.picks(spec, looks=looks)
    assert len(picks) == 6 and acquisition.told == []
    acquisition.passes = 0
    spread, _ = acquisition.picks({"k_center": {}}, looks=looks)
    assert (len(spread), acquisition.passes) == (6, 1)
    quotas = {"by": "class", "at_least": {"night": 2}}
    picks, _ = acquisition.picks({"k_center": {"of_best": 2.0}, "quotas": quotas}, looks=looks, nights=4)
    assert len(set(picks)) == 6 and min(picks[:2]) >= "i026" and max(picks[2:]) < "i012"


@pytest.mark.parametrize("spec", [{}, {"near_duplicates": {"max_hamming": 1}}])
def test_k_center_says_what_its_picks_reach_beside_a_bound(
    acquisition: Acquisition, spec: dict[str, Any]
) -> None:
    # The features are the places 0 to 29 of a line, 10 is known; the rule turns most of the picks down.
    looks = [0 if spec and i % 3 else look for i, look in enumerate(far_apart(30))]
    known = (("old", 2**62 - 1, [10.0, 0.0]),)
    picks, _ = acquisition.picks({"k_center": {}, **spec}, looks=looks, known=known, budget=3)
    centers = [10, *(int(name[1:]) for name in picks)]
    found = acquisition.coverage["mine"]
    assert (found.n, found.radius) == (30, max(min(abs(i - c) for c in centers) for i in range(30)))
    # The best three are 3, 17.5 and 25.5.
    assert found.radius / 4 <= found.lower_bound <= 3.5


def test_known_pictures_without_a_feature_are_counted(acquisition: Acquisition) -> None:
    known = (("old", None, None), ("older", None, []), ("oldest", None, [0.0, 0.0]))
    picks, _ = acquisition.picks({"k_center": {}}, looks=[None] * 9, known=known, budget=1)
    assert picks == ["i008"]
    assert acquisition.told == [
        "mine: 2 labeled or sent images have no feature: k-center does not start from them"
    ]


def test_near_misses_of_k_center_are_next_in_its_order_and_change_no_pick(acquisition: Acquisition) -> None:
    spec = {"k_center": {"of_best": 3.0}}
    picks, missed = acquisition.picks(spec, looks=[None] * 30, budget=4, near_misses=0)
    assert missed == {}
    reached = acquisition.coverage["mine"]
    more, missed = acquisition.picks(spec, looks=[None] * 30, budget=4, near_misses=3)
    assert more == picks and acquisition.coverage["mine"].radius == reached.radius
    longer, _ = acquisition.picks({"k_center": {"of_best": 12 / 7}}, looks=[None] * 30, budget=7)
    assert list(missed) == longer[4:]
    start = "rank 5 of distance to the nearest center among the best 3 budgets by uncertainty, "
    assert missed[longer[4]].startswith(start)


def test_what_looks_like_a_known_picture_is_left_out_and_named(acquisition: Acquisition) -> None:
    looks = far_apart(21)[1:]
    known = (("old-1", looks[0], None), ("old-0", looks[0], None), ("other", None, [3.0, 0.5]))
    picks, missed = acquisition.picks({"near_duplicates": {"max_hamming": 1}}, looks=looks, known=known)
    assert picks == [f"i{i:03}" for i in range(1, 7)]
    assert missed["i000"] == "uncertainty 1.00000: near-duplicate of old-0: hashes differ in 0 of 64 bits"
    assert acquisition.told == [
        "mine: 1 labeled or sent pictures have no hash: what looks like them is picked all the same"
    ]
    spec = {"near_duplicates": {"max_distance": 0.9}}
    picks, missed = acquisition.picks(spec, looks=looks, known=known)
    assert picks == [f"i{i:03}" for i in (0, 1, 2, 4, 5, 6)]
    assert missed["i003"].endswith(": near-duplicate of other: features are 0.5 apart")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"near_duplicates": {"max_hamming": 1}}, "2 of 12 have none .such as i003.: run `quarry detect` on"),
        ({"quotas": {"by": "class", "at_least": {"night": 4, "day": 3}}}, "adds up to 7 image units"),
        (
            {"quotas": {"by": "class", "at_least": {"night": 4}, "at_most": 0.5}},
            "4 of 'night' costs at least",
        ),
    ],
)
def test_rules_that_cannot_be_applied_are_refused(
    acquisition: Acquisition, spec: dict[str, Any], told: str
) -> None:
    looks: list[int | None] = [None if i in (3, 7) else i for i in range(12)]
    with pytest.raises(QuarryError, match=told):
        acquisition.picks(spec, looks=looks)


def test_near_duplicates_of_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="compares whole pictures: unit image"):
        StrategySpec.model_validate(
            {"unit": "box", "score": "random", "near_duplicates": {"max_distance": 1}}
        )
