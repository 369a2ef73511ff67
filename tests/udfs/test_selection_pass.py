from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import QuarryError
from udfs.near_duplicates import Looks, NearDuplicateRule
from udfs.selection_pass import selection
from udfs.selection_rules import Candidates, Component, GroupQuota, SelectionRules

HARDEST = Component(name="hardest", share=0.6, ranked_by="pixel_adj_false")
UNCERTAIN = Component(name="uncertain", share=0.3, ranked_by="entropy")
RANDOM = Component(name="random", share=0.1, ranked_by="a draw")
SEEDS = st.integers(0, 100_000)


def _candidates(images: list[str], component: list[int], **columns: Any) -> Candidates:
    n = len(images)
    looks = {name: columns.pop(name) for name in ("hashes", "has_hash", "features") if name in columns}
    return Candidates(
        looks=Looks(image_ids=np.array(images, object), **looks),
        component=np.array(component, np.int64),
        values=np.array(columns.get("values", np.arange(n, 0, -1.0)), float),
        costs=np.array(columns.get("costs", np.ones(n)), float),
        groups=columns.get("groups"),
        barred=columns.get("barred"),
        extra=columns.get("extra"),
    )


def _random_candidates(rng: np.random.Generator, n: int, n_components: int) -> Candidates:
    scenes = rng.integers(0, 2**63, 6).astype(np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (n, 3)).astype(np.uint64)
    image = rng.integers(0, n, n)
    look = rng.integers(0, 6, n)
    hashes = scenes[look] ^ np.bitwise_or.reduce(flips, axis=1)
    return _candidates(
        [f"image-{i}" for i in image],
        rng.integers(0, n_components, n).tolist(),
        costs=rng.choice([0.5, 1.0, 1.75, 4.0], n)[image],
        groups=rng.choice(np.array(["day", "night", "fog", None], object), n)[image],
        hashes=hashes[image],
        has_hash=(rng.random(n) < 0.8)[image],
        features=rng.normal(size=(n, 2)).astype(np.float32)[image],
        barred=rng.choice(np.array([None, None, None, "like an old one"], object), n)[image],
        extra=rng.random(n) < 0.2,
    )


def _random_rules(rng: np.random.Generator) -> SelectionRules:
    shares = [(1.0,), (0.5, 0.5), (0.5, 0.25, 0.25), (0.625, 0.25, 0.125)][rng.integers(0, 4)]
    quotas = {
        "night": GroupQuota(min_count=int(rng.integers(0, 4)), max_share=0.5),
        "day": GroupQuota(max_share=float(rng.choice([0.0, 0.25, 0.5, 1.0]))),
        "snow": GroupQuota(min_count=1),
    }
    return SelectionRules(
        budget=float(rng.integers(0, 24)),
        components=tuple(Component(name=f"c{i}", share=s, ranked_by="q") for i, s in enumerate(shares)),
        quotas=quotas,
        other_quota=GroupQuota(min_count=int(rng.integers(0, 2))),
        near_duplicates=NearDuplicateRule(
            max_hamming_bits=[None, 0, 3][rng.integers(0, 3)],
            below_feature_l2=[None, 0.2][rng.integers(0, 2)],
        ),
    )


def _breaks_no_rule(c: Candidates, rules: SelectionRules, taken: list[int], row: int) -> bool:
    looks, near = c.looks, rules.near_duplicates
    if looks.image_ids[row] in looks.image_ids[taken] or (c.barred is not None and c.barred[row]):
        return False
    if c.costs[taken].sum() + c.costs[row] > rules.budget:
        return False
    assert c.groups is not None and looks.hashes is not None and looks.features is not None
    if (group := c.groups[row]) is not None:
        same, quota = [r for r in taken if c.groups[r] == group], rules.quota(group)
        if quota.max_share is not None and c.costs[[*same, row]].sum() > quota.max_share * rules.budget:
            return False
    for other in taken:
        hashed = looks.has_hash is None or (looks.has_hash[row] and looks.has_hash[other])
        bits = bin(int(looks.hashes[row]) ^ int(looks.hashes[other])).count("1")
        if near.max_hamming_bits is not None and hashed and bits <= near.max_hamming_bits:
            return False
        if near.below_feature_l2 is not None:
            apart = np.hypot(*(looks.features[row].astype(float) - looks.features[other].astype(float)))
            if apart < near.below_feature_l2:
                return False
    return True


