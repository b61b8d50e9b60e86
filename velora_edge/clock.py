"""Time as the pipeline sees it, so that tests can pass in a clock of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
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
