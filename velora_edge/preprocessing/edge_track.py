"""The beat of an RGB camera's exposures, from the edges on the event camera's trigger input.

Edges come at even spacing, but some are missed and some come twice. What does not fit the beat is left out,
what it lacks is filled in, and every exposure has its tick.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from velora_edge.datatypes import TriggerBatch

KEPT = 512
"""Ticks that are remembered: 17 s at 30 Hz."""
GAPS = 32
"""Gaps that the spacing is estimated from."""
LEAST_EDGES = 8
"""Edges before there is a beat."""
FITS, NEAR = 0.25, 0.04
"""Part of the spacing by which an edge may miss the beat: where edges are uneven, and where they are even."""
STRANGE = 3
"""So many edges in a row that miss an even beat make it an uneven one."""
OFF_BEAT = 0.2
"""If the median gap differs from the spacing by this part, the camera has another rate now."""
MOST_MISSED = 15
"""Edges in a row that are filled in; beyond, the input is silent."""
LATE = 0.5
"""Part of the spacing after which an edge that has not come is taken for missed."""


@dataclass(slots=True)
class EdgeCounts:
    """What became of the edges; written by the event camera's thread.

    Attributes:
        seen: that came, on the chosen input and of the chosen polarity.
        doubled: left out: they did not fit the beat.
        missed: filled in.
        beats: times that a beat was found anew.
    """

    seen: int = 0
    doubled: int = 0
    missed: int = 0
    beats: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """One exposure.

    Attributes:
        t_us: its edge's time, stream clock; where it was missed, what the beat says.
        is_seen: there was an edge.
    """

    t_us: int
    is_seen: bool


class EdgeTrack:
    """Follows the edges. `add_edges` is called by the event camera's thread; all else by any.

    Args:
        trigger_id: the input; None: the one that the first edge comes on.
        polarity: 1 for rising edges, 0 for falling ones.
        kept: ticks that are remembered; None: all.
    """

    def __init__(self, trigger_id: int | None, polarity: int, kept: int | None = KEPT) -> None:
        self.counts = EdgeCounts()
        self._lock = threading.Lock()
        self._trigger_id, self._polarity = trigger_id, polarity
        self._ticks: deque[Tick] = deque(maxlen=kept)
        self._gaps: deque[int] = deque(maxlen=GAPS)
        self._first: list[int] = []
        self._spacing_us = 0.0
        self._last_edge_us: int | None = None
        self._guessed = self._strange = 0
        self._fits, self._unevenness = FITS, FITS / 6
        self._reached_us = 0

    @property
    def spacing_us(self) -> float:
        """Between exposures; 0 before there is a beat, and when it is lost."""
        return self._spacing_us

    @property
    def reached_us(self) -> int:
        """No edge that comes later is before this time."""
        return self._reached_us

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Those that are remembered, in order."""
        with self._lock:
            return tuple(self._ticks)

    def add_edges(self, edges: TriggerBatch, reached_us: int) -> None:
        """Take in edges of all inputs, and the time up to which they are all there."""
        with self._lock:
            if self._trigger_id is None and len(edges):
                self._trigger_id = int(edges.id[0])
            is_ours = (edges.id == self._trigger_id) & (edges.p == self._polarity)
            for t_us in edges.t_us[is_ours].tolist():
                self._add(t_us)
            self._reached_us = max(self._reached_us, reached_us)
            self._fill_in()

    def nearest(self, t_us: float) -> Tick | None:
        """The tick nearest to a time; None if there is none within half the spacing."""
        with self._lock:
            times = [tick.t_us for tick in self._ticks]
            if not times or not self._spacing_us:
                return None
            right = bisect_left(times, t_us)
            near = min(
                (k for k in (right - 1, right) if 0 <= k < len(times)), key=lambda k: abs(times[k] - t_us)
            )
            return self._ticks[near] if abs(times[near] - t_us) <= 0.5 * self._spacing_us else None

    def _add(self, t_us: int) -> None:
        self.counts.seen += 1
        if self._last_edge_us is not None:
            self._gaps.append(t_us - self._last_edge_us)
        self._last_edge_us = t_us
        if not self._spacing_us:
            self._find_beat(t_us)
            return
        beats = (t_us - self._ticks[-1].t_us) / self._spacing_us
        whole = round(beats)
        off = abs(beats - whole)
        if whole == 0 and self._guessed and off <= FITS:
            self._ticks[-1] = Tick(t_us, is_seen=True)  # it was taken for missed, and was only late
            self._guessed -= 1
            self.counts.missed -= 1
        elif whole >= 1 and off <= self._fits * whole:
            self._append(t_us, whole)
            self._learn_evenness(off / whole)
        else:
            self._leave_out(t_us, off if whole == 0 else 1.0)
        self._follow_rate()

    def _learn_evenness(self, off: float) -> None:
        self._strange = 0
        self._unevenness += 0.05 * (off - self._unevenness)
        self._fits = max(NEAR, min(6 * self._unevenness, FITS))

    def _leave_out(self, t_us: int, off: float) -> None:
        """An edge that is one too many: of two near each other, the one that fits the beat better stays."""
        self.counts.doubled += 1
        self._strange += 1
        if self._strange >= STRANGE:
            self._fits, self._unevenness = FITS, FITS / 6
        if off > NEAR or len(self._ticks) < 2 or not self._ticks[-1].is_seen:
            return
        expected_us = self._ticks[-2].t_us + self._spacing_us
        if abs(t_us - expected_us) < abs(self._ticks[-1].t_us - expected_us):
            self._ticks[-1] = Tick(t_us, is_seen=True)

    def _append(self, t_us: int, beats: int) -> None:
        """Add a tick, and those that are missing before it."""
        start_us = self._ticks[-1].t_us
        for k in range(1, beats):
            self._ticks.append(Tick(start_us + round((t_us - start_us) * k / beats), is_seen=False))
            self.counts.missed += 1
        self._ticks.append(Tick(t_us, is_seen=True))
        self._guessed = 0

    def _find_beat(self, t_us: int) -> None:
        self._first.append(t_us)
        if len(self._first) < LEAST_EDGES:
            return
        spacing = float(np.median(np.diff(self._first)))
        if spacing <= 0:
            self._first.pop(0)
            return
        self.counts.beats += 1
        times, self._first = self._first, []
        self._spacing_us = spacing
        start = _most_regular(times, spacing)
        self._ticks.clear()
        self._ticks.append(Tick(times[start], is_seen=True))
        self._guessed = 0
        for edge_us in times[start + 1 :]:
            beats = (edge_us - self._ticks[-1].t_us) / spacing
            if round(beats) >= 1 and abs(beats - round(beats)) <= FITS:
                self._append(edge_us, round(beats))
            else:
                self.counts.doubled += 1

    def _follow_rate(self) -> None:
        """Keep the spacing at the median of the gaps that fit; another rate altogether begins anew."""
        typical = float(median(self._gaps))
        if abs(typical / self._spacing_us - 1) <= OFF_BEAT:
            self._spacing_us += 0.1 * (typical - self._spacing_us)
        elif len(self._gaps) == GAPS:
            self._lose_beat()

    def _fill_in(self) -> None:
        """Ticks whose edges have not come although the stream has passed them."""
        if not self._spacing_us or not self._ticks:
            return
        while self._reached_us > self._ticks[-1].t_us + (1 + LATE) * self._spacing_us:
            if self._guessed >= MOST_MISSED:
                self._lose_beat()
                return
            self._ticks.append(Tick(self._ticks[-1].t_us + round(self._spacing_us), is_seen=False))
            self._guessed += 1
            self.counts.missed += 1

    def _lose_beat(self) -> None:
        self._spacing_us, self._guessed = 0.0, 0
        self._gaps.clear()
        self._first, self._last_edge_us = [], None


def _most_regular(times: list[int], spacing: float) -> int:
    """The edge from which most others are whole spacings away: a doubled one must not start the beat."""

    def fitting(start: int) -> int:
        beats = [(t - times[start]) / spacing for t in times[start:]]
        return sum(abs(b - round(b)) <= FITS for b in beats) + start

    return max(range(len(times) // 2), key=fitting)
