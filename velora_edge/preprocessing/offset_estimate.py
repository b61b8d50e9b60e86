"""Estimator of the offset between two streams, from the motion that is visible in both.

Both are tables: a row for each picture, a column for each cell of the view. How alike two tables are,
whatever way round their columns, is told by the RV coefficient (Robert and Escoufier, A unifying tool for
linear multivariate statistical methods, Applied Statistics 25, 1976), less what it is by chance
(Kazi-Aoual et al., Refined approximations to permutation tests for multivariate inference, 1995). So a view
that is mirrored, turned or shifted against the other does not matter, and motion that repeats elsewhere is
told apart.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, RGBFrame
    from velora_edge.events.base import EventReader


GRID = 4
"""Cells across and down: fine enough to tell places apart, coarse enough for views that differ a little."""
CELLS = GRID * GRID
BIN_US = 500
LONGEST_PX = 160
"""Pictures are made smaller before they are compared: sensor noise and codecs' blocks average out."""
QUIET = 3.0
"""Differences of grey levels (of 255) up to this are noise."""


@dataclass(frozen=True, slots=True)
class PictureMotion:
    """Motion in the pictures of a video.

    Attributes:
        name: of the video, for messages.
        t_us: int64[K], times of the pictures, increasing.
        energy: float32[K, CELLS], motion at the instant of each picture, 0 for none.
    """

    name: str
    t_us: NDArray[np.int64]
    energy: NDArray[np.float32]

    @property
    def period_us(self) -> float:
        """From one picture to the next, typically."""
        return float(np.median(np.diff(self.t_us)))


@dataclass(frozen=True, slots=True)
class EventMotion:
    """Motion in events: counts by place and time.

    Attributes:
        name: of the recording, for messages.
        begin_us: start of the first bin.
        until: int64[B + 1, CELLS], events of each cell before the start of each bin of `BIN_US`.
    """

    name: str
    begin_us: int
    until: NDArray[np.int64]

    @property
    def end_us(self) -> int:
        """End of the last bin."""
        return self.begin_us + BIN_US * (len(self.until) - 1)

    def count(self, t0_us: NDArray[Any], t1_us: NDArray[Any]) -> NDArray[np.float32]:
        """Events in each [t0, t1), to half a bin: float32[K, CELLS] for times [K] within the bins."""
        first, last = (np.rint((t - self.begin_us) / BIN_US).astype(np.int64) for t in (t0_us, t1_us))
        return (self.until[last] - self.until[first]).astype(np.float32)


def read_picture_motion(name: str, frames: Iterable[RGBFrame]) -> PictureMotion:
    """Motion energy by the differences of three pictures in a row.

    What moves is where a picture differs both from the one before and the one after; that is of the picture's
    own instant, however fast it moves.

    Args:
        name: of the video.
        frames: in the order of their times; read once, not kept.
    """
    last_three: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=3)
    times: list[int] = []
    energies: list[NDArray[np.float32]] = []
    for frame in frames:
        last_three.append((frame.t_us, _make_small_grey(frame.image)))
        if len(last_three) == 3:
            (_, before), (t_us, now), (_, after) = last_three
            moved = np.minimum(np.abs(now - before), np.abs(after - now))
            times.append(t_us)
            energies.append(_average_cells(np.maximum(moved - QUIET, 0)))
    energy = np.array(energies, np.float32).reshape(-1, CELLS)
    return PictureMotion(name, np.array(times, np.int64), energy)


