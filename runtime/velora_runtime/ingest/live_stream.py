"""Event stream of a live camera: the packing thread's end of the packet queue."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from velora_edge.datatypes import TriggerBatch
from velora_edge.events.chunk_stream import ChunkStream
from velora_edge.events.formats.raw.raw_walker import WordCursor
from velora_runtime.ingest.packets import CameraState
from velora_runtime.ingest.scanner import restore_place

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_edge.events.base import FrameAccumulator
    from velora_edge.events.chunk_stream import BatchCursor
    from velora_runtime.ingest.event_ingest import EventIngest
    from velora_runtime.ingest.packets import Delivering, EventPacket
    from velora_runtime.queues import PacketQueue

LEAST_GRACE_US, MOST_GRACE_US = 10_000, 250_000
"""How much later than the earliest data may come before a silent sensor's window is closed."""
TELLS_US = 150_000
"""Within this time a store of data shows itself."""
STATE_POLL_S = 0.02
"""How often whoever waits looks at the clock, the camera's state and the end of the run."""


class _Mark(NamedTuple):
    """A place to go back to: a packet, or the gap before the next one."""

    packet: EventPacket | None
    place: Any
    walked: int
    number: int


class LiveStream(ChunkStream):
    """Event stream of a live camera, connected or not.

    Single-threaded: the packing thread; `state` and `now_us` may be asked by any.

    Args:
        camera: gives the packets.
        ingest: made them.
        queue: has those that wait.
        cursor: walks them.
        sensor: width and height, pixels.
        clock: the host's.
        stop: the run is to end.
        is_paced: the stream keeps the pace of the host's clock: a silent sensor's window ends by it.

    Attributes:
        early: events that came before the run was ready, and were left out.
    """

    is_live = True

    def __init__(
        self,
        camera: Delivering,
        ingest: EventIngest,
        queue: PacketQueue[EventPacket],
        cursor: WordCursor | BatchCursor,
        sensor: tuple[int, int],
        clock: Clock,
        stop: threading.Event,
        *,
        is_paced: bool,
    ) -> None:
        super().__init__(cursor)
        self.width, self.height = sensor
        self._camera, self._ingest, self._queue, self._packets = camera, ingest, queue, cursor
        self._clock, self._stop, self._is_paced = clock, stop, is_paced
        self._packet: EventPacket | None = None
        self._number = -1
        self._asked_us = self.early = 0
        self._edges: list[TriggerBatch] = []
        self._mark: _Mark | None = None
        self._since: list[EventPacket] = []
        self._again: deque[EventPacket] = deque()

    @property
    def state(self) -> CameraState:
        """What the camera is doing."""
        return self._camera.state

    @property
    def shift_us(self) -> int:  # type: ignore[override]
        """What to add to the camera's times to get the stream's, where the next events stand."""
        packet = self._peek() if self._cursor.is_used_up else self._packet
        return 0 if packet is None else packet.shift_us

    @property
    def t_next_us(self) -> int | None:
        """Time of the stream's first packet; None once the camera has ended and all is walked over."""
        if self._queue.is_finished:
            is_read = self._cursor.is_used_up and self._peek() is None
            if is_read or (self._queue.reached_us is not None and self._asked_us >= self._queue.reached_us):
                return None
        return self._ingest.first_us

    def now_us(self) -> int | None:
        """The stream's time at this moment, by the host's clock; None before the first data."""
        clock_map = self._ingest.clock_map
        return clock_map.to_device_us(self._clock.now_us()) if clock_map.is_known else None

    @property
    def unread(self) -> int:
        """Events that came and were not walked over; for the end of the run."""
        is_begun = self._packet is not None and not self._cursor.is_used_up
        begun = self._packet.events - self._walked if is_begun and self._packet is not None else 0
        return begun + sum(packet.events for packet in self._again) + self._queue.events

    def await_first(self, seconds: float) -> bool:
        """Wait for the first data, at most `seconds`; return whether there is any."""
        until_us = self._clock.now_us() + round(seconds * 1e6)
        while self._ingest.first_us is None and not self._is_over() and self._clock.now_us() < until_us:
            self._queue.wait(STATE_POLL_S, None)
            self._raise_error()
        return self._ingest.first_us is not None

    def catch_up(self, seconds: float, is_behind: Callable[[], bool]) -> None:
        """Wait, at most `seconds`, until data that cameras had buffered at the start has come."""
        began_us = self._clock.now_us()
        until_us = began_us + round(seconds * 1e6)
        while not self._is_over() and (now_us := self._clock.now_us()) < until_us:
            if now_us - began_us > TELLS_US and not is_behind():
                return
            self._queue.wait(STATE_POLL_S, self._queue.reached_us)
            self._raise_error()

    def begin_now(self) -> None:
        """Drop packets that came before the run was ready."""
        reached_us = self._queue.reached_us
        while (packet := self._queue.get()) is not None and reached_us is not None:
            self.early += packet.events
            self._ingest.first_us = reached_us = packet.t_reached_us

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Wait until all events of [t0, t1) have come, or will not; return whether the camera was connected.

        Raises:
            VeloraError: whatever ended the camera's thread.
        """
        self._asked_us = t0_us
        while True:
            seen_us = self._queue.reached_us
            if (verdict := self.judge_window(t0_us, t1_us, self._clock.now_us())) is not None:
                return verdict
            if meanwhile is not None:
                meanwhile()
            self._queue.wait(STATE_POLL_S, seen_us)
            self._raise_error()

    def judge_window(self, t0_us: int, t1_us: int, now_us: int) -> bool | None:
        """Whether the camera was connected in [t0, t1); None while its events may still come."""
        reached_us = self._queue.reached_us
        if (reached_us is not None and reached_us >= t1_us) or self._is_over():
            return self._ingest.covers(t0_us, t1_us)
        if not self._is_paced:
            return None
        clock_map = self._ingest.clock_map
        if not clock_map.is_known:
            return False if self._camera.state is CameraState.LOST else None
        is_there = self._camera.is_delivering
        grace_us = max(LEAST_GRACE_US, min(2 * clock_map.lateness_us, MOST_GRACE_US)) if is_there else 0
        if now_us < clock_map.to_host_us(t1_us) + grace_us:
            return None
        return is_there or self._ingest.covers(t0_us, t1_us)

    @property
    def reached_us(self) -> int | None:
        """All events before this time are here, or will not come; None before the first data."""
        return self._queue.reached_us

    def checkpoint(self) -> None:
        """Set a checkpoint here: packets from here on are kept."""
        self._since.clear()
        self._mark = _Mark(self._packet, self._packets.place(), self._walked, self._number)

    def rollback(self) -> None:
        """Return to the checkpoint and forget it; the listener gets nothing twice."""
        assert self._mark is not None
        self._packet, place, self._walked, self._number = self._mark
        self._again.extendleft(reversed(self._since))
        self._packets.return_to(None if self._packet is None else self._packet.chunk, place)
        self.commit()

    def commit(self) -> None:
        """Forget the checkpoint."""
        self._mark = None
        self._since.clear()

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels, so that the first real window is not slower; the frame is left empty."""
        self._packets.warm_up(frame)

    def close(self) -> None:
        """End the camera's thread and let go of the device."""
        self._queue.finish()
        self._camera.close()

    def _load(self) -> bool:
        while self._cursor.is_used_up:
            is_new = not self._again
            packet = self._queue.get() if is_new else self._again.popleft()
            if packet is None:
                return False
            self._begin(packet, is_new=is_new)
        return True

    def _begin(self, packet: EventPacket, *, is_new: bool) -> None:
        """Load a packet; the listener gets it once."""
        tap = self._tap if is_new else None
        if packet.number != self._number + 1:
            if packet.before is not None and isinstance(self._packets, WordCursor):
                restore_place(self._packets.walker.state, packet.before)
            if tap is not None:
                tap.begin(packet.shift_us)
        self._packets.load(packet.chunk, tap)
        self._packet, self._number, self._walked = packet, packet.number, 0
        if self._mark is not None:
            self._since.append(packet)
        if is_new and len(packet.edges):
            self._edges.append(packet.edges)
            del self._edges[:-64]

    def _take_edges(self) -> TriggerBatch:
        """Edges of the packets that were begun since the last call."""
        taken = TriggerBatch.concatenate(self._edges)
        self._edges.clear()
        return taken

    def _peek(self) -> EventPacket | None:
        return self._again[0] if self._again else self._queue.peek()

    def _is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._queue.is_finished or self._stop.is_set()

    def _raise_error(self) -> None:
        if self._camera.error is not None:
            raise self._camera.error
