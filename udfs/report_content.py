"""What a report of a cycle shows, before it becomes a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from udfs.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class CaseImage:
    """One image of a list: its rank from 1, hardness, ground-truth hardness when known, and its path."""

    image_id: str
    rank: int
    hardness: float
    path: str
    truth_hardness: float | None = None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Images per bin of estimated and, where labeled, true hardness; `edges` has one value more, rising."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    truth_counts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuerySection:
    """The hardest and the easiest images of one query, and how its hardness is distributed."""

    name: str
    title: str
    description: str = ""
    hardest: tuple[CaseImage, ...] = ()
    easiest: tuple[CaseImage, ...] = ()
    histogram: Histogram | None = None


@dataclass(frozen=True, kw_only=True)
class HardnessCurve:
    """Share of all hardness found (0..1) against share of images looked at (0..1), for one method."""

    method: str
    budget: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """The curves of one query; methods named `random` and `ideal` are drawn as references."""

    query: str
    curves: tuple[HardnessCurve, ...]


@dataclass(frozen=True, kw_only=True)
class SpendingCurve:
    """What a strategy captures as it spends: labeling hours (rising) and share of the lake's hardness (0..1).

    The hardness is that of `query`; `is_truth` says whether it is true or estimated.
    """

    strategy: str
    query: str
    cost_h: tuple[float, ...]
    captured: tuple[float, ...]
    is_truth: bool = False


@dataclass(frozen=True, kw_only=True)
class SelectionArm:
    """One group of images sent to labeling: the strategy's pick, or its random control.

    `n_boxes` is of the boxes picked, or sent with whole images; None: nothing was sent yet. `radius` is of
    k-center: the largest feature distance to a pick; no so many picks have one below `least_radius`.
    """

    name: str
    n_images: int
    n_boxes: int | None
    mean_hardness: float | None = None
    truth_hardness: float | None = None
    cost_s: float | None = None
    cost_money: float | None = None
    radius: float | None = None
    least_radius: float | None = None
    is_control: bool = False
    cases: tuple[CaseImage, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeatMaps:
    """Images on which the detector contradicts itself most, by falling pixel divergence.

    `pictures` maps image_id to a JPEG heat map; `missing` maps image_id to a reason; `region_px` is the side
    of the regions outlined.
    """

    cases: tuple[CaseImage, ...]
    region_px: int
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ManifestFolder:
    """The files written for one labeling tool from one strategy; `path` is their folder."""

    vendor: str
    strategy: str
    path: str
    n_files: int
    n_tasks: int
    n_boxes: int


@dataclass(frozen=True, kw_only=True)
class QuarantineRow:
    """One image that could not be processed, with the stage and the reason."""

    path: str
    stage: str
    reason: str
    attempts: int = 1


@dataclass(frozen=True, kw_only=True)
class QualityFailure:
    """An expectation that a cycle's tables did not meet, with the keys of the first failing rows."""

    name: str
    description: str
    observed: str
    is_warning: bool = False
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """What was judged after one stage."""

    stage: str
    n_expectations: int
    failures: tuple[QualityFailure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SqlExample:
    """A statement to try next, and what it answers."""

    title: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class ReportCounts:
    """The numbers in the header; None where a step did not run."""

    n_images: int
    n_detections: int
    n_quarantined: int
    n_labeled: int | None = None
    n_selected: int | None = None


@dataclass(frozen=True, kw_only=True)
class CycleReport:
    """Everything one report page shows; an empty field leaves its section out or says how to fill it.

    `pictures` maps image_id to a JPEG with boxes drawn; `missing_pictures` maps image_id to a reason.
    `truth_hint` says how to get the numbers that need ground truth. `quarantine` may be the first rows only.
    """

    cycle_id: str
    model: str
    dataset: str
    created: str
    counts: ReportCounts
    eta: float = 0.5
    queries: tuple[QuerySection, ...] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    missing_pictures: Mapping[str, str] = field(default_factory=dict)
    heat_maps: HeatMaps | None = None
    curves: tuple[CurvePanel, ...] = ()
    evaluation: Evaluation = Evaluation()
    selection: tuple[SelectionArm, ...] = ()
    spending: tuple[SpendingCurve, ...] = ()
    manifests: tuple[ManifestFolder, ...] = ()
    quarantine: tuple[QuarantineRow, ...] = ()
    quality: tuple[QualityGate, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    sql: tuple[SqlExample, ...] = ()
    truth_hint: str = ""
    pictures_show_truth: bool = False