def read_event_motion(events: EventReader, t0_us: int, t1_us: int) -> EventMotion:
    """Count the events of [t0, t1) by cell and bin.

    Raises:
        RecordingError: if there are none.
    """
    bins = max(1, -((t0_us - t1_us) // BIN_US))
    counts = np.zeros(bins * CELLS, np.int64)
    first_us, last_us = t1_us, t0_us
    for batch in events.between(t0_us, t0_us + bins * BIN_US):
        place = (batch.t_us - t0_us) // BIN_US * CELLS + _cells(batch, events.width, events.height)
        counts += np.bincount(place, minlength=len(counts))
        first_us, last_us = min(first_us, int(batch.t_us.min())), max(last_us, int(batch.t_us.max()))
    if last_us < first_us:
        raise RecordingError(
            f"holds no events from {t0_us / 1e6:.1f} s to {t1_us / 1e6:.1f} s",
            path=events.path,
            remedy="choose another part of the video with --start",
        )
    # Outside its events a recording says nothing; silence there is not to be taken for stillness.
    first, last = (first_us - t0_us) // BIN_US, (last_us - t0_us) // BIN_US + 1
    kept = counts.reshape(bins, CELLS)[first:last]
    until = np.concatenate([np.zeros((1, CELLS), np.int64), np.cumsum(kept, axis=0)])
    return EventMotion(str(events.path), t0_us + first * BIN_US, until)


def _make_small_grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_PX / max(height, width))
    size = max(GRID, round(width * scale)), max(GRID, round(height * scale))
    grey: Any = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: Any = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _average_cells(moved: NDArray[np.float32]) -> NDArray[np.float32]:
    cells: Any = cv2.resize(moved, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return cells.reshape(-1)


def _cells(batch: EventBatch, width: int, height: int) -> NDArray[np.int64]:
    column = batch.x.astype(np.int64) * GRID // width
    return batch.y.astype(np.int64) * GRID // height * GRID + column


LEAST_PICTURES = 45
LEAST_OVERLAP = 0.5
"""Part of the shorter recording that must overlap the other at an offset that is tried."""
STEPS_A_PERIOD = 4
FINE, FINE_STEP_US = 4, 1_000
"""Near the best match, windows of a fourth of the period, a millisecond apart."""
BLOCKS = 8
"""Parts of the recording that are left out in turn, to see how far the offset moves."""
TOP = 0.9
"""Matches above this part of the best one make the peak."""
LEAST_MATCH, LEAST_CONFIDENCE = 0.08, 0.3
MOST_ERROR = 0.5
"""In periods."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The offset, and what speaks for it.

    Attributes:
        offset_us: to be added to the pictures' times.
        error_us: standard error of it, by leaving out parts of the recording.
        match: how alike both are there, 0 to 1.
        next_us: the next best offset, None where there is no other peak.
        next_match: how alike they are there.
        pictures: that were compared at the best offset.
        tried_us: int64[N], offsets that were tried and at which enough of both overlaps.
        matches: float64[N], how alike both are at each.
        period_us: from one picture to the next.
    """

    offset_us: int
    error_us: int
    match: float
    next_us: int | None
    next_match: float
    pictures: int
    tried_us: NDArray[np.int64]
    matches: NDArray[np.float64]
    period_us: float

    @property
    def confidence(self) -> float:
        """By how much the best match is better than the next, as a part of it: 0 to 1."""
        return max(0.0, 1.0 - max(self.next_match, 0.0) / self.match) if self.match > 0 else 0.0

    @property
    def doubt(self) -> str:
        """Why the offset is not to be trusted; empty where it is."""
        if self.match < LEAST_MATCH:
            return f"the two do not move alike at any offset (best match {self.match:.2f} of 1)"
        if self.confidence < LEAST_CONFIDENCE:
            return (
                f"{self.offset_us / 1000:+.0f} ms fits hardly better ({self.match:.2f}) than "
                f"{(self.next_us or 0) / 1000:+.0f} ms ({self.next_match:.2f}): the motion repeats"
            )
        if self.error_us > MOST_ERROR * self.period_us:
            return (
                f"the offset is not sharp: {self.offset_us / 1000:+.0f} ms, +- {self.error_us / 1000:.0f} ms"
            )
        return ""


def estimate_offset(pictures: PictureMotion, events: EventMotion, search_us: int) -> Estimate:
    """The offset between -search_us and search_us that fits best, whether or not it is to be trusted.

    Args:
        pictures: of the video, on its own clock.
        events: of the event camera, on its clock.
        search_us: how far to look.

    Raises:
        RecordingError: if one of them is too short, or shows no motion at all.
    """
    require_motion(pictures)
    table = _Comparison(pictures, events)
    period_us = pictures.period_us
    step_us = period_us / STEPS_A_PERIOD
    steps = int(search_us / step_us)
    tried_us = np.rint(step_us * np.arange(-steps, steps + 1)).astype(np.int64)
    matches = np.array([table.match(t_us, period_us) for t_us in tried_us])
    if not np.isfinite(matches).any():
        raise RecordingError(
            f"it hardly overlaps {events.name} within {search_us / 1e6:g} s",
            path=pictures.name,
            remedy="look further with --search S",
        )
    tried_us, matches = tried_us[np.isfinite(matches)], matches[np.isfinite(matches)]
    best = int(matches.argmax())
    other = _find_next(matches, best)
    around_us = int(tried_us[best])
    error_us, offset_us = table.refine(around_us, period_us / FINE)
    return Estimate(
        round(offset_us),
        round(error_us),
        float(matches[best]),
        None if other is None else int(tried_us[other]),
        0.0 if other is None else float(matches[other]),
        table.overlap(offset_us, period_us),
        tried_us,
        matches,
        period_us,
    )


def require_motion(pictures: PictureMotion) -> None:
    """Refuse pictures that can tell no offset.

    Raises:
        RecordingError: if there are too few, or nothing moves in them.
    """
    if len(pictures.t_us) < LEAST_PICTURES:
        raise RecordingError(
            f"expected {LEAST_PICTURES} pictures at least, got {len(pictures.t_us)}",
            path=pictures.name,
            remedy="give a longer video, or a longer part of it",
        )
    if not pictures.energy.any():
        raise RecordingError(
            "nothing moves in the pictures",
            path=pictures.name,
            remedy="choose a part with motion by --start",
        )


class _Comparison:
    """Both motions, to be compared at any offset."""

    def __init__(self, pictures: PictureMotion, events: EventMotion) -> None:
        self._times_us, self._events = pictures.t_us, events
        self._energy = np.sqrt(pictures.energy)  # counts and energies spread like their square roots
        self._period_us = pictures.period_us
        shorter_us = min(int(np.ptp(pictures.t_us)), events.end_us - events.begin_us)
        self._least = max(LEAST_PICTURES, int(LEAST_OVERLAP * shorter_us / self._period_us))
        self._block = np.arange(len(pictures.t_us)) * BLOCKS // len(pictures.t_us)

    def overlap(self, offset_us: float, window_us: float) -> int:
        """Pictures whose window lies within the events."""
        return int(self._is_inside(offset_us, window_us).sum())

    def match(self, offset_us: float, window_us: float, without: int | None = None) -> float:
        """How alike both are at an offset, with the events of a window about each picture; nan for too few.

        Args:
            offset_us: added to the pictures' times.
            window_us: of the events, its middle at the picture.
            without: a block of pictures that is left out.
        """
        chosen = self._is_inside(offset_us, window_us)
        if chosen.sum() < self._least:
            return float("nan")
        if without is not None:
            chosen = chosen & (self._block != without)
        middle_us = self._times_us[chosen] + offset_us
        counts = self._events.count(middle_us - window_us / 2, middle_us + window_us / 2)
        return _rv(self._energy[chosen], np.sqrt(counts))

    def refine(self, around_us: int, window_us: float) -> tuple[float, float]:
        """The middle of the peak near an offset: its standard error (by jackknife), and itself."""
        reach = int(self._period_us / FINE_STEP_US)
        tried_us = around_us + FINE_STEP_US * np.arange(-reach, reach + 1)

        def middle(without: int | None) -> float:
            found = [self.match(float(t_us), window_us, without) for t_us in tried_us]
            return _middle_of_peak(tried_us, np.nan_to_num(np.array(found), nan=0.0))

        left_out = [middle(block) for block in range(BLOCKS)]
        return float(np.std(left_out)) * (BLOCKS - 1) ** 0.5, middle(None)

    def _is_inside(self, offset_us: float, window_us: float) -> NDArray[np.bool_]:
        middle_us = self._times_us + offset_us
        return (middle_us - window_us / 2 >= self._events.begin_us) & (
            middle_us + window_us / 2 <= self._events.end_us
        )


def _rv(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The RV coefficient of two tables with the same rows, less its expectation by chance; 1 at most."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    scale = float(np.sqrt((xx**2).sum() * (yy**2).sum()))
    if scale == 0:
        return 0.0
    chance = float(np.trace(xx) * np.trace(yy)) / scale / (len(x) - 1)
    return (float((xy**2).sum()) / scale - chance) / (1 - chance) if chance < 1 else 0.0


def _middle_of_peak(tried_us: NDArray[np.int64], matches: NDArray[np.float64]) -> float:
    """Top of the parabola through the matches near the best one."""
    best = int(matches.argmax())
    low, high = best, best
    while low > 0 and matches[low - 1] >= TOP * matches[best]:
        low -= 1
    while high < len(matches) - 1 and matches[high + 1] >= TOP * matches[best]:
        high += 1
    low, high = max(0, min(low, best - 1)), min(len(matches) - 1, max(high, best + 1))
    x = (tried_us[low : high + 1] - tried_us[best]).astype(np.float64)
    bend, slope, _ = np.polyfit(x, matches[low : high + 1], 2) if len(x) > 2 else (0.0, 0.0, 0.0)
    if bend >= 0:
        return float(tried_us[best])
    return float(tried_us[best] + np.clip(-slope / (2 * bend), x[0], x[-1]))


def _find_next(matches: NDArray[np.float64], best: int) -> int | None:
    """The best local maximum outside the best one's peak, which ends where it falls below half its height."""
    half = (matches[best] + float(np.median(matches))) / 2
    low, high = best, best
    while low > 0 and matches[low - 1] >= half:
        low -= 1
    while high < len(matches) - 1 and matches[high + 1] >= half:
        high += 1
    is_top = np.zeros(len(matches), bool)
    is_top[1:-1] = (matches[1:-1] >= matches[:-2]) & (matches[1:-1] >= matches[2:])
    is_top[low : high + 1] = False
    if not is_top.any():
        return None
    return int(np.flatnonzero(is_top)[matches[is_top].argmax()])
