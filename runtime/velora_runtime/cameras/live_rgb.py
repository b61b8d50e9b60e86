"""Live RGB camera as a source of the newest frames, on one clock over reconnections."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import RGBFrame
from velora_edge.errors import SourceError
from velora_edge.preprocessing.sources import RGBSource
from velora_edge.preprocessing.windows import pair_rate_hz
from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.feeds import open_first
from velora_runtime.clocks import ClockMap, ContinuousClock
from velora_runtime.ingest.live_stream import STATE_POLL_S
from velora_runtime.pacing import BurstPacer, FramePeriod
from velora_runtime.report import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from velora_edge.clock import Clock
    from velora_runtime.cameras.feeds import LiveSetup, RGBFeed, Shot
    from velora_runtime.ingest.packets import CameraState

ROOM = 8
"""Pictures that wait for whoever iterates, for whom a stall is made up; newer ones take their place."""
MEASURE_FRAMES, MEASURE_US, MEASURE_WAIT_US = 4, 1_000_000, 5_000_000
"""Frames that tell a camera's rate, how long it is looked at, and at most."""
BACK_US = 1_000_000
"""A picture that is earlier than the one before by less came late; by more, the stream began anew."""


class _Slot:
    """Puts times on the pictures and keeps the newest. `begin`, `take`, `end`: the camera's thread."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self.clock_map = ClockMap()
        self.received = self.overrun = self.early = 0
        self.is_finished = self.is_host_clock = self.is_read = False
        self.changed = threading.Condition()
        self.shots: deque[tuple[int, int, Shot]] = deque()
        self._stream_clock = ContinuousClock(self.clock_map, BACK_US)
        self._frame_period, self._pacer = FramePeriod(), BurstPacer()
        self._clock, self._stop = clock, stop

    def begin(self) -> None:
        self._stream_clock.begin()
        self._frame_period.restart()
        self._pacer.begin()

    def take(self, item: Shot, arrived_us: int) -> None:
        t_us = item.t_us
        if t_us is not None and item.clock == "device":
            due_us = self._pacer.due_us(t_us, arrived_us)
            if due_us > arrived_us:
                self._clock.wait_until(due_us, self._stop)
                arrived_us = self._clock.now_us()
        self.is_host_clock = item.clock == "host" or t_us is None
        if t_us is None:
            t_us = self._frame_period.place(arrived_us)
        t_us = self._stream_clock.place(t_us, arrived_us)
        with self.changed:
            self.shots.append((t_us, self.received, item))
            self.received += 1
            if len(self.shots) > ROOM:
                self.shots.popleft()
                self.overrun += self.is_read
                self.early += not self.is_read
            self.changed.notify_all()

    @property
    def is_behind(self) -> bool:
        return self._pacer.holds(self._clock.now_us())

    def hurry(self, hurry: bool) -> None:
        self._pacer.hurries = hurry

    def begin_reading(self) -> None:
        with self.changed:
            self.is_read = True
            while len(self.shots) > 1:  # the run begins with what is seen now
                self.shots.popleft()
                self.early += 1

    def end(self) -> None:
        with self.changed:
            self.is_finished = True
            self.changed.notify_all()


class LiveRGB(RGBSource):
    """Live RGB camera.

    Its times are the camera's own, or the host's where it has none; they go on over outages.

    Single-threaded: whoever iterates; `state`, `overrun` and `clock_map` may be read from any thread.

    Args:
        feed: the camera; opened here.
        setup: how.

    Raises:
        SourceError: if it is not there, or gives no pictures.

    Attributes:
        clock_map: its clock on the host's.
    """

    is_on_event_clock = False
    is_live = True

    def __init__(self, feed: RGBFeed, setup: LiveSetup) -> None:
        if setup.waits:
            raise SourceError("a camera cannot wait", path=feed.name, remedy="leave out --pace max")
        open_first(feed)
        self.name, self.warnings = feed.name, []
        self.width, self.height = feed.size
        self._slot, self._stop, self._clock = _Slot(setup.clock, setup.stop), setup.stop, setup.clock
        self.clock_map = self._slot.clock_map
        self.camera: Camera[Shot] = Camera(feed, self._slot, setup.patience, setup.clock, setup.note)
        self.camera.adopt()

    @property
    def state(self) -> CameraState:
        """What the camera is doing."""
        return self.camera.state

    @property
    def overrun(self) -> int:  # type: ignore[override]
        """Pictures that came while nobody took those before; not those before anybody took any."""
        return self._slot.overrun

    @property
    def is_host_clock(self) -> bool:
        """Whether its times are those of the host's clock, unshifted."""
        return self._slot.is_host_clock and not self._slot._stream_clock.shift_us

    @property
    def is_behind(self) -> bool:
        """Whether buffered frames are still given out, at recorded speed or faster."""
        return self._slot.is_behind

    def start(self, *, hurry: bool) -> None:
        """Start delivery; buffered frames may come much faster than they were taken."""
        self._slot.hurry(hurry)
        self.camera.start()

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames as they come, until the camera or the run ends."""
        self._slot.begin_reading()
        while (found := self._next()) is not None:
            t_us, seq, shot = found
            yield RGBFrame(shot.render(), t_us, seq)

    def measure_rate_hz(self) -> float | None:
        """Frames a second, by the newest of about a second; for a camera that is started and not yet read.

        Blocks for `MEASURE_US`, and for up to `MEASURE_WAIT_US` where frames are slow to come.
        """
        begun_us = self._clock.now_us()
        until_us = begun_us + MEASURE_US
        while not self._stop.is_set():
            self._clock.wait_until(until_us, self._stop)
            with self._slot.changed:
                times_us = np.array([t_us for t_us, _, _ in self._slot.shots], np.int64)
            is_late = self._clock.now_us() - begun_us >= MEASURE_WAIT_US
            if len(times_us) >= MEASURE_FRAMES or is_late or self._slot.is_finished:
                return pair_rate_hz(times_us)
            until_us = self._clock.now_us() + MEASURE_US // 4
        return None

    def times_us(self) -> NDArray[np.int64]:
        """None: they have not come yet."""
        return np.empty(0, np.int64)

    def delivery(self) -> Delivery:
        """What it has delivered so far; callable from any thread."""
        slot = self._slot
        return Delivery(
            {"frames": slot.received},
            {"frames": slot.overrun},
            slot.clock_map.lateness_us,
            slot.clock_map.rate_ppm,
        )

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        slot = self._slot
        frames = {
            "received": slot.received,
            "early": slot.early,
            "overrun": slot.overrun,
            "unread": len(slot.shots),
        }
        return {**self.camera.as_dict(), "frames": frames}

    def close(self) -> None:
        """End the camera's thread and let go of the camera."""
        self._slot.end()
        self.camera.close()

    def _next(self) -> tuple[int, int, Shot] | None:
        slot = self._slot
        while not self._stop.is_set():
            if self.camera.error is not None:
                raise self.camera.error
            with slot.changed:
                if slot.shots:
                    return slot.shots.popleft()
                if slot.is_finished:
                    return None
                slot.changed.wait(STATE_POLL_S)
        return None
