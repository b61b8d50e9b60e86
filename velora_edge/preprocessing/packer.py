"""Packing of pairs: the events of a window and the picture, at the model's size."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from velora_edge.datatypes import EventFrame, FramePair
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.vision import Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.clock import Clock
    from velora_edge.datatypes import RGBFrame
    from velora_edge.events.accumulate.representations import Accumulator
    from velora_edge.events.base import EventStream
    from velora_edge.manifest import RGBInput
    from velora_edge.preprocessing.sync import AlignedFrame
    from velora_edge.preprocessing.windows import WindowRule


class PairForm(Protocol):
    """Form of a pair's images; a bundle's manifest and a data set's `ClipSpec` have one."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, pixels."""

    @property
    def event(self) -> EventInput:
        """How events become images."""

    @property
    def rgb(self) -> RGBInput:
        """How pictures become images."""


class PendingImage:
    """A picture at the model's size, or one that is still on its way there.

    Args:
        image: uint8[H, W, 3] for the picture; means nothing before `wait` has returned.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self._is_there = threading.Event()

    def begin(self) -> None:
        """Mark the picture as not there yet."""
        self._is_there.clear()

    def finish(self) -> None:
        """Mark the picture as there, or never coming: then an error ends the run."""
        self._is_there.set()

    def exchange(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Wait for the picture and return it, in exchange for an array to be used again."""
        self._is_there.wait()
        mine, self.image = self.image, image
        return mine


@dataclass(frozen=True, slots=True)
class PairRequest:
    """Request for a pair at a time, with its RGB frame if there is one.

    Attributes:
        t_us: the pair's time, event clock.
        placed: its RGB frame, or None.
        ready_us: when its data was there, on the pipeline's clock.
        shrunk: the frame at the model's size, soon; None where nobody makes it.
        coming_us: of a provisional request, for the next pair's events so far: when that pair ends, at the
            earliest; None for a pair's.
    """

    t_us: int
    placed: AlignedFrame | None
    ready_us: int
    shrunk: PendingImage | None = None
    coming_us: int | None = None


@dataclass(slots=True)
class _Ahead:
    """Prefetched part of a window that has not ended.

    Attributes:
        t0_us: the window's start.
        upto_us: all its events before this time are in the frame.
        shift_us: between the camera's clock and the stream's, at its start.
        skipped: events before it.
        walked: events in it.
    """

    t0_us: int
    upto_us: int
    shift_us: int
    skipped: int
    walked: int = 0


class WindowAccumulator:
    """Accumulator of the events of one window after the other, in the same frame.

    A third of a million events take milliseconds that a pair would have to wait for. So they are walked over
    as they come (`prefetch`), up to where the window will end, or is likely to. If it then ends earlier, or
    begins elsewhere, the stream goes back and all is walked again: the frame is the same either way.

    That needs a stream that can go back, and a representation whose state depends on the events alone.

    Single-threaded: the packing thread.

    Args:
        stream: the events.
        frame: that they fall on.
    """

    def __init__(self, stream: EventStream, frame: Accumulator) -> None:
        self._stream, self._frame = stream, frame
        self._ahead: _Ahead | None = None

    def has_begun(self, t0_us: int) -> bool:
        """Whether the window from `t0_us` was begun ahead of need."""
        return self._ahead is not None and self._ahead.t0_us == t0_us

    def prefetch(self, t0_us: int, t1_us: int) -> None:
        """Accumulate what has come of the window from `t0_us` that ends at `t1_us` at the earliest."""
        reached_us = None if self._frame.representation.uses_window else self._stream.reached_us
        if reached_us is None or reached_us <= t0_us:
            return
        if self._ahead is None or self._ahead.t0_us != t0_us:
            self.step_back()
            self._ahead = self._begin(t0_us)
        ahead, upto_us = self._ahead, min(reached_us, t1_us)
        if upto_us > ahead.upto_us and self._stream.shift_us == ahead.shift_us:
            ahead.walked += self._stream.accumulate_until(upto_us, self._frame)
            ahead.upto_us = upto_us

    def advance(self, t0_us: int, t_us: int) -> tuple[int, int] | None:
        """Accumulate the events of the window from `t0_us` before `t_us`, which are there, ahead of need.

        A recording cannot go back: the window that is walked next has to start at `t0_us` then.

        Returns:
            The time up to which its events are in the frame, and how many they are; None where none has come.
        """
        if self._stream.is_live:
            self.prefetch(t0_us, t_us)
        elif self._ahead is None:
            self._ahead = self._begin(t0_us)
        ahead = self._ahead
        if ahead is None or ahead.t0_us != t0_us:
            return None
        if not self._stream.is_live:
            ahead.walked += self._stream.accumulate_until(t_us, self._frame)
            ahead.upto_us = t_us
        return ahead.upto_us, ahead.walked

    def walk(self, t0_us: int, t1_us: int) -> tuple[int, int]:
        """Accumulate the events of [t0, t1); return how many were before them, and how many they are."""
        stream, ahead = self._stream, self._ahead
        if ahead is not None and self._is_of(ahead, t0_us, t1_us):
            self._ahead = None
            stream.commit()
            return ahead.skipped, ahead.walked + stream.accumulate_until(t1_us, self._frame)
        self.step_back()
        skipped, shift_us = stream.skip_until(t0_us), stream.shift_us
        self._frame.begin(t0_us - shift_us, t1_us - shift_us)
        return skipped, stream.accumulate_until(t1_us, self._frame)

    def step_back(self) -> None:
        """Return to the checkpoint, if events of an unfinished window were accumulated."""
        if self._ahead is not None:
            self._ahead = None
            self._stream.rollback()

    def _is_of(self, ahead: _Ahead, t0_us: int, t1_us: int) -> bool:
        """Whether the prefetched events begin this window, and the camera's clock did not restart."""
        return ahead.t0_us == t0_us and ahead.upto_us <= t1_us and ahead.shift_us == self._stream.shift_us

    def _begin(self, t0_us: int) -> _Ahead:
        self._stream.checkpoint()
        skipped = self._stream.skip_until(t0_us)
        shift_us = self._stream.shift_us
        self._frame.begin(t0_us - shift_us, t0_us - shift_us + 1)
        return _Ahead(t0_us, t0_us, shift_us, skipped)


