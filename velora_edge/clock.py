"""Clock of the pipeline, which tests replace, pace of recordings, and interleaved timing of functions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event


class Clock(Protocol):
    """A monotonic clock. Callable from any thread."""

    def now_us(self) -> int:
        """Microseconds since some fixed moment; never decreases."""

    def wait_until(self, t_us: int, stop: Event) -> None:
        """Return once `now_us()` has reached `t_us`, or earlier if `stop` is set."""


class SystemClock:
    """The machine's own monotonic clock."""

    def now_us(self) -> int:
        """Microseconds since the machine's start."""
        return time.monotonic_ns() // 1000

    def wait_until(self, t_us: int, stop: Event) -> None:
        """Sleep until `t_us`, or until `stop` is set."""
        left_us = t_us - self.now_us()
        if left_us > 0:
            stop.wait(left_us / 1e6)


class Pacer:
    """Limiter of a recording to the speed at which it was recorded. Single-threaded."""

    def __init__(self, pace: Literal["realtime", "max"], clock: Clock, stop: Event) -> None:
        self._pace, self._clock, self._stop = pace, clock, stop
        self._offset_us: int | None = None

    def wait_for(self, t_us: int) -> None:
        """Return when the recording's instant `t_us` has come; the first one is now."""
        if self._pace == "max":
            return
        if self._offset_us is None:
            self._offset_us = self._clock.now_us() - t_us
        self._clock.wait_until(t_us + self._offset_us, self._stop)


LEAST, MOST = 10, 300
"""How often each is timed."""


def time_in_turn(
    steps: Sequence[Callable[[], None]], seconds: float, *, least: int = LEAST, most: int = MOST
) -> list[list[float]]:
    """Times of each step in milliseconds, one of each in turn, after one of each that is not timed.

    Args:
        steps: what is timed.
        seconds: after so long no more than `least` are.
        least: of each.
        most: of each.
    """
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    begun = time.perf_counter()
    while len(times[0]) < least or (len(times[0]) < most and time.perf_counter() - begun < seconds):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append((time.perf_counter() - start) * 1e3)
    return times
