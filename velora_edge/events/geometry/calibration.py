"""Lens and calibration of the event camera: the place of each of its pixels in a picture for the model.

A `View` belongs to the camera: lens, mounting, alignment with the RGB camera, hot pixels. The fit of the view
to the model's image (crop, letterbox, stretch) belongs to the model. Both together are one `RegistrationMap`,
so that a calibration costs nothing for each event.

The lens is that of a pinhole camera with distortion: from its pixels to rays, and from points to its pixels.
Pixel coordinates are OpenCV's and Kalibr's here: the centre of the first pixel is (0, 0). Models: `radtan`
(Brown-Conrady; k1 k2 p1 p2 [k3 [k4 k5 k6]], as in OpenCV's documentation of calib3d) and `equidistant`
(Kannala-Brandt; k1 k2 k3 k4, as in OpenCV's of the fisheye model).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from velora_edge.datatypes import EventBatch, fit
from velora_edge.errors import InputError
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.base import EventFilter
from velora_edge.events.kernels._frame_kernels import SeparableMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.datatypes import FitMode

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


Flip = Literal["horizontal", "vertical", "both"]
ROTATIONS = (0, 90, 180, 270)
_OFF = -(1 << 30)


@dataclass(frozen=True)
class View:
    """View: the place of each sensor pixel's centre in a picture, whose first pixel's centre is (0.5, 0.5).

    Attributes:
        source_hw: height and width of the sensor, pixels.
        view_hw: height and width of the picture, pixels.
        x: float64, broadcasts to `source_hw`; NaN where a pixel is not to be seen.
        y: likewise.
        mask: bool[H, W] of the sensor: pixels that are ignored (hot ones); None for none.
        is_rgb: the picture is the RGB camera's: it is laid onto the model's image as RGB frames are.
    """

    source_hw: tuple[int, int]
    view_hw: tuple[int, int]
    x: Floats
    y: Floats
    mask: NDArray[np.bool_] | None = None
    is_rgb: bool = False

    @classmethod
    def of_sensor(cls, source_hw: tuple[int, int]) -> View:
        """The sensor's own picture."""
        columns, rows = (np.arange(side, dtype=np.float64) + 0.5 for side in source_hw[::-1])
        return cls(source_hw, source_hw, columns[None], rows[:, None])

    @classmethod
    def from_map(cls, x: Floats, y: Floats, view_hw: tuple[int, int], *, is_rgb: bool = False) -> View:
        """A view given pixel by pixel.

        Args:
            x: float64[H, W] of the sensor: column in the view, the first pixel's centre at 0 (OpenCV's way).
            y: row, likewise.
            view_hw: height and width of the view.
            is_rgb: see the attribute.
        """
        height, width = x.shape
        return cls((height, width), view_hw, x + 0.5, y + 0.5, is_rgb=is_rgb)

    @classmethod
    def from_homography(
        cls, matrix: Floats, source_hw: tuple[int, int], view_hw: tuple[int, int], *, is_rgb: bool = True
    ) -> View:
        """A view of a plane, or of a far scene.

        Args:
            matrix: float64[3, 3], from (x, y, 1) on the sensor to the view; first pixels' centres at 0, as
                `cv2.findHomography` gives it.
            source_hw: height and width of the sensor.
            view_hw: height and width of the view.
            is_rgb: see the attribute.
        """
        where = _pixel_grid(source_hw)
        u, v, w = matrix @ np.column_stack((where, np.ones(len(where)))).T
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(w * np.sign(matrix[2, 2] or 1.0) > 0, w, np.nan)
            return cls.from_map(
                (u / ahead).reshape(source_hw), (v / ahead).reshape(source_hw), view_hw, is_rgb=is_rgb
            )

    @classmethod
    def from_lenses(
        cls, events: Lens, picture: Lens, pose: Floats, *, depth_m: float = np.inf, is_rgb: bool = True
    ) -> View:
        """The picture of another camera, or of the same one with a perfect lens.

        Args:
            events: the event camera; its size is the sensor's.
            picture: the other camera, with its own distortion.
            pose: float64[4, 4], from the event camera's coordinates to the other's, metres.
            depth_m: how far the scene is. Two cameras beside each other see it shifted against each other,
                the more the nearer it is: the map is right at this distance.
            is_rgb: see the attribute.
        """
        (width, height), (view_w, view_h) = events.size, picture.size
        rays = events.rays(_pixel_grid((height, width)))
        points = rays @ pose[:3, :3].T
        if np.isfinite(depth_m):
            points = (rays / rays[:, 2:] * depth_m) @ pose[:3, :3].T + pose[:3, 3]
        pixels = picture.project(points)
        x, y = (pixels[:, axis].reshape(height, width) for axis in (0, 1))
        return cls.from_map(x, y, (view_h, view_w), is_rgb=is_rgb)

    def flipped(self, how: Flip) -> View:
        """The picture mirrored: left and right change places (horizontal), or top and bottom, or both."""
        height, width = self.view_hw
        x = width - self.x if how in ("horizontal", "both") else self.x
        return replace(self, x=x, y=height - self.y if how in ("vertical", "both") else self.y)

    def rotated(self, degrees: int) -> View:
        """The picture turned clockwise by 0, 90, 180 or 270 degrees.

        Raises:
            ValueError: for any other angle.
        """
        if degrees not in ROTATIONS:
            raise ValueError(f"expected a rotation by 0, 90, 180 or 270 degrees, got {degrees}")
        height, width = self.view_hw
        if degrees == 90:
            return replace(self, view_hw=(width, height), x=height - self.y, y=self.x)
        if degrees == 270:
            return replace(self, view_hw=(width, height), x=self.y, y=width - self.x)
        return self.flipped("both") if degrees == 180 else self

    def without(self, mask: NDArray[np.bool_]) -> View:
        """The same view with the sensor's pixels in `mask`, bool[H, W], ignored.

        Raises:
            InputError: if the mask is for a sensor of another size.
        """
        if mask.shape != self.source_hw:
            (height, width), (mask_h, mask_w) = self.source_hw, mask.shape
            raise InputError(
                f"expected a mask for the sensor of {width}x{height}, got one for {mask_w}x{mask_h}",
                remedy="find the hot pixels of this camera (velora info --hot-pixels)",
            )
        return replace(self, mask=mask if self.mask is None else self.mask | mask)

    def registration(self, target_hw: tuple[int, int], mode: FitMode) -> RegistrationMap:
        """The way from the sensor to the model's image, of `target_hw`, onto which the view is laid."""
        to = fit(self.view_hw, target_hw, mode)
        columns = _cells(self.x, to.scale_x, to.offset_x, target_hw[1])
        rows = _cells(self.y, to.scale_y, to.offset_y, target_hw[0])
        rows = np.where(rows >= 0, rows * target_hw[1] + 1, _OFF)
        if self.mask is None and {columns.shape, rows.shape} == {
            (1, self.source_hw[1]),
            (self.source_hw[0], 1),
        }:
            along_x, along_y = (columns, rows) if columns.shape[0] == 1 else (rows, columns)
            table = SeparableMap(along_x.ravel().astype(np.int32), along_y.ravel().astype(np.int32))
            return RegistrationMap(self.source_hw, target_hw, table)
        cells = np.broadcast_to(np.maximum(columns + rows, 0) - 1, self.source_hw).astype(np.int32)
        if self.mask is not None:
            cells[self.mask] = -1
        return RegistrationMap.from_table(cells, target_hw)


