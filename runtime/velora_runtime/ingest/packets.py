"""What an event camera's thread hands to the packing thread, and the bounded queue between them."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, TriggerBatch


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
