"""When pairs are made in a live run: at the RGB camera's frames, and at an even rate while it is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.preprocessing.instant import Instant
from velora_runtime.ingest.camera_state import CameraState

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from velora_edge.clock import Clock
    from velora_runtime.buffers.channel import Channel
    from velora_runtime.cameras.live_rgb import LiveRGB
    from velora_runtime.ingest.live_stream import LiveStream

TURN_S = 0.002


class LiveInstants:
    """Single-threaded: the packing thread.

    Args:
        rgb: the RGB camera.
        stream: the event camera; None where there is none, or none that can stand in for the other.
        window_us: from one pair to the next while the RGB camera is away.
        clock: the host's.
        stop: ends it.
    """

    def __init__(
        self, rgb: LiveRGB, stream: LiveStream | None, window_us: int, clock: Clock, stop: threading.Event
    ) -> None:
        self._rgb, self._stream, self._window_us = rgb, stream, window_us
        self._clock, self._stop = clock, stop
        self._last_us: int | None = None

    def instants(self, frames: Channel[Instant], meanwhile: Callable[[], None]) -> Iterator[Instant]:
        """The moments of pairs, until the cameras or the run end.

        Args:
            frames: those of the RGB camera's pictures.
            meanwhile: is called before each wait.
        """
        while not self._stop.is_set():
            meanwhile()
            instant = frames.get_within(TURN_S)
            if instant is None:
                if frames.is_over and (self._stream is None or self._stream.t_next_us is None):
                    return
                instant = self.tick(self._clock.now_us())
            if instant is not None:
                self._last_us = instant.t_us
                yield instant

    def tick(self, now_us: int) -> Instant | None:
        """A moment without a frame, if one is due: the RGB camera is away, and the window is over."""
        if self._stream is None or self._rgb.state is CameraState.LIVE:
            return None
        t_us = self._stream.now_us()
        if t_us is None:
            return None
        if self._last_us is not None:
            since_us = t_us - self._last_us
            if since_us < self._window_us:
                return None
            if since_us < 1.5 * self._window_us:
                t_us = self._last_us + self._window_us
        return Instant(t_us, None, now_us)
