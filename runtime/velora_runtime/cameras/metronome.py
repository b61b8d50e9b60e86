"""Times for pictures that have none: a camera takes them evenly, however unevenly they arrive.

Taken modulo the right period, arrivals lie within an arc as long as the jitter, and the rest of the circle is
empty; a wrong period smears them over all of it. So the period with the widest empty arc is taken, and the
end of that arc is when pictures that are not delayed arrive. Lost pictures do not matter.
"""

from __future__ import annotations

from collections import deque

import numpy as np

KEPT = 128
FIRST_FIT, FIT_EVERY = 20, 10
"""Arrivals before the period is estimated, and from one estimate to the next."""
FIRST_RANGE, RANGE = 0.15, 0.01
"""How far from the last estimate, at first the median gap, the period is looked for: a part of it."""
STEP_US = 300.0
"""Two periods that are compared differ by so much over all arrivals."""
MOST_STEPS = 600
EARLY = 0.05
"""Part of a period that an arrival may be early by and still belong to its tick."""


class Metronome:
    """Finds the even times below the arrivals: delays only ever add. Single-threaded: the camera's thread."""

    def __init__(self) -> None:
        self._last_us: int | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the beat: a new connection."""
        self._arrivals: deque[int] = deque(maxlen=KEPT)
        self._period_us = self._phase_us = 0.0
        self._count = 0

    def place(self, arrived_us: int) -> int:
        """The picture's time on the host's clock, later than the one before."""
        self._arrivals.append(arrived_us)
        self._count += 1
        if self._count >= FIRST_FIT and (self._count - FIRST_FIT) % FIT_EVERY == 0:
            self._fit()
        t_us = arrived_us if not self._period_us else self._tick(arrived_us)
        t_us = t_us if self._last_us is None else max(t_us, self._last_us + 1)
        self._last_us = t_us
        return t_us

    def _tick(self, arrived_us: int) -> int:
        """The newest tick at the time of an arrival."""
        beats = np.floor((arrived_us - self._phase_us) / self._period_us + EARLY)
        return round(self._phase_us + float(beats) * self._period_us)

    def _fit(self) -> None:
        first_us = self._arrivals[0]
        arrivals = np.array(self._arrivals, np.int64) - first_us
        guess, part = (self._period_us, RANGE) if self._period_us else (_median_gap(arrivals), FIRST_RANGE)
        if guess <= 0:
            return
        step = STEP_US / max(float(arrivals[-1]), 1.0)
        steps = int(min(MOST_STEPS, 2 * part / step)) + 1
        periods = guess * (1 + np.linspace(-part, part, steps))
        phases = np.sort(arrivals[None, :] % periods[:, None], axis=1)
        gaps = np.diff(phases, axis=1, append=phases[:, :1] + periods[:, None])
        widest = gaps.argmax(axis=1)
        emptiness = gaps[np.arange(steps), widest] / periods
        best = int(emptiness.argmax())
        period = float(periods[best])
        start = float(phases[best, (widest[best] + 1) % phases.shape[1]])
        # From the newest beat on, so that an error of the period has no time to grow.
        beats = np.floor((float(arrivals[-1]) - start) / period)
        self._period_us = period
        self._phase_us = first_us + start + float(beats) * period


def _median_gap(arrivals: np.ndarray) -> float:
    return float(np.median(np.diff(arrivals)))
