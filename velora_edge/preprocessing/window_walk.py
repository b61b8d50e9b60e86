"""A live camera's events into the frame of their window while the window's end is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velora_edge.events.accumulate.representations import Accumulator
    from velora_edge.events.base import EventStream


@dataclass(slots=True)
class _Ahead:
    """What was walked over of a window that has not ended.

    Attributes:
        t0_us: the window's start.
        upto_us: all its events before this time are in the frame.
        shift_us: between the camera's clock and the stream's, at its start.
        skipped: events before it.
        walked: events in it.
    """

    t0_us: int
    upto_us: int
    shift_us: int
    skipped: int
    walked: int = 0


class WindowWalk:
    """Walks the events of one window after the other into the same frame.

    A third of a million events take milliseconds that a pair would have to wait for. So they are walked over
    as they come (`walk_ahead`), up to where the window will end, or is likely to. If it then ends earlier, or
    begins elsewhere, the stream goes back and all is walked again: the frame is the same either way.

    That needs a stream that can go back, and a representation whose state depends on the events alone.

    Single-threaded: the packing thread.

    Args:
        stream: the events.
        frame: that they fall on.
    """

    def __init__(self, stream: EventStream, frame: Accumulator) -> None:
        self._stream, self._frame = stream, frame
        self._ahead: _Ahead | None = None

    def walk_ahead(self, t0_us: int, t1_us: int) -> None:
        """Take what has come of the window that starts at `t0_us`, and ends at `t1_us` at the earliest."""
        reached_us = None if self._frame.representation.uses_window else self._stream.reached_us
        if reached_us is None or reached_us <= t0_us:
            return
        if self._ahead is None or self._ahead.t0_us != t0_us:
            self.step_back()
            self._ahead = self._begin(t0_us)
        ahead, upto_us = self._ahead, min(reached_us, t1_us)
        if upto_us > ahead.upto_us and self._stream.shift_us == ahead.shift_us:
            ahead.walked += self._stream.accumulate_until(upto_us, self._frame)
            ahead.upto_us = upto_us

    def walk(self, t0_us: int, t1_us: int) -> tuple[int, int]:
        """Bring the events of [t0, t1) into the frame: how many were before them, and how many they are."""
        stream, ahead = self._stream, self._ahead
        if ahead is not None and self._is_of(ahead, t0_us, t1_us):
            self._ahead = None
            stream.go_on()
            return ahead.skipped, ahead.walked + stream.accumulate_until(t1_us, self._frame)
        self.step_back()
        skipped, shift_us = stream.skip_until(t0_us), stream.shift_us
        self._frame.begin(t0_us - shift_us, t1_us - shift_us)
        return skipped, stream.accumulate_until(t1_us, self._frame)

    def step_back(self) -> None:
        """Give back what was taken of a window that has not ended."""
        if self._ahead is not None:
            self._ahead = None
            self._stream.go_back()

    def _is_of(self, ahead: _Ahead, t0_us: int, t1_us: int) -> bool:
        """What was walked ahead is the beginning of this window, and the camera's clock went on."""
        return ahead.t0_us == t0_us and ahead.upto_us <= t1_us and ahead.shift_us == self._stream.shift_us

    def _begin(self, t0_us: int) -> _Ahead:
        self._stream.mark()
        skipped = self._stream.skip_until(t0_us)
        shift_us = self._stream.shift_us
        self._frame.begin(t0_us - shift_us, t0_us - shift_us + 1)
        return _Ahead(t0_us, t0_us, shift_us, skipped)
