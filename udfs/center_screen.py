"""Which points a new center may be nearer to than all earlier ones, by one matrix product.

A product in float32 gives squared distances fast and roughly. It only has to rule pairs out: those it leaves
are few, and whoever asks evaluates them exactly. With mu any vector near the points, c' = c - mu and
q = ||x - mu||^2,

    ||x - c||^2 = q - 2 s,    s = x . c' - h,    h = mu . c' + ||c'||^2 / 2,

so a center improves on a squared distance g only if s > (q - g) / 2. Moving the centers alone keeps s as
exact as moving the points would, up to ||mu||, and copies nothing. The rounding of s is at most
(d + 8) u (||x - mu|| + 2 ||mu|| + R) R with R the largest ||c'|| and u = 2^-24, in whatever order a library
adds (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuarryError
from udfs.boxes import FloatArray, IntArray

Features = NDArray[np.float32]
Pairs = tuple[IntArray, IntArray]

# Blocks of products stay near the size of a core's cache; a GPU wants more at once.
_BLOCK_CELLS = 2**18
_DEVICE_BLOCK_CELLS = 2**26
_FEWEST_ROWS = 1024
_UNIT_ROUNDOFF = 2.0**-24


class _Products(Protocol):
    def pairs(
        self, centers: Features, shifts: Features, floors: Features, slacks: Features
    ) -> Iterator[Pairs]:
        """Blocks of pairs (row, center) whose product is above the row's floor and near its largest."""


class CenterScreen:
    """The points, ready to be screened against blocks of centers.

    Args:
        features: (n, d) finite float32; not copied on the CPU, held on the GPU otherwise.
        device: `cpu` for numpy; else a torch device such as `cuda` or `cuda:1`.
    """

    def __init__(self, features: Features, device: str = "cpu") -> None:
        self._middle = features.mean(axis=0, dtype=np.float64)
        self._squares = np.concatenate(
            [np.zeros(0)]
            + [
                _square_norms(features[start : start + _FEWEST_ROWS] - self._middle)
                for start in range(0, len(features), _FEWEST_ROWS)
            ]
        )
        self._products: _Products = (
            _HostProducts(features) if device == "cpu" else _DeviceProducts(features, device)
        )

    def improving(self, centers: Features, gaps: FloatArray) -> Iterator[Pairs]:
        """Pairs of a point and its nearest new center, where that may be nearer than what it has.

        Args:
            centers: (m, d) finite float32, m >= 1.
            gaps: (n,) squared distance of each point to what it has, perhaps infinite; points at 0 or below
                are left out, as nothing improves them.

        Yields:
            Rows of points and rows of centers, (p,) each: every pair that improves a gap to the least one
            possible is among them, beside few others.
        """
        moved = centers - self._middle
        squares = _square_norms(moved)
        reach, off = float(np.sqrt(squares.max())), float(np.linalg.norm(self._middle))
        d = centers.shape[1]
        slacks = (d + 8) * _UNIT_ROUNDOFF * (np.sqrt(self._squares) + 2.0 * off + reach) * reach
        slacks += d * float(np.finfo(np.float32).tiny)  # products this small lose all their digits
        floors = np.where(gaps > 0.0, (self._squares - gaps) / 2.0 - slacks, np.inf)
        yield from self._products.pairs(
            moved.astype(np.float32),
            (moved @ self._middle + squares / 2.0).astype(np.float32),
            floors.astype(np.float32),
            (2.0 * slacks).astype(np.float32),
        )


class _HostProducts:
    def __init__(self, features: Features) -> None:
        self._features = features

    def pairs(
        self, centers: Features, shifts: Features, floors: Features, slacks: Features
    ) -> Iterator[Pairs]:
        n_rows = max(_FEWEST_ROWS, _BLOCK_CELLS // len(centers))
        for start in range(0, len(self._features), n_rows):
            block = slice(start, start + n_rows)
            products = centers @ self._features[block].T  # (m, b)
            products -= shifts[:, None]
            best = products.max(axis=0)
            rows = np.flatnonzero(best >= floors[block])
            least = np.maximum(floors[block][rows], best[rows] - slacks[block][rows])
            near, at = np.nonzero(products[:, rows] >= least)
            yield rows[at] + start, near


class _DeviceProducts:
    def __init__(self, features: Features, device: str) -> None:
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise QuarryError("acquire.device is cuda, but torch finds no CUDA device; set it to cpu")
        self._torch = torch
        self._features = torch.tensor(features, device=device)

    def pairs(
        self, centers: Features, shifts: Features, floors: Features, slacks: Features
    ) -> Iterator[Pairs]:
        torch = self._torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # the bound on rounding is one of float32, not of TF32
        try:
            yield from self._blocks(*map(self._sent, (centers, shifts, floors, slacks)))
        finally:
            torch.set_float32_matmul_precision(before)

    def _blocks(self, centers: Any, shifts: Any, floors: Any, slacks: Any) -> Iterator[Pairs]:
        n_rows = max(_FEWEST_ROWS, _DEVICE_BLOCK_CELLS // len(centers))
        for start in range(0, len(self._features), n_rows):
            block = slice(start, start + n_rows)
            products = centers @ self._features[block].T - shifts[:, None]
            best = products.amax(dim=0)
            rows = (best >= floors[block]).nonzero()[:, 0]
            least = (best[rows] - slacks[block][rows]).maximum(floors[block][rows])
            near, at = (products[:, rows] >= least).nonzero(as_tuple=True)
            yield (rows[at] + start).cpu().numpy(), near.cpu().numpy()

    def _sent(self, values: Features) -> Any:
        return self._torch.tensor(values, device=self._features.device)


def _square_norms(rows: FloatArray) -> FloatArray:
    norms: FloatArray = np.einsum("ij,ij->i", rows, rows)
    return norms
