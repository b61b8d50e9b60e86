"""Frames to their exposures' edges on the event camera's trigger input, as both come in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from velora_edge.preprocessing.sync import Placed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_edge.datatypes import RGBFrame
    from velora_edge.preprocessing.edge_track import EdgeTrack
    from velora_runtime.live_sync.host_sync import HostSync

LOCK_FRAMES = 12
"""Frames from which the delay between exposure and arrival is learnt."""
AHEAD = 0.15
"""Part of the spacing by which the host's estimate may put a frame before its exposure."""
FOLLOW = 0.05
"""How fast the delay follows what is measured."""
AWAY = 20
"""Frames in a row without a tick; after these, the delay is learnt anew."""
LONGEST_WAIT_US = 200_000
"""How long a frame waits for its edge."""
TURN_US = 1_000


@dataclass(slots=True)
class TriggerCounts:
    """What became of the frames; written by the RGB camera's thread.

    Attributes:
        on_edge: placed at an edge that was seen.
        on_beat: placed where the edge was missed.
        by_host: placed by the host's clock, as there was no beat.
        unplaced: not placed, as there was no beat.
        locks: times that the delay was learnt.
    """

    on_edge: int = 0
    on_beat: int = 0
    by_host: int = 0
    unplaced: int = 0
    locks: int = 0


class OnlineTriggerSync:
    """Each frame at the tick of its exposure.

    The host's clock says roughly when a frame was taken, but for the delay between exposure and arrival. That
    is taken to be the shortest that is not negative, so it must be shorter than the spacing of the edges, or
    be told (`rgb.delay_us`). Once learnt, it tells which tick belongs to a frame, whatever frames or edges
    are lost.

    Single-threaded: the RGB camera's thread.

    Args:
        host: places frames roughly, and where there is no beat.
        edges: the beat.
        clock: the host's.
        stop: ends waiting.
        is_required: frames without a beat have no place; otherwise they go by the host's clock.
        note: gets a line when the beat is found and lost.
    """

    def __init__(
        self,
        host: HostSync,
        edges: EdgeTrack,
        clock: Clock,
        stop: threading.Event,
        *,
        is_required: bool,
        note: Callable[[str], None],
    ) -> None:
        self.counts = TriggerCounts()
        self.line = "by triggers as they come" + ("" if is_required else ", by the host's clock without them")
        self._host, self._edges, self._clock, self._stop = host, edges, clock, stop
        self._is_required, self._note = is_required, note
        self._delay_us: float | None = None
        self._learning: list[float] = []
        self._missing = 0

    def place(self, frame: RGBFrame) -> Placed | None:
        """The frame at its exposure; waits for the edge where it is still on its way."""
        rough_us = self._host.event_us(frame)
        if rough_us is None:
            self.counts.unplaced += 1
            return None
        if self._delay_us is None:
            self._learn(rough_us)
        if self._delay_us is None:
            return self._place_by_host(frame)
        wanted_us = rough_us - self._delay_us
        self._await(wanted_us)
        tick = self._edges.nearest(wanted_us)
        if tick is None:
            self._miss()
            return self._place_by_host(frame)
        self._missing = 0
        skew_us = round(wanted_us) - tick.t_us
        self._delay_us += FOLLOW * skew_us
        if tick.is_seen:
            self.counts.on_edge += 1
        else:
            self.counts.on_beat += 1
        return Placed(replace(frame, t_us=tick.t_us + skew_us), tick.t_us)

    def _learn(self, rough_us: int) -> None:
        """Learn the delay from some frames, once there is a beat and the clocks are known."""
        spacing_us = self._edges.spacing_us
        if not spacing_us or not self._host.is_settled:
            self._learning.clear()
            return
        self._await(rough_us)
        tick = self._edges.nearest(rough_us)
        if tick is None:
            return
        delay_us = float(rough_us - tick.t_us)
        if self._learning:  # on the same side of the circle as the first
            delay_us += spacing_us * round((self._learning[0] - delay_us) / spacing_us)
        self._learning.append(delay_us)
        if len(self._learning) < LOCK_FRAMES:
            return
        middle = sorted(self._learning)[len(self._learning) // 2]
        while middle < -AHEAD * spacing_us:
            middle += spacing_us
        while middle >= (1 - AHEAD) * spacing_us:
            middle -= spacing_us
        self._learning.clear()
        self._delay_us, self._missing = middle, 0
        self.counts.locks += 1
        self._note(f"frames follow the triggers, {middle / 1000:.1f} ms after them")

    def _miss(self) -> None:
        self._missing += 1
        if self._missing >= AWAY:
            self._delay_us, self._missing = None, 0
            self._note("the triggers have stopped, or no longer fit the frames")

    def _place_by_host(self, frame: RGBFrame) -> Placed | None:
        if self._is_required:
            self.counts.unplaced += 1
            return None
        self.counts.by_host += 1
        placed = self._host.place(frame)
        if placed is None or self._delay_us is None:
            return placed
        # The beat is gone for the moment: what it has taught of the delay still holds.
        t_us = placed.t_us - round(self._delay_us)
        return Placed(replace(placed.frame, t_us=placed.frame.t_us - round(self._delay_us)), t_us)

    def _await(self, wanted_us: float) -> None:
        """Wait until the edges up to half a spacing after a time are there."""
        needed_us = wanted_us + 0.5 * self._edges.spacing_us
        until_us = self._clock.now_us() + LONGEST_WAIT_US
        while self._edges.reached_us < needed_us and not self._stop.is_set():
            now_us = self._clock.now_us()
            if now_us >= until_us:
                return
            self._clock.wait_until(now_us + TURN_US, self._stop)
