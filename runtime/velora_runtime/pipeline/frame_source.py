"""Inputs of a run, and its pair requests: at frames, at an even rate while the RGB camera is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from velora_edge.clock import Pacer
from velora_edge.preprocessing.packer import PairRequest, PendingImage
from velora_edge.vision import Resizer
from velora_runtime.ingest.packets import CameraState
from velora_runtime.pipeline.provisional import StepRequests
from velora_runtime.queues import FreeList

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest
    from velora_edge.clock import Clock
    from velora_edge.preprocessing.sources import RGBSource
    from velora_edge.preprocessing.sync import AlignedFrame, Sync
    from velora_edge.preprocessing.windows import SteadyEdges, Steps
    from velora_runtime.cameras.live_rgb import LiveRGB
    from velora_runtime.ingest.live_stream import LiveStream
    from velora_runtime.pipeline.provisional import LiveSteps
    from velora_runtime.queues import Channel
    from velora_runtime.report import RunReport


Pace = Literal["realtime", "max"]


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Inputs of a run: an RGB camera with its synchronisation, or pair times at a fixed rate.

    Attributes:
        rgb: the RGB camera, or None.
        sync: its way onto the event clock, where there is a camera.
        edges_us: ends of windows for events alone, where there is none.
        duration_us: the run ends once this much has passed since its first pair; None: at its end. A live run
            waits as long for its first pair of all cameras, and counts from that.
        live: when pairs are made with a live RGB camera, which may be away; None otherwise.
        is_live: data comes when it comes: nothing is held back to its pace.
        start_us: frames before it are passed over; None: none is.
        watches_all: gets every frame that has found its place, those before `start_us` too; the RGB thread.
        watches: gets those from `start_us` on, likewise.
        count_filtered: gives the events that filters have dropped so far, by the filter's name.
        steps: when to decide between pairs; None: at pairs alone.
        live_steps: of two live cameras, which of these are due.
    """

    rgb: RGBSource | None = None
    sync: Sync | None = None
    edges_us: SteadyEdges | None = None
    duration_us: int | None = None
    live: LiveInstants | None = None
    is_live: bool = False
    start_us: int | None = None
    watches_all: Callable[[AlignedFrame], None] | None = None
    watches: Callable[[AlignedFrame], None] | None = None
    count_filtered: Callable[[], dict[str, int]] = dict
    steps: Steps | None = None
    live_steps: LiveSteps | None = None


class FrameResizer:
    """Resizer of frames to the model's size. `take` and `shrink`: the RGB camera's thread; `give`: any.

    Args:
        manifest: the model's: image size and fit.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._hw, self._rgb = manifest.image_size, manifest.rgb
        self._free = FreeList(lambda: PendingImage(np.zeros((*self._hw, 3), np.uint8)))
        self._resizer: Resizer | None = None

    def take(self) -> PendingImage:
        """Take an image to resize into."""
        shrunk = self._free.take()
        shrunk.begin()
        return shrunk

    def shrink(self, picture: NDArray[np.uint8], shrunk: PendingImage) -> None:
        """Resize a picture, uint8[H, W, 3] of any size, to the model's."""
        try:
            source_hw = (picture.shape[0], picture.shape[1])
            if self._resizer is None or self._resizer.source_hw != source_hw:
                self._resizer = Resizer(source_hw, self._hw, self._rgb.fit, self._rgb.resample)
            self._resizer.resize_into(picture, shrunk.image)
        finally:
            shrunk.finish()

    def give(self, shrunk: PendingImage) -> None:
        """Take back an image that is finished and no longer used."""
        self._free.give(shrunk)


class FrameReader:
    """Reader of an RGB source: its frames become pair requests. Single-threaded: the RGB thread.

    Args:
        inputs: of the run, with an RGB source and its synchronisation.
        frames: gets the requests.
        resizer: takes frames to the model's size.
        report: gets counts.
        pace: at `realtime` a recording's frames come at their times.
        clock: of waits.
        stop: ends it.
    """

    def __init__(
        self,
        inputs: RunInputs,
        frames: Channel[PairRequest],
        resizer: FrameResizer,
        report: RunReport,
        pace: Pace,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._inputs, self._frames, self._resizer, self._report = inputs, frames, resizer, report
        self._clock, self._stop = clock, stop
        self._is_live = inputs.rgb is not None and inputs.rgb.is_live
        self._pacer = Pacer("max" if self._is_live else pace, clock, stop)

    def read(self) -> None:
        """Read to the end of the source, or of the run."""
        inputs, counts = self._inputs, self._report.frames
        assert inputs.rgb is not None
        assert inputs.sync is not None
        steps = StepRequests(None if self._is_live else inputs.steps, self._pacer, self._clock, self._stop)
        for frame in inputs.rgb:
            counts.read += 1
            counts.overrun = inputs.rgb.overrun
            placed = inputs.sync.place(frame)
            if placed is None:
                counts.unplaced += 1
                continue
            if inputs.watches_all is not None:
                inputs.watches_all(placed)
            if inputs.start_us is not None and placed.t_us < inputs.start_us:
                counts.early += 1
                continue
            if inputs.watches is not None:
                inputs.watches(placed)
            for request in steps.before(placed.t_us):
                self._drop(self._frames.offer(request))
            self._pacer.wait_for(placed.t_us)
            if self._stop.is_set():
                break
            self._put(placed)
        self._frames.finish()

    def _put(self, placed: AlignedFrame) -> None:
        """Queue a frame's request; the packing thread accumulates its events while it is resized here."""
        shrunk = self._resizer.take()
        dropped = self._frames.put(PairRequest(placed.t_us, placed, self._clock.now_us(), shrunk))
        self._resizer.shrink(placed.frame.image, shrunk)
        self._drop(dropped)

    def _drop(self, dropped: Sequence[PairRequest]) -> None:
        for request in dropped:
            if request.coming_us is not None:
                self._report.provisional.left_out["unpacked"] += 1
                continue
            self._report.frames.dropped += 1
            if request.shrunk is not None:
                self._resizer.give(request.shrunk)


PREFETCH_S = 0.002


class LiveInstants:
    """Pair requests of a live run with an RGB camera. Single-threaded: the packing thread.

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

    def instants(
        self,
        frames: Channel[PairRequest],
        meanwhile: Callable[[], None],
        find_due: Callable[[], PairRequest | None] = lambda: None,
    ) -> Iterator[PairRequest]:
        """Yield pair requests until the cameras or the run end.

        Args:
            frames: those of the RGB camera's pictures.
            meanwhile: is called before each wait.
            find_due: gives a provisional request that is due.
        """
        while not self._stop.is_set():
            meanwhile()
            instant = frames.get_within(PREFETCH_S)
            if instant is None:
                if frames.is_over and (self._stream is None or self._stream.t_next_us is None):
                    return
                instant = self.tick(self._clock.now_us()) or find_due()
            if instant is not None:
                self._last_us = instant.t_us if instant.coming_us is None else self._last_us
                yield instant

    def tick(self, now_us: int) -> PairRequest | None:
        """Return a request without a frame, if one is due: the RGB camera is away and the window is over."""
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
        return PairRequest(t_us, None, now_us)
