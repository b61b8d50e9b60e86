"""Synchronisation of recordings: from the RGB camera's times to the event camera's clock.

- `timestamps`: the frames' own times. An image folder's are on the event clock as they stand. A video's count
  from its own zero: that is 0 on the event clock where the event recording begins within its clock's first
  second (both started with the recording), and otherwise the first event.
- `offset=US`: the same, and US microseconds more.
- `trigger`: each frame is given the time of its edge on the event camera's trigger input.
- `host`: by arrival, for live cameras; `velora_runtime.cameras.live_sync` has it, and triggers as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from velora_edge.datatypes import TriggerBatch
from velora_edge.errors import InputError, RecordingError
from velora_edge.limits import parse_int
from velora_edge.preprocessing.triggers import EdgeTrack, TriggerMatch, match_triggers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame
    from velora_edge.events.base import EventReader
    from velora_edge.preprocessing.sources import RGBSource

Edge = Literal["rising", "falling"]
MODES = "auto, timestamps, trigger, host or offset=US"

STARTED_WITH_US = 1_000_000
"""A recording whose first event is earlier than this began when its clock did."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Options of synchronisation.

    Attributes:
        mode: auto, timestamps, trigger, offset=US or host.
        trigger_id: the camera's trigger input; None: the one with the most edges.
        trigger_edge: the edge that stands for a frame.
    """

    mode: str = "auto"
    trigger_id: int | None = None
    trigger_edge: Edge = "rising"


@dataclass(frozen=True, slots=True)
class AlignedFrame:
    """A frame on the event clock.

    Attributes:
        frame: with its time on the event clock.
        t_us: the instant that its event window ends at.
    """

    frame: RGBFrame
    t_us: int

    @property
    def skew_us(self) -> int:
        """The frame's time less the window's end."""
        return self.frame.t_us - self.t_us


class Sync(Protocol):
    """Synchronisation of frames with the event clock. Single-threaded: the RGB camera's thread.

    Attributes:
        line: the way, in one line for people.
    """

    line: str

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """Place the frame on the event clock; None if it has no time there."""


class TimestampSync:
    """Frames' own times plus an offset."""

    def __init__(self, offset_us: int, line: str) -> None:
        self.offset_us, self.line = offset_us, line

    def place(self, frame: RGBFrame) -> AlignedFrame:
        """Place the frame on the event clock."""
        t_us = frame.t_us + self.offset_us
        return AlignedFrame(replace(frame, t_us=t_us), t_us)


class TriggerSync:
    """Each frame at its trigger edge; a frame without one has no place."""

    def __init__(
        self, frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], match: TriggerMatch, line: str
    ) -> None:
        self.line = line
        has_edge = match.edge >= 0
        times_us = edges_us[match.edge[has_edge]].tolist()
        skews_us = match.skew_us[has_edge].tolist()
        self._places = dict(
            zip(frames_us[has_edge].tolist(), zip(times_us, skews_us, strict=True), strict=True)
        )

    def place(self, frame: RGBFrame) -> AlignedFrame | None:
        """Place the frame at its edge's time, or return None."""
        if frame.t_us not in self._places:
            return None
        t_us, skew_us = self._places[frame.t_us]
        return AlignedFrame(replace(frame, t_us=t_us + skew_us), t_us)


def choose_sync(
    options: SyncOptions, rgb: RGBSource, events: EventReader | None, t_first_us: int | None
) -> Sync:
    """Choose the synchronisation that the user asked for, or the best that the recordings allow.

    Args:
        options: what was asked for. auto: triggers where their spacing agrees with the frames', or where
            there is one for each frame; else timestamps.
        rgb: the frames; their times are read where triggers are matched.
        events: the event recording, None where there is none.
        t_first_us: time of its first event.

    Raises:
        InputError: if there is no such way, or the sources cannot be synchronised by it.
    """
    mode, offset_us = parse_mode(options.mode)
    if mode == "host":
        raise InputError(
            "--sync host goes by the arrival of live data, which recordings do not have",
            remedy="use auto, timestamps, trigger or offset=US",
        )
    if mode == "trigger":
        if events is None:
            raise InputError(
                "--sync trigger needs an event camera", remedy="give --events, or leave --sync out"
            )
        return _by_trigger(options, rgb, events)
    if mode == "auto" and events is not None and not rgb.is_on_event_clock:
        found = _find_trigger(options, rgb, events)
        if found is not None:
            return found
    return _by_timestamps(rgb, offset_us, t_first_us)


def parse_mode(mode: str) -> tuple[str, int]:
    """Parse a mode: its name, and the offset in microseconds.

    Raises:
        InputError: if there is no such mode.
    """
    if mode in ("auto", "timestamps", "trigger", "host"):
        return mode, 0
    name, _, offset = mode.partition("=")
    offset_us = parse_int(offset)
    if name == "offset" and offset_us is not None:
        return "offset", offset_us
    raise InputError(f"expected --sync {MODES}, got {mode[:80]!r}", remedy="US is in whole microseconds")


