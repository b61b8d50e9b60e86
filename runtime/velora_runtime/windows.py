"""Which events belong to a pair: windows that end at its instant, and instants where no camera gives them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = Fraction(3, 2)
"""A window may reach back to the end of the one before it up to this many nominal windows."""


class WindowRule:
    """Half-open windows [t0, t1), one after the other, each ending at the instant of a pair.

    A window starts where the one before it ended, so that no event is lost to jitter. After a longer gap
    (more than 1.5 times the nominal window: a dropped frame, a paused camera) it is as long as the model
    was trained with, and what lies before it is skipped.

    Args:
        window_us: the nominal window, from the bundle.
        start_us: earliest start of the first window; None: the first window is one nominal window long.
    """

    def __init__(self, window_us: int, start_us: int | None = None) -> None:
        self.window_us = window_us
        self.end_us = start_us

    def preview(self, t_us: int) -> int:
        """Start of the window that would end at `t_us`.

        Raises:
            ValueError: if `t_us` is not after the end of the window before.
        """
        if self.end_us is None:
            return t_us - self.window_us
        if t_us <= self.end_us:
            raise ValueError(f"expected a window's end after {self.end_us} us, got {t_us} us")
        is_near = t_us - self.end_us <= LONGEST * self.window_us
        return self.end_us if is_near else t_us - self.window_us

    def start(self, t_us: int) -> int:
        """Start of the window that ends at `t_us`; the next one then starts there, or later.

        Raises:
            ValueError: if `t_us` is not after the end of the window before.
        """
        start = self.preview(t_us)
        self.end_us = t_us
        return start


def edges_us(start_us: int, rate_hz: Fraction) -> Iterator[int]:
    """Ends of windows at a fixed rate: whole microseconds, each rounded down on its own, so that none drifts.

    Yields:
        start_us + floor(k / rate_hz), k = 1, 2, ...; without end.
    """
    k = 0
    while True:
        k += 1
        yield start_us + k * 1_000_000 * rate_hz.denominator // rate_hz.numerator
