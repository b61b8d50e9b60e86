"""Data sets of recordings, packed into pairs as the runtime packs them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.bundle import values_sha256
from velora_edge.data.clips.clips import ClipSource, Modality, Pairs
from velora_edge.data.layouts.recording_index import RecordingIndex, cut_by_time, index_recordings
from velora_edge.errors import DatasetError, InputError
from velora_edge.events.base import LONGEST_GAP_US
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.pairs import walk_pairs
from velora_edge.preprocessing.registry import open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions
from velora_edge.preprocessing.windows import pair_rate_hz

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec, SplitConfig
    from velora_edge.data.layouts.recording_index import Recording
    from velora_edge.events.base import EventReader
    from velora_edge.preprocessing.packer import Pair
    from velora_edge.preprocessing.sources import RGBSource

    _Images = tuple[NDArray[np.uint8] | None, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class PackedPair:
    """One pair of a recording at model size; its arrays hold until the next pair is asked for.

    Attributes:
        t_us: its time, event clock.
        rgb: uint8[H, W, 3] or None.
        event: uint8[H, W, 3] or None.
    """

    t_us: int
    rgb: NDArray[np.uint8] | None
    event: NDArray[np.uint8] | None


class RuntimePacker:
    """Packs recordings by the runtime's packer, its windows and its synchronisation (`--sync auto`)."""

    def pairs(self, events: Path, video: Path | None, spec: ClipSpec) -> Iterator[PackedPair]:
        """All pairs of a recording in time order."""
        rgb = None if video is None else _open(video)
        with open_events(events) as reader:
            for packed in walk_pairs(reader, rgb, spec, SyncOptions(), lead=spec.length * spec.stride):
                yield _view(packed)

    def video_length_us(self, video: Path) -> int:
        """From a video's first frame to the end of its last one, as long as the ones before it."""
        times = _open(video).times_us()
        if len(times) < 2:
            return 0
        return int(times[-1] - times[0] + np.median(np.diff(times)))


def _open(video: Path) -> RGBSource:
    source = open_rgb_source(str(video))
    assert source is not None
    return source


def _view(packed: Pair) -> PackedPair:
    pair = packed.frames
    return PackedPair(
        pair.t_us,
        None if pair.rgb is None else packed.rgb_image,
        None if pair.event is None else packed.event_image,
    )


@dataclass(frozen=True, slots=True)
class WholeRecording:
    """A recording from its first pair to its last, with what is labelled in it.

    Attributes:
        items: of the set, by their numbers, with start and end: microseconds from the first pair; None: to
            the recording's end.
        pairs: in time order, those that lack a camera too; their arrays hold until the next one.
    """

    items: tuple[tuple[int, int, int | None], ...]
    pairs: Iterator[PackedPair]


LENGTHS_DIFFER_US, LENGTHS_DIFFER = 200_000, 0.05
"""A video and its events may differ in length by this much, or by this share of it."""


END_IS_PAST_US = 100_000
"""A segment's end may lie this far behind the last event: nobody clicks to the millisecond."""


