"""Percentiles of durations over any length of run, in a fixed amount of memory."""

from __future__ import annotations

import math

import numpy as np

_STEPS = 200
"""Bins to a decade: neighbouring values are told apart to 1.2 %."""
_DECADES = 10


class Histogram:
    """Counts of values from 1 us to 10,000 s in bins of equal ratio; smaller and larger ones go to the ends.

    Single-threaded: whoever adds; read it once that has ended.

    Attributes:
        count: values added.
        highest: the largest of them, exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.highest = 0.0
        self._bins = [0] * (_STEPS * _DECADES + 1)

    def add(self, value_us: float) -> None:
        """Count a value, microseconds, not negative."""
        position = 0 if value_us < 1 else min(int(math.log10(value_us) * _STEPS) + 1, len(self._bins) - 1)
        self._bins[position] += 1
        self.count += 1
        self.highest = max(self.highest, float(value_us))

    def percentile(self, percent: float) -> float:
        """The value below or at which `percent` of the values lie, microseconds, to 1.2 %; 0 without any."""
        if not self.count:
            return 0.0
        wanted = max(1, math.ceil(self.count * percent / 100))
        position = int(np.searchsorted(np.cumsum(self._bins), wanted))
        upper = 0.0 if position == 0 else 10 ** (position / _STEPS)
        return float(min(upper, self.highest))

    def summary(self, scale: float = 1.0) -> dict[str, float]:
        """p50, p95, p99 and the largest, each divided by `scale`, to three decimals."""
        values = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        values["max"] = self.highest
        return {name: round(value / scale, 3) for name, value in values.items()}
