from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from udfs.near_duplicates import NearDuplicateRule
from udfs.selection_rows import LIKENESS_SCHEMA, SELECTION_SCHEMA, likeness_rows, selection_rows
from udfs.selection_rules import Component, GroupQuota, SelectionRules

HARD = Component(name="hard", share=0.5, ranked_by="total_fn")
SPREAD = Component(name="spread", share=0.5, ranked_by="distance to the nearest center")
CANDIDATE_SCHEMA = pa.schema(
    [
        ("part", pa.int32()),
        ("merit", pa.float64()),
        ("tie", pa.int64()),
        ("image_id", pa.string()),
        ("detection_id", pa.string()),
        ("score", pa.float64()),
        ("group", pa.string()),
        ("image_hash", pa.int64()),
        ("feature", pa.list_(pa.float32())),
        ("cost", pa.float64()),
        ("cost_s", pa.float64()),
        ("cost_money", pa.float64()),
        ("barred", pa.string()),
        ("extra", pa.bool_()),
    ]
)


def candidates(*rows: dict[str, Any]) -> pa.Table:
    """Candidates as Spark gives them; merit is the score where none is given."""
    usual = {"part": 0, "tie": 0, "score": 1.0, "cost": 1.0, "cost_s": 346.0, "extra": False}
    filled = [usual | row | {"merit": row.get("merit", row.get("score", 1.0))} for row in rows]
    return pa.Table.from_pylist(filled, schema=CANDIDATE_SCHEMA)


def lake(n: int, n_nights: int, **given: Any) -> list[dict[str, Any]]:
    """n images by falling score; the last ones were taken at night."""
    return [
        {"image_id": f"i{i:04}", "score": float(n - i), "group": "night" if i >= n - n_nights else "day"}
        | given
        for i in range(n)
    ]


def shortlist(rows: list[dict[str, Any]], most: int, of_group: dict[str, int]) -> list[dict[str, Any]]:
    """The best of all, and of groups: what the search takes from the pool."""
    extra = [r for g, k in of_group.items() for r in [r for r in rows if r["group"] == g][:k]]
    best = rows[:most]
    return best + [row | {"extra": True} for row in extra if row not in best]