def _picked_slowly(c: Candidates, rules: SelectionRules) -> list[tuple[int, bool]]:
    """Each step looks at every candidate and every rule anew; with each pick, whether it filled a minimum."""
    taken: list[int] = []
    fills: list[bool] = []
    shares = [Fraction(part.share) for part in rules.components]
    for only_missing in (True, False):
        while True:
            assert c.groups is not None and c.extra is not None
            counts = Counter(c.groups[row] for row in taken)
            heads: dict[int, int] = {}
            for row in range(len(c) - 1, -1, -1):
                group = c.groups[row]
                missing = group is not None and counts[group] < rules.quota(group).min_count
                wanted = missing if only_missing else not c.extra[row]
                if wanted and _breaks_no_rule(c, rules, taken, row):
                    heads[int(c.component[row])] = row
            if not heads:
                break
            spent = {i: sum(Fraction(c.costs[r]) for r in taken if c.component[r] == i) for i in heads}
            now = sum(spent.values()) / sum(shares[i] for i in heads)
            behind = [i for i in sorted(heads) if spent[i] <= now * shares[i]]
            due = min(behind, key=lambda i: (spent[i] + Fraction(c.costs[heads[i]])) / shares[i])
            taken.append(heads[due])
            fills.append(only_missing)
    return list(zip(taken, fills, strict=True))


def test_hand_worked_selection() -> None:
    images = ["a", "b", "c", "d", "e", "b", "f", "g"]
    candidates = _candidates(
        images,
        [0, 0, 0, 0, 0, 1, 1, 1],
        values=[12.34567891, 9, 8, 7, 6, 3, 2, 1],
        costs=[1, 1, 1, 5, 1, 1, 1, 1],
        groups=np.array(["x", "x", "x", "y", "y", "x", "y", None], object),
        hashes=np.array([0b0, 0xFFFF, 0b11, 1 << 40, 0xFF << 48, 0xFFFF, 0xFFFF << 40, 0], np.uint64),
        has_hash=np.array([True] * 7 + [False]),
        barred=np.array([None] * 6 + ["near-duplicate of old", None], object),
    )
    rules = SelectionRules(
        budget=4,
        components=(HARDEST, UNCERTAIN),
        near_duplicates=NearDuplicateRule(max_hamming_bits=2),
    )
    found = selection(candidates, rules, near_misses=9)
    # Due are a at 1/0.6 and b at 1/0.3: a. Its component is now ahead of its share: b. Then c is like a, d is
    # too dear, e is taken; the first component is out, f is like an old image, g is taken.
    assert [images[row] for row in found.rows] == ["a", "b", "e", "g"]
    assert found.component.tolist() == [0, 1, 0, 1]
    assert found.rows.tolist() == [0, 5, 4, 7]
    assert found.reasons[0] == "hardest 0.6: rank 1 of pixel_adj_false, 12.3457"
    assert found.reasons[3] == "uncertain 0.3: rank 2 of entropy, 1"
    assert [(images[miss.row], miss.reason) for miss in found.near_misses] == [
        ("f", "near-duplicate of old"),
        ("c", "rank 3 of pixel_adj_false, 8: near-duplicate of a: hashes differ in 2 of 64 bits"),
        ("d", "rank 4 of pixel_adj_false, 7: costs 5, of the budget 2 are left"),
    ]
    assert found.missing == {}


def test_minimums_come_first_and_maximums_end_a_group() -> None:
    groups = np.array(["day"] * 4 + ["night", None, "day"], object)
    candidates = _candidates(list("abcdefg"), [0] * 7, groups=groups)
    quotas = {"night": GroupQuota(min_count=2), "day": GroupQuota(max_share=0.25)}
    rules = SelectionRules(budget=8, components=(HARDEST,), quotas=quotas)
    found = selection(candidates, rules, near_misses=2)
    assert found.rows.tolist() == [4, 0, 1, 5]
    assert found.reasons[0].endswith("; for the minimum of 2 of 'night'")
    assert found.missing == {"night": 1}
    assert [(miss.row, miss.reason) for miss in found.near_misses] == [
        (2, "rank 3 of pixel_adj_false, 5: group 'day' has its share 0.25 of the budget"),
        (3, "rank 4 of pixel_adj_false, 4: group 'day' has its share 0.25 of the budget"),
    ]
    half = SelectionRules(budget=4, components=(HARDEST,), other_quota=GroupQuota(max_share=0.25))
    found = selection(candidates, half, near_misses=1)
    assert found.rows.tolist() == [0, 4, 5]
    assert found.near_misses[0].reason.endswith(": group 'day' has its share 0.25 of the budget")


