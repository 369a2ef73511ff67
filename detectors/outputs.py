"""What a detector hands out beside boxes, scores and labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Adapter settings of what is kept of every image; part of a model's identity.

    A detector that has no such output leaves it out: `Detections` then holds none.

    Attributes:
        logits: Class logits of every kept box.
        features: A feature vector of every kept box.
        image_feature: One feature vector of the image.
        maps: Foreground probability maps of the dense head, one a level.
    """

    logits: bool = True
    features: bool = False
    image_feature: bool = False
    maps: bool = False


LOGITS_ONLY = Outputs()
