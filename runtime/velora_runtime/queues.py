"""Bounded queues and free lists between threads.

Every queue of a run, what becomes of an item without room at pace `realtime` (at pace `max` whoever puts
waits for room, in all of them), and the field of the summary that counts it:

    in it                 from -> to                 class        room        without room   counted by
    packets of events     event camera -> packing    PacketQueue  64 MB       oldest go      dropped.overrun
    pictures              RGB camera -> RGB thread   (live_rgb)   8           oldest goes    frames.overrun
    PairRequest           RGB thread -> packing      Channel      32          lenient        frames.dropped
    Pair                  packing -> inference       Channel      32          lenient        pairs.dropped
    items of one sink     inference -> the sink      Channel      the sink's  oldest goes    sink_drops
    pieces to be written  all of them -> recorder    ByteQueue    256 MB      new one goes   the recording

Provisional `PairRequest`s and `Pair`s go the same ways, one at most, and make room for any other: counted by
`provisional.left_out`.
"""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from velora_edge.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.clock import Clock


T = TypeVar("T")
KEPT = 8


class FreeList(Generic[T]):
    """Pool of items to use again; makes a new one only where none was given back.

    Callable from any thread.

    Args:
        make: makes one.
        kept: that many at most are kept for later; after a stall, when more were in use, the rest is freed.

    Attributes:
        made: in all.
        freed: in all.
    """

    def __init__(self, make: Callable[[], T], kept: int = KEPT) -> None:
        self._make = make
        self._free: deque[T] = deque(maxlen=kept)
        self.made = self.freed = 0

    def take(self) -> T:
        """Take an unused item; what it holds is left over from its last use."""
        try:
            return self._free.pop()
        except IndexError:
            self.made += 1
            return self._make()

    def give(self, item: T) -> None:
        """Give an item back."""
        self.freed += len(self._free) == self._free.maxlen
        self._free.append(item)


FullPolicy = Literal["wait", "newest", "lenient"]
"""What becomes of an item without room.

`wait`: who puts waits for room, nothing is lost. `newest`: the oldest item makes room and comes back.
`lenient`: like that, but the room is there for a stall only. While whoever takes has time to spare, so much
may wait, and nothing is lost; where it is too slow all the time, only the newest item waits, or all would
come late by a full channel (the idea of CoDel, RFC 8289).
"""
SPARE_SHARE, MOST_SPARE_US = 0.05, 200_000
"""Who takes has time to spare if it waits for items a twentieth of the time; without, it is given 4 s."""


class ClosedError(Exception):
    """The channel was aborted: nothing more goes in or comes out. Ends a thread; never reaches a user."""


class Channel(Generic[T]):
    """Queue with room for a fixed number of items.

    Callable from any thread; made for one that puts and one that takes.

    Args:
        room: items that fit.
        when_full: what `put` does without room.
        is_excused: whoever takes waits for something else just now, and is not slow.
        clock: of the time that is spared; the system's own by default.
    """

    def __init__(
        self,
        room: int,
        when_full: FullPolicy,
        is_excused: Callable[[], bool] = lambda: False,
        clock: Clock | None = None,
    ) -> None:
        if room < 1:
            raise ValueError(f"expected room for at least 1 item, got {room}")
        self._room, self._when_full = room, when_full
        self._items: deque[T] = deque()
        self._offered: T | None = None
        self._is_excused, self._clock = is_excused, clock or SystemClock()
        self._spare_us, self._put_us = float(MOST_SPARE_US), self._clock.now_us()
        self._waits_since_us: int | None = None
        self._is_finished = self._is_aborted = False
        self._changed = Condition()

    def put(self, item: T) -> list[T]:
        """Add an item; blocks for room under `wait`.

        Returns:
            The items that were dropped for it, oldest first.

        Raises:
            ClosedError: if the channel was aborted.
        """
        with self._changed:
            if self._when_full == "wait":
                self._changed.wait_for(lambda: len(self._items) < self._room or self._is_aborted)
            if self._is_aborted:
                raise ClosedError
            room = self._room if self._when_full != "lenient" or self._is_stall() else 1
            dropped = [self._items.popleft() for _ in range(len(self._items) - room + 1)]
            if self._offered is not None:
                dropped.append(self._offered)
                self._offered = None
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def offer(self, item: T) -> list[T]:
        """Add an item that makes room for any other, at no cost to them; under `wait` it is as good as any.

        Time that the consumer spends on it counts as spare.

        Returns:
            What was dropped: the item itself while others wait, else one that was offered before.

        Raises:
            ClosedError: if the channel was aborted.
        """
        if self._when_full == "wait":
            return self.put(item)
        with self._changed:
            if self._is_aborted:
                raise ClosedError
            if self._items:
                return [item]
            dropped = [] if self._offered is None else [self._offered]
            self._offered = item
            self._changed.notify_all()
            return dropped

    def _is_stall(self) -> bool:
        """Whether the queue is filled by a stall, not by overload: the consumer had idle time lately."""
        now_us = self._clock.now_us()
        waited_us = 0 if self._waits_since_us is None else now_us - self._waits_since_us
        passed_us, self._put_us, self._waits_since_us = now_us - self._put_us, now_us, None
        if self._items and self._is_excused():
            return True
        spare_us = self._spare_us + waited_us - SPARE_SHARE * passed_us
        self._spare_us = max(0.0, min(spare_us, MOST_SPARE_US))
        return self._spare_us > 0

    def get(self) -> T | None:
        """Take the oldest item; blocks until there is one. None: finished, and nothing is left.

        Raises:
            ClosedError: if the channel was aborted.
        """
        return self.get_within(None)

    def get_within(self, seconds: float | None) -> T | None:
        """Take the oldest item; None if there is none within that time, or ever (`is_over`).

        Args:
            seconds: to wait for one at most; None: as long as it takes.

        Raises:
            ClosedError: if the channel was aborted.
        """
        with self._changed:
            if not self._items and self._waits_since_us is None:
                self._waits_since_us = self._clock.now_us()
            self._changed.wait_for(self._has_any, seconds)
            if self._is_aborted:
                raise ClosedError
            if not self._items:
                item, self._offered = self._offered, None
                return item
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def _has_any(self) -> bool:
        """Whether whoever takes has waited for long enough."""
        return bool(self._items) or self._offered is not None or self._is_finished or self._is_aborted

    @property
    def is_over(self) -> bool:
        """Whether it is empty and nothing more will be put."""
        with self._changed:
            is_empty = not self._items and self._offered is None
            return self._is_aborted or (self._is_finished and is_empty)

    def finish(self) -> None:
        """Say that nothing more will be put; what is in it can still be taken."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Throw away what is in it and wake whoever waits, with ClosedError."""
        with self._changed:
            self._is_aborted = True
            self._items.clear()
            self._offered = None
            self._changed.notify_all()


