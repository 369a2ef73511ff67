"""Every setting of Quarry, typed and frozen: what a profile in `conf/*.yaml` loads into.

Sections follow the stages of a cycle. A function takes the smallest section it needs; what judges or shows a
cycle takes them all. Fields carry their unit, range and meaning in `description`; `quarry settings` prints
them.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from conf.acquisition_spec import PriceList, StrategySpec
from conf.export_settings import ExportSettings
from conf.onnx_spec import OnnxSpec
from conf.plugin import MODULE_FUNCTION
from conf.query_spec import QuerySpec
from conf.section import (
    Location,
    Positive,
    Probability,
    Section,
    location,
    require_names,
    require_no_secret,
)

Name = TypeVar("Name", bound=str)


def _once(names: tuple[Name, ...]) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(names))


Views = Annotated[tuple[Literal["original", "hflip"], ...], Field(min_length=1), AfterValidator(_once)]

PixelScore = Literal[
    "pixel_divergence",
    "pixel_divergence_mean",
    "pixel_entropy",
    "pixel_entropy_mean",
    "pixel_mutual_information",
    "pixel_mutual_information_mean",
]
PIXEL_SCORES: tuple[str, ...] = get_args(PixelScore)

BASELINES = tuple(
    measure + how
    for measure in ("entropy", "dempster_shafer", "max_uncertainty", "margin", "least_confidence")
    for how in ("", "_sum", "_mean", "_max")
)

_TAKEN_NAMES = ("image_id", "model_id", "query", "truth", "random", "uncertainty", *PIXEL_SCORES, *BASELINES)
Names = Annotated[tuple[str, ...], AfterValidator(_once)]

BUILT_IN_QUERIES = tuple(
    f"{q}_{e}" for q in ("total", "pixel_adj", "occ_aware") for e in ("fp", "fn", "false")
)


def _weights_location(name_or_uri: str) -> str:
    require_no_secret(name_or_uri)
    return location(name_or_uri) if Path(name_or_uri).is_file() else name_or_uri


WeightsLocation = Annotated[str, AfterValidator(_weights_location)]


class SparkSettings(Section):
    """How a session is built when Quarry builds it; under spark-submit the cluster's own settings win."""

    master: str | None = Field(
        None,
        description="Spark master; none: the submitter's, or local[*,4] without one (four tries a task)",
    )
    driver_memory: str | None = Field(None, description="driver heap, e.g. 2g; none: Spark's default")
    shuffle_partitions: Positive | None = Field(None, description="tasks per shuffle; none: Spark's default")
    snapshot_partitions: Positive | None = Field(
        None,
        description="tasks per Delta log replay; none: Delta's default (50), right for large tables only",
    )
    jars_dir: Location | None = Field(
        None, description="folder of Delta jars for machines without Maven Central"
    )
    conf: dict[str, str] = Field(default_factory=dict, description="further Spark settings, key: value")


class LakeSettings(Section):
    """Where the images are and how they are named."""

    uri: Location | None = Field(None, description="root folder of the images (path, s3://, gs://, hdfs://)")
    listing: Location | None = Field(
        None, description="Parquet or CSV with a column `uri` instead of a walk (s3 inventories, 10^7 files)"
    )
    dataset: str = Field("default", description="dataset name where the layout has no dataset= folder")
    extensions: tuple[str, ...] = Field(
        ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff"), description="file endings that are images"
    )
    image_id: Literal["uri", "path"] = Field(
        "uri", description="hash of the full URI, or of the path below `uri` (same ids when the lake moves)"
    )
    sequence_pattern: str | None = Field(
        None, description="regular expression on the path with groups `sequence` and `frame`, for videos"
    )
    labels: Location | None = Field(None, description="COCO JSON file or folder of them, imported by a cycle")
    labels_split: Literal["train", "eval"] = Field(
        "eval", description="eval: held-out truth to measure with; train: labels that were trained on"
    )
    max_pixels: Positive = Field(200_000_000, description="larger images go to quarantine (pixels)")

    @field_validator("sequence_pattern")
    @classmethod
    def _names_sequence_and_frame(cls, pattern: str | None) -> str | None:
        try:
            groups = re.compile(pattern).groupindex if pattern is not None else ("sequence", "frame")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if not {"sequence", "frame"} <= set(groups):
            raise ValueError("expected the groups (?P<sequence>...) and (?P<frame>...)")
        return pattern