class RecordingSet(ClipSource):
    """Our own recordings.

    Reading walks through event files and videos from their start, which is fast in the order of the items and
    slow in any other: pack them once (`velora dataset build`) and train on the result. Single-threaded.

    Args:
        path: the set's folder, or one `segments.csv`.
        spec: the form of the clips.
        index: its recordings.
        packer: makes pairs of a recording; without one, recordings are listed but not read.
    """

    kind = "recordings"
    is_sequential = True

    def __init__(
        self, path: Path, spec: ClipSpec, index: RecordingIndex, packer: RuntimePacker | None = None
    ) -> None:
        self.path, self.spec, self._index, self._packer = path, spec, index, packer
        self.labels = index.labels
        self.items = [recording.item for recording in index.recordings]
        has_video = any(recording.video for recording in index.recordings)
        self.cameras: tuple[Modality, ...] = ("rgb", "event") if has_video else ("event",)
        self.cuts_windows = not has_video
        self._walk: _Walk | None = None
        self._last: tuple[int, Pairs] | None = None
        self._last_span: tuple[Path, tuple[int | None, list[str]]] | None = None

    @property
    def rate_hz(self) -> float | None:
        """See `ClipSource.rate_hz`: of the first video that has one."""
        return self._video_rate_hz or super().rate_hz

    @cached_property
    def _video_rate_hz(self) -> float | None:
        videos = (recording.video for recording in self._index.recordings if recording.video is not None)
        for video in videos:
            with contextlib.suppress(InputError, OSError):
                if (rate_hz := pair_rate_hz(_open(video).times_us())) is not None:
                    return rate_hz
        return None

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        return len(_first_of(self._all(index)))

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        pairs = self._all(index)
        rgb, event = (None if part is None else part[which] for part in (pairs.rgb, pairs.event))
        return Pairs(rgb, event)

    def _all(self, index: int) -> Pairs:
        """All pairs of a recording; the last one asked for is kept."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._pack(index)
        return self._last[1]

    def _pack(self, index: int) -> Pairs:
        recording, packer = self._index.recordings[index], self._packer
        name = recording.item.name
        if packer is None:
            raise DatasetError(
                ["recordings are packed before they are trained on"],
                path=self.path,
                remedy=f"velora dataset build {self.path} OUT.h5 --for CONFIG, then set data.path=OUT.h5",
            )
        found = self._walk_over(recording, packer)
        if not found:
            raise DatasetError([f"{name}: no pairs"], path=self.path, remedy="see velora dataset check")
        rgb = None if recording.video is None else np.stack([rgb for rgb, _ in found if rgb is not None])
        return Pairs(rgb, np.stack([event for _, event in found]))

    def _walk_over(self, recording: Recording, packer: RuntimePacker) -> list[_Images]:
        try:
            if self._walk is None or not self._walk.reaches(recording):
                self._walk = _Walk(recording, packer.pairs(recording.events, recording.video, self.spec))
            return list(self._walk.take(recording))
        except (InputError, OSError) as error:
            self._walk = None
            raise DatasetError(
                [_tell(error, recording)], path=self.path, remedy="mend it, or take it out"
            ) from error

    def whole(self, members: Sequence[int]) -> Iterator[WholeRecording]:
        """The recordings that hold some of the items, each once, in the order of the items.

        Args:
            members: numbers of items.
        """
        assert self._packer is not None
        parts: dict[Path, list[int]] = {self._index.recordings[number].events: [] for number in members}
        for number, recording in enumerate(self._index.recordings):
            if recording.events in parts:
                parts[recording.events].append(number)
        for events, numbers in parts.items():
            inside = [self._index.recordings[number] for number in numbers]
            items = tuple((n, r.start_us, r.end_us) for n, r in zip(numbers, inside, strict=True))
            yield WholeRecording(items, self._packer.pairs(events, inside[0].video, self.spec))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        recording = self._index.recordings[index]
        name = recording.item.name
        try:
            if not deep:
                open_events(recording.events).close()
                return []
            span, found = self._span(recording.events)
        except (InputError, OSError) as error:
            return [f"{name}: {error.problem if isinstance(error, InputError) else error}"]
        if span is None:
            return [f"{name}: no events"]
        problems = [f"{name}: {sentence}" for sentence in found]
        if recording.end_us is not None and recording.start_us >= span:
            problems.append(
                f"{name}: begins at {recording.start_us / 1e6} s, the events end at {span / 1e6} s"
            )
        return problems + self._video_problems(recording, span)

    def warnings(self, index: int) -> list[str]:
        """See `ClipSource.warnings`."""
        recording = self._index.recordings[index]
        if recording.end_us is None:
            return []
        try:
            span_us, _ = self._span(recording.events)
        except (InputError, OSError):
            return []
        if span_us is None or recording.end_us <= span_us + END_IS_PAST_US:
            return []
        return [
            f"{recording.item.name}: ends at {recording.end_us / 1e6:g} s, the events at {span_us / 1e6:g} s"
        ]

    def _span(self, events: Path) -> tuple[int | None, list[str]]:
        """See `_span_us`; the segments of one recording share it."""
        if self._last_span is None or self._last_span[0] != events:
            with open_events(events) as reader:
                self._last_span = events, _span_us(reader)
        return self._last_span[1]

    def _video_problems(self, recording: Recording, events_us: int) -> list[str]:
        if recording.video is None or self._packer is None:
            return []
        name = recording.item.name
        try:
            video_us = self._packer.video_length_us(recording.video)
        except InputError as error:
            return [f"{name}: {recording.video.name}: {error.problem}"]
        if abs(video_us - events_us) > max(LENGTHS_DIFFER_US, LENGTHS_DIFFER * max(video_us, events_us)):
            return [f"{name}: the video lasts {video_us / 1e6:.2f} s, its events {events_us / 1e6:.2f} s"]
        return []

    def digest(self) -> str:
        """Digest of the recordings: names, labels, parts and pieces, sizes and times of their files."""
        listed = [
            (r.item.name, self.labels[r.item.label], r.item.split, r.start_us, r.end_us)
            for r in self._index.recordings
        ]
        files = {file for r in self._index.recordings for file in _files_of(r)}
        named = sorted((os.path.relpath(file, self.path), file.stat()) for file in files)
        stats = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in named]
        return values_sha256([listed, stats])

    def set_problems(self) -> list[str]:
        """See `ClipSource.set_problems`."""
        return list(self._index.problems)

    def set_warnings(self) -> list[str]:
        """See `ClipSource.set_warnings`."""
        return list(self._index.warnings)


def _files_of(recording: Recording) -> Iterator[Path]:
    """The files that a recording's pairs follow from."""
    yield recording.events
    if recording.video is not None and recording.video.is_dir():
        yield from (file for file in recording.video.iterdir() if file.is_file())
    elif recording.video is not None:
        yield recording.video


