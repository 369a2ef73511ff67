"""Batches of training views, prepared by threads a few steps ahead; the same batches on every machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from detectors.augmentation import TrainingView, training_view, view_generator
from detectors.coco_images import AnnotatedImage, UnusableImage, displayed_image

BATCHES_AHEAD = 2


class TrainingBatches:
    """All steps of a training run: images shuffled each epoch, damaged ones left out.

    Args:
        images: Training images.
        batch_size: Images a step; the last, smaller batch of an epoch is dropped when there is a full one.
        epochs: Passes over the images.
        size_px: Shorter and longer side fed to the model (px).
        seed: Order and views derive from it alone.
        threads: Threads that read and augment.

    Attributes:
        unusable: Reason by image, of the images met so far that could not be used.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        *,
        batch_size: int,
        epochs: int,
        size_px: tuple[int, int],
        seed: int,
        threads: int,
    ) -> None:
        self.images = images
        self.batch_size = min(batch_size, len(images))
        self.epochs = epochs
        self.size_px = size_px
        self.seed = seed
        self.threads = threads
        self.unusable: dict[str, str] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[list[TrainingView]]:
        with ThreadPoolExecutor(self.threads) as readers:
            waiting: deque[list[Future[TrainingView | None]]] = deque()
            plan = self._plan()
            for epoch, indices in islice(plan, BATCHES_AHEAD):
                waiting.append([readers.submit(self._view, epoch, i) for i in indices])
            while waiting:
                coming = waiting.popleft()
                for epoch, indices in islice(plan, 1):
                    waiting.append([readers.submit(self._view, epoch, i) for i in indices])
                views = [future.result() for future in coming]
                yield [view for view in views if view is not None]

    def _plan(self) -> Iterator[tuple[int, list[int]]]:
        for epoch in range(self.epochs):
            order = np.random.default_rng([abs(self.seed), epoch]).permutation(len(self.images)).tolist()
            for step in range(self.steps_per_epoch):
                yield epoch, order[step * self.batch_size : (step + 1) * self.batch_size]

    def _view(self, epoch: int, index: int) -> TrainingView | None:
        image = self.images[index]
        truth = image.truth
        objects = np.ones(len(truth.labels), bool) if truth.crowd is None else ~truth.crowd
        try:
            pixels = displayed_image(image)
        except UnusableImage as error:
            self.unusable[image.uri] = str(error)
            return None
        random = view_generator(self.seed, epoch, image.uri)
        return training_view(
            pixels,
            truth.boxes_xyxy[objects],
            truth.labels[objects],
            image.noisy[objects],
            self.size_px,
            random,
        )
