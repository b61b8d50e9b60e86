"""Packets of events, from the camera's thread to the packing thread, and cursors over them."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import RawWalker, WalkerPlace, new_arrays, take_batch
from velora_edge.events.kernels import _array_kernels as kernels
from velora_edge.events.kernels._sink_kernels import CountSink, FrameSink
from velora_runtime.ingest.scanner import restore_place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.events.base import Encoding, EventTap, FrameAccumulator


class CameraState(str, Enum):
    """What a camera is doing."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    LOST = "lost"
    ENDED = "ended"


class Delivering(Protocol):
    """A camera, for whoever takes what it delivers; see `velora_runtime.cameras.camera.Camera`."""

    error: BaseException | None
    """What ended its thread; whoever waits for the camera raises it."""

    @property
    def state(self) -> CameraState:
        """What it is doing."""

    @property
    def is_delivering(self) -> bool:
        """What it sees can be counted on."""

    def close(self) -> None:
        """End the thread and let go of the device."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Events as a camera's own library decoded them.

    Attributes:
        batch: in time order, the camera's times; inside the sensor.
        edges: of its trigger inputs, in time order.
        reached_us: the camera's time that all of it is before or at.
    """

    batch: EventBatch
    edges: TriggerBatch
    reached_us: int


@dataclass(frozen=True, slots=True)
class EventPacket:
    """Consecutive events of one connection, times on the stream's clock but for those within `words`.

    Attributes:
        number: of the packet, without gaps as the camera's thread makes them.
        reached_us: no event that comes later is before this time.
        events: in it.
        edges: trigger edges in it.
        shift_us: what to add to the times of `words`.
        words: whole raw words, or None.
        before: where the decoder stands before them.
        batch: events where there are no words.
    """

    number: int
    reached_us: int
    events: int
    edges: TriggerBatch
    shift_us: int = 0
    words: bytes | None = None
    before: NDArray[Any] | None = None
    batch: EventBatch | None = None

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        n = 200 + 10 * len(self.edges)
        return n + (len(self.words) if self.words is not None else 13 * self.events)


@dataclass(slots=True)
class EventCounts:
    """What became of the events before they were walked; written by the camera's thread.

    Attributes:
        received: events that came, those of garbage not counted.
        bytes: raw bytes that came.
        dropped: events by cause: overrun (the packing thread was too slow), rate_cap, clock (the packet in
            which the camera's clock was set).
        garbage_bytes: raw bytes that were no events.
        resyncs: times that words were found again at another byte.
    """

    received: int = 0
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"overrun": 0, "rate_cap": 0, "clock": 0})
    garbage_bytes: int = 0
    resyncs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "received": self.received,
            "bytes": self.bytes,
            "dropped": dict(self.dropped),
            "garbage_bytes": self.garbage_bytes,
            "resyncs": self.resyncs,
        }