class DetectorSettings(Section):
    """Which detector runs, and the adapter settings that are part of a model's identity."""

    name: str = Field("street", description="name people know the model by")
    weights: WeightsLocation = Field(
        "sample",
        description="`sample`, a checkpoint or ONNX file or URI, a torchvision weights name, "
        "or what the plugin takes",
    )
    architecture: str | None = Field(
        None, description="torchvision builder (fasterrcnn_resnet50_fpn, ...); none: as the checkpoint says"
    )
    classes: tuple[str, ...] | None = Field(None, description="expected class names; none: the checkpoint's")
    eta0: Probability = Field(0.05, description="collection threshold: detections below are not kept")
    detections_per_image: Positive = Field(
        300, description="most detections kept per image, by falling score"
    )
    nms_iou: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="class-wise NMS threshold (IoU)"
    )
    min_size: Positive | None = Field(
        None, description="shorter side fed to the model (px); none: the model's"
    )
    max_size: Positive | None = Field(
        None, description="longer side fed to the model (px); none: the model's"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the forward pass; the lower two need half the memory traffic"
    )
    keep_logits: bool = Field(True, description="store the class logits of every kept box")
    keep_features: bool = Field(False, description="store a feature vector of every kept box")
    keep_image_feature: bool = Field(False, description="store one feature vector of every image")
    pixel_scores: Annotated[tuple[PixelScore, ...], AfterValidator(_once)] = Field(
        (),
        description="scores of an image from its pixels, for detectors with a dense head (docs/detectors.md)",
    )
    pixel_radius: Positive = Field(
        9, description="radius of the windows of pixel_divergence (px of the image)"
    )
    pixel_region: Positive = Field(30, description="side of the regions whose maxima are averaged (px)")
    dropout_passes: Annotated[int, Field(ge=2)] = Field(
        30, description="passes with dropout behind pixel_mutual_information"
    )
    dropout_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="what those passes drop (the paper: 0.5 and 0.1); none: as the network was trained"
    )
    onnx: OnnxSpec | None = Field(
        None, description="what the ONNX file in `weights` takes and gives (docs/detectors.md)"
    )
    plugin: str | None = Field(
        None, description="module:function that makes a detector of your own code (docs/detectors.md)"
    )

    @field_validator("plugin")
    @classmethod
    def _names_a_function(cls, plugin: str | None) -> str | None:
        if plugin is not None and not MODULE_FUNCTION.fullmatch(plugin):
            raise ValueError("expected module:function")
        return plugin


