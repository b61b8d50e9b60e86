"""One pass over a stream, window after window: what one thread does, alone or among several."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from velora_edge.events.accumulate.representations import Accumulator
    from velora_edge.events.base import EventStream

    Window = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with each window.

    Attributes:
        new_frame: makes an empty frame.
        take: what a frame that was filled gives.
        is_shared: that is part of the frame, which then must not be filled anew before it was used.
        to_last_event: whether the windows end with the one that holds the last event.
    """

    new_frame: Callable[[], Accumulator]
    take: Callable[[Accumulator], NDArray[Any]]
    is_shared: bool
    to_last_event: bool
    spare: deque[Accumulator] = field(default_factory=deque)

    def pick_frame(self) -> Accumulator:
        """A frame that nobody uses. From any thread."""
        try:
            return self.spare.pop()
        except IndexError:
            return self.new_frame()


@dataclass(frozen=True, slots=True)
class Frame:
    """A finished frame."""

    t0_us: int
    t1_us: int
    image: NDArray[Any]
    source: Accumulator
    events: int


class SteadyWindows:
    """Windows of one length, one after the other, without end; those of a long gap can be passed over.

    Args:
        start_us: where the first begins.
        window_us: their length.
        longest_gap_us: without an event; the windows of longer gaps need not come. None: all come.
    """

    def __init__(self, start_us: int, window_us: int, longest_gap_us: int | None) -> None:
        self._next_us, self._window_us, self._longest_gap_us = start_us, window_us, longest_gap_us

    def __iter__(self) -> Iterator[Window]:
        while True:
            start_us, self._next_us = self._next_us, self._next_us + self._window_us
            yield start_us, self._next_us

    def may_pass(self, t_us: int) -> bool:
        """Whether a next event at `t_us` would end a gap that is too long, whatever came just before."""
        return self._longest_gap_us is not None and t_us - self._next_us > self._longest_gap_us

    def pass_to(self, t_us: int) -> None:
        """Go on with the window that holds `t_us`."""
        self._next_us += max(0, t_us - self._next_us) // self._window_us * self._window_us


def frames_of(stream: EventStream, windows: Iterable[Window], job: Job) -> Iterator[Frame]:
    """The frames of windows that follow each other; the stream is left open.

    Args:
        stream: events before the first window are passed over.
        windows: rising; events between two of them fall into the later one. Long gaps in `SteadyWindows` are
            passed over.
        job: what to do with each.
    """
    is_first = True
    for t0_us, t1_us in windows:
        if is_first:
            stream.skip_until(t0_us)
            is_first = False
        if job.to_last_event and stream.t_next_us is None:
            return
        frame = job.pick_frame()
        frame.begin(t0_us, t1_us)
        stream.accumulate_until(t1_us, frame)
        finished = Frame(t0_us, t1_us, job.take(frame), frame, frame.events)
        if not job.is_shared:
            job.spare.append(frame)
        yield finished
        if isinstance(windows, SteadyWindows):
            next_us = stream.t_next_us
            if next_us is not None and windows.may_pass(next_us):
                windows.pass_to(next_us)
