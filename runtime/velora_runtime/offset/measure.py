"""From a recording of events and a video to the `--sync` that brings them together."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from velora_edge.errors import SourceError
from velora_edge.preprocessing.sources.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions, TimestampSync, choose_sync
from velora_runtime.offset.estimate import Estimate, estimate_offset, require_motion
from velora_runtime.offset.motion import EventMotion, PictureMotion, read_event_motion, read_picture_motion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_edge.datatypes import RGBFrame
    from velora_edge.preprocessing.sources.base import RGBSource


@dataclass(frozen=True, slots=True)
class Part:
    """What of the video is looked at, and how far from it.

    Attributes:
        start_us: from its first picture.
        duration_us: from there.
        search_us: how far the two may be apart.
    """

    start_us: int = 0
    duration_us: int = 60_000_000
    search_us: int = 10_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """An offset, and what it was measured from.

    Attributes:
        pictures: motion of the video, times as `--sync timestamps` places them on the event clock.
        events: motion of the events.
        estimate: of what is to be added to the pictures' times.
    """

    pictures: PictureMotion
    events: EventMotion
    estimate: Estimate

    @property
    def sync(self) -> str:
        """The value of `--sync`."""
        return f"offset={self.estimate.offset_us}"


def measure_offset(events: str, rgb: str, part: Part, sensor: tuple[int, int] | None = None) -> Measured:
    """Measure the offset of a video to a recording of events.

    Args:
        events: a recording of events, or a folder that --record wrote.
        rgb: a video, a folder of images, or a folder that --record wrote.
        part: of the video.
        sensor: width and height in pixels, for event files that do not tell.

    Raises:
        InputError: if one of them cannot be used, or shows too little.
    """
    reader, video = open_event_source(events, sensor), open_rgb_source(rgb)
    if reader is None or video is None:
        raise SourceError(
            "the offset is between two cameras", path="none", remedy="give a recording and a video"
        )
    with closing(reader), closing(video):
        way = choose_sync(SyncOptions("timestamps"), video, reader, reader.first_us())
        assert isinstance(way, TimestampSync)
        pictures = read_picture_motion(rgb, _choose_frames(video, way, part))
        require_motion(pictures)
        reach_us = part.search_us + round(pictures.period_us)
        t0_us, t1_us = int(pictures.t_us[0]) - reach_us, int(pictures.t_us[-1]) + reach_us
        found = read_event_motion(reader, t0_us, t1_us)
    return Measured(pictures, found, estimate_offset(pictures, found, part.search_us))


def _choose_frames(video: RGBSource, way: TimestampSync, part: Part) -> Iterator[RGBFrame]:
    """The part's frames, on the event clock."""
    begins_us: int | None = None

    def is_before_end(frame: RGBFrame) -> bool:
        nonlocal begins_us
        begins_us = frame.t_us if begins_us is None else begins_us
        return frame.t_us < begins_us + part.start_us + part.duration_us

    for frame in takewhile(is_before_end, video):
        if begins_us is not None and frame.t_us >= begins_us + part.start_us:
            yield way.place(frame).frame
