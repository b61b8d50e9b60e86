"""Emulated event camera: a simulated sensor that sees the RGB camera's pictures."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import cv2

from velora_edge.datatypes import TriggerBatch
from velora_edge.events.chunk_stream import BatchCursor, ChunkStream
from velora_edge.events.simulator import EventSimulator, SensorModel

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import AlignedFrame
    from velora_runtime.cameras.camera_settings import EmulatorSettings

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