def outcome(
    table: pa.Table, rules: SelectionRules, near_misses: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Picks, near misses and the summary."""
    found = selection_rows(table, rules, near_misses)
    assert found.schema == SELECTION_SCHEMA
    *rows, summary = found.to_pylist()
    assert summary["picked"] is None and all(row["picked"] is not None for row in rows)
    picks, missed = [r for r in rows if r["picked"]], [r for r in rows if not r["picked"]]
    for part in (picks, missed):
        assert [row["rank"] for row in part] == list(range(1, len(part) + 1))
    return picks, missed, summary


def test_a_group_far_behind_the_best_gets_its_minimum() -> None:
    rows, quotas = lake(400, 20), {"night": GroupQuota(min_count=10)}
    rules = SelectionRules(budget=50, components=(HARD,), quotas=quotas)
    picks, _, summary = outcome(candidates(*shortlist(rows, 110, {"night": 15})), rules)
    assert [row["image_id"] for row in picks[:10]] == [f"i{i:04}" for i in range(380, 390)]
    assert picks[0]["reason"] == ("rank 1 in 'night' of total_fn, 20; for the minimum of 10 of 'night'")
    assert [row["image_id"] for row in picks[10:]] == [f"i{i:04}" for i in range(40)]
    assert (summary["missing"], summary["dry_parts"], summary["dry_groups"]) == ([], [], [])


def test_merits_of_extras_are_of_another_list_and_do_not_outrank_the_best() -> None:
    rows = [{"image_id": "best", "merit": -1.0}, {"image_id": "next", "merit": -2.0}]
    rows += [{"image_id": f"n{i}", "merit": -float(i), "group": "night", "extra": True} for i in (1, 2)]
    rules = SelectionRules(budget=3, components=(SPREAD,), quotas={"night": GroupQuota(min_count=1)})
    picks, _, _ = outcome(candidates(*rows), rules)
    assert [row["image_id"] for row in picks] == ["n1", "best", "next"]
    assert [row["reason"].split(" of ")[0] for row in picks] == ["rank 1 in 'night'", "rank 1", "rank 2"]


def test_a_minimum_that_is_not_met_is_handed_out() -> None:
    rows, quotas = lake(400, 20), {"night": GroupQuota(min_count=10)}
    rules = SelectionRules(budget=50, components=(HARD,), quotas=quotas)
    picks, _, summary = outcome(candidates(*shortlist(rows, 110, {"night": 4})), rules)
    assert len(picks) == 50
    assert (summary["missing"], summary["dry_groups"]) == ([("night", 6)], ["night"])
    _, _, summary = outcome(candidates(*shortlist(rows, 110, {})), rules)
    assert (summary["missing"], summary["dry_groups"]) == ([("night", 10)], ["night"])


def test_a_budget_that_falls_short_by_one_is_told() -> None:
    rules = SelectionRules(budget=50, components=(HARD,))
    assert outcome(candidates(*lake(49, 0)), rules)[2]["dry_parts"] == [0]
    assert outcome(candidates(*lake(50, 0)), rules)[2]["dry_parts"] == []


def test_an_image_that_takes_the_whole_budget_makes_no_part_dry() -> None:
    rows = [{"image_id": "dear", "cost": 9.0}] + [{"image_id": f"{i}", "part": 1} for i in range(3)]
    picks, _, summary = outcome(candidates(*rows), SelectionRules(budget=10, components=(HARD, SPREAD)))
    assert (len(picks), summary["dry_parts"]) == (2, [])


def test_longer_lists_of_k_center_go_on_where_the_shorter_ended() -> None:
    like = {
        0: 0,
        1: 1,
        2: 0,
        3: 2,
        4: 1,
        5: 3,
    }  # the third pick looks like the first, the fifth like the second
    rows = [
        {"image_id": f"c{i}", "merit": -float(i + 1), "score": 9.0 - i, "image_hash": 0xFFFF << 12 * look}
        for i, look in like.items()
    ]
    rules = SelectionRules(
        budget=4, components=(SPREAD,), near_duplicates=NearDuplicateRule(max_hamming_bits=3)
    )
    short, _, summary = outcome(candidates(*rows[:4]), rules)
    assert (len(short), summary["dry_parts"]) == (3, [0])
    picks, missed, summary = outcome(candidates(*rows), rules, near_misses=5)
    assert [row["image_id"] for row in picks] == ["c0", "c1", "c3", "c5"]
    assert summary["dry_parts"] == []
    assert [(row["image_id"], row["reason"].split(": ")[1]) for row in missed] == [
        ("c2", "near-duplicate of c0"),
        ("c4", "near-duplicate of c1"),
    ]


def test_near_misses_stand_by_place_in_their_part_with_their_own_rule() -> None:
    rows = [
        {"image_id": "a", "score": 900.0, "group": "day"},
        {"image_id": "b", "score": 800.0, "group": "day"},
        {"image_id": "frame", "score": 850.0, "barred": "total_fn 850: next to a pick", "group": "day"},
        {"image_id": "c", "score": 700.0, "group": "fog"},
        {"image_id": "c", "part": 1, "score": 0.9, "merit": -1.0, "group": "fog"},
        {"image_id": "d", "part": 1, "score": 0.8, "merit": -2.0, "group": "day"},
        {
            "image_id": "c",
            "part": 1,
            "merit": -np.inf,
            "score": 5.0,
            "barred": "total_fn 5: x",
            "group": "fog",
        },
        {
            "image_id": "e",
            "part": 1,
            "merit": -np.inf,
            "score": 6.0,
            "barred": "total_fn 6: y",
            "group": "fog",
        },
        {
            "image_id": "f",
            "part": 1,
            "merit": -np.inf,
            "score": 7.0,
            "barred": "total_fn 7: z",
            "group": "fog",
        },
    ]
    rules = SelectionRules(budget=2, components=(HARD, SPREAD), other_quota=GroupQuota(max_share=0.5))
    picks, missed, _ = outcome(candidates(*rows), rules, near_misses=9)
    full = "group 'day' has its share 0.5 of the budget"
    assert [row["image_id"] for row in picks] == ["a", "c"]
    assert [(row["image_id"], row["part"], row["reason"]) for row in missed] == [
        ("frame", "hard", "total_fn 850: next to a pick"),
        ("d", "spread", f"rank 2 of distance to the nearest center, 0.8: {full}"),
        ("b", "hard", f"rank 2 of total_fn, 800: {full}"),
        ("f", "spread", "total_fn 7: z"),
        ("e", "spread", "total_fn 6: y"),
    ]
    assert outcome(candidates(*rows), rules, near_misses=2)[1] == missed[:2]
    assert outcome(candidates(*rows), rules)[1] == []


def test_the_order_of_rows_changes_nothing_and_no_candidate_no_pick() -> None:
    rows = lake(30, 10, tie=3)
    rules = SelectionRules(budget=7, components=(HARD,), quotas={"night": GroupQuota(min_count=2)})
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    assert selection_rows(candidates(*shuffled), rules, 5) == selection_rows(candidates(*rows), rules, 5)
    picks, missed, summary = outcome(candidates(*lake(3, 0, barred="known")), rules, near_misses=1)
    assert (picks, [row["reason"] for row in missed]) == ([], ["known"])
    assert (summary["dry_parts"], summary["missing"]) == ([0], [("night", 2)])


@pytest.mark.parametrize("column", ["image_hash", "feature"])
def test_candidates_that_look_like_a_known_picture_name_it(column: str) -> None:
    looks = {"image_hash": (0, 0b1, 0xFFFF), "feature": ([0.0, 0.0], [0.0, 0.1], [9.0, 9.0])}[column]
    rule = {
        "image_hash": NearDuplicateRule(max_hamming_bits=2),
        "feature": NearDuplicateRule(below_feature_l2=0.5),
    }[column]
    new = candidates(
        {"image_id": "same", column: looks[0]}, {"image_id": "other", column: looks[2]}, {"image_id": "x"}
    )
    old = candidates({"image_id": "near", column: looks[1]}, {"image_id": "equal", column: looks[0]})
    found = likeness_rows(new, old, rule)
    assert found.schema == LIKENESS_SCHEMA
    (row,) = found.to_pylist()
    assert (row["image_id"], row["known_id"], row["distance"]) == ("same", "equal", 0.0)
    assert row["text"].startswith("near-duplicate of equal: ")
    twins = candidates({"image_id": "z", column: looks[0]}, {"image_id": "y", column: looks[0]})
    assert likeness_rows(new, twins, rule).to_pylist()[0]["known_id"] == "y"
    assert not likeness_rows(new, old.slice(0, 0), rule).num_rows
    assert not likeness_rows(new.slice(0, 0), old, rule).num_rows