def test_each_near_miss_has_the_rule_that_kept_it_out_also_behind_the_last_pick() -> None:
    groups = np.array(["day", "night", "day", "fog"], object)
    candidates = _candidates(list("abcd"), [0] * 4, groups=groups)
    rules = SelectionRules(budget=2, components=(HARDEST,), other_quota=GroupQuota(max_share=0.5))
    reasons = [miss.reason for miss in selection(candidates, rules, near_misses=9).near_misses]
    assert reasons == [
        "rank 3 of pixel_adj_false, 2: group 'day' has its share 0.5 of the budget",
        "rank 4 of pixel_adj_false, 1: the budget was spent before its turn",
    ]
    dear = _candidates(list("abc"), [0] * 3, costs=[3, 2, 2])
    found = selection(dear, SelectionRules(budget=4, components=(HARDEST,)), near_misses=1)
    assert found.near_misses[0].reason.endswith(": costs 2, of the budget 1 are left")


def test_what_another_component_got_is_no_near_miss_and_places_decide_not_values() -> None:
    images, component = ["a", "b", "c", "b", "d", "e"], [0, 0, 0, 1, 1, 1]
    candidates = _candidates(images, component, values=[0.9, 0.8, 0.7, 50, 40, 30])
    rules = SelectionRules(budget=2, components=(HARDEST, UNCERTAIN))
    found = selection(candidates, rules, near_misses=3)
    assert [images[row] for row in found.rows] == ["a", "b"]
    assert [images[miss.row] for miss in found.near_misses] == ["d", "c", "e"]


def test_extras_fill_the_minimum_of_their_group_and_nothing_else() -> None:
    images = ["a", "b", "n1", "n2", "n3"]
    candidates = _candidates(
        images,
        [0] * 5,
        groups=np.array(["day", "day", "night", "night", "night"], object),
        extra=np.array([False, False, True, True, True]),
        barred=np.array([None, None, "labeled", None, None], object),
    )
    quotas = {"night": GroupQuota(min_count=1)}
    found = selection(candidates, SelectionRules(budget=4, components=(HARDEST,), quotas=quotas), 9)
    assert [images[row] for row in found.rows] == ["n2", "a", "b"]
    assert found.reasons[0] == ("rank 1 in 'night' of pixel_adj_false, 2; for the minimum of 1 of 'night'")
    assert found.missing == {}
    assert [(images[miss.row], miss.reason) for miss in found.near_misses] == [("n1", "labeled")]


@pytest.mark.parametrize(
    ("n_of_part", "costs", "budget", "dry"),
    [
        ([49], 1.0, 50, (0,)),
        ([50], 1.0, 50, ()),
        ([50], 2.0, 50, ()),
        ([24], 2.0, 50, (0,)),
        ([24], 2.0, 49, ()),  # what is left buys none
        ([24, 60], 1.0, 50, (0,)),  # the other got its share
        ([25, 60], 1.0, 50, ()),
        ([25, 20], 1.0, 50, (0, 1)),
        ([60, 60], 1.0, 50, ()),
        ([0, 60], 1.0, 50, (0,)),
        ([10, 22, 60], 1.0, 60, (0, 1)),  # more than its share, less than its part of what another left
        ([10, 25, 60], 1.0, 60, (0,)),
    ],
)
def test_a_component_is_dry_that_would_have_got_more(
    n_of_part: list[int], costs: float, budget: float, dry: tuple[int, ...]
) -> None:
    component = [part for part, n in enumerate(n_of_part) for _ in range(n)]
    candidates = _candidates([str(i) for i in range(len(component))], component)
    candidates = replace(candidates, costs=np.full(len(component), costs))
    parts = tuple(Component(name=f"c{i}", share=0.5, ranked_by="q") for i in range(len(n_of_part)))
    assert selection(candidates, SelectionRules(budget=budget, components=parts)).dry_components == dry


