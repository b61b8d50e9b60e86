"""Clocks of cameras: their map to the host's clock, and one continuous clock over restarts.

Delays are never negative, so the earliest arrivals give the relation of two clocks: a line below all points
(device time, arrival less device time), and jitter of any size lies above it. (Moon, Skelly and Towsley,
Estimation and removal of clock skew from network delay measurements, INFOCOM 1999.)
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


BUCKET_US = 100_000
"""Of the arrivals in such a time, the earliest is kept."""
BUCKETS = 300
"""Buckets that the rate is estimated from: 30 s."""
RECENT_US = 10_000_000
"""The offset is that of the earliest arrivals of this time."""
SETTLED_US = 1_000_000
"""Device time after which the estimate can be used."""
RATE_AFTER_US = 8_000_000
"""Before this much time, jitter tells more about the rate than drift does."""
MOST_RATE = 500e-6
"""Crystals differ by up to 200 ppm; a host that follows a time server bends its clock by up to 500."""
STEP_US, STEP_AFTER_US = 50_000, 2_000_000
"""Where all arrivals of 2 s are this much later than expected, a clock was set or the way has changed."""
KEPT_LINES = 10
"""Estimates of the last second."""
KEPT_LATES = 50
"""Buckets of the last 5 s."""


class Line(NamedTuple):
    """Host time less device time: `offset_us` at the device time `at_us`, growing by `rate`."""

    at_us: int
    offset_us: float
    rate: float

    def delay_us(self, device_us: float) -> float:
        """Host time less device time at a device time."""
        return self.offset_us + self.rate * (device_us - self.at_us)


class ClockMap:
    """The device's clock on the host's, up to the shortest delay between them.

    `add` and `restart` are called by one thread, the camera's; all else by any.
    """

    def __init__(self) -> None:
        self._line: Line | None = None
        self._late_us = 0.0
        self._lates: tuple[float, ...] = ()
        self.restart()

    def restart(self) -> None:
        """Forget the past, but keep the estimate until there is a new one: the device began anew."""
        self._points: deque[tuple[int, int]] = deque(maxlen=BUCKETS)
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._bucket: int | None = None
        self._first_us: int | None = None
        self._reached_us = 0

    def add(self, device_us: int, host_us: int, since_us: int | None = None) -> None:
        """Add an observation: data of device time `device_us` arrived at `host_us`.

        Args:
            device_us: the time of its end.
            host_us: when it was there.
            since_us: the time of its beginning, where it covers a time: that part had to wait for the rest.
        """
        delay_us, bucket = host_us - device_us, host_us // BUCKET_US
        if self._first_us is None:
            self._first_us = device_us
            self._line = Line(device_us, delay_us, 0.0)
        self._reached_us = max(self._reached_us, device_us)
        if bucket != self._bucket:
            self._bucket = bucket
            self._fit()
            self._points.append((device_us, delay_us))
        elif delay_us < self._points[-1][1]:
            self._points[-1] = (device_us, delay_us)
        line = self._line
        assert line is not None
        late_us = delay_us - line.delay_us(device_us)
        if late_us < 0:
            self._line = Line(device_us, delay_us, line.rate)
        waited_us = 0 if since_us is None else max(0, device_us - since_us)
        self._late_us = max(self._late_us, late_us + waited_us)

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate, of any quality."""
        return self._line is not None

    @property
    def is_settled(self) -> bool:
        """Whether the estimate covers enough of the device's present clock."""
        return self._first_us is not None and self._reached_us - self._first_us >= SETTLED_US

    @property
    def lateness_us(self) -> int:
        """How much later than it could have been there the latest data of the last seconds was there."""
        return int(max(self._late_us, *self._lates)) if self._lates else int(self._late_us)

    @property
    def rate_ppm(self) -> float:
        """How much faster the host's clock runs than the device's, parts per million."""
        return 0.0 if self._line is None else self._line.rate * 1e6

    @property
    def moved_us(self) -> int:
        """How far the estimate has moved in the last second."""
        lines, now = list(self._lines), self._line
        return 0 if now is None or not lines else round(now.offset_us - lines[0].delay_us(now.at_us))

    def to_host_us(self, device_us: int) -> int:
        """The host's time at a device time; `is_known`."""
        line = self._known()
        return device_us + round(line.delay_us(device_us))

    def to_device_us(self, host_us: int) -> int:
        """The device's time at a host time; `is_known`."""
        line = self._known()
        return line.at_us + round((host_us - line.at_us - line.offset_us) / (1 + line.rate))

    def _known(self) -> Line:
        if self._line is None:
            raise ValueError("expected data from the device before its clock is asked for")
        return self._line

    def _fit(self) -> None:
        """A new line below the points, ten times a second."""
        if not self._points:
            return
        points = np.array(self._points, np.float64)
        at_us = int(points[-1, 0])
        x, delay = points[:, 0] - at_us, points[:, 1]
        if self._line is not None:
            self._lines.append(self._line)
            self._lates, self._late_us = (*self._lates[1 - KEPT_LATES :], self._late_us), 0.0
            expected = np.array([self._line.delay_us(t) for t in (at_us - STEP_AFTER_US, at_us)])
            is_recent = x > -STEP_AFTER_US
            if x[0] < -STEP_AFTER_US and (delay[is_recent] > expected.max() + STEP_US).all():
                x, delay = x[is_recent], delay[is_recent]
                kept = list(self._points)[-len(x) :]
                self._points.clear()
                self._points.extend(kept)
        rate = _estimate_rate(x, delay)
        is_recent = x >= -RECENT_US
        offset_us = float((delay[is_recent] - rate * x[is_recent]).min())
        self._line = Line(at_us, offset_us, rate)


