"""A pinhole camera with a distorting lens: from its pixels to rays, and from points to its pixels.

Pixel coordinates are OpenCV's and Kalibr's here: the centre of the first pixel is (0, 0).

Models: `radtan` (Brown-Conrady; k1 k2 p1 p2 [k3 [k4 k5 k6]], as in OpenCV's documentation of calib3d) and
`equidistant` (Kannala-Brandt; k1 k2 k3 k4, as in OpenCV's of the fisheye model).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LensModel = Literal["radtan", "equidistant"]

_STEPS = 12
_EXACT = 1e-7
"""How near, in units of the focal length, a ray must come back to the pixel that it was found for."""
_WIDEST = 20.0
"""Rays this far from the axis (a tangent, or radians) are beyond any lens."""


@dataclass(frozen=True, slots=True)
class Lens:
    """A camera's intrinsic calibration.

    Attributes:
        size: width and height of its picture, pixels.
        focal: fx, fy, pixels.
        centre: cx, cy, pixels.
        model: of the distortion.
        coefficients: of the model; empty for none.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    model: LensModel = "radtan"
    coefficients: tuple[float, ...] = ()

    def rays(self, pixels: Floats) -> Floats:
        """The directions in which pixels look.

        Args:
            pixels: float64[N, 2], x and y.

        Returns:
            float64[N, 3], of any length, z along the axis; NaN where the model has no such direction.
        """
        wanted = (pixels - self.centre) / self.focal
        return self._equidistant_rays(wanted) if self.model == "equidistant" else self._radtan_rays(wanted)

    def project(self, points: Floats) -> Floats:
        """The pixels on which points fall.

        Args:
            points: float64[N, 3] in the camera's coordinates, z forward.

        Returns:
            float64[N, 2], x and y; NaN where the lens does not see the point.
        """
        place = self._project_wide(points) if self.model == "equidistant" else self._project_flat(points)
        return place * self.focal + self.centre

    def undistorted(self) -> Lens:
        """The same camera with a perfect lens."""
        return Lens(self.size, self.focal, self.centre)

    def _project_flat(self, points: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = points[:, :2] / np.where(points[:, 2:] > 0, points[:, 2:], np.nan)
            seen = np.hypot(flat[:, 0], flat[:, 1]) < self._reach()
        return self._distort(np.where(seen[:, None], flat, np.nan))

    def _project_wide(self, points: Floats) -> Floats:
        aside = np.hypot(points[:, 0], points[:, 1])
        angle = np.arctan2(aside, points[:, 2])
        angle = np.where(angle < self._reach(), angle, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(aside > 0, self._bend(angle) / aside, 1.0)
        return points[:, :2] * scale[:, None]

    def _radtan_rays(self, wanted: Floats) -> Floats:
        """Newton's method on both coordinates, with differences for the derivatives."""
        flat, step = wanted.copy(), 1e-6
        aside, down = np.array([step, 0.0]), np.array([0.0, step])
        with np.errstate(all="ignore"):
            for _ in range(_STEPS if self.coefficients else 0):
                error = self._distort(flat) - wanted
                by_x = (self._distort(flat + aside) - wanted - error) / step
                by_y = (self._distort(flat + down) - wanted - error) / step
                area = by_x[:, 0] * by_y[:, 1] - by_x[:, 1] * by_y[:, 0]
                flat[:, 0] -= (error[:, 0] * by_y[:, 1] - error[:, 1] * by_y[:, 0]) / area
                flat[:, 1] -= (error[:, 1] * by_x[:, 0] - error[:, 0] * by_x[:, 1]) / area
                if np.nanmax(np.abs(error), initial=0.0) < _EXACT / 100:
                    break
            is_found = (np.abs(self._distort(flat) - wanted) < _EXACT).all(axis=1)
            is_found &= np.hypot(flat[:, 0], flat[:, 1]) < self._reach()
        rays = np.ones((len(flat), 3))
        rays[:, :2] = flat
        return np.where(is_found[:, None], rays, np.nan)

    def _equidistant_rays(self, wanted: Floats) -> Floats:
        radius = np.hypot(wanted[:, 0], wanted[:, 1])
        angle, step = radius.copy(), 1e-6
        with np.errstate(all="ignore"):
            for _ in range(_STEPS):
                error = self._bend(angle) - radius
                angle -= error * step / (self._bend(angle + step) - radius - error)
            is_found = (np.abs(self._bend(angle) - radius) < _EXACT) & (angle < self._reach()) & (angle >= 0)
            aside = np.where(radius > 0, np.sin(angle) / radius, 1.0)
        rays = np.column_stack((wanted * aside[:, None], np.cos(angle)))
        return np.where(is_found[:, None], rays, np.nan)

    def _distort(self, flat: Floats) -> Floats:
        """Brown-Conrady, on coordinates in units of the focal length."""
        if not self.coefficients:
            return flat
        k1, k2, p1, p2, k3, k4, k5, k6 = self._padded(8)
        x, y = flat[:, 0], flat[:, 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.column_stack(
            (
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            )
        )

    def _bend(self, angle: Floats) -> Floats:
        """Kannala-Brandt: the distance from the centre at which a ray of that angle arrives."""
        k1, k2, k3, k4 = self._padded(4)
        a2 = angle * angle
        return angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))

    def _reach(self) -> float:
        """Tangent (radtan) or angle (equidistant) up to which rays further out arrive further out.

        Beyond it the polynomials turn round, and would put what nobody sees into the picture.
        """
        widest = np.pi if self.model == "equidistant" else _WIDEST
        out = np.linspace(0, widest, 4001)
        if self.model == "equidistant":
            arrival = self._bend(out)
        else:
            radial = Lens(self.size, self.focal, self.centre, "radtan", self._radial_part())
            with np.errstate(all="ignore"):
                arrival = radial._distort(np.column_stack((out, np.zeros_like(out))))[:, 0]
        turns = np.flatnonzero(~(np.diff(arrival) > 0))
        return float(out[turns[0]]) if len(turns) else float(widest)

    def _radial_part(self) -> tuple[float, ...]:
        k1, k2, _, _, *rest = self._padded(8)
        return (k1, k2, 0.0, 0.0, *rest) if self.coefficients else ()

    def _padded(self, n: int) -> tuple[float, ...]:
        return (*self.coefficients, *[0.0] * (n - len(self.coefficients)))