def _tell(error: InputError | OSError, recording: Recording) -> str:
    """What is wrong, after the recording's name, and that of the file where it is not the events'."""
    name = recording.item.name
    if not isinstance(error, InputError):
        return f"{name}: {error}"
    is_events = error.path is None or Path(error.path) == recording.events
    file = "" if is_events else f"{Path(str(error.path)).name}: "
    return f"{name}: {file}{error.problem}" + (f" ({error.place})" if error.place else "")


class _Walk:
    """One pass over a recording; segments that follow each other share it."""

    def __init__(self, recording: Recording, pairs: Iterator[PackedPair]) -> None:
        self._events, self._has_video = recording.events, recording.video is not None
        self._pairs = pairs
        self._next = next(pairs, None)
        self._zero_us = self._next.t_us if self._next is not None else 0
        self._reached_us = 0

    def reaches(self, recording: Recording) -> bool:
        """Whether the recording lies in what this walk has still before it."""
        return recording.events == self._events and 0 < self._reached_us <= recording.start_us

    def take(self, recording: Recording) -> Iterator[_Images]:
        """Copies of the recording's pairs that have all its cameras; the walk then stands behind it."""
        end_us = recording.end_us
        while self._next is not None:
            t_us = self._next.t_us - self._zero_us
            if end_us is not None and t_us >= end_us:
                break
            pair = self._next
            is_whole = pair.event is not None and (pair.rgb is not None or not self._has_video)
            if t_us >= recording.start_us and is_whole:
                assert pair.event is not None
                yield None if pair.rgb is None else pair.rgb.copy(), pair.event.copy()
            self._next = next(self._pairs, None)
        self._reached_us = end_us if end_us is not None else np.iinfo(np.int64).max


def open_recordings(
    path: Path, spec: ClipSpec, packer: RuntimePacker | None = None, split: SplitConfig | None = None
) -> RecordingSet:
    """Our own recordings in a folder; see `velora_edge.data.layouts.recording_index` for its layout.

    Args:
        path: the folder.
        spec: the form of the clips.
        packer: makes pairs; see `RecordingSet`.
        split: where it divides by time, recordings are cut into pieces, for which each is read once.
    """
    index = index_recordings(path)
    if split is not None and split.by == "time":
        index = cut_by_time(index, split, _length_us)
    return RecordingSet(path, spec, index, packer)


def _length_us(recording: Recording) -> int:
    """Time from a recording's first event to its last one."""
    try:
        with open_events(recording.events) as reader:
            return _span_us(reader)[0] or 0
    except (InputError, OSError) as error:
        raise DatasetError([_tell(error, recording)], path=recording.events, remedy="take it out") from error


def _span_us(reader: EventReader) -> tuple[int | None, list[str]]:
    """From the first event to the last, and what was odd; reads the whole file."""
    first: int | None = None
    last = before = 0
    gaps: list[str] = []
    for batch in reader:
        if first is None:
            first = last = before = int(batch.t_us[0])
        gaps += _gaps(batch.t_us, before)
        first, last = min(first, int(batch.t_us.min())), max(last, int(batch.t_us.max()))
        before = int(batch.t_us[-1])
    return (None if first is None else last - first), [*reader.warnings, *gaps[:1]]


def _gaps(t_us: NDArray[np.int64], before_us: int) -> Iterator[str]:
    """What is odd about long times without an event, after one at `before_us`."""
    for k in np.flatnonzero(np.diff(t_us, prepend=before_us) > LONGEST_GAP_US):
        from_us = int(t_us[k - 1]) if k else before_us
        seconds = (int(t_us[k]) - from_us) / 1e6
        yield (
            f"there is no event from {from_us:,} to {t_us[k]:,} us ({seconds:,.0f} s): "
            "its clock jumped, or the file is damaged"
        )


def _first_of(pairs: Pairs) -> NDArray[np.uint8]:
    images = pairs.event if pairs.rgb is None else pairs.rgb
    assert images is not None
    return images