def _estimate_rate(x: NDArray[np.float64], delay: NDArray[np.float64]) -> float:
    """Slope of the lower hull in the middle; 0 for a short time, taken at its word only after twice that."""
    span_us = float(x[-1] - x[0])
    if span_us < RATE_AFTER_US:
        return 0.0
    slope = _hull_slope(x, delay)
    return max(-MOST_RATE, min(slope, MOST_RATE)) * min(1.0, (span_us - RATE_AFTER_US) / RATE_AFTER_US)


def _hull_slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Slope of the lower convex hull's side over the middle of `x`, which increases (Andrew's chain)."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) >= 2 and _is_above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    middle = (hull[0][0] + hull[-1][0]) / 2
    for (x0, y0), (x1, y1) in itertools.pairwise(hull):
        if x1 >= middle:
            return (y1 - y0) / (x1 - x0)
    return 0.0


def _is_above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """`b` lies on or above the line from `a` to `c`."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


LEAP_US = 5_000_000
"""A device's time that runs ahead of the host's by more was set."""


class ContinuousClock:
    """The device's times plus a shift, which changes where the device's clock does not go on.

    After such a place the times go on by the host's clock, as if nothing had happened to the device's.

    Single-threaded: the camera's thread; `clock_map` may be read by any.

    Args:
        clock_map: learns from every time that is placed.
        back_us: how far a time may lie before the latest without its being a new beginning.
        leap_us: how far it may run ahead of the host's clock, likewise; None: the host's says nothing.

    Attributes:
        shift_us: what to add to the device's times.
        begun: new beginnings, the first connection not counted.
    """

    def __init__(self, clock_map: ClockMap, back_us: int, leap_us: int | None = LEAP_US) -> None:
        self.clock_map = clock_map
        self.shift_us = self.begun = 0
        self._back_us, self._leap_us = back_us, leap_us
        self._latest_us: int | None = None
        self._is_new = True

    def begin(self) -> None:
        """Begin anew: the next time need not continue those before."""
        self._is_new = True

    def goes_on(self, device_us: int, arrived_us: int) -> bool:
        """Whether a time continues those before."""
        if self._is_new or self._latest_us is None:
            return False
        t_us = device_us + self.shift_us
        if t_us < self._latest_us - self._back_us:
            return False
        return self._leap_us is None or t_us <= self.clock_map.to_device_us(arrived_us) + self._leap_us

    def place(self, device_us: int, arrived_us: int, since_us: int | None = None) -> int:
        """Return the device's time on the continuous clock; shift it anew where it does not continue.

        Args:
            device_us: the time of what came, or of its end.
            arrived_us: when it came, host clock.
            since_us: the time of its beginning, where it covers a time.
        """
        if not self.goes_on(device_us, arrived_us):
            self._restart(device_us, arrived_us)
        t_us = device_us + self.shift_us
        self._latest_us = t_us if self._latest_us is None else max(self._latest_us, t_us)
        self.clock_map.add(t_us, arrived_us, None if since_us is None else since_us + self.shift_us)
        return t_us

    def _restart(self, device_us: int, arrived_us: int) -> None:
        self._is_new = False
        if self._latest_us is None:
            return
        self.begun += 1
        t_us = self._latest_us + 1
        if self._leap_us is not None:
            t_us = max(t_us, self.clock_map.to_device_us(arrived_us))
        self.shift_us = t_us - device_us
        self.clock_map.restart()
