"""Event frames of a whole recording, window after window, on one thread or several.

The frames are the same, in the same order, on any number of threads; so is what was wrong with the recording,
in the reader's warnings once its end was reached.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventFrame
from velora_edge.errors import InputError
from velora_edge.events.accumulate.frame_threads import (
    MOST_WINDOWS,
    Job,
    SteadyWindows,
    are_large,
    frames_by_threads,
    frames_of,
)
from velora_edge.events.accumulate.representations import (
    Accumulator,
    CountPlanes,
    RegistrationMap,
    make_accumulator,
)
from velora_edge.events.base import LONGEST_GAP_US, EventReader
from velora_edge.events.formats.raw.raw import RawReader
from velora_edge.events.formats.raw.raw_index import RawIndex
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    from numpy.typing import NDArray

    from velora_edge.events.accumulate.frame_threads import Frame, Window

HISTOGRAM = "histogram"
"""The representation that is no picture: plain counts."""


def frames(
    recording: str | PathLike[str] | EventReader,
    windows: int | Iterable[int] = 33_333,
    representation: str = "polarity",
    size: tuple[int, int] | None = None,
    *,
    fit: Literal["crop", "letterbox", "stretch"] = "crop",
    sensor: tuple[int, int] | None = None,
    threads: int = 1,
    longest_gap_us: int | None = LONGEST_GAP_US,
    copy: bool = True,
) -> Iterator[EventFrame]:
    """Event frames of a recording, one for each window.

    ```python
    import velora_edge

    for frame in velora_edge.frames("recording.raw", 10_000, "voxel_grid", (224, 224)):
        print(frame.t0_us, frame.t1_us, frame.events, frame.image.shape)
    counts = [frame.image for frame in velora_edge.frames("recording.raw", 10_000, "histogram", threads=4)]
    ```

    Where windows without an event follow each other for longer than `longest_gap_us`, they are left out and
    the reader's warnings tell: one damaged word can put the next event years ahead.

    Args:
        recording: an event file, or a reader of one, whose `warnings` then tell what is wrong with it.
        windows: their length, microseconds, from the first event to the window of the last; or the edges
            where they end and the next begin, rising: then events before the first edge are passed over.
        representation: polarity, counts, time_surface or voxel_grid, as a model sees it: uint8[H, W, 3]; or
            histogram: events a pixel and polarity, uint16[2, H, W], channel 0 OFF, 1 ON, saturating at 65535.
        size: height and width of the frames; None: the sensor's, which a histogram always has.
        fit: how the sensor's picture is brought to another shape.
        sensor: width and height, for files that do not tell.
        threads: how many work at once; only `.raw` files are read by more than one.
        longest_gap_us: None for all windows of one length, whatever the gaps.
        copy: False: the image of a histogram holds until the next frame is asked for, which saves time.

    Raises:
        InputError: if the windows have no length, or a histogram is to have another size than the sensor.
        ConfigError: if there is no such representation.
        RecordingError: if the file cannot be used.
    """
    reader = recording if isinstance(recording, EventReader) else open_events(recording, sensor=sensor)
    window_us = windows if isinstance(windows, int) else None
    if window_us is not None and window_us <= 0:
        raise InputError(f"windows: expected a length in microseconds above 0, got {window_us}")
    if representation == HISTOGRAM:
        new_frame, take = _counting(reader, size, copy=copy)
    else:
        event_input = EventInput(representation=representation, fit=fit, window_us=window_us or 33_333)
        new_frame, take = _rendering(reader, size, event_input)
    job = Job(new_frame, take, is_shared=not copy, to_last_event=window_us is not None)
    made = (
        _steady_frames(reader, job, windows, threads, longest_gap_us)
        if isinstance(windows, int)
        else _frames_between(reader, job, windows, threads)
    )
    return made if reader is recording else _closing(reader, made)


def _closing(reader: EventReader, made: Iterator[EventFrame]) -> Iterator[EventFrame]:
    with reader:
        yield from made


def _counting(reader: EventReader, size: tuple[int, int] | None, *, copy: bool) -> Any:
    """What makes an empty frame of counts, and what takes them out of a full one."""
    sensor_hw = (reader.height, reader.width)
    if size not in (None, sensor_hw):
        raise InputError(f"a histogram has the sensor's size, {sensor_hw}, got {size}; leave size out")
    registration = RegistrationMap.identity(sensor_hw)

    def new_frame() -> Accumulator:
        return Accumulator(CountPlanes(sensor_hw[0] * sensor_hw[1]), registration)

    def take(frame: Accumulator) -> NDArray[Any]:
        counts: NDArray[Any] = frame.state.counts.reshape(2, -1)[:, 1:].reshape(2, *sensor_hw)
        return counts.copy() if copy else counts

    return new_frame, take


def _rendering(reader: EventReader, size: tuple[int, int] | None, event_input: EventInput) -> Any:
    """Likewise for a representation."""
    sensor_hw = (reader.height, reader.width)
    registration = RegistrationMap.from_fit(sensor_hw, size or sensor_hw, event_input.fit)

    def new_frame() -> Accumulator:
        return make_accumulator(event_input, registration)

    def take(frame: Accumulator) -> NDArray[Any]:
        image = np.empty((*frame.shape, 3), np.uint8)
        frame.render_into(image)
        return image

    new_frame()  # an unknown representation is told at once
    return new_frame, take


def _frames_between(
    reader: EventReader, job: Job, edges_us: Iterable[int], threads: int
) -> Iterator[EventFrame]:
    windows = itertools.pairwise(map(int, edges_us))
    first = list(itertools.islice(windows, MOST_WINDOWS))
    for frame in _all_frames(reader, first, itertools.chain(first, windows), job, threads):
        yield EventFrame(frame.image, frame.t0_us, frame.t1_us, frame.events)


def _steady_frames(
    reader: EventReader, job: Job, window_us: int, threads: int, longest_gap_us: int | None
) -> Iterator[EventFrame]:
    """Frames from the first event on; empty ones come once the gap is known to be short."""
    with reader.stream() as stream:
        start_us = stream.t_next_us
    if start_us is None:
        return
    windows = SteadyWindows(start_us, window_us, longest_gap_us)
    reached_us, gaps_us, nothing = start_us, [], job.new_frame()
    first = list(itertools.islice(SteadyWindows(start_us, window_us, None), MOST_WINDOWS))
    for frame in _all_frames(reader, first, windows, job, threads):
        if not frame.events:
            continue
        if longest_gap_us is not None and frame.t0_us - reached_us > longest_gap_us:
            gaps_us.append((reached_us, frame.t0_us))
        else:
            for t0_us in range(reached_us, frame.t0_us, window_us):
                nothing.begin(t0_us, t0_us + window_us)
                yield EventFrame(job.take(nothing), t0_us, t0_us + window_us, 0)
        yield EventFrame(frame.image, frame.t0_us, frame.t1_us, frame.events)
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
