"""Live event cameras: feed, thread, ingest, queue and stream; and events emulated from pictures."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import cv2

from velora_edge.datatypes import TriggerBatch
from velora_edge.errors import SourceError
from velora_edge.events.chunk_stream import BatchCursor, ChunkStream
from velora_edge.events.formats.raw.raw_walker import RawWalker, WordCursor
from velora_edge.events.simulator import EventSimulator, SensorModel
from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.feeds import open_first
from velora_runtime.ingest.event_ingest import EventIngest, PacketRateCap
from velora_runtime.ingest.live_stream import LiveStream
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.queues import PacketQueue
from velora_runtime.report import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import AlignedFrame
    from velora_runtime.cameras.camera_settings import EmulatorSettings
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
        self._can_wait, self._link = feed.can_wait, getattr(feed, "link", None)
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
        if counts.lost_packets:
            lost = f"{counts.lost_packets:,} packets of the camera were lost"
            found.append(f"{lost}: the host, or the way to it, was too slow")
        return [f"{self.name}: {sentence}" for sentence in found]

    def delivery(self) -> Delivery:
        """What it has delivered so far; callable from any thread."""
        counts, clock_map = self.ingest.counts, self.ingest.clock_map
        return Delivery(
            {"events": counts.received, "triggers": counts.triggers},
            {"events": sum(tuple(counts.dropped.values())), "packets": counts.lost_packets},
            clock_map.lateness_us,
            clock_map.rate_ppm,
        )

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        events = self.ingest.counts.as_dict()
        return {
            **self.camera.as_dict(),
            **({} if self._link is None else {"link": asdict(self._link)}),
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


KEPT = 256
"""Pictures' worth of events that wait for the packing thread."""


class EmulatedStream(ChunkStream):
    """Events between one picture and the next.

    `push` is called by the RGB camera's thread, all else by the packing thread.

    Args:
        rgb: gives the size of the pictures.
        settings: of the sensor.

    Attributes:
        dropped: events that nobody took in time.
    """

    is_live = True

    def __init__(self, rgb: RGBSource, settings: EmulatorSettings) -> None:
        self._batch_cursor = BatchCursor()
        super().__init__(self._batch_cursor)
        scale = min(1.0, settings.longest_px / max(rgb.width, rgb.height))
        self.width, self.height = max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))
        self.dropped = 0
        model = SensorModel(
            threshold_on=settings.threshold_on,
            threshold_off=settings.threshold_off,
            noise_rate_hz=settings.noise_rate_hz,
        )
        self._simulator = EventSimulator(self.width, self.height, model, settings.seed)
        self._batches: deque[EventBatch] = deque()
        self._begins_us: int | None = None

    def push(self, image: NDArray[np.uint8], t_us: int) -> None:
        """Show the sensor a picture, uint8[H, W, 3]; one not later than those before is passed over."""
        if self._simulator.t_us is not None and t_us <= self._simulator.t_us:
            return
        if image.shape[:2] != (self.height, self.width):
            smaller: Any = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
            image = smaller
        batch = self._simulator.push(image, t_us)
        self._begins_us = t_us if self._begins_us is None else self._begins_us
        if len(self._batches) >= KEPT:
            self.dropped += len(self._batches.popleft())
        if len(batch):
            self._batches.append(batch)

    def see(self, frame: AlignedFrame) -> None:
        """Show the sensor a frame that has found its place; listens to the RGB camera's thread."""
        self.push(frame.frame.image, frame.t_us)

    @property
    def t_next_us(self) -> int | None:
        """Time of the first picture; 0 before it."""
        return self._begins_us or 0

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Whether the sensor has seen a picture before; its events are there once the picture is."""
        return self._begins_us is not None and self._begins_us < t1_us

    def _load(self) -> bool:
        while self._cursor.is_used_up:
            if not self._batches:
                return False
            self._batch_cursor.load(self._batches.popleft(), self._tap)
        return True

    def _take_edges(self) -> TriggerBatch:
        return TriggerBatch.empty()  # a simulated sensor has no trigger input
