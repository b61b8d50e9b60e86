"""Which trigger edge belongs to which frame, from the edges' times and the frames' own."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR = 0.3
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
    if np.median(np.diff(frames_us)) < (1 - NEAR) * spacing_us:
        return None
    near_us = NEAR * spacing_us
    edge = _follow(frames_us, edges_us, _best_offset(frames_us, edges_us, near_us), near_us)
    if (edge >= 0).mean() < ENOUGH:
        return None
    return edge


def _best_offset(frames_us: NDArray[np.int64], edges_us: NDArray[np.int64], near_us: float) -> int:
    """What to add to the frames' times: the start that fits best, and the natural one among those that do."""
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
    """How many frames of a sample are near an edge, and their root mean square error."""
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
    """What is left of the difference of the two clocks after the straight line that fits best."""
    skew = np.zeros(len(frames_us), np.int64)
    has_edge = edge >= 0
    if has_edge.sum() < 2:
        return skew
    x = (frames_us[has_edge] - frames_us[has_edge][0]).astype(np.float64)
    y = (edges_us[edge[has_edge]] - edges_us[edge[has_edge]][0]).astype(np.float64)
    slope = float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
    skew[has_edge] = np.rint(slope * (x - x.mean()) + y.mean() - y)
    return skew
