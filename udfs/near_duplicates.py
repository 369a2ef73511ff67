"""Telling near-duplicates: does an image look like one that is taken, or known from before?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs.boxes import BoolArray
from udfs.center_screen import CenterScreen
from udfs.image_hash import hamming_bits

UIntArray = NDArray[np.uint64]
FeatureArray = NDArray[np.float32]
# Known pictures compared at once with all images: the products stay small.
_KNOWN_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class NearDuplicateRule:
    """When two images count as the same picture; either condition suffices, none: never.

    Attributes:
        max_hamming_bits: Image hashes differ in at most so many bits, 0..63.
        below_feature_l2: Euclidean distance of the features is below this.
    """

    max_hamming_bits: int | None = None
    below_feature_l2: float | None = None

    def __post_init__(self) -> None:
        if self.max_hamming_bits is not None and not 0 <= self.max_hamming_bits < 64:
            raise QuarryError(f"max_hamming_bits must be in 0..63, got {self.max_hamming_bits}")
        if self.below_feature_l2 is not None and not self.below_feature_l2 > 0.0:
            raise QuarryError(f"below_feature_l2 must be above 0, got {self.below_feature_l2}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """How n images look; what is None is not known of any.

    Attributes:
        image_ids: (n,) strings.
        hashes: (n,), from `image_hash`.
        has_hash: (n,), whether the hash is known; None: all are.
        features: (n, d), a row of NaN where an image has none.
    """

    image_ids: NDArray[np.object_]
    hashes: UIntArray | None = None
    has_hash: BoolArray | None = None
    features: FeatureArray | None = None


class Likeness(NamedTuple):
    """The picture an image looks like, and how that was told."""

    image_id: str
    text: str

    @property
    def reason(self) -> str:
        """Why the image is not taken."""
        return f"near-duplicate of {self.image_id}: {self.text}"


class TakenLooks:
    """The looks of the images taken so far, with room for the candidates that may join them.

    A look-up compares with every image taken: 64-bit hashes at some billions a second, so no index pays.

    Args:
        rule: When images are near-duplicates.
        candidates: Images that may be taken.
    """

    def __init__(self, rule: NearDuplicateRule, candidates: Looks) -> None:
        self._rule = rule
        self._candidates = candidates
        capacity = len(candidates.image_ids)
        self._image_ids: list[str] = []
        self._hashes = np.zeros(capacity, np.uint64)
        self._has_hash = np.zeros(capacity, bool)
        self._features: FeatureArray | None = None
        if rule.below_feature_l2 is not None and candidates.features is not None:
            # Pages that no image fills take no memory.
            self._features = np.empty(candidates.features.shape, np.float32)
            self._squares = np.empty(capacity)

    def __len__(self) -> int:
        return len(self._image_ids)

    def likeness(self, row: int, since: int = 0) -> Likeness | None:
        """The first image taken that a candidate is a near-duplicate of; none where there is none.

        Args:
            row: Index of the candidate.
            since: Number of taken images it was already compared with.
        """
        if since == len(self):
            return None
        return self._by_hash(row, since) or self._by_feature(row, since)

    def take(self, row: int) -> None:
        """Adds a candidate to the images taken."""
        place, candidates = len(self), self._candidates
        if _is_hashed(candidates, row):
            assert candidates.hashes is not None
            self._hashes[place], self._has_hash[place] = candidates.hashes[row], True
        if self._features is not None:
            assert candidates.features is not None
            self._features[place] = feature = candidates.features[row]
            self._squares[place] = _square(feature)
        self._image_ids.append(str(candidates.image_ids[row]))

    def _by_hash(self, row: int, since: int) -> Likeness | None:
        most, hashes = self._rule.max_hamming_bits, self._candidates.hashes
        if most is None or hashes is None or not _is_hashed(self._candidates, row):
            return None
        bits = hamming_bits(self._hashes[since : len(self)], hashes[row])
        is_like = (bits <= most) & self._has_hash[since : len(self)]
        first = int(is_like.argmax())
        if not is_like[first]:
            return None
        return Likeness(self._image_ids[since + first], _hash_text(int(bits[first])))

    def _by_feature(self, row: int, since: int) -> Likeness | None:
        below, features = self._rule.below_feature_l2, self._candidates.features
        if below is None or features is None or self._features is None:
            return None
        taken, feature = self._features[since : len(self)], features[row]
        # A product in float32 rules most out; its rounding is within the slack. NaN, of an image without
        # features, is like none.
        squares = self._squares[since : len(self)] + _square(feature)
        slack = (len(feature) + 8) * 2.0**-24 * squares
        near = np.flatnonzero(squares - 2.0 * (taken @ feature) < below**2 + slack)
        distances = _distances(taken[near], feature)
        like = np.flatnonzero(distances < below)
        if not len(like):
            return None
        return Likeness(self._image_ids[since + int(near[like[0]])], _feature_text(distances[like[0]]))


def nearest_likenesses(
    images: Looks, known: Looks, rule: NearDuplicateRule
) -> Iterator[tuple[int, float, Likeness]]:
    """Of each image that is a near-duplicate of known pictures: the nearest, of equally near ones the first.

    Args:
        images: n images.
        known: m pictures; features as wide as those of the images.
        rule: By hashes or by features; where it has both, hashes are compared.

    Yields:
        Row of the image, bits or distance, and the likeness; rows rise.
    """
    nearest: dict[int, tuple[int, float]] = {}
    if rule.max_hamming_bits is not None:
        nearest = _nearest_by_hash(images, known, rule.max_hamming_bits)
    elif rule.below_feature_l2 is not None:
        nearest = _nearest_by_feature(images, known, rule.below_feature_l2)
    for row, (at, distance) in sorted(nearest.items()):
        text = _feature_text(distance) if rule.max_hamming_bits is None else _hash_text(int(distance))
        yield row, distance, Likeness(str(known.image_ids[at]), text)


def _nearest_by_hash(images: Looks, known: Looks, most: int) -> dict[int, tuple[int, float]]:
    """Row to the place and bits of the nearest known picture, where that is at most `most` bits off."""
    if images.hashes is None or known.hashes is None:
        return {}
    at = np.arange(len(known.hashes)) if known.has_hash is None else np.flatnonzero(known.has_hash)
    hashes, nearest = known.hashes[at], {}
    for row in range(len(images.image_ids) if len(at) else 0):
        if _is_hashed(images, row):
            bits = hamming_bits(hashes, images.hashes[row])
            first = int(bits.argmin())
            if bits[first] <= most:
                nearest[row] = (int(at[first]), float(bits[first]))
    return nearest


def _nearest_by_feature(images: Looks, known: Looks, below: float) -> dict[int, tuple[int, float]]:
    """Row to the place and distance of the nearest known picture, where that is below `below`."""
    nearest: dict[int, tuple[int, float]] = {}
    if images.features is None or known.features is None:
        return nearest
    rows = np.flatnonzero(np.isfinite(images.features).all(axis=1))
    at = np.flatnonzero(np.isfinite(known.features).all(axis=1))
    if not (len(rows) and len(at)):
        return nearest
    screen, gaps = CenterScreen(images.features[rows]), np.full(len(rows), below**2 * (1.0 + 1e-6))
    for start in range(0, len(at), _KNOWN_BLOCK):
        block = at[start : start + _KNOWN_BLOCK]
        for found, near in screen.improving(known.features[block], gaps):
            pairs = zip(rows[found].tolist(), block[near].tolist(), strict=True)
            for row, other in sorted(pairs):
                distance = float(_distances(known.features[other][None], images.features[row])[0])
                if distance < nearest.get(row, (0, below))[1]:
                    nearest[row] = (other, distance)
    return nearest


def _distances(features: FeatureArray, feature: FeatureArray) -> FeatureArray:
    apart = features - feature
    distances: FeatureArray = np.sqrt(np.einsum("nd,nd->n", apart, apart))
    return distances


def _square(feature: FeatureArray) -> float:
    return float(np.dot(feature.astype(np.float64), feature))


def _hash_text(bits: int) -> str:
    return f"hashes differ in {bits} of 64 bits"


def _feature_text(distance: float) -> str:
    return f"features are {distance:.4g} apart"


def _is_hashed(looks: Looks, row: int) -> bool:
    return looks.hashes is not None and (looks.has_hash is None or bool(looks.has_hash[row]))
