"""Committees: other detectors' detections of the same image as pseudo ground truth.

A member is drawn uniformly. `uniform`: its confirmed detections are the pseudo ground truth. `score_sampled`:
each of its detections is, with the probability of its score. Extends score_sampling, Algorithm 1, from a
detector judged by itself to one judged by others; the exact form averages over members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from udfs.boxes import FloatArray, IntArray
from udfs.detection_batch import DetectionBatch
from udfs.exact_score_sampling import exact_hardness
from udfs.image_random import image_keys, image_uniforms
from udfs.monte_carlo_score_sampling import Hardness, hardness_of_samples, sampled_values
from udfs.queries import Query

CommitteeTruth = Literal["score_sampled", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Committee:
    """Who stands for ground truth, and how.

    Attributes:
        truth: `score_sampled` or `uniform`.
        label_maps: For every member, its label to the judged detector's label. A class the judged detector
            does not have can only be missed.
    """

    truth: CommitteeTruth
    label_maps: tuple[Mapping[int, int], ...]


def member_column(member: int) -> str:
    """The column that holds a member's detections of an image."""
    return f"member_{member}"


def judged_by(
    judged: DetectionBatch,
    member: DetectionBatch,
    label_map: Mapping[int, int],
    truth: CommitteeTruth,
    eta: float,
) -> DetectionBatch:
    """Confirmed detections of one detector beside another's as their pseudo ground truth.

    Args:
        judged: Detections whose errors count.
        member: Detections of the same images, in the same order.
        label_map: Label of the member to label of the judged detector.
        truth: `score_sampled` or `uniform`.
        eta: Confirmation threshold of both.

    Returns:
        Both in one batch: the judged ones are never pseudo ground truth (presence 0), the member's never
        errors of their own.
    """
    judged = judged.where(judged.scores >= eta)
    member = member.where(member.scores >= eta) if truth == "uniform" else member
    parts = (judged, member)
    image_index = np.concatenate([part.image_index for part in parts])
    order = np.argsort(image_index, kind="stable")
    n_judged, n_member = (len(part.scores) for part in parts)
    presence = np.ones(n_member) if truth == "uniform" else member.scores
    labels = np.concatenate((judged.labels, _mapped(member.labels, label_map)))
    return DetectionBatch(
        image_ids=judged.image_ids,
        image_wh_px=judged.image_wh_px,
        offsets=judged.offsets + member.offsets,
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts])[order],
        labels=labels[order],
        scores=np.concatenate([part.scores for part in parts])[order],
        presence=np.concatenate((np.zeros(n_judged), presence))[order],
        is_judged=np.concatenate((np.ones(n_judged, bool), np.zeros(n_member, bool)))[order],
    )


def exact_committee_hardness(
    scenes: Sequence[DetectionBatch], queries: Sequence[Query], **options: Any
) -> Hardness:
    """Mean over members of the exact expectation against each.

    Args:
        scenes: `judged_by` of every member.
        queries: Queries to evaluate.
        **options: Keyword arguments of `exact_hardness`.

    Returns:
        Values; the estimator is that of the least exact member.
    """
    parts = [exact_hardness(scene, queries, **options) for scene in scenes]
    n = len(parts)
    return Hardness(
        value=np.sum([part.value for part in parts], axis=0) / n,
        std_error=np.sqrt(np.sum([part.std_error**2 for part in parts], axis=0)) / n,
        estimator=np.max([part.estimator for part in parts], axis=0),
    )


def monte_carlo_committee_hardness(
    scenes: Sequence[DetectionBatch],
    queries: Sequence[Query],
    *,
    n_samples: int,
    seed: int,
    **options: Any,
) -> Hardness:
    """Mean over samples that draw a member, then its pseudo ground truth.

    Args:
        scenes: `judged_by` of every member.
        queries: Queries to estimate.
        n_samples: Samples per image, >= 1.
        seed: With the image id, all that the samples depend on.
        **options: Further keyword arguments of `sampled_values`.
    """
    options |= {"n_samples": n_samples, "seed": seed}
    by_member = np.stack([sampled_values(scene, queries, **options) for scene in scenes])
    drawn = _drawn_members(scenes[0], len(scenes), n_samples, seed)  # (samples, images)
    samples = np.take_along_axis(by_member, drawn[None, :, None], axis=0)[0]
    return hardness_of_samples(samples)


def _drawn_members(scene: DetectionBatch, n_members: int, n_samples: int, seed: int) -> IntArray:
    keys = image_keys(seed, (f"member {image_id}" for image_id in scene.image_ids.to_pylist()))
    one_each = np.arange(scene.n_images + 1)
    uniforms: FloatArray = np.stack([image_uniforms(keys, one_each, sample) for sample in range(n_samples)])
    return (uniforms * n_members).astype(np.int64)


def _mapped(labels: IntArray, label_map: Mapping[int, int]) -> IntArray:
    values, position = np.unique(labels, return_inverse=True)
    known = [label_map.get(label, -1 - label) for label in values.tolist()]
    return np.array(known, np.int64)[position]
