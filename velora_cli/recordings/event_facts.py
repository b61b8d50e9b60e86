"""Facts about a recording of events for `velora info`, gathered in one pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from velora_edge.console import Command, add_options
from velora_edge.errors import InputError
from velora_edge.events.base import LONGEST_GAP_US

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.events.base import EventReader


_OPTIONAL = ("hot_pixels", "frames")


@dataclass(frozen=True, slots=True)
class EventFacts:
    """Facts that `velora info --json` prints; times are None where there are no events.

    `frames` is there only where the camera took any, `hot_pixels` only where they were looked for.
    """

    format: str
    width: int
    height: int
    events: int
    on: int
    off: int
    t_first_us: int | None
    t_last_us: int | None
    duration_us: int | None
    triggers: int
    warnings: list[str]
    hot_pixels: int | None = None
    frames: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The facts that are known, for JSON."""
        said = asdict(self)
        return {name: value for name, value in said.items() if name not in _OPTIONAL or value is not None}

    def rows(self) -> list[tuple[str, str]]:
        """The facts for people: name and value."""
        rows = [
            ("format", self.format),
            ("sensor", f"{self.width}x{self.height}"),
            ("events", f"{self.events:,} ({self.on:,} ON, {self.off:,} OFF)"),
        ]
        if self.t_first_us is not None and self.duration_us is not None:
            rows.append(("time", f"{self.t_first_us:,} to {self.t_last_us:,} us"))
            rows.append(("duration", f"{self.duration_us / 1e6:,.6f} s"))
            if self.duration_us:
                rows.append(("rate", f"{self.events / self.duration_us:,.3f} million events a second"))
        rows.append(("triggers", f"{self.triggers:,}"))
        if self.frames is not None:
            rows.append(("frames", f"{self.frames:,}, on the events' clock; see velora-live --rgb"))
        if self.hot_pixels is not None:
            rows.append(("hot pixels", f"{self.hot_pixels:,} of {self.width * self.height:,}"))
        rows += [("warning" if self.warnings else "warnings", text) for text in self.warnings or ["none"]]
        return rows


@dataclass(frozen=True, slots=True)
class Look:
    """Options of `velora info` for a recording.

    Attributes:
        start_s: how far from the first event to begin, seconds.
        duration_s: how much to look at; None: to the end.
        hot_pixels: file to which a mask of the hot pixels is written, see `write_mask`; None: none.
    """

    start_s: float = 0.0
    duration_s: float | None = None
    hot_pixels: str | None = None


def look_options(command: Command) -> Command:
    """A command with --start, --duration and --hot-pixels."""
    options = (
        click.option(
            "--start", default=0.0, metavar="S", help="Events: begin so many seconds after the first of them."
        ),
        click.option("--duration", type=float, metavar="S", help="Events: look at so many seconds only."),
        click.option(
            "--hot-pixels",
            metavar="OUT",
            help="Events: write which pixels fire on their own to a file, .npy or .json; best of a recording "
            "in which little moves.",
        ),
    )
    return add_options(command, options)


def read_look(given: dict[str, Any]) -> Look:
    """Return the options that a user gave.

    Raises:
        InputError: if there is no such part of a recording.
    """
    if given["start"] < 0 or (given["duration"] is not None and given["duration"] <= 0):
        raise InputError("--start: expected 0 or more seconds, and --duration: more than 0")
    return Look(given["start"], given["duration"], given["hot_pixels"])


