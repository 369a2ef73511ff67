"""How the detections of an image overlap each other: what score sampling needs to know besides the scores.

When detections stand in for ground truth, a confirmed detection can match its own box or another one of its
class with IoU >= t. Connected components of that relation are independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from udfs.boxes import BoolArray, BoxPairs, FloatArray, IntArray, area_px, iou_of, overlapping_pairs
from udfs.connected_boxes import component_heads
from udfs.detection_batch import DetectionBatch
from udfs.matching import effective_threshold
from udfs.queries import ErrorBoxes


@dataclass(frozen=True, kw_only=True)
class SelfOverlaps:
    """Detections of a batch with their overlaps among each other.

    Attributes:
        boxes: The detections as boxes that may be errors.
        n_images: Images in the batch.
        scores: (m,), 0..1; they decide who matches first.
        presence: (m,), P(the detection is pseudo ground truth), 0..1.
        area_px: (m,), px².
        is_confirmed: (m,), judged detections with score >= eta.
        onto_confirmed: Ordered pairs of different boxes that share area, the second confirmed.
        component: (m,), first detection of the component every detection is in.
        component_size: (m,), detections in that component.
        n_uncertain: (m,), detections of that component with 0 < presence < 1.
        threshold: Effective IoU threshold.
    """

    boxes: ErrorBoxes
    n_images: int
    scores: FloatArray
    presence: FloatArray
    area_px: FloatArray
    is_confirmed: BoolArray
    onto_confirmed: BoxPairs
    component: IntArray
    component_size: IntArray
    n_uncertain: IntArray
    threshold: float

    def is_large(self, max_uncertain: int) -> BoolArray:
        """(m,), detections of components with more outcomes than 2^max_uncertain."""
        return (self.component_size > 1) & (self.n_uncertain > max_uncertain)

    def components_up_to(self, max_uncertain: int | None) -> Iterator[IntArray]:
        """Components of two or more detections, those of one size and number of uncertain ones stacked.

        Args:
            max_uncertain: Most uncertain detections wanted in a component; None for all components.

        Yields:
            (components, size) indices of detections, rising in every row.
        """
        members = np.flatnonzero(self.component_size > 1)
        members = members[np.argsort(self.component[members], kind="stable")]
        shapes = np.stack((self.component_size[members], self.n_uncertain[members]))
        for size, uncertain in np.unique(shapes, axis=1).T.tolist():
            if max_uncertain is None or uncertain <= max_uncertain:
                yield members[(shapes[0] == size) & (shapes[1] == uncertain)].reshape(-1, size)


def self_overlaps(detections: DetectionBatch, *, eta: float, iou_threshold: float) -> SelfOverlaps:
    """Find all overlaps and components of a batch.

    Args:
        detections: All detections above the collection threshold.
        eta: Confirmation threshold; score >= eta is confirmed.
        iou_threshold: t, 0 < t <= 1.

    Returns:
        Overlaps and components; after class-wise NMS at IoU <= t every component is one detection.
    """
    confirmed = detections.scores >= eta
    if detections.is_judged is not None:
        confirmed &= detections.is_judged
    presence = detections.scores if detections.presence is None else detections.presence
    area = area_px(detections.boxes_xyxy)
    pairs = overlapping_pairs(detections.offsets, detections.boxes_xyxy, involving=confirmed)
    first_confirmed, second_confirmed = confirmed[pairs.first], confirmed[pairs.second]
    same_class = detections.labels[pairs.first] == detections.labels[pairs.second]
    first, second, inter = pairs.first[same_class], pairs.second[same_class], pairs.inter_px[same_class]
    matchable = iou_of(inter, area[first] + area[second] - inter) >= effective_threshold(iou_threshold)
    component = component_heads(first[matchable], second[matchable], len(area))
    is_uncertain = (presence > 0.0) & (presence < 1.0)
    return SelfOverlaps(
        boxes=detection_boxes(detections),
        n_images=detections.n_images,
        scores=detections.scores,
        presence=presence,
        area_px=area,
        is_confirmed=confirmed,
        onto_confirmed=BoxPairs(
            np.concatenate((pairs.first[second_confirmed], pairs.second[first_confirmed])),
            np.concatenate((pairs.second[second_confirmed], pairs.first[first_confirmed])),
            np.concatenate((pairs.inter_px[second_confirmed], pairs.inter_px[first_confirmed])),
        ),
        component=component,
        component_size=np.bincount(component, minlength=len(area))[component],
        n_uncertain=np.bincount(component[is_uncertain], minlength=len(area))[component],
        threshold=effective_threshold(iou_threshold),
    )


def detection_boxes(detections: DetectionBatch) -> ErrorBoxes:
    """The detections as boxes a query can weigh."""
    return ErrorBoxes(
        boxes_xyxy=detections.boxes_xyxy,
        labels=detections.labels,
        image_sizes_px=detections.image_wh_px,
        image_index=detections.image_index,
        scores=detections.scores,
    )