@dataclass(slots=True)
class Pair:
    """Pair at the model's size. Its arrays are used again: copy what is to be kept.

    Attributes:
        rgb_image: uint8[H, W, 3]; means nothing if the pair has no RGB frame.
        event_image: uint8[H, W, 3]; means nothing if the pair has no event frame.
        frames: what it was made of; its event frame's image is `event_image`.
        events: that were walked over for its window, those outside the model's image included.
        ready_us: when its data was there, on the pipeline's clock.
        pack_us: what packing took, microseconds.
        coming_us: of what a provisional request asked for: when the next pair ends, at the earliest; None
            for a pair.
    """

    rgb_image: NDArray[np.uint8]
    event_image: NDArray[np.uint8]
    frames: FramePair = field(default_factory=lambda: FramePair(-1, 0, None, None))
    events: int = 0
    ready_us: int = 0
    pack_us: int = 0
    coming_us: int | None = None

    @classmethod
    def empty(cls, image_size: tuple[int, int]) -> Pair:
        """Arrays for images of `image_size`, (height, width)."""
        return cls(np.zeros((*image_size, 3), np.uint8), np.zeros((*image_size, 3), np.uint8))


class Packer:
    """Packer of one pair after the other, in one pass over the events.

    Outside the event recording, before its first event and after its last, the event camera counts as absent.

    Single-threaded: the event camera's thread.

    Args:
        form: of the images, such as a model's manifest.
        events: the event camera, None where there is none.
        windows: where each pair's window starts.
        clock: for the time that packing takes.
        registration: from the event camera's sensor to the model's image; None for the form's fit alone.

    Attributes:
        pairs: packed so far.
        skipped: events that lay between windows.
        is_waiting: for a live camera's events; may be asked by any thread.
    """

    def __init__(
        self,
        form: PairForm,
        events: EventStream | None,
        windows: WindowRule,
        clock: Clock,
        registration: RegistrationMap | None = None,
    ) -> None:
        self.pairs = self.skipped = 0
        self.is_waiting = False
        self._form, self._events, self._windows, self._clock = form, events, windows, clock
        self._begins_us = None if events is None else events.t_next_us
        self._resizer: Resizer | None = None
        if events is not None:
            sensor_hw = (events.height, events.width)
            fits = RegistrationMap.from_fit(sensor_hw, form.image_size, form.event.fit)
            self._accumulator = make_accumulator(form.event, registration or fits)
            self._walk = WindowAccumulator(events, self._accumulator)

    def warm_up(self) -> None:
        """Load the kernels by walking over no events, so that the first real window is not slower."""
        if self._events is None:
            return
        if self._events.is_live:
            self._accumulator.begin(0, 1)
            self._events.warm_up(self._accumulator)
        elif self._begins_us is not None:
            self._accumulator.begin(self._begins_us - 1, self._begins_us)
            self._events.skip_until(self._begins_us)
            self._events.accumulate_until(self._begins_us, self._accumulator)

    def begin_at(self, t_us: int) -> None:
        """Let the first window start at `t_us` at the earliest."""
        self._windows.begin_at(t_us)

    @property
    def has_events(self) -> bool:
        """Whether the run has an event camera."""
        return self._events is not None

    @property
    def is_exhausted(self) -> bool:
        """Whether there are no more events."""
        return self._events is None or self._events.t_next_us is None

    def accepts(self, t_us: int) -> bool:
        """Whether a pair can end at `t_us`: it is later than the pair before."""
        return self._windows.end_us is None or t_us > self._windows.end_us

    def pack_into(
        self,
        packed: Pair,
        t_us: int,
        placed: AlignedFrame | None,
        ready_us: int,
        shrunk: PendingImage | None = None,
    ) -> None:
        """Pack the pair that ends at `t_us`.

        Args:
            packed: receives the pair; what it held is overwritten.
            t_us: the pair's instant, event clock; later than the one before (`accepts`).
            placed: the RGB frame, None where there is none.
            ready_us: when the frame was there, on the pipeline's clock.
            shrunk: the frame at the model's size; None: it is made here.
        """
        if self._events is not None and self._events.is_live:
            t0_us = self._windows.preview(t_us)
            self.is_waiting = True
            is_there = self._events.await_window(t0_us, t_us, lambda: self._walk.prefetch(t0_us, t_us))
            self.is_waiting = False
            start_us = ready_us = max(ready_us, self._clock.now_us())
        else:
            start_us, is_there = self._clock.now_us(), self._is_recorded(t_us)
        event = self._pack_events(packed, t_us, is_there=is_there)
        rgb = None if placed is None else placed.frame
        if shrunk is not None:
            packed.rgb_image = shrunk.exchange(packed.rgb_image)
        elif rgb is not None:
            self._resize(rgb, packed.rgb_image)
        skew_us = placed.skew_us if placed is not None and event is not None else None
        packed.frames = FramePair(self.pairs, t_us, rgb, event, skew_us)
        packed.ready_us, packed.pack_us = ready_us, self._clock.now_us() - start_us
        packed.coming_us = None
        self.pairs += 1

    def pack_ahead(self) -> None:
        """Prefetch what has come of the next pair's events; called while its request is awaited."""
        if self._events is not None and (window := self._windows.next) is not None:
            self._walk.prefetch(*window)

    def step_back(self) -> None:
        """Give back events that were prefetched for a pair that does not come."""
        if self._events is not None:
            self._walk.step_back()

    def withdraw(self, packed: Pair) -> None:
        """Take back the pair that was packed last; its events count as skipped."""
        self.pairs -= 1
        self.skipped += packed.events

    def skip_rest(self) -> None:
        """Count the events after the last window as skipped."""
        if self._events is not None:
            self.step_back()
            self.skipped += self._events.skip_until(np.iinfo(np.int64).max)

    def _is_recorded(self, t_us: int) -> bool:
        """Whether the recording has begun before the pair's time."""
        return self._begins_us is not None and t_us > self._begins_us

    def _pack_events(self, packed: Pair, t_us: int, *, is_there: bool) -> EventFrame | None:
        window_us, packed.events = self._windows.start(t_us), 0
        if self._events is None:
            return None
        if not is_there:
            if self._events.is_live:
                self.step_back()
                self.skipped += self._events.skip_until(window_us)
            return None
        if not self._events.is_live and not self._walk.has_begun(window_us):
            self.skipped += self._events.skip_until(window_us)
            if self._events.t_next_us is None:
                return None
        skipped, packed.events = self._walk.walk(window_us, t_us)
        self.skipped += skipped
        self._accumulator.render_into(packed.event_image)
        return EventFrame(packed.event_image, window_us, t_us, self._accumulator.events)

    def _resize(self, frame: RGBFrame, image: NDArray[np.uint8]) -> None:
        height, width = frame.image.shape[:2]
        if self._resizer is None or self._resizer.source_hw != (height, width):
            rgb = self._form.rgb
            self._resizer = Resizer((height, width), self._form.image_size, rgb.fit, rgb.resample)
        self._resizer.resize_into(frame.image, image)
