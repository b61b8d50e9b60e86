"""Whole recordings into frames, window after window, on one thread or on several.

The frames are the same, in the same order, on any number of threads; so is what was wrong with the recording,
in the reader's warnings once its end was reached.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventFrame
from velora_edge.events.accumulate.count_planes import CountPlanes
from velora_edge.events.accumulate.frame_threads import (
    MOST_WINDOWS,
    Job,
    SteadyWindows,
    are_large,
    frames_by_threads,
    frames_of,
)
from velora_edge.events.accumulate.registration import RegistrationMap
from velora_edge.events.accumulate.representations import Accumulator, make_accumulator
from velora_edge.events.base import LONGEST_GAP_US
from velora_edge.events.formats.raw.raw import RawReader
from velora_edge.events.formats.raw.raw_index import RawIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.events.accumulate.frame_threads import Frame, Window
    from velora_edge.events.base import EventReader


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

    job = Job(new_frame, take, is_shared=False, to_last_event=False)
    windows = itertools.pairwise(edges_us)
    first = list(itertools.islice(windows, MOST_WINDOWS))
    for frame in _all_frames(reader, first, itertools.chain(first, windows), job, threads):
        yield EventFrame(frame.image, frame.t0_us, frame.t1_us, frame.events)


def count_frames(
    reader: EventReader, window_us: int, threads: int = 1, longest_gap_us: int | None = LONGEST_GAP_US
) -> Iterator[NDArray[np.uint16]]:
    """Events a pixel and polarity, at the sensor's own size, for each window from first to last event.

    Where windows without an event follow each other for longer than `longest_gap_us`, they are left out and
    the reader's warnings tell: one damaged word can put the next event years ahead.

    Args:
        reader: of the recording.
        window_us: length of a window.
        threads: how many work at once; only `.raw` files are read by more than one.
        longest_gap_us: None for all windows, whatever the gaps.

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
        return counts.reshape(2, -1)[:, 1:].reshape(2, *size)

    job = Job(new_frame, take, is_shared=True, to_last_event=True)
    windows = SteadyWindows(start_us, window_us, longest_gap_us)
    reached_us, gaps_us = start_us, []
    first = list(itertools.islice(SteadyWindows(start_us, window_us, None), MOST_WINDOWS))
    for frame in _all_frames(reader, first, windows, job, threads):
        if not frame.events:
            continue
        if longest_gap_us is not None and frame.t0_us - reached_us > longest_gap_us:
            gaps_us.append((reached_us, frame.t0_us))
        else:
            for _ in range(reached_us, frame.t0_us, window_us):
                yield np.zeros((2, *size), np.uint16)
        yield frame.image
        reached_us = frame.t1_us
    if gaps_us:
        _tell_gaps(reader, gaps_us, window_us)


def _all_frames(
    reader: EventReader, first: list[Window], windows: Iterable[Window], job: Job, threads: int
) -> Iterator[Frame]:
    if threads > 1 and isinstance(reader, RawReader):
        with RawIndex(reader) as index:
            index.load()
            if are_large(index, first):
                yield from _handing_back(frames_by_threads(reader, index, windows, job, threads), job)
                index.save()
                return
    with reader.stream() as stream:
        yield from _handing_back(frames_of(stream, windows, job), job)


def _handing_back(frames: Iterator[Frame], job: Job) -> Iterator[Frame]:
    """The frames; each may be filled anew once the next is asked for."""
    for frame in frames:
        yield frame
        if job.is_shared:
            job.spare.append(frame.source)


def _tell_gaps(reader: EventReader, gaps_us: list[Window], window_us: int) -> None:
    windows = sum((end_us - start_us) // window_us for start_us, end_us in gaps_us)
    start_us, end_us = gaps_us[0]
    gaps = (
        "there is no event"
        if len(gaps_us) == 1
        else f"{len(gaps_us):,} long gaps are without an event, the first"
    )
    sentence = (
        f"{gaps} from {start_us:,} to {end_us:,} us ({(end_us - start_us) / 1e6:,.0f} s): "
        f"{windows:,} empty windows were left out"
    )
    if sentence not in reader.warnings:
        reader.warnings.append(sentence)
