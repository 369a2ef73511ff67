"""Trains a small detector from COCO annotations, from random weights or from another checkpoint's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from conf.errors import QuarryError
from conf.settings import TrainSettings
from detectors.architectures import build_model, head_kind, resized_hw
from detectors.augmentation import TrainingView
from detectors.average_precision import AveragePrecision, TruthBoxes, average_precision
from detectors.checkpoint import Checkpoint, as_stored, load_checkpoint, save_checkpoint
from detectors.coco_images import (
    AnnotatedImage,
    UnusableImage,
    displayed_image,
    read_coco_images,
    split_by_group,
)
from detectors.detections import Detections
from detectors.detector import Detector, resolve_device
from detectors.noisy_labels import dampen_noisy_labels
from detectors.outputs import Outputs
from detectors.pixel_network import PixelNetwork
from detectors.pixel_network_boxes import fitted_box_sizes
from detectors.thresholds import KeepThresholds
from detectors.torchvision_detector import TorchvisionDetector
from detectors.training_batches import TrainingBatches

GRADIENT_NORM_LIMIT = 10.0
WARM_UP_SHARE = 0.1
EVALUATION = KeepThresholds(eta0=0.01, detections_per_image=100, nms_iou=0.5)


@dataclass(frozen=True)
class EpochProgress:
    """Where a training run stands after an epoch.

    Attributes:
        epoch: Epochs done.
        epochs: Epochs in all.
        loss: Mean training loss of the epoch's steps.
        epoch_s: Seconds the epoch took.
        remaining_s: Seconds the remaining epochs will take at this pace.
        unusable_images: Image files met so far that could not be used.
    """

    epoch: int
    epochs: int
    loss: float
    epoch_s: float
    remaining_s: float
    unusable_images: int


@dataclass(frozen=True)
class TrainingReport:
    """What a training run gave.

    Attributes:
        ap: COCO average precision on the held-out images, of the weights as stored; none without any.
        ap50: The same at IoU 0.50.
        ap50_per_class: The same by class name.
        n_train_images: Usable images trained on.
        n_validation_images: Held-out images measured on.
        unusable: Reason by image, of files that could not be used.
        classes: Class names; label i is `classes[i - 1]`.
        losses: Mean loss by epoch.
        seconds: Wall time.
        recipe: Settings and counts, as stored in the checkpoint.
    """

    ap: float | None
    ap50: float | None
    ap50_per_class: dict[str, float | None]
    n_train_images: int
    n_validation_images: int
    unusable: dict[str, str]
    classes: tuple[str, ...]
    losses: tuple[float, ...]
    seconds: float
    recipe: dict[str, Any]


def train_detector(
    settings: TrainSettings,
    *,
    labels: str,
    images: str,
    out: str,
    seed: int,
    classes: Sequence[str] | None = None,
    start_from: str | None = None,
    progress: Callable[[EpochProgress], None] | None = None,
) -> TrainingReport:
    """Train, measure on the held-out images, and write a checkpoint.

    On CPUs the same seed, data and number of threads give the same weights.

    Args:
        settings: Architecture, schedule and input size.
        labels: COCO JSON, a folder of them, or a glob pattern; local or URI.
        images: Root that `file_name`s start from.
        out: Where the checkpoint goes, local path or URI; written once, at the end.
        seed: Weights, order, views and split derive from it.
        classes: Classes in label order; none: as the annotations name them.
        start_from: Checkpoint whose fitting weights replace the random ones; of other shapes (another
            number of classes) they stay random.
        progress: Called after every epoch.

    Returns:
        The report; the recipe and the precision are also in the checkpoint.

    Raises:
        QuarryError: No usable annotations or images, the loss is no longer finite, or `out` cannot be
            written.
    """
    started = time.perf_counter()
    annotated, names = read_coco_images(labels, images, classes)
    train_images, held_out = split_by_group(annotated, settings.validation_fraction, seed)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = _initial_model(settings, len(names), train_images, start_from)
            batches = _batches(settings, train_images, seed)
            losses = _fit(model, batches, settings, progress)
        weights = as_stored(model.state_dict())
        model.load_state_dict(weights)
        precision, unreadable = _precision(model, settings, names, held_out)
    finally:
        torch.set_num_threads(threads_before)
    unusable = {**batches.unusable, **unreadable}
    report = TrainingReport(
        ap=precision.ap,
        ap50=precision.ap50,
        ap50_per_class=precision.ap50_per_class,
        n_train_images=len(train_images) - len(batches.unusable),
        n_validation_images=precision.n_images,
        unusable=unusable,
        classes=names,
        losses=tuple(losses),
        seconds=time.perf_counter() - started,
        recipe={"settings": settings.model_dump(mode="json"), "seed": seed, "start_from": start_from},
    )
    _save(report, settings, model, out)
    return report


def _initial_model(
    settings: TrainSettings, n_classes: int, images: Sequence[AnnotatedImage], start_from: str | None
) -> nn.Module:
    model = build_model(
        settings.architecture, n_classes=n_classes, min_size=settings.min_size, max_size=settings.max_size
    )
    if isinstance(model, PixelNetwork):
        _fit_box_sizes(model, settings, images)
    if start_from is not None:
        stored = load_checkpoint(start_from)
        if stored.architecture != settings.architecture:
            raise QuarryError(
                f"{start_from}: expected a {settings.architecture} to start from, got a {stored.architecture}"
            )
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        fitting = {key: value for key, value in stored.weights.items() if shapes.get(key) == value.shape}
        model.load_state_dict(fitting, strict=False)
    dampen_noisy_labels(model, settings.noisy_weight)
    device = resolve_device(settings.device)
    return model.to(device).to(memory_format=torch.channels_last)


def _fit_box_sizes(model: PixelNetwork, settings: TrainSettings, images: Sequence[AnnotatedImage]) -> None:
    """Give the network the box sizes of the training objects, in px of its input.

    Of labeled objects if there is one: boxes that such a network predicted have its own five sizes.
    """
    sizes_hw, labels, noisy = [], [], []
    for image in images:
        if image.size_wh is None:
            raise QuarryError(
                f"{image.uri}: the labels give no width and height; {settings.architecture} needs them to "
                "choose its box sizes"
            )
        width, height = image.size_wh
        truth = image.truth
        objects = np.ones(len(truth.labels), bool) if truth.crowd is None else ~truth.crowd
        scale = resized_hw(height, width, settings.min_size, settings.max_size)[0] / height
        left, top, right, bottom = truth.boxes_xyxy[objects].T * scale
        sizes_hw.append(np.stack([bottom - top, right - left], axis=1))
        labels.append(truth.labels[objects])
        noisy.append(image.noisy[objects])
    unchecked = np.concatenate(noisy)
    used = unchecked if unchecked.all() else ~unchecked
    fitted = fitted_box_sizes(np.concatenate(sizes_hw)[used], np.concatenate(labels)[used], model.n_classes)
    model.box_sizes_hw.copy_(torch.from_numpy(fitted))


def _batches(settings: TrainSettings, images: Sequence[AnnotatedImage], seed: int) -> TrainingBatches:
    on_gpu = resolve_device(settings.device).type == "cuda"
    return TrainingBatches(
        images,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        size_px=(settings.min_size, settings.max_size),
        seed=seed,
        threads=min(8, os.cpu_count() or 1) if on_gpu else 1,
    )


def _fit(
    model: nn.Module,
    batches: TrainingBatches,
    settings: TrainSettings,
    progress: Callable[[EpochProgress], None] | None,
) -> list[float]:
    """Run every step; returns the mean loss of each epoch."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = batches.steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings.learning_rate,
        # One step more than are taken: the schedule advances after each step, and must not run out.
        total_steps=settings.epochs * steps + 1,
        pct_start=WARM_UP_SHARE,
    )
    model.train()
    epoch_losses: list[float] = []
    step_losses: list[float] = []
    epoch_start = time.perf_counter()
    for step, views in enumerate(batches, start=1):
        if views:
            step_losses.append(_step(model, views, optimizer, step))
            schedule.step()
        if step % steps:
            continue
        if not step_losses:
            reason = next(iter(batches.unusable.values()))
            raise QuarryError(f"not one of {len(batches.images)} training images can be read: {reason}")
        epoch_losses.append(float(np.mean(step_losses)))
        epoch_s, epoch_start = time.perf_counter() - epoch_start, time.perf_counter()
        step_losses = []
        if progress is not None:
            done = len(epoch_losses)
            remaining_s = (settings.epochs - done) * epoch_s
            unusable = len(batches.unusable)
            progress(EpochProgress(done, settings.epochs, epoch_losses[-1], epoch_s, remaining_s, unusable))
    return epoch_losses


