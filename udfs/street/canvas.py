"""The drawing surface of a frame: projection, distance haze, silhouettes with owners, and light sources."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from udfs.street.world import IMAGE_SIZE_HW, Camera, Rgb

SCALE = 2
NEAR_M = 0.45
OCCLUDER = 255

Point = tuple[float, float]
Point3 = tuple[float, float, float]


def mixed(a: Rgb, b: Rgb, share_b: float) -> Rgb:
    """The colour between `a` (share 0) and `b` (share 1)."""
    k = 1.0 - share_b
    return (int(a[0] * k + b[0] * share_b), int(a[1] * k + b[1] * share_b), int(a[2] * k + b[2] * share_b))


def scaled(color: Rgb, factor: float) -> Rgb:
    """The colour made darker (factor below 1) or lighter, clipped to 255."""
    return (
        min(255, int(color[0] * factor)),
        min(255, int(color[1] * factor)),
        min(255, int(color[2] * factor)),
    )


def signed_area(points: Sequence[Point]) -> float:
    """Shoelace area in px², negative for points that run counter-clockwise on the screen."""
    total = 0.0
    x0, y0 = points[-1]
    for x1, y1 in points:
        total += x0 * y1 - x1 * y0
        x0, y0 = x1, y1
    return total / 2


class Light:
    """A light source on the screen; lit while the silhouette of its owner still shows at its centre."""

    __slots__ = ("color", "owner", "radius_px", "x", "y")

    def __init__(self, x: float, y: float, radius_px: float, color: Rgb, owner: int) -> None:
        self.x, self.y, self.radius_px, self.color, self.owner = x, y, radius_px, color, owner


class Canvas:
    """Draws world shapes far to near on a 2x picture, with a 1x mask of which object shows at each pixel.

    `lift_m` raises everything drawn above the ground, for pictures printed on a billboard.
    """

    def __init__(
        self, backdrop: Image.Image, camera: Camera, haze: Rgb, haze_m: float, *, dark: bool
    ) -> None:
        """Starts from a copy of the backdrop.

        Args:
            backdrop: RGB picture of 2x the frame size: sky and ground.
            camera: The pin-hole camera.
            haze: Colour of the far distance.
            haze_m: Distance at which 63 % of a colour is haze, m.
            dark: Whether lamps and windows are lit.
        """
        height, width = IMAGE_SIZE_HW
        self.picture = backdrop.copy()
        self.mask = Image.new("L", (width, height), 0)
        self.windows = Image.new("RGB", (width, height), (0, 0, 0)) if dark else None
        self.lights: list[Light] = []
        self.camera, self.haze, self.haze_m, self.dark = camera, haze, haze_m, dark
        self._pen = ImageDraw.Draw(self.picture)
        self._mask_pen = ImageDraw.Draw(self.mask)
        self._window_pen = ImageDraw.Draw(self.windows) if self.windows is not None else None
        self.lift_m = 0.0
        self.begin(0, 10.0)

    def begin(self, owner: int, z: float) -> None:
        """Starts an object: its mask id (0 for none) and the distance that its colours fade with."""
        self.owner = owner
        self._clear = math.exp(-max(z, 0.0) / self.haze_m)
        self.left = self.top = math.inf
        self.right = self.bottom = -math.inf

    def shade(self, color: Rgb) -> Rgb:
        """The colour as seen through the haze of the current object's distance."""
        return mixed(self.haze, color, self._clear)

    def project(self, x: float, y: float, z: float) -> Point:
        """Pixel position of a world point; points behind the near plane are moved onto it."""
        camera = self.camera
        scale = camera.focal_px / max(z, NEAR_M)
        return (
            camera.center_x_px + x * scale,
            camera.horizon_y_px + (camera.height_m - self.lift_m - y) * scale,
        )

    def px_per_m(self, z: float) -> float:
        """Pixels per metre at distance z."""
        return self.camera.focal_px / max(z, NEAR_M)

    def polygon(self, points: Sequence[Point], color: Rgb, *, solid: bool = True) -> None:
        """Fills a polygon given in pixels; a solid one belongs to the object's silhouette."""
        self._pen.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=self.shade(color))
        if solid and self.owner:
            self._mask_pen.polygon(list(points), fill=self.owner)
            xs = [p[0] for p in points]
            ys = [p[1] for p in points]
            self._grow(min(xs), min(ys), max(xs), max(ys))

    def face(self, points: Sequence[Point3], color: Rgb, *, solid: bool = True) -> None:
        """Fills a polygon given in world coordinates."""
        self.polygon([self.project(*p) for p in points], color, solid=solid)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Rgb, *, solid: bool = True) -> None:
        """Fills an ellipse given in pixels."""
        box = (x - rx, y - ry, x + rx, y + ry)
        self._pen.ellipse([v * SCALE for v in box], fill=self.shade(color))
        if solid and self.owner:
            self._mask_pen.ellipse(box, fill=self.owner)
            self._grow(*box)

    def ball(self, x: float, y: float, z: float, radius_m: float, color: Rgb, *, solid: bool = True) -> None:
        """Fills the disc of a ball in the world."""
        px, py = self.project(x, y, z)
        r = radius_m * self.px_per_m(z)
        self.ellipse(px, py, r, r, color, solid=solid)

    def limb(self, a: Point3, b: Point3, radius_m: float, color: Rgb, *, solid: bool = True) -> None:
        """Draws a rod with round ends between two world points."""
        (ax, ay), (bx, by) = self.project(*a), self.project(*b)
        r = max(radius_m * self.px_per_m(a[2]), 0.4)
        self.rod((ax, ay), (bx, by), r, color, solid=solid)

    def rod(self, a: Point, b: Point, r: float, color: Rgb, *, solid: bool = True) -> None:
        """Draws a rod of radius r px with round ends between two pixels."""
        length = math.hypot(b[0] - a[0], b[1] - a[1])
        if r > 0.7:
            self.ellipse(*a, r, r, color, solid=solid)
            self.ellipse(*b, r, r, color, solid=solid)
        if length > 0.2:
            nx, ny = (b[1] - a[1]) / length * r, (a[0] - b[0]) / length * r
            sides = [
                (a[0] + nx, a[1] + ny),
                (b[0] + nx, b[1] + ny),
                (b[0] - nx, b[1] - ny),
                (a[0] - nx, a[1] - ny),
            ]
            self.polygon(sides, color, solid=solid)

    def light(self, x: float, y: float, radius_px: float, color: Rgb) -> None:
        """Records a light source that belongs to the current object; lit only in the dark."""
        if self.dark:
            self.lights.append(Light(x, y, radius_px, color, self.owner))

    def window(self, points: Sequence[Point], color: Rgb) -> None:
        """Marks a lit window of a building, which anything in front hides."""
        if self._window_pen is not None:
            self._window_pen.polygon(list(points), fill=mixed((0, 0, 0), color, 0.35 + 0.65 * self._clear))

    def _grow(self, left: float, top: float, right: float, bottom: float) -> None:
        self.left, self.top = min(self.left, left), min(self.top, top)
        self.right, self.bottom = max(self.right, right), max(self.bottom, bottom)
