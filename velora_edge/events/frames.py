"""Whole recordings into frames, window after window, on one thread or on several.

On several threads, each takes a group of neighbouring windows of a `.raw` file and begins at a checkpoint
just before them (`raw_index`), if windows are large enough for that. The index is kept for the next time.
The frames are the same, in the same order, as on one thread. What was wrong with the file is noted in the
reader's warnings on one thread only.
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventFrame
from velora_edge.events.raw import RawReader, RawStream
from velora_edge.events.raw_index import RawIndex
from velora_edge.events.registration import RegistrationMap
from velora_edge.events.representations import Accumulator, make_accumulator
from velora_edge.events.representations.count_planes import CountPlanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.events.base import EventReader, EventStream
    from velora_edge.events.raw_index import Checkpoint

    Window = tuple[int, int]

GROUP_BYTES = 1 << 22
"""Of a file, for one thread at once: what lies between its checkpoint and its windows is walked twice."""
MOST_WINDOWS = 16
"""Of a group. Where more would fit, windows cost more than their events, and one thread is the fastest."""


@dataclass(frozen=True, slots=True)
class _Job:
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
class _Frame:
    """A finished frame."""

    t0_us: int
    t1_us: int
    image: NDArray[Any]
    source: Accumulator
    events: int


def pack_frames(
    reader: EventReader,
    edges_us: Iterable[int],
    event_input: EventInput,
    image_size: tuple[int, int],
    threads: int = 1,
) -> Iterator[EventFrame]:
    """One frame for each window between neighbouring edges, rendered as a model sees it.

    Args:
        reader: of the recording.
        edges_us: where windows end and the next begin, rising. Events before the first are passed over.
        event_input: representation, palette and fit, as a bundle has them.
        image_size: height and width of the frames.
        threads: how many work at once; only `.raw` files are read by more than one.
    """
    registration = RegistrationMap.from_fit((reader.height, reader.width), image_size, event_input.fit)

    def new_frame() -> Accumulator:
        return make_accumulator(event_input, registration)

    def take(frame: Accumulator) -> NDArray[Any]:
        image = np.empty((*image_size, 3), np.uint8)
        frame.render_into(image)
        return image

    job = _Job(new_frame, take, is_shared=False, to_last_event=False)
    for frame in _all_frames(reader, itertools.pairwise(edges_us), job, threads):
        yield EventFrame(frame.image, frame.t0_us, frame.t1_us, frame.events)


def count_frames(reader: EventReader, window_us: int, threads: int = 1) -> Iterator[NDArray[np.uint16]]:
    """Events a pixel and polarity, at the sensor's own size, for each window from first to last event.

    Args:
        reader: of the recording.
        window_us: length of a window.
        threads: how many work at once; only `.raw` files are read by more than one.

    Yields:
        uint16[2, H, W], channel 0 OFF, 1 ON, saturating at 65535; it holds until the next is asked for.
    """
    size = (reader.height, reader.width)
    registration = RegistrationMap.identity(size)
    with reader.stream() as stream:
        start_us = stream.t_next_us
    if start_us is None:
        return

    def new_frame() -> Accumulator:
        return Accumulator(CountPlanes(size[0] * size[1]), registration)

    def take(frame: Accumulator) -> NDArray[Any]:
        counts: NDArray[Any] = frame.state.counts
        return counts[:, 1:].reshape(2, *size)

    job = _Job(new_frame, take, is_shared=True, to_last_event=True)
    windows = itertools.pairwise(itertools.count(start_us, window_us))
    for frame in _all_frames(reader, windows, job, threads):
        yield frame.image


def _all_frames(reader: EventReader, windows: Iterable[Window], job: _Job, threads: int) -> Iterator[_Frame]:
    windows = iter(windows)
    first = list(itertools.islice(windows, MOST_WINDOWS))
    windows = itertools.chain(first, windows)
    if threads > 1 and isinstance(reader, RawReader) and _are_large(reader, first):
        found = _frames_by_threads(reader, windows, job, threads)
    else:
        found = _frames_of(reader.stream(), windows, job)
    for frame in found:
        yield frame
        if job.is_shared:
            job.spare.append(frame.source)


def _are_large(reader: RawReader, windows: list[Window]) -> bool:
    """Whether windows hold so many words that several threads are faster."""
    if len(windows) < MOST_WINDOWS:
        return True
    with RawIndex(reader) as index:
        index.load()
        return index.find(windows[-1][0]).position - index.find(windows[0][0]).position >= GROUP_BYTES


def _frames_of(stream: EventStream, windows: Iterable[Window], job: _Job) -> Iterator[_Frame]:
    is_first = True
    with stream:
        for t0_us, t1_us in windows:
            if is_first:
                stream.skip_until(t0_us)
                is_first = False
            if job.to_last_event and stream.t_next_us is None:
                return
            frame = job.pick_frame()
            frame.begin(t0_us, t1_us)
            stream.accumulate_until(t1_us, frame)
            finished = _Frame(t0_us, t1_us, job.take(frame), frame, frame.events)
            if not job.is_shared:
                job.spare.append(frame)
            yield finished


def _frames_by_threads(
    reader: RawReader, windows: Iterable[Window], job: _Job, threads: int
) -> Iterator[_Frame]:
    def work(checkpoint: Checkpoint, group: list[Window]) -> list[_Frame]:
        return list(_frames_of(RawStream(reader, checkpoint), group, job))

    index = RawIndex(reader)
    pending: deque[Future[list[_Frame]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        index.load()
        for checkpoint, group in _group_windows(index, windows, job.to_last_event):
            pending.append(pool.submit(work, checkpoint, group))
            if len(pending) > threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
        index.save()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        index.close()


def _group_windows(
    index: RawIndex, windows: Iterable[Window], to_last_event: bool
) -> Iterator[tuple[Checkpoint, list[Window]]]:
    """Neighbouring windows together, each group with the checkpoint before its first."""
    group: list[Window] = []
    checkpoint = index.find(0)
    for window in windows:
        here = index.find(window[0])
        if to_last_event and index.is_complete and window[0] > index.latest_us:
            break
        if group and (here.position - checkpoint.position >= GROUP_BYTES or len(group) >= MOST_WINDOWS):
            yield checkpoint, group
            group = []
        if not group:
            checkpoint = here
        group.append(window)
    if group:
        yield checkpoint, group
