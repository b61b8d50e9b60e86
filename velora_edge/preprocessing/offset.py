"""Measurement of the offset between a recording of events and a video, with a plot."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from velora_edge.errors import InputError, SourceError
from velora_edge.files import replace_file
from velora_edge.preprocessing.offset_estimate import (
    Estimate,
    EventMotion,
    PictureMotion,
    estimate_offset,
    read_event_motion,
    read_picture_motion,
    require_motion,
)
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions, TimestampSync, choose_sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame
    from velora_edge.preprocessing.sources import RGBSource


@dataclass(frozen=True, slots=True)
class Part:
    """Part of the video to use, and the range of the search.

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


WIDTH, HEIGHT = 1100, 640
WHITE, INK, GREY, BLUE, RED = (255, 255, 255), (40, 40, 40), (200, 200, 200), (180, 90, 20), (40, 40, 210)
"""BGR."""
TICKS = 8


class _Panel(NamedTuple):
    """A rectangle of the picture with axes: x in seconds, y from 0 to 1."""

    top: int
    bottom: int
    first_s: float
    last_s: float
    left: int = 60
    right: int = WIDTH - 30

    def points(self, x_s: NDArray[Any], y: NDArray[Any]) -> NDArray[np.int32]:
        across = self.left + (x_s - self.first_s) / (self.last_s - self.first_s) * (self.right - self.left)
        down = self.bottom - np.clip(y, 0, 1) * (self.bottom - self.top)
        return np.rint(np.stack([across, down], axis=1)).astype(np.int32)


def write_plot(path: str, measured: Measured) -> None:
    """Write the picture as PNG.

    Raises:
        InputError: if it cannot be written.
    """
    is_written, data = cv2.imencode(".png", draw_plot(measured))
    assert is_written
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace_file(Path(path), data.tobytes(), mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place with --plot"
        ) from error


def draw_plot(measured: Measured) -> NDArray[np.uint8]:
    """The picture, uint8[H, W, 3], BGR."""
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _draw_matches(image, measured)
    _draw_motions(image, measured)
    return image


def _draw_matches(image: NDArray[np.uint8], measured: Measured) -> None:
    found = measured.estimate
    tried_s = found.tried_us / 1e6
    panel = _Panel(60, 280, float(tried_s[0]), float(tried_s[-1]))
    highest = max(float(found.matches.max()), 1e-6)
    title = f"match by offset: best {found.offset_us / 1000:+.1f} ms ({found.match:.2f}), "
    title += f"next {found.next_match:.2f}, confidence {found.confidence:.2f}"
    _draw_axes(image, panel, title, "offset, s")
    _draw_line(image, panel, tried_s, found.matches / highest, BLUE)
    _mark(image, panel, found.offset_us / 1e6, RED)


def _draw_motions(image: NDArray[np.uint8], measured: Measured) -> None:
    pictures, events, found = measured.pictures, measured.events, measured.estimate
    middle_us, half_us = pictures.t_us + found.offset_us, found.period_us / 2
    is_inside = (middle_us - half_us >= events.begin_us) & (middle_us + half_us <= events.end_us)
    middle_us, energy = middle_us[is_inside], pictures.energy[is_inside].sum(axis=1)
    if len(middle_us) < 2:
        return
    counts = events.count(middle_us - half_us, middle_us + half_us).sum(axis=1)
    t_s = middle_us / 1e6
    panel = _Panel(370, 590, float(t_s[0]), float(t_s[-1]))
    _draw_axes(image, panel, "motion at this offset: events (blue), pictures (red)", "event clock, s")
    for values, colour in ((counts, BLUE), (energy, RED)):
        _draw_line(image, panel, t_s, values / max(float(np.percentile(values, 99.5)), 1e-9), colour)


def _draw_axes(image: NDArray[np.uint8], panel: _Panel, title: str, unit: str) -> None:
    corners = (panel.left, panel.top), (panel.right, panel.bottom)
    for x_s in np.linspace(panel.first_s, panel.last_s, TICKS + 1):
        _mark(image, panel, float(x_s), GREY)
        x = int(panel.points(np.array([x_s]), np.array([0.0]))[0, 0])
        _write(image, f"{x_s:.2f}", (x - 18, panel.bottom + 18), 0.42)
    cv2.rectangle(image, *corners, INK, 1)
    _write(image, title, (panel.left, panel.top - 12), 0.55)
    _write(image, unit, (panel.right - 110, panel.bottom + 38), 0.45)


def _draw_line(
    image: NDArray[np.uint8], panel: _Panel, x_s: NDArray[Any], y: NDArray[Any], colour: Sequence[int]
) -> None:
    cv2.polylines(image, [panel.points(x_s, y)], False, colour, 1, cv2.LINE_AA)


def _mark(image: NDArray[np.uint8], panel: _Panel, x_s: float, colour: Sequence[int]) -> None:
    x = int(panel.points(np.array([x_s]), np.array([0.0]))[0, 0])
    cv2.line(image, (x, panel.top), (x, panel.bottom), colour, 1)


def _write(image: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