class PacketQueue:
    """Parcels in order, with room for so many bytes. One thread puts, one takes.

    Args:
        room_bytes: of the packets that wait.
        waits: without room, `put` waits; otherwise the oldest packets make room.
    """

    def __init__(self, room_bytes: int, *, waits: bool) -> None:
        self.reached_us: int | None = None
        """No event that is put later is before this time."""
        self._room_bytes, self._waits = room_bytes, waits
        self._packets: deque[EventPacket] = deque()
        self._bytes = 0
        self._is_finished = False
        self._changed = threading.Condition()

    @property
    def events(self) -> int:
        """Events that wait in it."""
        with self._changed:
            return sum(packet.events for packet in self._packets)

    @property
    def is_finished(self) -> bool:
        """Nothing more will be put."""
        return self._is_finished

    def put(self, packet: EventPacket) -> int:
        """Add a packet; return how many events were dropped to make room for it."""
        dropped = 0
        with self._changed:
            if self._waits:
                self._changed.wait_for(lambda: self._has_room(packet) or self._is_finished)
            while not self._has_room(packet):
                oldest = self._packets.popleft()
                self._bytes -= oldest.n_bytes
                dropped += oldest.events
            self._packets.append(packet)
            self._bytes += packet.n_bytes
            self.reached_us = packet.reached_us
            self._changed.notify_all()
        return dropped

    def pass_over(self, reached_us: int) -> None:
        """Say that the stream has reached a time, without a packet."""
        with self._changed:
            self.reached_us = reached_us
            self._changed.notify_all()

    def peek(self) -> EventPacket | None:
        """The oldest packet, which stays; None if there is none."""
        with self._changed:
            return self._packets[0] if self._packets else None

    def get(self) -> EventPacket | None:
        """Take the oldest packet; None if there is none."""
        with self._changed:
            if not self._packets:
                return None
            packet = self._packets.popleft()
            self._bytes -= packet.n_bytes
            self._changed.notify_all()
            return packet

    def wait(self, seconds: float, seen_us: int | None) -> None:
        """Return once it has reached another time than the caller saw, or is finished, or after this long."""
        with self._changed:
            self._changed.wait_for(lambda: self.reached_us != seen_us or self._is_finished, seconds)

    def finish(self) -> None:
        """Say that nothing more will be put, and wake whoever waits."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def _has_room(self, packet: EventPacket) -> bool:
        return not self._packets or self._bytes + packet.n_bytes <= self._room_bytes


HARMLESS = {"EVT2": b"\0\0\0\xe0", "EVT2.1": bytes(8), "EVT3": b"\0\xe0"}
"""Words that say nothing, to load the kernels with."""


class Walk(Protocol):
    """Walks the packet that it was given.

    Attributes:
        tap: gets the words, or the events, before they are walked.
    """

    tap: EventTap | None

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before a packet.

        Args:
            packet: is walked next.
            follows: it comes right after the one before.
            is_new: the tap has not had it.
        """

    def place(self) -> Any:
        """Where it stands, for `return_to`."""

    def return_to(self, packet: EventPacket | None, place: Any) -> None:
        """Stand where it stood, in that packet, or between two."""

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """About `most` events before `t1_us`, and whether any are left."""

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels; nothing is walked, and the frame is left empty."""


class WordCursor:
    """Raw words, straight into frames; times are the camera's."""

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool) -> None:
        self.walker = RawWalker(encoding, sensor, is_legacy)
        self.tap: EventTap | None = None

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before the packet's words."""
        words, before = packet.words, packet.before
        assert words is not None
        assert before is not None
        if not follows:
            restore_place(self.walker.state, before)
            if is_new and self.tap is not None:
                self.tap.begin(packet.shift_us)
        self._fill(words, is_new=is_new)
        self.walker.take_triggers()  # the camera's thread has found them

    def place(self) -> WalkerPlace:
        """Where it stands, for `return_to`."""
        return self.walker.place()

    def return_to(self, packet: EventPacket | None, place: WalkerPlace) -> None:
        """Stand where it stood, in that packet, or between two."""
        if packet is not None and packet.words is not None:
            self._fill(packet.words, is_new=False)
        self.walker.return_to(place)

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""
        is_left = self.walker.walk(t1_us, CountSink())
        return self.walker.walked, is_left

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""
        self.walker.state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, FrameSink(frame.table, frame.state))
        frame.events += int(self.walker.state[s.PLACED])
        return self.walker.walked, is_left

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """About `most` events before `t1_us`, and whether any are left."""
        arrays = new_arrays(most)
        self.walker.state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, arrays)
        return take_batch(arrays, int(self.walker.state[s.PLACED])), is_left

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels by walking a word that says nothing."""
        other = WordCursor(self.walker.encoding, self.walker.sensor, self.walker.is_legacy)
        other._fill(HARMLESS[self.walker.encoding])
        other.count(1)
        other._fill(HARMLESS[self.walker.encoding])
        other.accumulate(1, frame)
        other._fill(HARMLESS[self.walker.encoding])
        other.read(1, 1)

    def _fill(self, words: bytes, *, is_new: bool = True) -> None:
        def read_into(memory: memoryview) -> int:
            memory[: len(words)] = words
            return len(words)

        self.walker.tap = self.tap if is_new else None
        self.walker.fill(read_into)


class BatchCursor:
    """Decoded events, into frames; times are the stream's."""

    def __init__(self) -> None:
        self.tap: EventTap | None = None
        self._packet: EventPacket | None = None
        self._position = 0
        self._counts = np.zeros(1, np.int64)

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before the packet's events."""
        self._packet, self._position = packet, 0
        if is_new and self.tap is not None and packet.batch is not None and len(packet.batch):
            if not follows:
                self.tap.begin(0)
            self.tap.take_batch(packet.batch)

    def place(self) -> int:
        """Where it stands, for `return_to`."""
        return self._position

    def return_to(self, packet: EventPacket | None, place: int) -> None:
        """Stand where it stood, in that packet, or between two."""
        self._packet, self._position = packet, place

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""
        batch, start = self._batch(), self._position
        self._position = int(kernels.find_end(batch.t_us, start, t1_us))
        return self._position - start, self._position < len(batch)

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""
        batch, start = self._batch(), self._position
        self._counts[0] = 0
        self._position = int(
            kernels.accumulate_arrays(
                batch.t_us, batch.x, batch.y, batch.p, start, t1_us, frame.table, frame.state, self._counts
            )
        )
        frame.events += int(self._counts[0])
        return self._position - start, self._position < len(batch)

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """At most `most` events before `t1_us`, and whether any are left."""
        batch, start = self._batch(), self._position
        self._position = int(kernels.find_end(batch.t_us[: start + most], start, t1_us))
        return batch[start : self._position], self._position < len(batch)

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels by walking no events."""
        other = BatchCursor()
        other.load(EventPacket(0, 0, 0, TriggerBatch.empty(), batch=EventBatch.empty()), follows=True)
        other.count(1)
        other.accumulate(1, frame)
        other.read(1, 1)

    def _batch(self) -> EventBatch:
        assert self._packet is not None
        assert self._packet.batch is not None
        return self._packet.batch