def read_facts(reader: EventReader, look: Look | None = None) -> EventFacts:
    """Read a recording, or the part of it that is wanted, and tell what is in it.

    Raises:
        InputError: if the mask of hot pixels cannot be written.
    """
    look = look or Look()
    events = on = 0
    first_us: int | None = None
    last_us: int | None = None
    counts = _PixelCounts(reader) if look.hot_pixels is not None else None
    span, gaps = _span(reader, look), _LongGaps()
    for batch in reader if span is None else reader.between(*span):
        if counts is not None:
            counts.add(batch.x, batch.y)
        gaps.add(batch.t_us)
        events += len(batch)
        on += int(batch.p.sum())
        low, high = int(batch.t_us.min()), int(batch.t_us.max())
        first_us = low if first_us is None else min(first_us, low)
        last_us = high if last_us is None else max(last_us, high)
    triggers = _count_between(reader.triggers().t_us, span)
    frames = _count_frames(reader, span)
    duration_us = None if first_us is None or last_us is None else last_us - first_us
    warnings = [*reader.warnings, *gaps.warnings()]
    if not events:
        warnings.append("the recording holds no events")
    hot = None
    if counts is not None and look.hot_pixels is not None:
        hot = counts.write_hot_pixels(look.hot_pixels, duration_us or 0)
    return EventFacts(
        reader.format, reader.width, reader.height, events, on, events - on, first_us, last_us,
        duration_us, triggers, warnings, hot, frames,
    )  # fmt: skip


class _LongGaps:
    """Times without any event that are longer than a camera is ever silent."""

    def __init__(self) -> None:
        self._n = 0
        self._first_us = (0, 0)
        self._last_us: int | None = None

    def add(self, t_us: NDArray[np.int64]) -> None:
        """Look at the times of the next events, of which there are some."""
        times_us = t_us if self._last_us is None else np.concatenate([[self._last_us], t_us])
        self._last_us = int(t_us[-1])
        found = np.flatnonzero(np.diff(times_us) > LONGEST_GAP_US)
        if len(found) and not self._n:
            self._first_us = int(times_us[found[0]]), int(times_us[found[0] + 1])
        self._n += len(found)

    def warnings(self) -> list[str]:
        """What was found, in one sentence; nothing where nothing was."""
        if not self._n:
            return []
        from_us, to_us = self._first_us
        what = "there is no event" if self._n == 1 else f"{self._n:,} long gaps hold no event, the first"
        return [
            f"{what} from {from_us:,} to {to_us:,} us ({(to_us - from_us) / 1e6:,.0f} s): "
            "the camera's clock was set, or the file is damaged"
        ]


class _PixelCounts:
    """Events of each pixel."""

    def __init__(self, reader: EventReader) -> None:
        self._hw = reader.height, reader.width
        self._counts = np.zeros(reader.height * reader.width, np.int64)

    def add(self, x: NDArray[np.uint16], y: NDArray[np.uint16]) -> None:
        """Count events at these places."""
        cells = y.astype(np.intp) * self._hw[1] + x
        self._counts += np.bincount(cells, minlength=len(self._counts))

    def write_hot_pixels(self, path: str, duration_us: int) -> int:
        """Write their mask; how many they are."""
        from velora_edge.events.geometry.calibration_files import find_hot_pixels, write_mask

        mask = find_hot_pixels(self._counts.reshape(self._hw), duration_us)
        write_mask(path, mask)
        return int(mask.sum())


def _span(reader: EventReader, look: Look) -> tuple[int, int | None] | None:
    """From when to when to look, None for everything."""
    first_us = None if look.start_s == 0 and look.duration_s is None else reader.first_us()
    if first_us is None:
        return None
    start_us = first_us + round(look.start_s * 1e6)
    return start_us, None if look.duration_s is None else start_us + round(look.duration_s * 1e6)


def _count_frames(reader: EventReader, span: tuple[int, int | None] | None) -> int | None:
    """How many frames an AEDAT4 file's camera took; None where it took none."""
    if not getattr(reader, "has_frames", False):
        return None
    frames = reader.frames()  # type: ignore[attr-defined]  # of AEDAT4's reader
    return _count_between(np.array([frame.t_us for frame in frames], np.int64), span)


def _count_between(t_us: NDArray[np.int64], span: tuple[int, int | None] | None) -> int:
    if span is None:
        return len(t_us)
    inside = t_us >= span[0]
    if span[1] is not None:
        inside &= t_us < span[1]
    return int(inside.sum())
