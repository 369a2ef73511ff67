"""What a scoring run computes, and with which thresholds: picklable, so that it travels to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from conf.errors import QuarryError
from udfs.committee import Committee
from udfs.matching import Matcher
from udfs.queries import Query, queries_named
from udfs.score_calibration import ScoreCalibration
from udfs.uncertainty_baselines import BASELINES, Head, check_baselines

Estimator = Literal["exact", "monte_carlo"]


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """What to compute, and with which thresholds.

    Attributes:
        queries: Names of hardness queries.
        defined: Queries beside the built-in ones.
        baselines: Names of query-free uncertainties.
        estimator: `exact`, or `monte_carlo` as in the paper's Algorithm 1.
        n_samples: Samples of `monte_carlo`, and of what `exact` has to sample; >= 1.
        seed: Seed of the samples.
        eta: Confirmation threshold, 0..1.
        iou_threshold: t, 0 < t <= 1.
        matcher: `coco` or `hungarian`.
        max_component: Most uncertain detections in a component of overlapping ones that `exact` enumerates,
            1..20.
        head: How the detector makes scores from logits.
        labels: Class ids that count; None for all.
        committee: Detectors that stand for ground truth; None: the detector's own scores do.
        calibration: Curves that turn scores into probabilities; None: scores are taken as they are.

    Raises:
        QuarryError: A value outside its range, or an unknown name.
    """

    queries: tuple[str, ...]
    defined: tuple[Query, ...] = ()
    baselines: tuple[str, ...] = ()
    estimator: Estimator = "exact"
    n_samples: int = 10
    seed: int = 0
    eta: float = 0.5
    iou_threshold: float = 0.5
    matcher: Matcher = "coco"
    max_component: int = 12
    head: Head = "softmax"
    labels: tuple[int, ...] | None = None
    committee: Committee | None = None
    calibration: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        self.resolved_queries()
        check_baselines(self.baselines)
        for query in self.defined:
            if query.name in BASELINES:
                raise QuarryError(f"score.define.{query.name}: a baseline has this name; choose another")
        for name, kind in (("estimator", Estimator), ("matcher", Matcher), ("head", Head)):
            if getattr(self, name) not in get_args(kind):
                raise QuarryError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        ranges = {
            "n_samples >= 1": self.n_samples >= 1,
            "0 <= eta <= 1": 0.0 <= self.eta <= 1.0,
            "0 < iou_threshold <= 1": 0.0 < self.iou_threshold <= 1.0,
            "1 <= max_component <= 20": 1 <= self.max_component <= 20,
        }
        for condition, holds in ranges.items():
            if not holds:
                raise QuarryError(f"expected {condition}")

    def resolved_queries(self) -> tuple[Query, ...]:
        """The queries in the order of their names."""
        return queries_named(self.queries, self.defined)

    def estimation(self) -> dict[str, Any]:
        """Keyword arguments of the estimator's functions."""
        options = {"eta": self.eta, "iou_threshold": self.iou_threshold, "matcher": self.matcher}
        options |= {"n_samples": self.n_samples, "seed": self.seed}
        return options | ({"max_component": self.max_component} if self.estimator == "exact" else {})
