"""Thread of a live camera: connects, reads, watches for silence, reconnects.

connecting --> live <--> stalled --> lost --> connecting ...
                 |                     |
                 +------> ended <------+
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from velora_edge.console import RateLimitedNotes
from velora_edge.errors import CameraError, InputError
from velora_runtime.cameras.feeds import FeedEndError
from velora_runtime.ingest.packets import CameraState

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_runtime.cameras.feeds import Feed, Patience
    from velora_runtime.report import RunReport


T_contra = TypeVar("T_contra", contravariant=True)
T = TypeVar("T")

FIRST_WAIT_US, LONGEST_WAIT_US = 250_000, 8_000_000
"""Between attempts; each wait is twice the one before."""
CLOSE_WAIT_S = 2.0
"""A thread that sits in a driver for longer is left behind when the run ends."""


@dataclass(slots=True)
class CameraCounts:
    """Counts of connections and outages; written by the camera's thread.

    Attributes:
        connections: that were made.
        outages: times that it was lost.
        lost_us: time without a connection, of the outages that are over.
        reasons: the last error of each kind, with how often it came.
    """

    connections: int = 0
    outages: int = 0
    lost_us: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class Consumer(Protocol[T_contra]):
    """Receiver of a camera's items. Called by the camera's thread alone."""

    def begin(self) -> None:
        """Begin a connection: what comes now need not continue what came before."""

    def take(self, item: T_contra, arrived_us: int) -> None:
        """Take an item that arrived at this time of the host's clock."""

    def end(self) -> None:
        """End: nothing more will come."""


