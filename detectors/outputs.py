"""What a detector hands out beside boxes, scores and labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PixelScoring:
    """Which scores of an image's pixels are pooled into scores of the image, and how.

    Attributes:
        names: Of `conf.settings.PIXEL_SCORES`, at least one.
        radius_px: Of the windows of pixel_divergence, px of the image.
        region_px: Side of the regions whose maxima are averaged, px of the image.
        passes: With dropout, for pixel_mutual_information; 0 without it.
        dropout_ratio: What these passes drop, above 0 and below 1; none: what the network was trained with.
    """

    names: tuple[str, ...]
    radius_px: int = 9
    region_px: int = 30
    passes: int = 0
    dropout_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Adapter settings of what is kept of every image; part of a model's identity.

    A detector that has no such output leaves it out: `Detections` then holds none.

    Attributes:
        logits: Class logits of every kept box.
        features: A feature vector of every kept box.
        image_feature: One feature vector of the image.
        maps: Foreground probability maps of the dense head, one a level.
        pixel_scores: Scores of the image from these maps; none: none.
    """

    logits: bool = True
    features: bool = False
    image_feature: bool = False
    maps: bool = False
    pixel_scores: PixelScoring | None = None


LOGITS_ONLY = Outputs()
