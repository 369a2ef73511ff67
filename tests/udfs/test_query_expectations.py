"""Queries that are no sums: exact expectations against enumeration of all pseudo ground truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from conf.errors import QuarryError
from conf.query_spec import QuerySpec
from tests.udfs.detection_scenes import (
    Box,
    box,
    crowded_detections,
    outcomes_of,
    parsed,
    random_detections,
)
from udfs.component_values import ComponentValues, comparison_probability, expected_maximum
from udfs.exact_score_sampling import exact_hardness
from udfs.monte_carlo_score_sampling import EXACT, MIXED, MONTE_CARLO
from udfs.queries import Query
from udfs.query_definitions import defined_query
from udfs.supervised_hardness import supervised_hardness

LABELS = {"pedestrian": 1, "car": 2}
OPTIONS = {"eta": 0.5, "iou_threshold": 0.5}

SPECS = {
    "large_fp": {"errors": "fp", "where": {"area": {"min": 0.004}}, "reduce": "any"},
    "any_error": {"errors": "false", "reduce": "any"},
    "largest_miss": {"errors": "fn", "weight": {"area": 1}, "reduce": "max"},
    "largest_error": {"errors": "false", "weight": {"height": 0.5, "constant": 3}, "reduce": "max"},
    "missed_more": {"compare": {"left": {"errors": "fn"}, "op": ">", "right": {"errors": "fp"}}},
    "two_or_more": {"compare": {"left": {"errors": "fp", "reduce": "count"}, "op": ">=", "value": 2}},
    "dear": {
        "compare": {
            "left": {"errors": "false", "weight": {"price": {"pedestrian": 2.5, "*": 0.4}}},
            "op": "<",
            "value": 3.3,
        }
    },
    "priced": {"errors": "false", "weight": {"price": {"pedestrian": 10, "car": 3}}},
    "low_fn": {"errors": "fn", "where": {"region": [0, 0.1, 1, 1], "classes": ["pedestrian"]}},
    "occluded": {"errors": "fn", "weight": {"occlusion": 1, "area": 1}},
}
# Without an exact form: sampled.
SAMPLED = {
    "areas": {
        "compare": {
            "left": {"errors": "fn", "weight": {"area": 1.5}},
            "op": ">",
            "right": {"errors": "fp", "weight": {"area": 1.5}},
        }
    },
    "overlap_root": {"errors": "false", "weight": {"occlusion": 0.5}},
    "worst_overlap": {"errors": "fp", "weight": {"occlusion": 1}, "reduce": "max"},
    "plugin": {"python": "tests.udfs.query_plugins:errors_squared"},
}


def defined(specs: dict) -> tuple[Query, ...]:
    return tuple(defined_query(name, QuerySpec.model_validate(spec), LABELS) for name, spec in specs.items())


def brute_force(detections: list[Box], queries: tuple[Query, ...]) -> np.ndarray:
    probabilities, truths = zip(*outcomes_of(detections), strict=True)
    values = supervised_hardness(*parsed([detections] * len(truths), truths), queries, **OPTIONS)
    return values @ np.array(probabilities)


@pytest.mark.parametrize("crowded", [False, True])
def test_exact_forms_equal_enumeration(crowded: bool) -> None:
    rng = np.random.default_rng(71)
    draw = crowded_detections if crowded else random_detections
    scenes = [draw(rng, int(rng.integers(0, 9))) for _ in range(25)]
    queries = defined(SPECS)
    hardness = exact_hardness(parsed(scenes)[0], queries, **OPTIONS)
    expected = np.stack([brute_force(scene, queries) for scene in scenes], axis=1)
    np.testing.assert_allclose(hardness.value, expected, rtol=0, atol=1e-9)
    assert (hardness.estimator == EXACT).all()
    assert (np.ptp(expected, axis=1) > 0).sum() >= 8


def test_hand_worked_queries() -> None:
    # One confirmed box of 4 % with score 0.75, two unconfirmed of 1 % with 0.25 and 0.375; nothing overlaps.
    detections = [
        box((0, 0, 20, 20), 1, score=0.75),
        box((30, 0, 40, 10), 1, score=0.25),
        box((60, 0, 70, 10), 2, score=0.375),
    ]
    names = ("large_fp", "largest_error", "missed_more", "priced")
    queries = defined({name: SPECS[name] for name in names})
    value = exact_hardness(parsed([detections])[0], queries, **OPTIONS).value[:, 0]
    missed = np.convolve([0.75, 0.25], [0.625, 0.375])
    more = 0.25 * missed[2] + 0.75 * (missed[1] + missed[2])
    largest = 3 * (0.25 * 0.2**0.5 + 0.75 * (1 - missed[0]) * 0.1**0.5)
    assert value == pytest.approx([0.25, largest, more, 10 * 0.25 + 10 * 0.25 + 3 * 0.375], abs=1e-12)


def test_what_has_no_exact_form_is_sampled_and_says_so() -> None:
    rng = np.random.default_rng(72)
    scenes = [random_detections(rng, 7) for _ in range(12)]
    queries = defined(SAMPLED)
    hardness = exact_hardness(parsed(scenes)[0], queries, **OPTIONS, n_samples=3000, seed=5)
    expected = np.stack([brute_force(scene, queries) for scene in scenes], axis=1)
    assert (hardness.estimator == MONTE_CARLO).all()
    assert (np.abs(hardness.value - expected) <= 4.5 * hardness.std_error + 1e-3).all()
    assert hardness.std_error.max(axis=1).min() > 0


def test_large_components_are_sampled_inside_exact_comparisons() -> None:
    crowded = [box((0, 0, 40 + i % 3, 40), score=0.3 + 0.05 * i) for i in range(9)]
    apart = [box((60, 60, 80, 80), score=0.7), box((60, 0, 70, 10), score=0.4)]
    queries = defined(SPECS)
    exact = exact_hardness(parsed([crowded + apart])[0], queries, **OPTIONS)
    mixed = exact_hardness(
        parsed([crowded + apart])[0], queries, **OPTIONS, max_component=5, n_samples=600, seed=1
    )
    assert (exact.estimator == EXACT).all() and (mixed.estimator == MIXED).all()
    assert (np.abs(mixed.value - exact.value) <= 4 * mixed.std_error + 1e-12).all()
    assert (mixed.std_error > 0).sum() >= 8


def test_batches_change_no_bit() -> None:
    rng = np.random.default_rng(73)
    scenes = [crowded_detections(rng, int(rng.integers(0, 12))) for _ in range(30)]
    queries = defined(SPECS | SAMPLED)
    whole = exact_hardness(parsed(scenes)[0], queries, **OPTIONS)
    batch = parsed(scenes)[0]
    for i in range(0, 30, 7):
        single = exact_hardness(batch.images(i, i + 1), queries, **OPTIONS)
        np.testing.assert_array_equal(single.value[:, 0], whole.value[:, i])
        np.testing.assert_array_equal(single.std_error[:, 0], whole.std_error[:, i])


def _singles(p: np.ndarray, value: float) -> ComponentValues:
    component = np.repeat(np.arange(len(p)), 2)
    return ComponentValues(
        component=component,
        image_index=np.zeros_like(component),
        value=np.tile([0.0, value], len(p)),
        probability=np.stack((1 - p, p), axis=1).ravel(),
    )


def test_tails_are_binomial() -> None:
    values = _singles(np.full(300, 0.3), 1.0)
    tails = [comparison_probability(values, 2, ">", k) for k in (60, 90, 120)]
    assert [tail[0] for tail in tails] == pytest.approx(binom(300, 0.3).sf([60, 90, 120]), abs=1e-12)
    assert tails[0][1] == 0.0 and comparison_probability(values, 2, "<=", 0.0)[1] == 1.0
    assert expected_maximum(values, 1)[0] == pytest.approx(1 - 0.7**300)


def test_sums_off_the_grid_have_no_exact_form() -> None:
    assert np.isnan(comparison_probability(_singles(np.array([0.5]), np.pi), 1, ">", 1.0)).all()
    wide = ComponentValues(
        component=np.array([0, 0, 1, 1]),
        image_index=np.zeros(4, np.int64),
        value=np.array([0.0, 1.0, 0.0, 20_000.0]),
        probability=np.full(4, 0.5),
    )
    assert np.isnan(comparison_probability(wide, 1, ">", 1.0)).all()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("tests.udfs.query_plugins:wrong_shape", r"must return shape \(1,\)"),
        ("tests.udfs.query_plugins:negative", ">= 0"),
        ("tests.udfs.query_plugins:fails", "ZeroDivisionError"),
        ("tests.udfs.query_plugins:overwrites", "read-only"),
    ],
)
def test_a_plugins_output_is_checked(function: str, message: str) -> None:
    queries = defined({"mine": {"python": function}})
    with pytest.raises(QuarryError, match=message):
        exact_hardness(parsed([[box((0, 0, 9, 9), score=0.7)]])[0], queries, **OPTIONS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"errors": "fn", "where": {"classes": ["pedestrain"]}}, "'pedestrain' is no class.*pedestrian"),
        ({"errors": "fn", "weight": {"price": {"bus": 1}}}, "weight.price: 'bus'"),
        ({"python": "no_such_module:f"}, "no_such_module"),
        ({"python": "tests.udfs.query_plugins:nothing"}, "has no function 'nothing'"),
    ],
)
def test_bad_definitions_name_key_and_reason(spec: dict, message: str) -> None:
    with pytest.raises(QuarryError, match=message):
        defined({"mine": spec})


def _alone(detections: list[Box], queries: tuple[Query, ...]) -> np.ndarray:
    return exact_hardness(parsed([detections])[0], queries, **OPTIONS).value[:, 0]


def test_an_image_has_a_grid_of_its_own() -> None:
    spec = {
        "compare": {
            "left": {"errors": "fn", "weight": {"area_px": 1}},
            "op": ">",
            "right": {"errors": "fp", "weight": {"area_px": 1}},
        }
    }
    queries = defined({"larger_misses": spec})
    whole = [box((0, 0, 10, 10), score=0.7), box((30, 0, 40, 20), score=0.3)]
    odd = [box((0, 0, 10.123456, 10.1), score=0.7), box((30, 0, 40, 20.7654321), score=0.3)]
    both = exact_hardness(parsed([whole, odd, []])[0], queries, **OPTIONS)
    assert both.estimator[0].tolist() == [EXACT, MONTE_CARLO, EXACT]
    assert both.value[0, 0] == _alone(whole, queries)[0] == pytest.approx(0.3)


def test_small_weights_are_not_rounded_away() -> None:
    power = {"weight": {"area": 3}}
    spec = {"compare": {"left": {"errors": "fn", **power}, "op": ">", "right": {"errors": "fp", **power}}}
    tiny = [box((0, 0, 1, 1), score=0.3), box((50, 50, 51, 51), score=1.0)]
    hardness = exact_hardness(parsed([tiny])[0], defined({"cubes": spec}), **OPTIONS, n_samples=2000, seed=1)
    assert hardness.estimator[0, 0] == MONTE_CARLO
    assert hardness.value[0, 0] == pytest.approx(0.3, abs=0.05)


def test_sums_of_decimals_tie_as_written() -> None:
    price = {"weight": {"price": {"*": 0.1}}}
    spec = {"compare": {"left": {"errors": "fn", **price}, "op": ">", "value": 0.3}}
    three = [box((20 * i, 0, 20 * i + 10, 10), score=0.4) for i in range(3)]
    queries = defined({"dear": spec})
    assert _alone(three, queries)[0] == 0.0
    assert supervised_hardness(*parsed([[]], [three]), queries, **OPTIONS)[0, 0] == 0.0