class Camera(Generic[T]):
    """Live camera: a feed and its thread.

    `state` and `counts` may be read from any thread; `adopt`, `start` and `close` are the main thread's.

    Args:
        feed: the device.
        consumer: gets what comes.
        patience: with its silence.
        clock: the host's.
        note: gets a line when it is lost and when it is back, at most once a minute; `counts` has all.
            Called by the camera's thread.
    """

    def __init__(
        self,
        feed: Feed[T],
        consumer: Consumer[T],
        patience: Patience,
        clock: Clock,
        note: Callable[[str], None],
    ) -> None:
        self.counts = CameraCounts()
        self.error: BaseException | None = None
        self._feed, self._consumer, self._patience = feed, consumer, patience
        self._clock, self._note = clock, note
        self._rare, self._is_told, self._why = RateLimitedNotes(note, clock.now_us), False, ""
        self._is_open = self._has_ended = self._has_given = False
        self._heard_us = clock.now_us()
        self._lost_us: int | None = None
        self._retry_us, self._wait_us = 0, FIRST_WAIT_US
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Name that the user gave."""
        return self._feed.name

    @property
    def state(self) -> CameraState:
        """State of the camera."""
        if self._has_ended:
            return CameraState.ENDED
        if self._lost_us is not None:
            return CameraState.LOST
        if not self._is_open or not self._has_given:
            return CameraState.CONNECTING
        is_late = self._clock.now_us() - self._heard_us >= self._patience.stalled_us
        return CameraState.STALLED if is_late else CameraState.LIVE

    @property
    def is_delivering(self) -> bool:
        """Whether it is connected and delivers."""
        return self.state is CameraState.LIVE

    def adopt(self) -> None:
        """Take over the feed, which is open: no run begins with a camera that is not there."""
        self._greet()

    def start(self) -> None:
        """Start the thread."""
        self._heard_us = self._clock.now_us()
        self._thread = threading.Thread(target=self._run, name=f"camera {self.name}", daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """Do one turn of the thread's loop; return False at the end of the camera."""
        if not self._is_open:
            return self._try_again()
        try:
            item = self._feed.read()
        except CameraError as error:
            return self._lose(error)
        except FeedEndError:
            return self._finish()
        now_us = self._clock.now_us()
        if item is None:
            return self._endure_silence(now_us)
        self._heard_us = now_us
        if self._lost_us is not None or not self._has_given:
            self._welcome(now_us)
        self._consumer.take(item, now_us)
        return True

    def close(self) -> None:
        """End the thread and let go of the device."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_WAIT_S)
            if self._thread.is_alive():
                return  # it sits in a driver, and the feed is its alone
        self._feed.close()

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        counts = self.counts
        return {
            "state": self.state.value,
            "connections": counts.connections,
            "outages": counts.outages,
            "lost_s": round(counts.lost_us / 1e6, 3),
            "reasons": dict(counts.reasons),
        }

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.step():
                pass
        except BaseException as error:  # whoever waits for this camera raises it
            self.error = error
        finally:
            self._has_ended = True
            self._consumer.end()

    def _greet(self) -> None:
        self._is_open = True
        self.counts.connections += 1
        self._heard_us = self._clock.now_us()
        self._consumer.begin()

    def _try_again(self) -> bool:
        now_us = self._clock.now_us()
        assert self._lost_us is not None
        self._tell_loss()
        retry_us = self._patience.retry_us
        if not self._feed.comes_back or (retry_us is not None and now_us - self._lost_us >= retry_us):
            self._note(f"{self.name}: given up")
            return self._finish()
        if now_us < self._retry_us:
            self._clock.wait_until(min(self._retry_us, now_us + 100_000), self._stop)
            return True
        try:
            self._feed.open()
        except (CameraError, InputError) as error:
            self._count(error)
            self._feed.close()
            self._plan_retry()
        else:
            self._greet()
        return True

    def _lose(self, error: CameraError) -> bool:
        self._count(error)
        self._feed.close()
        self._is_open = False
        if self._lost_us is None:
            self._lost_us = self._clock.now_us()
            self._wait_us = FIRST_WAIT_US
            self.counts.outages += 1
            self._why, self._is_told = str(error), False
            self._tell_loss()
        self._plan_retry()
        return True

    def _tell_loss(self) -> None:
        """At once, or where another loss was told within the last minute, once that is over."""
        if self._is_told or not self._rare.is_due("lost"):
            return
        number = self.counts.outages
        self._is_told = self._rare(
            "lost", f"{self.name}: lost{f' (outage {number})' * (number > 1)}: {self._why}"
        )

    def _welcome(self, now_us: int) -> None:
        """Count the outage as over, with the first item after a connection."""
        self._has_given = True
        if self._lost_us is not None:
            away_us = now_us - self._lost_us
            self.counts.lost_us += away_us
            self._lost_us = None
            if self._is_told:
                self._note(f"{self.name}: back after {away_us / 1e6:.1f} s")

    def _endure_silence(self, now_us: int) -> bool:
        if self._feed.may_be_silent or now_us - self._heard_us < self._patience.lost_us:
            return True
        return self._lose(CameraError(f"nothing came for {(now_us - self._heard_us) / 1e6:.1f} s"))

    def _finish(self) -> bool:
        if self._lost_us is not None:
            self.counts.lost_us += self._clock.now_us() - self._lost_us
            self._lost_us = None
        self._has_ended = True
        return False

    def _plan_retry(self) -> None:
        self._retry_us = self._clock.now_us() + self._wait_us
        self._wait_us = min(2 * self._wait_us, LONGEST_WAIT_US)

    def _count(self, error: BaseException) -> None:
        reason = str(error)
        if reason in self.counts.reasons or len(self.counts.reasons) < 8:
            self.counts.reasons[reason] = self.counts.reasons.get(reason, 0) + 1


STALLED_S = 2.0


class CameraStates:
    """States of a run's cameras by name. Callable from any thread, by one at a time.

    Args:
        report: of the run.
        rgb: the RGB source, None where there is none.
        events: the event stream, likewise.
        now_s: a monotonic clock.
    """

    def __init__(
        self,
        report: RunReport,
        rgb: object | None,
        events: object | None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        pairs = report.pairs
        self._now_s = now_s
        self._cameras = {
            "rgb": (rgb, _Flow(lambda: report.frames.read)),
            "event": (events, _Flow(lambda: pairs.packed - pairs.without_events)),
        }

    def __call__(self) -> dict[str, str]:
        """State by camera: none, starting, live, stalled, or the source's own."""
        now_s = self._now_s()
        return {camera: _state(source, flow, now_s) for camera, (source, flow) in self._cameras.items()}


class _Flow:
    """Whether a count has grown lately."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count, self._last, self._grew_s = count, 0, float("-inf")

    def state(self, now_s: float) -> str:
        n = self._count()
        if n != self._last:
            self._last, self._grew_s = n, now_s
        if not n:
            return "starting"
        return "live" if now_s - self._grew_s <= STALLED_S else "stalled"


def _state(source: object | None, flow: _Flow, now_s: float) -> str:
    if source is None:
        return "none"
    said = getattr(source, "state", None)
    return str(getattr(said, "value", said)) if said is not None else flow.state(now_s)