def test_near_misses_that_are_told_make_no_component_dry() -> None:
    barred = np.array([None, "blocked"], object)
    candidates = _candidates(list("ab"), [0, 0], costs=[3, 1], barred=barred)
    found = selection(candidates, SelectionRules(budget=5, components=(HARDEST,)), near_misses=1)
    assert (found.rows.tolist(), found.dry_components) == ([0], ())


def test_a_dear_image_and_a_minimum_make_no_component_dry() -> None:
    parts = tuple(Component(name=f"c{i}", share=0.5, ranked_by="q") for i in range(2))
    candidates = _candidates(list("abcd"), [0, 1, 1, 1], costs=[9, 1, 1, 1])
    found = selection(candidates, SelectionRules(budget=10, components=parts))
    assert (len(found.rows), found.dry_components) == (2, ())
    groups = np.array(["night"] * 8 + ["day"] * 4, object)
    candidates = _candidates([str(i) for i in range(12)], [0] * 8 + [1] * 4, groups=groups)
    rules = SelectionRules(budget=10, components=parts, quotas={"night": GroupQuota(min_count=8)})
    found = selection(candidates, rules)
    assert (found.component.tolist(), found.dry_components) == ([0] * 8 + [1] * 2, ())


def test_groups_short_of_their_minimum_are_dry_where_more_candidates_would_help() -> None:
    groups = np.array(["night", "fog", "fog", "day"], object)
    candidates = _candidates(list("abcd"), [0] * 4, groups=groups)
    quotas = {"night": GroupQuota(min_count=3), "fog": GroupQuota(min_count=3, max_share=0.25)}
    found = selection(candidates, SelectionRules(budget=8, components=(HARDEST,), quotas=quotas))
    assert found.missing == {"fog": 1, "night": 2}
    assert found.dry_groups == ("night",)  # fog has its share
    spent = selection(candidates, SelectionRules(budget=3, components=(HARDEST,), quotas=quotas))
    assert spent.missing and spent.dry_groups == ("night",)
    nothing_left = {"night": GroupQuota(min_count=3), "fog": GroupQuota(min_count=2)}
    spent = selection(candidates, SelectionRules(budget=3, components=(HARDEST,), quotas=nothing_left))
    assert (spent.missing, spent.dry_groups) == ({"night": 2}, ())


@settings(derandomize=True, max_examples=250, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 40))
def test_equals_looking_at_everything_anew(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rules = _random_rules(rng)
    candidates = _random_candidates(rng, n, len(rules.components))
    found = selection(candidates, rules, near_misses=n)
    expected = _picked_slowly(candidates, rules)
    fills = ["for the minimum" in reason for reason in found.reasons]
    assert list(zip(found.rows.tolist(), fills, strict=True)) == expected
    assert [len(found.reasons), len(found.component)] == [len(expected)] * 2
    assert candidates.costs[found.rows].sum() <= rules.budget
    taken, image_ids, extra = found.rows.tolist(), candidates.looks.image_ids, candidates.extra
    assert extra is not None
    missed = [miss.row for miss in found.near_misses]
    assert not [row for row in missed if _breaks_no_rule(candidates, rules, taken, row)]
    never = set(image_ids) - set(image_ids[taken])
    assert set(image_ids[~extra]) & never <= set(image_ids[missed]) <= never
    assert len(set(image_ids[missed])) == len(missed)
    place = [int((candidates.component[:row] == candidates.component[row]).sum()) for row in missed]
    assert place == sorted(place)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 80), most=st.integers(1, 12))
