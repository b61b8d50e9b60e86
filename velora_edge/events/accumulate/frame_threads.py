"""Event frames of a recording on one thread or several, each with a group of windows.

A thread begins at a checkpoint just before its windows (`raw_index`), if windows are large enough for that.
The index is kept for the next time. What a thread finds wrong with the words is counted from where the group
before its own ends, so that the sums are those of one thread.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from velora_edge.events.formats.raw.raw import RawStream
from velora_edge.events.formats.raw.raw_index import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.events.accumulate.representations import Accumulator
    from velora_edge.events.base import EventStream
    from velora_edge.events.formats.raw.raw import RawReader
    from velora_edge.events.formats.raw.raw_index import Checkpoint, RawIndex

    Window = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Job:
    """Job for each window.

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


GROUP_BYTES = 1 << 22
"""Of a file, for one thread at once: what lies between its checkpoint and its windows is walked twice."""
MOST_WINDOWS = 16
"""Of a group. Where more would fit, windows cost more than their events, and one thread is the fastest."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Windows for one thread.

    Attributes:
        checkpoint: to begin at.
        after_us: where the group before it ends; None for the first.
        windows: rising.
    """

    checkpoint: Checkpoint
    after_us: int | None
    windows: list[Window]


@dataclass(frozen=True, slots=True)
class _Done:
    """Result of a thread for one group.

    Attributes:
        frames: one for each window, fewer where the recording ended.
        losses: what is wrong with the words, see `RawWalker.losses`.
        cut_bytes: of the recording's last word, at its end; None before it.
    """

    frames: list[Frame]
    losses: NDArray[np.int64]
    cut_bytes: int | None


def are_large(index: RawIndex, windows: list[Window]) -> bool:
    """Whether the first windows hold so many words that several threads are faster."""
    if len(windows) < MOST_WINDOWS:
        return True
    return index.find(windows[-1][0]).position - index.find(windows[0][0]).position >= GROUP_BYTES


def frames_by_threads(
    reader: RawReader, index: RawIndex, windows: Iterable[Window], job: Job, threads: int
) -> Iterator[Frame]:
    """The frames of windows that follow each other, in their order, as one thread makes them.

    What is wrong with the recording is noted in the reader's warnings once its end is reached; of what
    lies before the first window, only what was read.
    """
    scout, workers = _Scout(reader), _Workers(reader, job)
    pending: deque[Future[_Done]] = deque()
    losses = 0 * reader.new_walker().losses()
    pool = ThreadPoolExecutor(threads)

    def take() -> list[Frame]:
        nonlocal losses
        done = pending.popleft().result()
        losses += done.losses
        if done.cut_bytes is not None:
            reader.note(reader.new_walker().describe(losses, done.cut_bytes))
        return done.frames

    try:
        for group in _group_windows(index, scout, windows, job):
            pending.append(pool.submit(workers.work, group))
            if len(pending) > threads:
                yield from take()
        while pending:
            yield from take()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        workers.close()
        scout.close()


class _Workers:
    """Workers of the threads; a stream that one of them has finished with is used for another group."""

    def __init__(self, reader: RawReader, job: Job) -> None:
        self._reader, self._job = reader, job
        self._idle: deque[RawStream] = deque()

    def work(self, group: _Group) -> _Done:
        """The frames of a group; from any thread."""
        stream, job = self._stream_at(group.checkpoint), self._job
        try:
            if group.after_us is not None:
                stream.skip_until(group.after_us)
            before = stream.losses() if group.after_us is not None else 0 * stream.losses()
            frames = list(frames_of(stream, group.windows, job))
            if job.to_last_event:
                _ = stream.t_next_us  # looked for, so that the words after the last event are read
            return _Done(frames, stream.losses() - before, stream.cut_bytes)
        finally:
            self._idle.append(stream)

    def _stream_at(self, checkpoint: Checkpoint) -> RawStream:
        try:
            stream = self._idle.pop()
        except IndexError:
            return RawStream(self._reader, checkpoint, notes=False)
        stream.go_to(checkpoint)
        return stream

    def close(self) -> None:
        """Close the file."""
        for stream in self._idle:
            stream.close()


def _group_windows(index: RawIndex, scout: _Scout, windows: Iterable[Window], job: Job) -> Iterator[_Group]:
    """Neighbouring windows together, each group with the checkpoint before its first."""
    group: list[Window] = []
    checkpoint, after_us = index.find(0), None
    for window in windows:
        here = index.find(window[0])
        if job.to_last_event and index.is_complete and window[0] > index.latest_us:
            break
        if group and (here.position - checkpoint.position >= GROUP_BYTES or len(group) >= MOST_WINDOWS):
            yield _Group(checkpoint, after_us, group)
            group, after_us = [], group[-1][1]
        if not group:
            # Before the first event there are no windows, but perhaps words that something is wrong with.
            checkpoint = START if job.to_last_event and after_us is None else here
        group.append(window)
        ahead_us = MOST_WINDOWS * (window[1] - window[0])
        if isinstance(windows, SteadyWindows) and index.latest_near(window[1]) > window[1] + ahead_us:
            next_us = scout.find_next_us(here, window[1])
            if next_us is None:
                break  # time words may go on for hours without an event
            if windows.may_pass(next_us):
                windows.pass_to(next_us)
    if group:
        yield _Group(checkpoint, after_us, group)


class _Scout:
    """Search for the next event ahead of the threads, where time jumps.

    It goes on from where it stands, so that it walks at most once over a recording of few events.
    """

    def __init__(self, reader: RawReader) -> None:
        self._reader = reader
        self._checkpoint: Checkpoint | None = None
        self._stream: RawStream | None = None
        self._next_us: int | None = None

    def find_next_us(self, checkpoint: Checkpoint, t_us: int) -> int | None:
        """Time of the first event that is not before `t_us`, which does not fall from call to call.

        Args:
            checkpoint: before which there is none.
            t_us: the time.
        """
        if self._next_us is not None and t_us <= self._next_us:
            return self._next_us
        if self._stream is None or checkpoint != self._checkpoint:
            self.close()
            self._stream, self._checkpoint = RawStream(self._reader, checkpoint, notes=False), checkpoint
        self._stream.skip_until(t_us)
        self._next_us = self._stream.t_next_us
        return self._next_us

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
