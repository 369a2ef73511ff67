"""From COCO annotations to a checkpoint: runs the training loop on the machine at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from conf.settings import TrainSettings

if TYPE_CHECKING:
    from detectors.training import EpochProgress, TrainingReport


def train(
    settings: TrainSettings,
    *,
    labels: str,
    images: str,
    output: str,
    seed: int,
    tell: Callable[[str], None],
    classes: Sequence[str] | None = None,
    start_from: str | None = None,
) -> TrainingReport:
    """Trains a detector, tells its progress, writes the checkpoint.

    Args:
        settings: Architecture and schedule.
        labels: COCO JSON file, folder or glob pattern.
        images: Root that the annotations' file names start from.
        output: Checkpoint file or URI.
        seed: Of weights, order and augmentation.
        tell: Shows one line.
        classes: Class names in label order; none: as annotated.
        start_from: Checkpoint to fine-tune.

    Returns:
        Accuracy on the held-out images, and the recipe.
    """
    # Here, so that jobs which train nothing start without torch.
    from detectors.training import train_detector

    def after_epoch(done: EpochProgress) -> None:
        unusable = f", {done.unusable_images} unusable images" if done.unusable_images else ""
        tell(
            f"epoch {done.epoch}/{done.epochs}: loss {done.loss:.3f}, {done.epoch_s:.0f} s, "
            f"about {done.remaining_s / 60:.1f} min left{unusable}"
        )

    return train_detector(
        settings,
        labels=labels,
        images=images,
        out=output,
        seed=seed,
        classes=classes,
        start_from=start_from,
        progress=after_epoch,
    )
