"""Where to begin reading for a time: in rows that can be read anywhere, in files that are read in order."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.events.index_file import IndexFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Place = tuple[int, ...]

SPACING_EVENTS = 1 << 17
_LONG_AGO = -(1 << 62)


def find_row(
    read_times: Callable[[int, int], NDArray[np.int64]], stop: int, t_us: int, *, probe: int = 1, margin: int
) -> int:
    """A row from which to read for the events at `t_us` and later.

    By halving, which is right for times in order. Where they are not, the rows just before the found one are
    looked at, and it moves back until none of them is at `t_us` or later.

    Args:
        read_times: gives the times, microseconds, of the rows from one number to another; fewer or none,
            where they cannot be read.
        stop: number of rows.
        t_us: the time.
        probe: rows that are read at once while halving.
        margin: rows among which times may be out of order.

    Returns:
        Its number, no later than the first row at `t_us`; 0 if the rows cannot be read.
    """
    low, high = 0, stop
    while high - low > probe:
        middle = (low + high) // 2
        times = read_times(middle, min(middle + probe, high))
        if not len(times):
            return 0
        low, high = (middle, high) if times[0] < t_us else (low, middle)
    while low > 0:
        start = max(0, low - margin)
        times = read_times(start, low)
        if not len(times):
            return 0
        if times.max() < t_us:
            break
        low = start
    return low


class PlaceIndex:
    """Places at which a file can be read on, each with the latest time before it; kept in an `IndexFile`.

    Args:
        path: the file.
        kind: what a place's numbers mean.
        first: the place of the first event.
        walk: from a place on, gives the latest time of each piece of the file, None where it has no event,
            and the place after it.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        first: Place,
        walk: Callable[[Place], Iterator[tuple[int | None, Place]]],
    ) -> None:
        self._file = IndexFile(path, kind, 1 + len(first))
        self._first, self._walk = (_LONG_AGO, *first), walk

    def find(self, t_us: int) -> Place:
        """The last known place before which there is no event at `t_us` or later."""
        kept, is_complete = self._file.load()
        rows = [tuple(row) for row in kept.tolist()] if self._is_sound(kept) else [self._first]
        if rows[-1][0] < t_us and not (is_complete and len(rows) > 1):
            known = len(rows)
            is_complete = self._extend(rows, t_us)
            if len(rows) > known:
                self._file.save(np.array(rows, np.int64), is_complete=is_complete)
        place = bisect.bisect_left(rows, t_us, key=lambda row: row[0])
        return rows[max(place - 1, 0)][1:]

    def _extend(self, rows: list[Place], t_us: int) -> bool:
        """Walk on until `t_us` is passed; whether the file's end was reached."""
        latest_us = rows[-1][0]
        for piece_us, place in self._walk(rows[-1][1:]):
            latest_us = latest_us if piece_us is None else max(latest_us, piece_us)
            rows.append((latest_us, *place))
            if latest_us >= t_us:
                return False
        return True

    def _is_sound(self, rows: NDArray[np.int64]) -> bool:
        return (
            len(rows) > 0
            and tuple(rows[0].tolist()) == self._first
            and bool((np.diff(rows[:, 0]) >= 0).all())
            and bool((np.diff(rows[:, 1]) > 0).all())
        )