def _step(
    model: nn.Module, views: Sequence[TrainingView], optimizer: torch.optim.Optimizer, step: int
) -> float:
    device = next(model.parameters()).device
    pixels = [view.pixels.to(device).float().div_(255) for view in views]
    targets = [
        {"boxes": v.boxes_xyxy.to(device), "labels": v.labels.to(device), "noisy": v.noisy.to(device)}
        for v in views
    ]
    losses = model(pixels, targets)
    loss = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(loss):
        raise QuarryError(f"the training loss is {loss.item()} at step {step}; lower train.learning_rate")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_LIMIT)
    optimizer.step()
    return float(loss.item())


def _precision(
    model: nn.Module, settings: TrainSettings, classes: tuple[str, ...], images: Sequence[AnnotatedImage]
) -> tuple[AveragePrecision, dict[str, str]]:
    detector = TorchvisionDetector(
        model,
        architecture=settings.architecture,
        classes=classes,
        keep=EVALUATION,
        device=settings.device,
        outputs=Outputs(logits=False),
    )
    return measured_precision(detector, images, settings.batch_size)


def measured_precision(
    detector: Detector, images: Sequence[AnnotatedImage], batch_size: int
) -> tuple[AveragePrecision, dict[str, str]]:
    """Average precision of a detector on annotated images, and the reason by image of those left out.

    Args:
        detector: Its eta0 bounds the recall that is seen; 0.01 or less is usual.
        images: With labels in the detector's numbering.
        batch_size: Images in memory at a time.
    """
    found: list[Detections] = []
    truths: list[TruthBoxes] = []
    unusable: dict[str, str] = {}
    for start in range(0, len(images), batch_size):
        pixels = []
        for image in images[start : start + batch_size]:
            try:
                pixels.append(np.array(displayed_image(image)))
                truths.append(image.truth)
            except UnusableImage as error:
                unusable[image.uri] = str(error)
        found.extend(detector.predict(pixels))
    return average_precision(found, truths, detector.classes), unusable


def _save(report: TrainingReport, settings: TrainSettings, model: nn.Module, out: str) -> None:
    results = asdict(report)
    kept = ("ap", "ap50", "ap50_per_class", "n_train_images", "n_validation_images", "seconds")
    recipe = {key: results[key] for key in kept}
    save_checkpoint(
        Checkpoint(
            architecture=settings.architecture,
            classes=report.classes,
            head=head_kind(model),
            min_size=settings.min_size,
            max_size=settings.max_size,
            weights=dict(model.state_dict()),
            recipe={**report.recipe, **recipe},
        ),
        out,
    )
