"""Timing of several things in turn, so that all see the same machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
