"""Looks after a run while its threads work: are they alive, does systemd hear of it, is it to end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from velora_runtime.supervision.service import ServiceManager
from velora_runtime.supervision.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_runtime.report.run_report import RunReport

LEAVE_BEHIND_S = 5.0
"""After an error, a thread that does not end within this time is left behind: it sits in a driver."""


def ignore(line: str) -> None:
    """Nobody reads it."""


class Supervisor:
    """One for a run. The main thread's, but for `stop` and `watchdog.working`.

    Args:
        clock: of all times.
        note: gets lines for people.
        service: systemd, or whoever stands for it.

    Attributes:
        stop: set when the run is to end; callable from anywhere.
        watchdog: of the stages.
    """

    def __init__(
        self, clock: Clock, note: Callable[[str], None] = ignore, service: ServiceManager | None = None
    ) -> None:
        self.stop = threading.Event()
        self.watchdog = Watchdog(clock, note)
        self.service = service or ServiceManager({})
        self._clock = clock
        self._is_stopping = False

    def tell_stop(self) -> None:
        """Tell the service manager that the run stops, where it was asked to; also after the last turn."""
        if self.stop.is_set() and not self._is_stopping:
            self._is_stopping = True
            self.service.stopping()

    def turn(self, report: RunReport) -> None:
        """Look once, some times a second.

        Raises:
            EngineError: if a stage is stuck.
        """
        self.tell_stop()
        if self.watchdog.check() and not self._is_stopping:
            self.service.alive(self._clock.now_us(), f"{report.predictions} predictions")
