"""Supervision of a long run: watchdog of stages, service manager, the interpreter's settings."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError, InputError
from velora_edge.limits import parse_int

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from velora_edge.clock import Clock
    from velora_runtime.report import RunReport


SWITCH_S = 0.0005


@contextlib.contextmanager
def realtime_interpreter() -> Iterator[None]:
    """Set the interpreter up for a run: short switch interval, frozen garbage collector."""
    before_s = sys.getswitchinterval()
    # A thread that writes a page of metrics is not to keep a pair waiting for 5 ms.
    sys.setswitchinterval(SWITCH_S)
    # What was loaded by now stays: looking through it for garbage would stop all threads for 0.1 s.
    gc.collect()
    gc.freeze()
    give_back_memory()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before_s)


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call `stop`; a second one has its usual effect. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: object) -> None:
        signal.signal(number, before[number])
        stop()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def give_back_memory() -> None:
    """Have glibc return to the system what was freed (malloc_trim(3)); other C libraries do as they do.

    What waited during a stall otherwise stays with the process for good, between small blocks that live on.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class ServiceManager:
    """Notifier of systemd; does nothing where the process does not run under it.

    Single-threaded: the main thread.

    Args:
        environment: with NOTIFY_SOCKET and WATCHDOG_USEC, as systemd sets them.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        path = given.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @ and addressed with a zero byte.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._every_us = int(given.get("WATCHDOG_USEC") or 0) // 2
        self._alive_us: int | None = None

    def ready(self) -> None:
        """Report that the cameras deliver and the model is warm."""
        self._send("READY=1")

    def alive(self, now_us: int, status: str) -> None:
        """Report that all stages work, twice in the time that systemd allows."""
        if self._alive_us is not None and now_us - self._alive_us < (self._every_us or 5_000_000):
            return
        self._alive_us = now_us
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Report that the run ends."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(self._address)
                sender.send(text.encode())
        except OSError:
            pass  # systemd then restarts a service that it does not hear of: nothing better can be done here


SLOW_US = 10_000_000
"""Work on one thing that takes longer is told."""
STUCK_US = 60_000_000
"""Work that takes longer will never end, unless VELORA_STUCK_S says otherwise, for a machine that slow."""
STUCK_VARIABLE = "VELORA_STUCK_S"


class Watchdog:
    """Watchdog of stages, which mark the beginning and end of their work on one item.

    `working` is called by each stage's own thread, `check` by one other.

    Args:
        clock: of all times.
        note: gets a line once for each time that a stage is slow.

    Raises:
        InputError: if VELORA_STUCK_S in the environment is no whole number of seconds above 0.
    """

    def __init__(self, clock: Clock, note: Callable[[str], None]) -> None:
        self._clock, self._note = clock, note
        self._stuck_us = _stuck_us()
        self._since_us: dict[str, int] = {}
        self._told: set[str] = set()

    @contextlib.contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Mark a stage as at work on one item."""
        self._since_us[stage] = self._clock.now_us()
        try:
            yield
        finally:
            self._since_us.pop(stage, None)

    def check(self) -> bool:
        """Return whether no stage has been at work on one item for too long.

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
            if busy_us >= self._stuck_us:
                raise EngineError(f"{stage} is stuck: no answer for {busy_us / 1e6:.0f} s")
        return not slow


def _stuck_us() -> int:
    text = os.environ.get(STUCK_VARIABLE)
    if not text:
        return STUCK_US
    seconds = parse_int(text, 10**6)
    if seconds is None or seconds < 1:
        raise InputError(f"expected whole seconds in {STUCK_VARIABLE}, such as 600, got {text[:40]!r}")
    return seconds * 1_000_000


LEAVE_BEHIND_S = 5.0
"""After an error, a thread that does not end within this time is left behind: it sits in a driver."""


def ignore(line: str) -> None:
    """Ignore a note."""


class Supervisor:
    """Supervisor of a run. Single-threaded: the main thread, but for `stop` and `watchdog.working`.

    Args:
        clock: of all times.
        note: gets lines for people.
        service: systemd, or whoever stands for it.
        stop: ends the run from outside; None: one of its own.

    Attributes:
        stop: set when the run is to end; callable from anywhere.
        watchdog: of the stages.
    """

    def __init__(
        self,
        clock: Clock,
        note: Callable[[str], None] = ignore,
        service: ServiceManager | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self.watchdog = Watchdog(clock, note)
        self.service = service or ServiceManager({})
        self._clock = clock
        self._is_stopping = False
        self._polls: tuple[Callable[[], None], ...] = ()

    def listen(self, poll: Callable[[], None]) -> None:
        """Let a function be called with each `poll`; it must be quick, and not raise."""
        self._polls = (*self._polls, poll)

    def tell_stop(self) -> None:
        """Tell the service manager that the run stops, where it was asked to; also after the last turn."""
        if self.stop.is_set() and not self._is_stopping:
            self._is_stopping = True
            self.service.stopping()

    def poll(self, report: RunReport) -> None:
        """Check stages and tell the service manager; called some times a second.

        Raises:
            EngineError: if a stage is stuck.
        """
        self.tell_stop()
        for also in self._polls:
            also()
        if self.watchdog.check() and not self._is_stopping:
            self.service.alive(self._clock.now_us(), f"{report.predictions} predictions")
