"""Trigger edges of an RGB camera's exposures: their period, and the edge of each frame.

Edges come at even spacing, but some are missed and some come twice. Edges that do not fit the period are left
out, missed ones are filled in, and every exposure has one edge.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    """Counts of edges; written by the event camera's thread.

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
        """Period of exposures; 0 before it is known, and when it is lost."""
        return self._spacing_us

    @property
    def reached_us(self) -> int:
        """No edge that comes later is before this time."""
        return self._reached_us

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Edges that are remembered, in order."""
        with self._lock:
            return tuple(self._ticks)

    def add_edges(self, edges: TriggerBatch, reached_us: int) -> None:
        """Take edges of all inputs, and the time up to which they are complete."""
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
        """Leave out a doubled edge: of two near each other, the one that fits the period better stays."""
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
        """Fill in edges that have not come although the stream has passed them."""
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
    """Return the edge from which most others are whole periods away; a doubled one must not be first."""

    def fitting(start: int) -> int:
        beats = [(t - times[start]) / spacing for t in times[start:]]
        return sum(abs(b - round(b)) <= FITS for b in beats) + start

    return max(range(len(times) // 2), key=fitting)


MATCH_NEAR = 0.3
"""A frame belongs to an edge if its expected time misses it by at most this part of the edges' spacing."""

ENOUGH = 0.95
"""Part of the frames that must find an edge, or the two spacings have nothing to do with each other."""

FOLLOW = 0.1
"""How fast the offset follows what is measured: clocks drift by some 100 ppm."""

SAMPLE = 256
"""Frames, from the first, on which the possible starts are compared."""

STARTS = 4096
"""Starts that are compared at most."""


@dataclass(frozen=True, slots=True)
class TriggerMatch:
    """The frames' edges.

    Attributes:
        edge: int64[frames], the edge of each frame, -1 for none.
        skew_us: int64[frames], the frame's own time, brought to the edges' clock by one offset and one
            rate, less its edge's time; 0 where there is no edge.
        by: `spacing` of the frames' own times, or `order`, the k-th frame to the k-th edge.
    """

    edge: NDArray[np.int64]
    skew_us: NDArray[np.int64]
    by: Literal["spacing", "order"]

    @property
    def matched(self) -> int:
        """Frames that have an edge."""
        return int((self.edge >= 0).sum())


def match_triggers(frames_us: NDArray[np.int64], edges_us: NDArray[np.int64]) -> TriggerMatch:
    """Find each frame's trigger edge.

    Frames may be missing anywhere: their own times tell where. Where several starts fit alike (even spacing
    says nothing of frames lost at the beginning), the frames' clock is taken to start at the first edge.
    If the frames' spacing is no multiple of the edges' (a nominal rate that nobody measured), the k-th frame
    belongs to the k-th edge.

    Args:
        frames_us: int64[N], the frames' times on their own clock, increasing.
        edges_us: int64[M], the edges' times on the event clock, increasing.
    """
    edge = _by_spacing(frames_us, edges_us)
    by: Literal["spacing", "order"] = "spacing"
    if edge is None:
        by, edge = "order", np.arange(len(frames_us), dtype=np.int64)
        edge[len(edges_us) :] = -1
    return TriggerMatch(edge, _skew(frames_us, edges_us, edge), by)


def _by_spacing(frames_us: NDArray[np.int64], edges_us: NDArray[np.int64]) -> NDArray[np.int64] | None:
    if len(frames_us) < 2 or len(edges_us) < 2:
        return None
    spacing_us = float(np.median(np.diff(edges_us)))
    if np.median(np.diff(frames_us)) < (1 - MATCH_NEAR) * spacing_us:
        return None
    near_us = MATCH_NEAR * spacing_us
    edge = _follow(frames_us, edges_us, _best_offset(frames_us, edges_us, near_us), near_us)
    if (edge >= 0).mean() < ENOUGH:
        return None
    return edge


def _best_offset(frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], near_us: float) -> int:
    """Find what to add to the frames' times: the best fit; among equal ones, the natural start."""
    span = int(frames_us[-1] - frames_us[0])
    last = int(np.searchsorted(edges_us, edges_us[-1] - span + near_us, side="right"))
    natural = int(edges_us[0])
    best, best_fit = natural, _fit(frames_us + natural, edges_us, near_us)
    for start in edges_us[: min(max(last, 1), STARTS)]:
        offset = int(start - frames_us[0])
        near, error_us = _fit(frames_us + offset, edges_us, near_us)
        is_closer = near == best_fit[0] and error_us < 0.5 * best_fit[1] and best_fit[1] > 0.1 * near_us
        if near > best_fit[0] or is_closer:
            best, best_fit = offset, (near, error_us)
    return best


def _fit(times_us: NDArray[np.int64], edges_us: NDArray[np.int64], near_us: float) -> tuple[int, float]:
    """Count the frames of a sample that are near an edge; return that and their root mean square error."""
    sample = times_us[:SAMPLE]
    right = np.clip(np.searchsorted(edges_us, sample), 1, len(edges_us) - 1)
    error = np.minimum(np.abs(edges_us[right] - sample), np.abs(sample - edges_us[right - 1]))
    near = error[error <= near_us]
    return len(near), float(np.sqrt(np.mean(near.astype(np.float64) ** 2))) if len(near) else np.inf


def _follow(
    frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], offset_us: int, near_us: float
) -> NDArray[np.int64]:
    """Each frame's nearest edge, the offset following what is measured; no edge is given twice."""
    edges, matched = edges_us.tolist(), []
    offset, used = float(offset_us), -1
    for frame_us in frames_us.tolist():
        expected = frame_us + offset
        right = bisect_left(edges, expected)
        nearest = min(
            range(max(0, right - 1), min(len(edges), right + 1)), key=lambda i: abs(edges[i] - expected)
        )
        if abs(edges[nearest] - expected) > near_us or nearest <= used:
            matched.append(-1)
            continue
        matched.append(nearest)
        offset, used = offset + FOLLOW * (edges[nearest] - expected), nearest
    return np.array(matched, np.int64)


def _skew(
    frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], edge: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the difference of the two clocks less its best straight line."""
    skew = np.zeros(len(frames_us), np.int64)
    has_edge = edge >= 0
    if has_edge.sum() < 2:
        return skew
    x = (frames_us[has_edge] - frames_us[has_edge][0]).astype(np.float64)
    y = (edges_us[edge[has_edge]] - edges_us[edge[has_edge]][0]).astype(np.float64)
    slope = float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
    skew[has_edge] = np.rint(slope * (x - x.mean()) + y.mean() - y)
    return skew
