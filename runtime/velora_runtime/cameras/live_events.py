"""Live event camera: feed, thread, ingest, queue and stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.errors import SourceError
from velora_edge.events.chunk_stream import BatchCursor
from velora_edge.events.formats.raw.raw_walker import RawWalker, WordCursor
from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.feeds import open_first
from velora_runtime.ingest.event_ingest import EventIngest, PacketRateCap
from velora_runtime.ingest.live_stream import LiveStream
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.queues import PacketQueue

if TYPE_CHECKING:
    from velora_runtime.cameras.feeds import EventFeed, LiveSetup
    from velora_runtime.cameras.live_rgb import LiveRGB
    from velora_runtime.ingest.packets import EventPacket

QUEUE_BYTES = 64 << 20
"""A second of the fastest camera."""
WAITING_BYTES = 1 << 20
"""Where the other side waits, little has to."""
FIRST_WAIT_S, CATCH_UP_S = 10.0, 2.0


class LiveEvents:
    """Live event camera. Single-threaded: the main thread, but for `ingest.counts`.

    Args:
        feed: the camera; opened here.
        setup: how.

    Raises:
        SourceError: if it is not there, or cannot be used.
        InputError: likewise.

    Attributes:
        stream: its events.
        ingest: its clock and its counts.
    """

    def __init__(self, feed: EventFeed, setup: LiveSetup) -> None:
        if setup.waits and not feed.can_wait:
            raise SourceError("a camera cannot wait", path=feed.name, remedy="leave out --pace max")
        open_first(feed)
        self.name, self.sensor, self.layout = feed.name, feed.sensor, feed.layout
        is_paced = not setup.waits
        queue: PacketQueue[EventPacket] = PacketQueue(
            QUEUE_BYTES if is_paced else WAITING_BYTES, waits=setup.waits
        )
        scanner, cursor = self._reader()
        cap = PacketRateCap(setup.cap)
        self.ingest = EventIngest(
            queue, scanner, cap, setup.clock, setup.stop, is_paced=is_paced, note=setup.note
        )
        self.camera: Camera[Any] = Camera(feed, self.ingest, setup.patience, setup.clock, setup.note)
        self.camera.adopt()
        self._can_wait = feed.can_wait
        if not feed.can_wait:
            self.camera.start()  # a device overflows where nobody reads
        self.stream = LiveStream(
            self.camera, self.ingest, queue, cursor, self.sensor, setup.clock, setup.stop, is_paced=is_paced
        )
        self._cursor = cursor

    @property
    def format(self) -> str:
        """Name of its encoding."""
        return "decoded" if self.layout is None else self.layout.encoding

    def start(self, other: LiveRGB | None) -> None:
        """Start delivery, and wait for the first data.

        Args:
            other: the camera beside it, which delivers: the run begins with what both see now.

        Raises:
            SourceError: if nothing comes.
        """
        if other is not None:
            self.ingest.hurry()
        if self._can_wait:
            self.camera.start()
        if not self.stream.await_first(FIRST_WAIT_S):
            raise SourceError(
                f"nothing came for {FIRST_WAIT_S:.0f} s",
                path=self.name,
                remedy="check that the camera sends events",
            )
        if other is not None:
            self.stream.catch_up(CATCH_UP_S, lambda: self.ingest.is_behind or other.is_behind)
        if other is not None or not self._can_wait:
            self.stream.begin_now()

    def warnings(self) -> list[str]:
        """Warnings, one sentence each."""
        found = self._cursor.walker.warnings() if isinstance(self._cursor, WordCursor) else []
        counts = self.ingest.counts
        if counts.garbage_bytes:
            found.append(f"{counts.garbage_bytes:,} bytes were no events and were passed over")
        return [f"{self.name}: {sentence}" for sentence in found]

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        events = self.ingest.counts.as_dict()
        return {
            **self.camera.as_dict(),
            "events": {**events, "early": self.stream.early, "unread": self.stream.unread},
        }

    def close(self) -> None:
        """End the thread and let go of the camera."""
        self.stream.close()

    def _reader(self) -> tuple[RawScanner | None, WordCursor | BatchCursor]:
        layout = self.layout
        if layout is None:
            return None, BatchCursor()
        walker = RawWalker(layout.encoding, self.sensor, layout.is_legacy)
        walker.header = layout.header
        return RawScanner(layout.encoding, self.sensor, layout.is_legacy), WordCursor(walker)