class ViewedEvents(EventFilter):
    """Moves events to their place in a view, and drops those outside it.

    Attributes:
        width: of the view, pixels.
        height: likewise.
    """

    name = "calibration"

    def __init__(self, view: View) -> None:
        self.height, self.width = view.view_hw
        self._table = view.registration(view.view_hw, "stretch").as_table()

    def apply(self, batch: EventBatch) -> EventBatch:
        """The events of the batch, which are inside the sensor, at their places in the view."""
        cells = self._table[batch.y, batch.x]
        kept = cells >= 0
        cells = cells[kept]
        self.dropped += len(batch) - len(cells)
        return EventBatch(
            batch.t_us[kept],
            (cells % self.width).astype(np.uint16),
            (cells // self.width).astype(np.uint16),
            batch.p[kept],
        )


def _pixel_grid(hw: tuple[int, int]) -> Floats:
    """The centres of all pixels, row by row: float64[H * W, 2], the first at (0, 0)."""
    y, x = np.indices(hw, np.float64)
    return np.column_stack((x.ravel(), y.ravel()))


def _cells(where: Floats, scale: float, offset: float, target: int) -> NDArray[np.int64]:
    """On which of `target` places each coordinate falls, or `_OFF`."""
    with np.errstate(invalid="ignore"):
        place = np.floor(where * scale + offset)
        inside = (place >= 0) & (place < target)
    return np.where(inside, place, _OFF).astype(np.int64)
