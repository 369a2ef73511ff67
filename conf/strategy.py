"""Strategies by name: the shipped ones, a team's own, and what `hardest:total_fn` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from conf.acquisition_spec import QUERY, RANDOM, UNCERTAINTY, StrategySpec
from conf.errors import QuarryError, nearest
from conf.settings import AcquireSettings, DetectorSettings
from conf.yaml_file import read_mapping

PRESETS_FILE = Path(__file__).parent / "strategies" / "presets.yaml"


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """A strategy as it is run.

    Attributes:
        name: What `acquisition.strategy` holds: the given name, with its score where that is a query's.
        score: A name in `hardness.query`, `random` or `uncertainty`; empty for a mixture.
        spec: The rules.
        parts: Share of the budget and strategy of each part of a mixture; else empty.
    """

    name: str
    score: str
    spec: StrategySpec
    parts: tuple[tuple[float, Strategy], ...] = ()

    @property
    def key(self) -> str:
        """The column that identifies what is picked."""
        return "image_id" if self.spec.unit == "image" else "detection_id"

    @property
    def score_text(self) -> str:
        """What the strategy ranks by, for people."""
        if self.spec.k_center is None:
            smoothed = self.spec.temporal is not None and self.spec.temporal.smooth_frames > 0
            return f"{self.score} smoothed over frames" if smoothed else self.score
        best = self.spec.k_center.of_best
        among = "" if best is None else f" among the best {best:g} budgets by {self.score}"
        return f"distance to the nearest center{among}"

    @property
    def ranked_parts(self) -> tuple[tuple[float, Strategy], ...]:
        """The parts, or the strategy itself as the only one."""
        return self.parts or ((1.0, self),)


@lru_cache(maxsize=1)
def presets() -> Mapping[str, StrategySpec]:
    """The shipped strategies by name."""
    found = read_mapping(PRESETS_FILE, "strategy names to strategies")
    return MappingProxyType({name: StrategySpec.model_validate(spec) for name, spec in found.items()})


def strategies(settings: AcquireSettings) -> tuple[Strategy, ...]:
    """What `acquire.strategies` names, resolved.

    Raises:
        QuarryError: A name nobody knows (with the near ones), a score given to a mixture or a box strategy,
            parts of different units, a strategy named twice, a mixture within a mixture, or a unit the
            budget cannot count.
    """
    known = {**presets(), **settings.define}
    chosen = tuple(_resolved(name, known, settings, "acquire.strategies") for name in settings.strategies)
    names = [strategy.name for strategy in chosen]
    for strategy in chosen:
        if names.count(strategy.name) > 1:
            raise QuarryError(f"acquire.strategies: {strategy.name!r} is named twice; name it once")
        if strategy.spec.unit == "box" and settings.budget_in == "images":
            raise QuarryError(
                f"acquire.budget_in: strategy {strategy.name!r} picks boxes: set it to boxes, seconds or "
                "money"
            )
    return chosen


def scores_ranked_by(settings: AcquireSettings) -> tuple[str, ...]:
    """Names of `hardness.query` that the strategies need, each once."""
    parts = [part for strategy in strategies(settings) for _, part in strategy.ranked_parts]
    return tuple(dict.fromkeys(p.score for p in parts if p.score not in (RANDOM, UNCERTAINTY)))


def require_features_kept(settings: AcquireSettings, detector: DetectorSettings) -> None:
    """Fails before any image is opened when a strategy compares features that the detector would not keep.

    Raises:
        QuarryError: Names the strategy and the setting.
    """
    for strategy in strategies(settings):
        for _, part in strategy.ranked_parts:
            looks = strategy.spec.near_duplicates
            compares = part.spec.k_center or (looks and looks.max_distance is not None)
            kept = "keep_image_feature" if part.spec.unit == "image" else "keep_features"
            if compares and not getattr(detector, kept):
                raise QuarryError(
                    f"acquire.strategies: {strategy.name!r} compares features, and the detector would keep "
                    f"none: add --set detector.{kept}=true (its detections get a model id of their own), or "
                    "leave the strategy out"
                )


def _resolved(
    given: str, known: Mapping[str, StrategySpec], settings: AcquireSettings, asked_by: str, depth: int = 0
) -> Strategy:
    name, colon, score = given.partition(":")
    if name not in known:
        raise QuarryError(f"{asked_by}: no strategy {name!r}; {nearest(name, known)}")
    spec = known[name]
    if colon and (spec.mixture or spec.score in (RANDOM, UNCERTAINTY) or not score):
        raise QuarryError(f"{asked_by}: {given!r}: {name} takes no score after the colon")
    if spec.mixture:
        if depth:
            raise QuarryError(f"{asked_by}: {name!r} is a mixture; a part of a mixture is a plain strategy")
        parts = tuple(
            (part.share, _resolved(part.strategy, known, settings, f"strategy {name}", depth + 1))
            for part in spec.mixture
        )
        _require_parts_that_fit(name, spec, parts)
        return Strategy(name=name, score="", spec=spec, parts=parts)
    if spec.score != QUERY and not colon:
        return Strategy(name=name, score=spec.score, spec=spec)
    score = score or settings.query
    if score in (QUERY, RANDOM, UNCERTAINTY):
        raise QuarryError(
            f"{asked_by}: {given!r} ranks by {score!r}, which is no score of an image; name a query, a "
            "baseline or a pixel score (acquire.query, or after the colon)"
        )
    return Strategy(name=f"{name}:{score}", score=score, spec=spec)


def _require_parts_that_fit(name: str, spec: StrategySpec, parts: tuple[tuple[float, Strategy], ...]) -> None:
    for _, part in parts:
        if part.spec.unit != spec.unit:
            raise QuarryError(
                f"strategy {name}: its unit is {spec.unit}, part {part.name} picks {part.spec.unit} units"
            )
        if part.spec.quotas or part.spec.near_duplicates:
            raise QuarryError(
                f"strategy {name}: give quotas and near_duplicates to the mixture, not to part {part.name}"
            )
