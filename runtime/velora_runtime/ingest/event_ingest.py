"""Ingest stage of an event camera: packets on one clock, counted, capped, queued."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from velora_edge.console import RateLimitedNotes
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_runtime.clocks import LEAP_US, ClockMap, ContinuousClock
from velora_runtime.ingest.packets import EventCounts, EventPacket, Gap
from velora_runtime.ingest.scanner import LEAST_BYTES, MOST_BYTES, RawScanner
from velora_runtime.pacing import BurstPacer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_runtime.ingest.packets import Decoded
    from velora_runtime.ingest.scanner import Scan
    from velora_runtime.queues import PacketQueue


BURST_US = 100_000
"""A burst may use up what this much time allows."""


class PacketRateCap:
    """Cap on the event rate, packet by packet. Single-threaded: the camera's thread.

    Args:
        events_per_s: the cap; None for none.
    """

    def __init__(self, events_per_s: float | None) -> None:
        self._per_us = None if events_per_s is None else events_per_s / 1e6
        self._room = 0.0 if self._per_us is None else self._per_us * BURST_US
        self._at_us: int | None = None

    def allows(self, events: int, reached_us: int) -> bool:
        """Whether a packet of `events`, up to the time `reached_us`, is within the cap."""
        if self._per_us is None:
            return True
        passed_us = 0 if self._at_us is None else max(0, reached_us - self._at_us)
        self._at_us = reached_us
        self._room = min(self._room + passed_us * self._per_us, BURST_US * self._per_us)
        if self._room < 0:
            return False
        self._room -= events  # may go below 0: a packet is taken whole, and the next ones wait for it
        return True


BACK_US = 10_000
"""Words may come out of order by so much; further back, a clock was set."""
SMOOTH_US = 5_000
"""A stream that is held back comes in pieces of about this duration."""
LONG_US = 100_000
"""Bytes that cover more than this are looked at in parts."""
YOUNG_US, FIRST_BYTES = 1_000_000, 4096
"""A new connection is looked at in such pieces, too, to see at once if it is to be held back."""
SPANS = 64
"""Times of presence that are remembered."""


class Span(NamedTuple):
    """A time without a gap in the connection, stream clock."""

    begin_us: int
    end_us: int


class EdgeListener(Protocol):
    """Gets trigger edges as soon as they come; called by the camera's thread."""

    def add_edges(self, edges: TriggerBatch, reached_us: int) -> None:
        """Take edges, on the stream's clock, and the time that it has reached."""


