"""Notices a stage that does not come back from its work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from velora_edge.clock import Clock

SLOW_US = 10_000_000
"""Work on one thing that takes longer is told."""
STUCK_US = 60_000_000
"""Work that takes longer will never end."""


class Watchdog:
    """Stages say when they begin and end their work on one thing; somebody looks from time to time.

    `working` is called by each stage's own thread, `check` by one other.

    Args:
        clock: of all times.
        note: gets a line once for each time that a stage is slow.
    """

    def __init__(self, clock: Clock, note: Callable[[str], None]) -> None:
        self._clock, self._note = clock, note
        self._since_us: dict[str, int] = {}
        self._told: set[str] = set()

    @contextlib.contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """While a stage works on one thing."""
        self._since_us[stage] = self._clock.now_us()
        try:
            yield
        finally:
            self._since_us.pop(stage, None)

    def check(self) -> bool:
        """Whether all stages are well.

        Raises:
            EngineError: if a stage is stuck: nothing but a new process helps.
        """
        now_us = self._clock.now_us()
        busy = {stage: now_us - since_us for stage, since_us in tuple(self._since_us.items())}
        slow = {stage for stage, busy_us in busy.items() if busy_us >= SLOW_US}
        self._told &= slow
        for stage in sorted(slow - self._told):
            self._told.add(stage)
            self._note(f"{stage} has been at one thing for {busy[stage] / 1e6:.0f} s")
        for stage, busy_us in busy.items():
            if busy_us >= STUCK_US:
                raise EngineError(f"{stage} is stuck: no answer for {busy_us / 1e6:.0f} s")
        return not slow