def test_more_candidates_change_nothing_where_no_component_is_dry(seed: int, n: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    limits = {"day": GroupQuota(max_share=0.25), "night": GroupQuota(max_share=0.5)}
    rules = replace(_random_rules(rng), quotas=limits, other_quota=GroupQuota())
    whole = _random_candidates(rng, n, len(rules.components))
    whole = replace(whole, costs=np.ones(n), extra=None)
    place = [int((whole.component[:row] == whole.component[row]).sum()) for row in range(n)]
    first = np.flatnonzero(np.array(place) < most)
    assert whole.groups is not None and whole.barred is not None
    looks = {name: getattr(whole.looks, name)[first] for name in ("hashes", "has_hash", "features")}
    few = _candidates(
        whole.looks.image_ids[first].tolist(),
        whole.component[first].tolist(),
        groups=whole.groups[first],
        barred=whole.barred[first],
        **looks,
    )
    found = selection(few, rules)
    if not found.dry_components:
        assert first[found.rows].tolist() == selection(whole, rules).rows.tolist()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(seed=SEEDS, n_components=st.integers(1, 6))
def test_every_prefix_is_within_one_image_of_the_shares(seed: int, n_components: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(n_components)).clip(0.02)
    shares /= shares.sum()
    n = 200 * n_components
    costs = rng.choice([np.ones(n), rng.uniform(0.2, 3.0, n)])
    candidates = _candidates([str(i) for i in range(n)], (np.arange(n) % n_components).tolist(), costs=costs)
    parts = tuple(Component(name=f"c{i}", share=s, ranked_by="q") for i, s in enumerate(shares))
    found = selection(candidates, SelectionRules(budget=60.0, components=parts))
    spent = costs[found.rows] * (found.component == np.arange(n_components)[:, None])
    due = shares[:, None] * np.cumsum(costs[found.rows])
    assert np.abs(np.cumsum(spent, axis=1) - due).max() <= costs.max() + 1e-9
    for index in range(n_components):  # none is left out, and the order among its own is kept
        assert found.rows[found.component == index].tolist() == sorted(
            found.rows[found.component == index].tolist()
        )


def test_shares_of_ten_images_are_six_three_and_one() -> None:
    candidates = _candidates([str(i) for i in range(60)], [0] * 20 + [1] * 20 + [2] * 20)
    found = selection(candidates, SelectionRules(budget=10, components=(HARDEST, UNCERTAIN, RANDOM)))
    assert Counter(found.component.tolist()) == {0: 6, 1: 3, 2: 1}


def test_what_a_component_cannot_fill_goes_to_the_others_in_proportion() -> None:
    candidates = _candidates([str(i) for i in range(92)], [0] * 2 + [1] * 60 + [2] * 30)
    found = selection(candidates, SelectionRules(budget=42, components=(HARDEST, UNCERTAIN, RANDOM)))
    assert Counter(found.component.tolist()) == {0: 2, 1: 30, 2: 10}


def test_a_budget_of_decimal_costs_is_used_up() -> None:
    candidates = _candidates(list("abcd"), [0] * 4, costs=[0.1] * 4)
    assert len(selection(candidates, SelectionRules(budget=0.3, components=(HARDEST,))).rows) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"costs": [1.0, 0.0]}, "image 'b': cost must be finite and above 0, got 0.0"),
        ({"costs": [1.0, np.nan]}, "image 'b': cost"),
        ({"values": [1.0]}, "equal length, got .*'values': 1"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(QuarryError, match=message):
        selection(_candidates(["a", "b"], [0, 0], **change), SelectionRules(budget=1, components=(HARDEST,)))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(QuarryError, match=r"image 'b': component must be in 0\.\.0, got 1"):
        selection(_candidates(["a", "b"], [0, 1]), SelectionRules(budget=1, components=(HARDEST,)))
    for refused, message in (
        (lambda: Component(name="x", share=0.0, ranked_by="q"), "'x': share must be above 0, got 0"),
        (lambda: GroupQuota(min_count=-1), "at least 0, got -1"),
        (lambda: GroupQuota(max_share=1.5), r"max_share of a group must be in 0\.\.1, got 1.5"),
        (lambda: SelectionRules(budget=-1, components=(HARDEST,)), "at least 0, got -1"),
        (lambda: SelectionRules(budget=1, components=()), "at least one component"),
        (lambda: NearDuplicateRule(max_hamming_bits=64), r"0\.\.63, got 64"),
        (lambda: NearDuplicateRule(below_feature_l2=0.0), "above 0, got 0"),
    ):
        with pytest.raises(QuarryError, match=message):
            refused()