def _by_timestamps(rgb: RGBSource, offset_us: int, t_first_us: int | None) -> TimestampSync:
    base_us, meaning = 0, "a frame's own time is its time on the event clock"
    if not rgb.is_on_event_clock and t_first_us is not None:
        base_us = 0 if 0 <= t_first_us < STARTED_WITH_US else t_first_us
        meaning = f"the video's 0 is {base_us} us on the event clock"
    line = f"by timestamps: {meaning}" + (f", {offset_us:+d} us" if offset_us else "")
    return TimestampSync(base_us + offset_us, line)


def _by_trigger(options: SyncOptions, rgb: RGBSource, events: EventReader) -> TriggerSync:
    edges = events.triggers()
    wanted, edges_us = _choose_input(options, edges)
    if not len(edges_us):
        raise RecordingError(
            f"expected {options.trigger_edge} trigger edges{wanted}, got {_inputs(edges)}",
            path=events.path,
            remedy="choose with --trigger-id and --trigger-edge, or use --sync timestamps",
        )
    return _match(options, wanted, rgb.times_us(), edges_us)


def _find_trigger(options: SyncOptions, rgb: RGBSource, events: EventReader) -> TriggerSync | None:
    """Return synchronisation by trigger if its edges match the frames."""
    wanted, edges_us = _choose_input(options, events.triggers())
    if not len(edges_us):
        return None
    frames_us = rgb.times_us()
    match = match_triggers(frames_us, edges_us)
    if match.by == "order" and len(frames_us) != len(edges_us) and not _mends(frames_us, edges_us, match):
        return None
    return _match(options, wanted, frames_us, edges_us)


def _match(
    options: SyncOptions, wanted: str, frames_us: NDArray[np.int64], edges_us: NDArray[np.int64]
) -> TriggerSync:
    """Match each frame to its edge, or, where edges were missed or doubled, to the period of the others."""
    match, note = match_triggers(frames_us, edges_us), ""
    if match.matched < len(frames_us) and (mended := _mends(frames_us, edges_us, match)) is not None:
        track, edges_us, match = mended
        counts = track.counts
        note = f" ({counts.missed} missed ones filled in, {counts.doubled} doubled ones left out)"
    return TriggerSync(frames_us, edges_us, match, _line(options, wanted, match, edges_us, note))


def _mends(
    frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], match: TriggerMatch
) -> tuple[EdgeTrack, NDArray[np.int64], TriggerMatch] | None:
    """Match frames to the edges' period, if that places more frames."""
    n = len(edges_us)
    track = EdgeTrack(0, 1, kept=None)
    track.add_edges(TriggerBatch(edges_us, np.zeros(n, np.uint8), np.ones(n, np.uint8)), 0)
    if track.counts.beats != 1 or not track.spacing_us:
        return None
    ticks_us = np.array([tick.t_us for tick in track.ticks], np.int64)
    found = match_triggers(frames_us, ticks_us)
    is_better = match.by == "order" or found.matched > match.matched
    return (track, ticks_us, found) if found.by == "spacing" and is_better else None


def _choose_input(options: SyncOptions, edges: TriggerBatch) -> tuple[str, NDArray[np.int64]]:
    """The input's name in a message, and the times of its edges, increasing."""
    polarity = 1 if options.trigger_edge == "rising" else 0
    of_edge = edges.p == polarity
    number = options.trigger_id
    if number is None:
        if not of_edge.any():
            return "", np.empty(0, np.int64)
        number = int(np.bincount(edges.id[of_edge]).argmax())
    return f" on input {number}", np.unique(edges.t_us[of_edge & (edges.id == number)])


def _line(
    options: SyncOptions, wanted: str, match: TriggerMatch, edges_us: NDArray[np.int64], note: str
) -> str:
    how = (
        "matched by the frames' own times"
        if match.by == "spacing"
        else "the frames' nominal rate is not the triggers': matched in order, first to first"
    )
    frames = len(match.edge)
    return (
        f"by {options.trigger_edge} triggers{wanted}: {match.matched} of {frames} frames "
        f"on {len(edges_us)} edges{note}, {how}"
    )


def _inputs(edges: TriggerBatch) -> str:
    if not len(edges):
        return "no triggers at all"
    names = {0: "falling", 1: "rising"}
    kinds = sorted({(int(i), int(p)) for i, p in zip(edges.id, edges.p, strict=True)})
    counts = [f"{int(((edges.id == i) & (edges.p == p)).sum())} {names[p]} on input {i}" for i, p in kinds]
    return ", ".join(counts)