class EventIngest:
    """Ingest stage of the camera's thread, which alone calls `take`, `begin` and `end`.

    Args:
        queue: to the packing thread.
        scanner: where raw words come; None where the camera's library decodes.
        cap: on events a second.
        clock: the host's.
        stop: ends waiting.
        is_paced: the stream keeps the pace of the host's clock; otherwise it is as fast as its reader.
        note: gets a line about what is odd.
    """

    def __init__(
        self,
        queue: PacketQueue[EventPacket],
        scanner: RawScanner | None,
        cap: PacketRateCap,
        clock: Clock,
        stop: threading.Event,
        *,
        is_paced: bool,
        note: Callable[[str], None],
    ) -> None:
        self.counts = EventCounts()
        self.clock_map = ClockMap()
        self.first_us: int | None = None
        """Time of the first packet's beginning."""
        self.spans: deque[Span] = deque(maxlen=SPANS)
        self._queue, self._scanner, self._cap = queue, scanner, cap
        self._clock, self._stop, self._rare = clock, stop, RateLimitedNotes(note, clock.now_us)
        self._pacer = BurstPacer() if is_paced else None
        self._stream_clock = ContinuousClock(self.clock_map, BACK_US, LEAP_US if is_paced else None)
        self._listeners: tuple[EdgeListener, ...] = ()
        self._number = 0
        self._is_new, self._begun_us = True, 0
        self._reached_us, self._smooth_bytes = 0, FIRST_BYTES

    def listen(self, listener: EdgeListener) -> None:
        """Add a listener to trigger edges."""
        self._listeners = (*self._listeners, listener)

    def begin(self) -> None:
        """Begin a connection."""
        self._stream_clock.begin()
        self._is_new, self._begun_us = True, self._clock.now_us()
        self._number += 1  # a gap: the packing thread's decoder begins anew, too
        if self._pacer is not None:
            self._pacer.begin()
        if self._scanner is not None:
            self._scanner.begin()

    def take(self, item: bytes | Decoded | Gap, arrived_us: int) -> None:
        """Take raw bytes, decoded events, or that some are missing."""
        if isinstance(item, Gap):
            self._take_gap(item)
        elif isinstance(item, bytes):
            start = 0
            while start < len(item):
                most, reached_us = self._most_bytes(), self._reached_us
                piece = item[start : start + most]
                used = self._take_bytes(piece, arrived_us if not start else self._clock.now_us())
                start += used
                self._learn_bytes(used, self._reached_us - reached_us)
        else:
            self._take_decoded(item, arrived_us)

    def end(self) -> None:
        """End: nothing more will come."""
        self._queue.finish()

    def hurry(self) -> None:
        """Give out data buffered at the start of a connection faster than it was recorded."""
        if self._pacer is not None:
            self._pacer.hurries = True

    @property
    def is_behind(self) -> bool:
        """Whether buffered data is still given out at recorded speed."""
        return self._pacer is not None and self._pacer.holds(self._clock.now_us())

    def covers(self, t0_us: int, t1_us: int) -> bool:
        """Whether the camera was connected in half of [t0, t1) at least."""
        there_us = sum(max(0, min(t1_us, end) - max(t0_us, begin)) for begin, end in tuple(self.spans))
        return 2 * there_us >= t1_us - t0_us

    def _most_bytes(self) -> int:
        """Size of the next piece: small where a stream is held back, so that it comes evenly."""
        if self._pacer is None:
            return MOST_BYTES
        is_young = self._clock.now_us() - self._begun_us < YOUNG_US
        return self._smooth_bytes if is_young or self._pacer.is_pouring else MOST_BYTES

    def _learn_bytes(self, n_bytes: int, passed_us: int) -> None:
        """Estimate the bytes of a few milliseconds, by the piece that was taken last."""
        wanted = n_bytes * SMOOTH_US // max(passed_us, 1)
        self._smooth_bytes = max(LEAST_BYTES, min(wanted, 2 * self._smooth_bytes, MOST_BYTES))

    def _take_bytes(self, data: bytes, arrived_us: int) -> int:
        """Take in bytes from the front of `data`; return how many."""
        assert self._scanner is not None
        scan = self._scanner.scan(data, self._longest_us())
        self.counts.bytes += scan.used
        self.counts.resyncs = self._scanner.resyncs
        if scan.words:
            self._take_scan(scan, arrived_us)
        return scan.used

    def _longest_us(self) -> int | None:
        """Longest time that one piece may cover; None: any."""
        if self._pacer is None:
            return None
        return 2 * SMOOTH_US if self._pacer.is_pouring else LONG_US

    def _take_scan(self, scan: Scan, arrived_us: int) -> None:
        counts, reached_us = self.counts, scan.t_reached_us
        if scan.is_garbage:
            counts.garbage_bytes += len(scan.words)
            self._number += 1
            return
        counts.received += scan.events
        if reached_us is None or scan.t_first_us is None:
            return  # before the first time word: events without a time
        if self._is_cut(reached_us, arrived_us):
            # Some of it is of the old time and some of the new, and nobody knows where it changes.
            counts.dropped["clock"] += scan.events
            self._number += 1
            self._note_new_clock(reached_us)
            return
        reached_us, shift_us = self._place(scan.t_first_us, reached_us, arrived_us)
        edges = TriggerBatch(scan.edges.t_us + shift_us, scan.edges.id, scan.edges.p)
        self._put(
            EventPacket(
                self._number,
                min(scan.t_first_us + shift_us, reached_us),
                reached_us,
                scan.events,
                edges,
                shift_us,
                words=scan.words,
                before=scan.before,
            )
        )

    def _place(self, first_us: int, reached_us: int, arrived_us: int) -> tuple[int, int]:
        """Wait until data is due; return the time that it reaches on the stream's clock, and the shift."""
        arrived_us = self._hold_back(reached_us, arrived_us)
        return self._stream_clock.place(reached_us, arrived_us, first_us), self._stream_clock.shift_us

    def _take_gap(self, gap: Gap) -> None:
        self.counts.gaps += 1
        self.counts.lost_packets += gap.packets
        self._number += 1  # the packing thread's decoder goes on from where the scanner does
        if self._pacer is not None:
            self._pacer.begin()  # the leap of the device's time is no burst
        if self._scanner is not None:
            self._scanner.skip()

    def _take_decoded(self, item: Decoded, arrived_us: int) -> None:
        self.counts.received += len(item.batch)
        if self._is_cut(item.reached_us, arrived_us):
            self._note_new_clock(item.reached_us)
        batch, edges = item.batch, item.edges
        first_us = int(batch.t_us[0]) if len(batch) else item.reached_us
        reached_us, shift_us = self._place(first_us, item.reached_us, arrived_us)
        moved = EventBatch(batch.t_us + shift_us, batch.x, batch.y, batch.p) if shift_us else batch
        moved_edges = TriggerBatch(edges.t_us + shift_us, edges.id, edges.p)
        t_first_us = min(first_us + shift_us, reached_us)
        self._put(EventPacket(self._number, t_first_us, reached_us, len(batch), moved_edges, batch=moved))

    def _put(self, packet: EventPacket) -> None:
        self._number += 1
        self._reached_us = packet.t_reached_us
        self.counts.triggers += len(packet.edges)
        self._extend(packet.t_first_us, packet.t_reached_us)
        for listener in self._listeners:
            listener.add_edges(packet.edges, packet.t_reached_us)
        if not self._cap.allows(packet.events, packet.t_reached_us):
            self.counts.dropped["rate_cap"] += packet.events
            self._queue.pass_over(packet.t_reached_us)
            return
        self.counts.dropped["overrun"] += self._queue.put(packet)

    def _extend(self, begin_us: int, end_us: int) -> None:
        """Extend the time for which the camera was connected."""
        self.first_us = begin_us if self.first_us is None else self.first_us
        if self._is_new or not self.spans:
            self._is_new = False
            self.spans.append(Span(begin_us, end_us))
            return
        last = self.spans[-1]
        self.spans[-1] = Span(last.begin_us, max(last.end_us, end_us))

    def _is_cut(self, device_us: int, arrived_us: int) -> bool:
        """Whether the camera's clock jumped within a connection."""
        return not self._is_new and not self._stream_clock.goes_on(device_us, arrived_us)

    def _note_new_clock(self, device_us: int) -> None:
        self._stream_clock.begin()
        self._is_new = True
        self.counts.clock_sets += 1
        self._rare(
            "clock", f"the event camera's clock was set to {device_us} us; times go on by the host's clock"
        )

    def _hold_back(self, device_us: int, arrived_us: int) -> int:
        """Wait until the data is due; return the host's time then."""
        if self._pacer is None:
            return arrived_us
        due_us = self._pacer.due_us(device_us, arrived_us)
        if due_us <= arrived_us:
            return arrived_us
        self._clock.wait_until(due_us, self._stop)
        return self._clock.now_us()