class DetectSettings(Section):
    """How the detector is run; none of these change what is detected in a view."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one")
    batch_size: Positive = Field(8, description="images per forward pass")
    threads: Positive = Field(1, description="CPU threads per worker process")
    reader_threads: Positive = Field(
        2, description="threads per worker process that fetch and decode images ahead of the model"
    )
    compile: bool = Field(False, description="torch.compile the network: minutes of start-up, faster batches")
    views: Views = Field(
        ("original",), description="what is detected of every image: original, hflip (its mirror image)"
    )
    images_per_task: Positive = Field(64, description="images per Spark task: progress and retry grain")
    commit_every_s: Annotated[float, Field(ge=0.0)] = Field(
        120.0,
        description="work between two commits (s), longer where commits are slow; a kill loses this much",
    )
    gpus_per_task: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="GPUs a Spark task asks for, e.g. 0.5; none: as the cluster is configured"
    )


class ScoreSettings(Section):
    """Hardness: queries, thresholds and estimator (methods: score sampling, Algorithm 1)."""

    eta: Probability = Field(0.5, description="confirmation threshold: detections at or above count as found")
    iou_threshold: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.5, description="match threshold (IoU)")
    matcher: Literal["coco", "hungarian"] = Field("coco", description="how detections meet ground truth")
    estimator: Literal["exact", "monte_carlo"] = Field("exact", description="closed form, or Algorithm 1")
    samples: Annotated[int, Field(ge=1, le=10_000)] = Field(10, description="Monte Carlo samples per image")
    queries: Names = Field(
        BUILT_IN_QUERIES, description="hardness queries; none given: the built-in ones and all defined ones"
    )
    define: dict[str, QuerySpec] = Field(default_factory=dict, description="your own queries, name: query")
    query_file: str | None = Field(
        None, description="YAML file of queries, name: query, read into `define`; `street` is shipped"
    )
    baselines: Names = Field(
        ("entropy", "dempster_shafer", "max_uncertainty"), description="query-free uncertainties to compare"
    )
    classes: tuple[str, ...] | None = Field(None, description="only these classes count; none: all")
    max_component: Annotated[int, Field(ge=1, le=16)] = Field(
        12, description="overlapping detections enumerated exactly; larger groups are sampled"
    )
    committee: Names = Field(
        (), description="models whose detections stand for ground truth instead of the model's own scores"
    )
    committee_truth: Literal["score_sampled", "uniform"] = Field(
        "score_sampled", description="a member's detections by their scores, or its confirmed ones"
    )

    @model_validator(mode="before")
    @classmethod
    def _queries_default_to_all(cls, given: Any) -> Any:
        if isinstance(given, dict) and "queries" not in given and isinstance(given.get("define"), dict):
            return {**given, "queries": (*BUILT_IN_QUERIES, *given["define"])}
        return given

    @field_validator("define")
    @classmethod
    def _can_be_columns(cls, define: dict[str, QuerySpec]) -> dict[str, QuerySpec]:
        require_names(define)
        taken = [name.casefold() for name in (*BUILT_IN_QUERIES, *_TAKEN_NAMES, *define)]
        for name in define:
            if taken.count(name.casefold()) > 1:  # SQL does not tell a from A
                raise ValueError(
                    f"{name!r} is taken, by a built-in query, a baseline or another name; choose another"
                )
        return define


class CalibrationSettings(Section):
    """Scores made probabilities before they are sampled, fitted on held-out labels."""

    method: Literal["none", "temperature", "isotonic"] = Field(
        "temperature", description="curve per class from score to P(true positive); none: raw scores"
    )
    min_images: Annotated[int, Field(ge=2)] = Field(
        20, description="with fewer held-out labeled images the raw scores stay"
    )
    max_images: Positive = Field(
        5_000, description="held-out images fitted on in one task, drawn by a hash of the id"
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5, description="a labeled image is calibrated by the fit of the other folds"
    )
    min_gain: Probability = Field(
        0.05, description="share of the log loss a fit must take off out of fold; else raw scores stay"
    )


class EvaluateSettings(Section):
    """Ranking quality against ground truth."""

    hard_fractions: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field(
        (0.05, 0.10, 0.25, 0.50), description="share of images called hard, for AUROC"
    )
    calibration_bins: Positive = Field(15, description="bins of the reliability diagram")
    max_images: Positive = Field(1_000_000, description="labeled images one query is ranked over in one task")
    bootstrap_samples: Annotated[int, Field(ge=0, le=100_000)] = Field(
        200, description="resamples of the images behind each 95 % interval; 0: no intervals"
    )
    bootstrap_images: Positive = Field(
        100_000, description="with more labeled images no interval is computed"
    )
    sample_sizes: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        (1, 2, 5, 10, 20, 50, 100, 200),
        description="numbers of Monte Carlo samples compared with the exact value; empty: none",
    )
    sensitivity_images: Annotated[int, Field(ge=1, le=20_000)] = Field(
        500, description="held-out images they are compared on"
    )
    max_ap_images: Positive = Field(20_000, description="images average precision is computed on")


class AcquireSettings(Section):
    """What goes to labeling: strategies, a budget, and what is left out."""

    strategies: Names = Field(
        ("hardest", "random"),
        min_length=1,
        description="each gets the whole budget: names of presets or of `define`, perhaps with a score, as "
        "in hardest:total_fn; docs/acquisition.md lists them",
    )
    define: dict[str, StrategySpec] = Field(
        default_factory=dict, description="your own strategies, name: strategy (conf/strategies/presets.yaml)"
    )
    query: str = Field("pixel_adj_false", description="score of the strategies that name none")
    method: str | None = Field(
        None, description="hardness.method to rank by, e.g. calibrated; none: score.estimator's"
    )
    budget: Annotated[float, Field(gt=0.0, le=1e12)] = Field(
        50, description="what each strategy may spend, in units of `budget_in`"
    )
    budget_in: Literal["images", "boxes", "seconds", "money"] = Field(
        "images", description="unit of the budget; the last two by `prices`"
    )
    prices: PriceList = Field(PriceList(), description="what labeling costs")
    exclude: tuple[Literal["labeled", "held_out", "sent", "quarantined"], ...] = Field(
        ("labeled", "held_out", "sent", "quarantined"),
        description="what is never picked: trained on, held out to measure with, picked by another cycle, in "
        "quarantine",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where k-center compares features; cuda: on the GPU of each task, the same picks"
    )
    k_center_rows: Positive = Field(
        200_000, description="points and seeds a k-center task may hold (600 MB of 256 values each)"
    )
    box_threshold: Probability = Field(
        0.05, description="boxes below are no candidates (t_d of the fine-grained boxes paper)"
    )
    near_misses: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="rejected candidates to explain per strategy, in table near_misses"
    )

    @field_validator("define")
    @classmethod
    def _has_plain_names(cls, define: dict[str, StrategySpec]) -> dict[str, StrategySpec]:
        require_names(define)
        return define

    @model_validator(mode="after")
    def _is_a_budget(self) -> AcquireSettings:
        if self.budget_in in ("images", "boxes") and self.budget != int(self.budget):
            raise ValueError(f"budget: expected whole {self.budget_in}, got {self.budget:g}")
        if self.budget_in == "money" and self.prices.money_per_hour is None:
            raise ValueError("a budget in money needs acquire.prices.money_per_hour")
        return self


class QualitySettings(Section):
    """The gates after each stage of a cycle: what they allow, and what a failure does."""

    enabled: bool = Field(True, description="judge every stage; a failure stops the cycle before the next")
    box_tolerance_px: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        1.0, description="how far a detected box may reach over the border of its image (px)"
    )
    drift: Literal["warn", "stop"] = Field(
        "warn", description="what detections unlike those of the last cycle do: warn, or stop the cycle"
    )
    max_class_drift: Probability = Field(
        0.25, description="total variation distance of class shares from the last cycle's (0..1) allowed"
    )
    max_count_ratio: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = Field(
        2.0, description="detections per image against the last cycle's, or the other way round, allowed"
    )
    drift_images: Positive = Field(100, description="with fewer images on either side, drift is not judged")


class ReportSettings(Section):
    """What one report shows."""

    path: Location | None = Field(None, description="HTML file to write; none: <root>/reports/<cycle>.html")
    hardest: Positive = Field(6, description="pictures of the hardest images per query")
    easiest: Positive = Field(3, description="pictures of the easiest images per query")
    thumbnail_px: Annotated[int, Field(ge=64, le=2048)] = Field(448, description="width of a picture (px)")


class TrainSettings(Section):
    """How a detector is trained from COCO annotations."""

    architecture: Literal["small_fasterrcnn", "small_retinanet", "pixel_network"] = Field(
        "small_fasterrcnn", description="torchvision detector on the small backbone, or per-pixel network"
    )
    epochs: Positive = Field(16, description="passes over the training images")
    batch_size: Positive = Field(4, description="images per step")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(2e-3, description="peak of the one-cycle schedule")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(1e-4, description="AdamW weight decay")
    min_size: Positive = Field(288, description="shorter side fed to the model (px)")
    max_size: Positive = Field(512, description="longer side fed to the model (px)")
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of images (whole sequences together) held out for AP"
    )
    noisy_weight: Probability = Field(
        0.5, description="lambda_d: weight of the loss of boxes nobody has checked; 0: they are ignored"
    )
    threads: Positive | None = Field(None, description="CPU threads; none: all cores")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one")


class CycleSettings(Section):
    """What a cycle does once labels come back."""

    labels_wanted: Probability = Field(
        1.0, description="share of what was sent that must be back before the cycle goes on"
    )
    retrain: bool = Field(False, description="fine-tune the detector on all labels of split train")
    folder: Location | None = Field(None, description="where checkpoints go; none: <root>/checkpoints")


class SampleLakeSettings(Section):
    """The procedural street lake."""

    images: Annotated[int, Field(ge=1, le=10_000_000)] = Field(640, description="image files in the lake")
    seed: int = Field(2026, description="another seed, another lake")
    corrupt_fraction: Probability = Field(0.01, description="files damaged on purpose")
    unseen_fraction: Annotated[float, Field(ge=0.0, le=0.33)] = Field(
        0.2, description="share of drives in the unseen domain `harbor`"
    )
    frames_per_sequence: Positive = Field(20, description="frames of one video")
    frames_per_second: Annotated[float, Field(gt=0.0)] = Field(5.0, description="frame rate of a video (Hz)")


class Settings(Section):
    """All sections: what a profile, `--set` and the flags resolve to."""

    root: Location | None = Field(None, description="where the tables live (path or URI)")
    seed: int = Field(0, description="seed of samples, ties and controls")
    spark: SparkSettings = SparkSettings()
    lake: LakeSettings = LakeSettings()
    cycle: CycleSettings = CycleSettings()
    sample_lake: SampleLakeSettings = SampleLakeSettings()
    detector: DetectorSettings = DetectorSettings()
    detect: DetectSettings = DetectSettings()
    train: TrainSettings = TrainSettings()
    score: ScoreSettings = ScoreSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    acquire: AcquireSettings = AcquireSettings()
    export: ExportSettings = ExportSettings()
    quality: QualitySettings = QualitySettings()
    report: ReportSettings = ReportSettings()

    @property
    def ranking_method(self) -> str:
        """`hardness.method` of the rows of queries that rank images."""
        return self.acquire.method or self.score.estimator


# Keys of object stores are given as Spark settings: neither tables nor reports may show them.
NOT_KEPT = {"spark": {"conf"}}


def settings_hash(*sections: BaseModel | int | str) -> str:
    """A stable identity of settings: equal values give equal hashes on every machine.

    Args:
        *sections: Sections or plain values, in an order the caller keeps.

    Returns:
        16 hexadecimal characters of SHA-256 over the canonical JSON of all values but devices.
    """
    # Where work runs changes no result.
    values = [
        s.model_dump(mode="json", exclude={"device"}) if isinstance(s, BaseModel) else s for s in sections
    ]
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
