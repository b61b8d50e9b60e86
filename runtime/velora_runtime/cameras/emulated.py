"""An event camera that is not there: a simulated sensor looks at the RGB camera's pictures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import cv2

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.base import EventStream
from velora_edge.events.simulator import EventSimulator, SensorModel
from velora_runtime.ingest.packets import BatchCursor, EventPacket

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame
    from velora_edge.events.base import EventTap, FrameAccumulator
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import AlignedFrame, Sync
    from velora_runtime.cameras.camera_settings import EmulatorSettings

KEPT = 256
"""Pictures' worth of events that wait for the packing thread."""


class EmulatedStream(EventStream):
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
        scale = min(1.0, settings.longest_px / max(rgb.width, rgb.height))
        self.width, self.height = max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))
        self.dropped = 0
        model = SensorModel(
            threshold_on=settings.threshold_on,
            threshold_off=settings.threshold_off,
            noise_rate_hz=settings.noise_rate_hz,
        )
        self._simulator = EventSimulator(self.width, self.height, model, settings.seed)
        self._packets: deque[EventPacket] = deque()
        self._walk = BatchCursor()
        self._has_packet = False
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
        if len(self._packets) >= KEPT:
            self.dropped += self._packets.popleft().events
        if len(batch):
            self._packets.append(EventPacket(0, t_us, len(batch), TriggerBatch.empty(), batch=batch))

    @property
    def t_next_us(self) -> int | None:
        """Time of the first picture; 0 before it."""
        return self._begins_us or 0

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Whether the sensor has seen a picture before; its events are there once the picture is."""
        return self._begins_us is not None and self._begins_us < t1_us

    def skip_until(self, t_us: int) -> int:
        """Pass over the events before `t_us`; return how many they were."""
        skipped = 0
        while self._load():
            n, is_left = self._walk.count(t_us)
            skipped += n
            if is_left:
                break
            self._has_packet = False
        return skipped

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` to the frame; return how many were walked over."""
        self._check_sensor(frame)
        walked = 0
        while self._load():
            n, is_left = self._walk.accumulate(t1_us, frame)
            walked += n
            if is_left:
                break
            self._has_packet = False
        return walked

    def read_batch(self, most: int, t1_us: int) -> EventBatch:
        """The next events before `t1_us`, at most `most` of them; none if none are there."""
        while self._load():
            batch, is_left = self._walk.read(most, t1_us)
            self._has_packet = is_left
            if len(batch) or is_left:
                return batch
        return EventBatch.empty()

    def take_triggers(self) -> TriggerBatch:
        """None: there is no trigger input."""
        return TriggerBatch.empty()

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have the events from now on."""
        self._walk.tap = tap

    def _load(self) -> bool:
        if not self._has_packet and self._packets:
            self._walk.load(self._packets.popleft(), follows=True)
            self._has_packet = True
        return self._has_packet


class EmulatingSync:
    """Another synchronisation, which lets the simulated sensor see each frame that it places.

    Single-threaded: the RGB camera's thread.
    """

    def __init__(self, sync: Sync, stream: EmulatedStream) -> None:
        self.line = sync.line
        self._sync, self._stream = sync, stream

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """The frame on the event clock; None if it has no place there."""
        placed = self._sync.place(frame)
        if placed is not None:
            self._stream.push(placed.frame.image, placed.t_us)
        return placed
