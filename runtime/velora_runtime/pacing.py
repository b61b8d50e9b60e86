"""Pacing of cameras: frame periods for pictures without times, and bursts held back to recorded speed.

A frame period is estimated from arrivals. Taken modulo the right period, they point in one direction of a
circle; modulo a wrong one, in all (the Rayleigh test's statistic distinguishes them). Delays only ever add,
so the phase is the one that arrivals come soonest after, on average. Neither lost pictures matter, nor that
the first ones come all at once.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


KEPT = 128
FIRST_FIT, FIT_EVERY = 20, 10
"""Arrivals before the period is estimated, and from one estimate to the next."""
RANGE, STEPS = 0.25, 256
"""How far from the median and the mean gap the period is looked for, a part of it, and in how many steps."""
FINE, FINE_STEPS = (0.004, 0.0004), 33
"""Likewise, from the best one on."""
BEFORE, EARLY_COST = 0.15, 2.0
"""An arrival so little before a beat, as a part of the period, is not late: it speaks against the beat."""
LEAST_DIRECTION = 0.3
"""Of the arrivals: 0 where they point everywhere, 1 where all point the same way. Less is no period."""
EARLY = 0.1
"""Part of a period that an arrival may be early by and still belong to its tick."""


class FramePeriod:
    """Estimator of the frame period from arrivals. Single-threaded: the camera's thread."""

    def __init__(self) -> None:
        self._last_us: int | None = None
        self.restart()

    def restart(self) -> None:
        """Reset for a new connection."""
        self._arrivals: deque[int] = deque(maxlen=KEPT)
        self._period_us = self._phase_us = 0.0
        self._count = 0

    def place(self, arrived_us: int) -> int:
        """Return the picture's time on the host's clock, later than the one before."""
        self._arrivals.append(arrived_us)
        self._count += 1
        if self._count >= FIRST_FIT and (self._count - FIRST_FIT) % FIT_EVERY == 0:
            self._fit()
        t_us = arrived_us if not self._period_us else self._tick(arrived_us)
        t_us = t_us if self._last_us is None else max(t_us, self._last_us + 1)
        self._last_us = t_us
        return t_us

    def _tick(self, arrived_us: int) -> int:
        """Return the newest multiple of the period at an arrival."""
        beats = np.floor((arrived_us - self._phase_us) / self._period_us + EARLY)
        return round(self._phase_us + float(beats) * self._period_us)

    def _fit(self) -> None:
        first_us = self._arrivals[0]
        arrivals = np.array(self._arrivals, np.float64) - first_us
        gaps = np.diff(arrivals)
        guesses = [guess for guess in (np.median(gaps), gaps.mean()) if guess > 0]
        parts = np.linspace(1 - RANGE, 1 + RANGE, STEPS)
        periods = np.concatenate([guess * parts for guess in guesses]) if guesses else np.empty(0)
        directions = _direction(arrivals, periods)
        if not len(directions) or directions.max() < LEAST_DIRECTION:
            self._period_us = 0.0
            return
        period = float(periods[directions.argmax()])
        for part in FINE:
            near = period * np.linspace(1 - part, 1 + part, FINE_STEPS)
            _, beat, period = min((*_find_beat(arrivals, each), each) for each in near.tolist())
        # From the newest beat on, so that an error of the period has no time to grow.
        self._period_us = period
        self._phase_us = first_us + beat + np.floor((arrivals[-1] - beat) / period) * period


def _direction(arrivals: NDArray[np.float64], periods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Concentration of the arrivals' phases for each period, 0 to 1."""
    turns = 2 * np.pi * (arrivals / periods[:, None])
    return np.hypot(np.cos(turns).mean(axis=1), np.sin(turns).mean(axis=1))


def _find_beat(arrivals: NDArray[np.float64], period: float) -> tuple[float, float]:
    """Find the best phase of a period; return its cost and the phase.

    It costs how late arrivals come after it, on average, those that come right before it counted as many.
    """
    phases = np.sort(arrivals % period)
    n = len(phases)
    late = phases.mean() - phases + period * (np.arange(n) / n)
    around = np.concatenate([phases - period, phases])
    early = np.arange(n, 2 * n) - np.searchsorted(around, phases - BEFORE * period)
    costs = late + (EARLY_COST * period / n) * early
    best = int(costs.argmin())
    return float(costs[best]), float(phases[best])


LEAD_US = 200_000
"""A camera does not gain so much on the host's clock within `OVER_US`; a file does at once."""
OVER_US = 1_000_000
FASTER, FASTER_AT_FIRST, AT_FIRST_US = 1.02, 3.0, 2_000_000
"""A little faster than it was recorded: a camera that was taken for a file, for it had something in store,
comes into its own again, whatever its clock. Beside another camera, that is much faster in a connection's
first 2 s: what it sent while the other one was opened is always in store."""
TRUSTED_US = 5_000_000
"""A stream that was no faster for so long is a camera: what then comes at once comes after a stall."""
RECENT_US = 100_000


class BurstPacer:
    """Limiter of a buffered stream to its recorded speed. Single-threaded: the camera's thread.

    Attributes:
        is_pouring: it comes faster than it was recorded.
        hurries: what is in store at first is given out faster.
    """

    def __init__(self) -> None:
        self.hurries = False
        self.begin()

    def begin(self) -> None:
        """Reset for a new connection."""
        self._from: tuple[int, int] | None = None
        self._early_us = self._calm_us = 0
        self._begun_us: int | None = None
        self.is_pouring = False

    def holds(self, now_us: int) -> bool:
        """Whether the stream was held back a moment ago; callable from any thread."""
        return self.is_pouring and now_us - self._early_us < RECENT_US

    def due_us(self, device_us: int, now_us: int) -> int:
        """Return the host's time at which data of this device time is due; `now_us` for a live camera."""
        if self._from is None or device_us < self._from[0]:
            self._from = device_us, now_us
            return now_us
        at_us, since_us = self._from
        if self._begun_us is None:
            self._begun_us = self._calm_us = since_us
        if not self.is_pouring:
            if now_us - self._calm_us > TRUSTED_US:
                return now_us
            self.is_pouring = device_us - at_us > now_us - since_us + LEAD_US
            if now_us - since_us > OVER_US or self.is_pouring:
                self._from, self._early_us = (device_us, now_us), now_us
            return now_us
        is_first = self.hurries and now_us - self._begun_us < AT_FIRST_US
        due_us = since_us + round((device_us - at_us) / (FASTER_AT_FIRST if is_first else FASTER))
        if is_first:
            self._from = device_us, due_us
        if due_us > now_us:
            self._early_us = now_us
        elif now_us - self._early_us > OVER_US:
            self.is_pouring, self._from, self._calm_us = False, (device_us, now_us), now_us
        return max(due_us, now_us)
