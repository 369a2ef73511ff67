"""Strategies by name, the shipped ones and a team's own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from conf.acquisition_spec import PriceList, QuotaSpec, StrategySpec
from conf.errors import QuarryError
from conf.load import load_settings
from conf.settings import AcquireSettings, DetectorSettings
from conf.strategy import presets, require_features_kept, scores_ranked_by, strategies

OWN_DISTANCE = {"near_duplicates": {"max_distance": 0.5}}
OWN_MIXTURE = {
    "mixture": [{"share": 0.5, "strategy": "random"}, {"share": 0.5, "strategy": "k_center_images"}]
}


def resolved(name: str, **settings: Any) -> Any:
    """The only strategy of these settings."""
    (strategy,) = strategies(AcquireSettings(strategies=(name,), **settings))
    return strategy


def test_every_preset_resolves_and_says_what_it_is_for() -> None:
    for name, spec in presets().items():
        assert spec.description
        strategy = resolved(name, budget_in="seconds")
        assert strategy.spec.unit == spec.unit
        assert sum(share for share, _ in strategy.ranked_parts) == pytest.approx(1.0)


def test_the_methods_of_the_papers_and_their_baselines_have_presets() -> None:
    wanted = (
        "random guided_random mean_uncertainty uncertain_boxes entropy k_center_images k_center_boxes hardest"
    )
    wanted += " random_boxes pixel_divergence pixel_entropy pixel_mc_dropout pixel_divergence_mean mixed"
    assert set(wanted.split()) <= set(presets())


def test_a_score_after_the_colon_replaces_the_query() -> None:
    assert resolved("hardest").name == "hardest:pixel_adj_false"
    assert resolved("hardest", query="total_fn").score == "total_fn"
    other = resolved("hardest_in_videos:entropy")
    assert (other.name, other.score) == ("hardest_in_videos:entropy", "entropy")
    assert resolved("random").score == "random"


def test_a_mixture_shares_the_budget_among_plain_strategies() -> None:
    mixed = resolved("mixed", query="total_fp")
    assert [(share, part.name) for share, part in mixed.ranked_parts] == [
        (0.5, "hardest:total_fp"),
        (0.45, "hardest_of_sequences:total_fp"),
        (0.05, "random"),
    ]
    assert scores_ranked_by(AcquireSettings(strategies=("mixed", "entropy"))) == (
        "pixel_adj_false",
        "entropy",
    )


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"strategies": ("k_center_images",)}, "keep_image_feature"),
        ({"strategies": ("k_center_boxes",), "budget_in": "boxes"}, "keep_features"),
        ({"strategies": ("own",), "define": {"own": OWN_DISTANCE}}, "keep_image_feature"),
        ({"strategies": ("own",), "define": {"own": OWN_MIXTURE}}, "keep_image_feature"),
    ],
)
def test_features_that_are_compared_must_be_kept(settings: dict[str, Any], kept: str) -> None:
    chosen = AcquireSettings.model_validate(settings)
    with pytest.raises(QuarryError, match=f"--set detector.{kept}=true"):
        require_features_kept(chosen, DetectorSettings())
    require_features_kept(chosen, DetectorSettings.model_validate({kept: True}))
    require_features_kept(AcquireSettings(strategies=("hardest", "random")), DetectorSettings())


def test_own_strategies_come_from_yaml() -> None:
    text = "acquire.define={night: {score: total_fn, quotas: {by: 'partition:date', at_most: 0.5}}}"
    settings = load_settings("demo", [text, "acquire.strategies=[night]"])
    (night,) = strategies(settings.acquire)
    assert night.score == "total_fn" and night.spec.quotas == QuotaSpec(by="partition:date", at_most=0.5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"strategies": ("hardst",)}, "did you mean 'hardest'"),
        ({"strategies": ("random:total_fn",)}, "takes no score"),
        ({"strategies": ("mixed:total_fn",)}, "takes no score"),
        ({"strategies": ("hardest:",)}, "takes no score"),
        ({"strategies": ("hardest:uncertainty",)}, "no score of an image"),
        ({"strategies": ("hardest",), "query": "random"}, "no score of an image"),
        ({"strategies": ("hardest", "hardest:pixel_adj_false")}, "named twice"),
        ({"strategies": ("random_boxes",)}, "acquire.budget_in"),
        (
            {"strategies": ("a",), "define": {"a": {"mixture": [{"share": 1.0, "strategy": "mixed"}]}}},
            "part of a mixture",
        ),
        (
            {
                "strategies": ("a",),
                "budget_in": "boxes",
                "define": {"a": {"mixture": [{"share": 1.0, "strategy": "random_boxes"}]}},
            },
            "its unit is image",
        ),
    ],
)
def test_impossible_strategies_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(QuarryError, match=told):
        strategies(AcquireSettings.model_validate(settings))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"unit": "region"}, "image"),
        ({"mixture": [{"share": 0.5, "strategy": "random"}]}, "add up to 1, got 0.5"),
        ({"score": "entropy", "mixture": [{"share": 1.0, "strategy": "random"}]}, "no score"),
        ({"unit": "box", "temporal": {}}, "unit image"),
        ({"unit": "box", "score": "entropy"}, "uncertainty and random"),
        ({"unit": "box"}, "uncertainty and random"),
        ({"score": "uncertainty"}, "least_confidence_mean"),
        ({"near_duplicates": {}}, "one of them"),
        ({"near_duplicates": {"max_hamming": 3, "max_distance": 1.0}}, "one of them"),
        ({"quotas": {"by": "weather", "at_most": 0.1}}, "partition:<key>"),
        ({"quotas": {"by": "partition:", "at_most": 0.1}}, "partition:<key>"),
        ({"quotas": {"by": "class"}}, "at_most, at_least"),
        ({"k_centre": {}}, "k_centre"),
    ],
)
def test_impossible_rules_are_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        StrategySpec.model_validate(spec)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"budget": 0}, "greater than 0"),
        ({"budget": 2.5}, "whole images"),
        ({"budget": 10, "budget_in": "money"}, "money_per_hour"),
        ({"budget_in": "seconds", "prices": {"image_s": 1e-300}}, "greater than or equal to 0.001"),
        ({"budget_in": "money", "prices": {"money_per_hour": 1e-300}}, "greater than or equal to 0.001"),
        ({"strategies": ()}, "at least 1"),
        ({"define": {"a b": {}}}, "letters, digits"),
    ],
)
def test_impossible_budgets_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        AcquireSettings.model_validate(settings)


def test_prices_are_the_paper_s() -> None:
    prices = PriceList()
    assert (prices.of("image"), prices.of("box")) == (346.0, 35.0 + 38.0)