class ByteQueue(Generic[T]):
    """Queue bounded in bytes. Callable from any thread; made for one that takes.

    Args:
        room_bytes: that may wait; one item always may, whatever its size, and what has none.
        waits: whether who puts waits for room; otherwise what finds none is not taken.
    """

    def __init__(self, room_bytes: int, *, waits: bool) -> None:
        self._room_bytes, self._waits = room_bytes, waits
        self._items: deque[tuple[T, int]] = deque()
        self._held_bytes = 0
        self._is_finished = False
        self._changed = Condition()

    def put(self, item: T, n_bytes: int) -> bool:
        """Add an item; return whether it was taken. None is once the queue is finished."""
        with self._changed:
            if self._waits:
                self._changed.wait_for(lambda: self._is_finished or self._fits(n_bytes))
            if self._is_finished or not self._fits(n_bytes):
                return False
            self._items.append((item, n_bytes))
            self._held_bytes += n_bytes
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """Take the oldest item; blocks until there is one. None: finished, and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_finished)
            if not self._items:
                return None
            item, n_bytes = self._items.popleft()
            self._held_bytes -= n_bytes
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Say that nothing more will be put; what waits can still be taken."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def _fits(self, n_bytes: int) -> bool:
        return not (n_bytes and self._items) or self._held_bytes + n_bytes <= self._room_bytes


class Packet(Protocol):
    """Item of a packet queue; see `velora_runtime.ingest.packets.EventPacket`."""

    @property
    def events(self) -> int:
        """Number of events in it."""

    @property
    def t_reached_us(self) -> int:
        """No event that comes later is before this time."""

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""


AnyPacket = TypeVar("AnyPacket", bound=Packet)


class PacketQueue(Generic[AnyPacket]):
    """Queue of event packets, bounded in bytes. One thread puts, one takes.

    Args:
        room_bytes: of the packets that wait.
        waits: without room, `put` waits; otherwise the oldest packets make room.
    """

    def __init__(self, room_bytes: int, *, waits: bool) -> None:
        self.reached_us: int | None = None
        """No event that is put later is before this time."""
        self._room_bytes, self._waits = room_bytes, waits
        self._packets: deque[AnyPacket] = deque()
        self._bytes = 0
        self._is_finished = False
        self._changed = Condition()

    @property
    def events(self) -> int:
        """Events that wait in it."""
        with self._changed:
            return sum(packet.events for packet in self._packets)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be put."""
        return self._is_finished

    def put(self, packet: AnyPacket) -> int:
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
            self.reached_us = packet.t_reached_us
            self._changed.notify_all()
        return dropped

    def pass_over(self, reached_us: int) -> None:
        """Say that the stream has reached a time, without a packet."""
        with self._changed:
            self.reached_us = reached_us
            self._changed.notify_all()

    def peek(self) -> AnyPacket | None:
        """The oldest packet, which stays; None if there is none."""
        with self._changed:
            return self._packets[0] if self._packets else None

    def get(self) -> AnyPacket | None:
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

    def _has_room(self, packet: AnyPacket) -> bool:
        return not self._packets or self._bytes + packet.n_bytes <= self._room_bytes
