"""Colours of the things in the street: paints, clothes, skins, facades, containers, leaves."""

from __future__ import annotations

import numpy as np

from udfs.street.world import Rgb

PAINTS: tuple[Rgb, ...] = (
    (196, 52, 48), (42, 96, 168), (232, 232, 228), (52, 56, 64), (150, 156, 164), (38, 116, 92),
    (226, 168, 48), (120, 40, 60), (96, 140, 180), (214, 204, 186), (88, 78, 70), (224, 110, 52),
)  # fmt: skip
HARBOR_PAINTS: tuple[Rgb, ...] = (
    (240, 240, 236), (238, 196, 60), (60, 96, 128), (214, 96, 44), (110, 118, 116), (72, 132, 120),
)  # fmt: skip
CLOTHES: tuple[Rgb, ...] = (
    (204, 70, 62), (58, 92, 150), (40, 44, 58), (230, 224, 210), (92, 132, 84), (226, 172, 72),
    (126, 84, 140), (70, 70, 74), (178, 110, 84), (88, 160, 176), (236, 140, 150), (52, 66, 52),
)  # fmt: skip
TROUSERS: tuple[Rgb, ...] = (
    (44, 52, 76),
    (52, 48, 46),
    (110, 104, 92),
    (72, 82, 104),
    (32, 34, 40),
    (150, 132, 104),
)
SKINS: tuple[Rgb, ...] = ((240, 204, 174), (216, 166, 128), (172, 120, 84), (118, 78, 54), (84, 56, 42))
HAIRS: tuple[Rgb, ...] = ((40, 30, 26), (92, 62, 38), (186, 146, 86), (128, 124, 122), (150, 72, 40))
VESTS: tuple[Rgb, ...] = ((246, 118, 32), (216, 232, 44), (250, 150, 30))
HELMETS: tuple[Rgb, ...] = ((250, 246, 236), (250, 214, 40), (44, 104, 190))
FACADES: tuple[Rgb, ...] = (
    (206, 138, 108), (226, 198, 150), (170, 102, 86), (196, 190, 180), (148, 164, 172), (218, 172, 124),
    (178, 148, 128), (232, 216, 188), (132, 124, 130),
)  # fmt: skip
CONTAINERS: tuple[Rgb, ...] = (
    (178, 66, 50), (40, 94, 128), (62, 120, 92), (208, 140, 52), (120, 124, 130), (92, 62, 92),
    (206, 198, 180),
)  # fmt: skip
LEAVES: tuple[Rgb, ...] = ((84, 132, 70), (110, 148, 72), (64, 112, 76), (150, 146, 66), (196, 140, 60))


def random_color(rng: np.random.Generator, colors: tuple[Rgb, ...], spread: int = 12) -> Rgb:
    """One of the colours, each channel moved by at most `spread`."""
    base = colors[int(rng.integers(len(colors)))]
    shift = rng.integers(-spread, spread + 1, 3)
    r, g, b = (int(min(255, max(0, c + s))) for c, s in zip(base, shift, strict=True))
    return (r, g, b)
