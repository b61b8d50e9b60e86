"""Columns of numbers of any type -> EventBatch, with an account of what had to be mended on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Column = NDArray[Any]

TIME_UNITS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}
"""Multiplier and divisor to microseconds, by the unit's name."""

MAX_T_US = 1 << 62
"""Times beyond this, either way, are no times."""
_FIRST_NS = 10**17
"""Integers from here on can only be nanoseconds since 1970: in microseconds they would be the year 5138."""


def guess_time_unit(t: Column) -> str:
    """The unit of a column of times of which nothing is known: "s", "us" or "ns".

    Integers are microseconds, and nanoseconds where microseconds would lie thousands of years ahead.
    Floats are seconds if any has a fraction; without that they are as integers: events do not come in whole
    seconds.

    Args:
        t: the first times of the recording, any number type.
    """
    if t.dtype.kind != "f":
        return "ns" if len(t) and int(np.abs(t[:1].astype(np.float64))[0]) >= _FIRST_NS else "us"
    finite = t[np.isfinite(t)]
    is_whole = len(finite) > 0 and bool(np.all(finite == np.floor(finite)))
    if not is_whole:
        return "s"
    return "ns" if np.abs(finite).max() >= _FIRST_NS else "us"


class ColumnConverter:
    """Turns columns of one recording into batches and counts what was wrong with them.

    Single-threaded; one for each pass over a recording.

    Args:
        time_unit: a key of `TIME_UNITS`.
        t_offset_us: added to every time.
    """

    def __init__(self, *, time_unit: str = "us", t_offset_us: int = 0) -> None:
        self._unit = time_unit
        self._t_offset_us = t_offset_us
        self._unusable = 0
        self._odd_polarities = 0

    def convert(self, t: Column, x: Column, y: Column, p: Column) -> EventBatch:
        """The events of four columns of one length; none of them is changed.

        Polarity is ON where `p` is above 0 (0/1, -1/+1 and booleans are in use). Events whose time or
        coordinates are not finite, or that no sensor could have, are left out and counted.

        Raises:
            RecordingError: if a column does not hold numbers.
        """
        check_columns(t=t, x=x, y=y, p=p)
        keep = _usable_times(t, self._unit) & _usable_coordinates(x) & _usable_coordinates(y)
        if not keep.all():
            self._unusable += int(len(keep) - np.count_nonzero(keep))
            t, x, y, p = t[keep], x[keep], y[keep], p[keep]
        if len(p) and p.dtype.kind != "b" and (p.max() > 1 or p.min() < -1):
            self._odd_polarities += int(np.count_nonzero((p > 1) | (p < -1)))
        return EventBatch(
            _microseconds(t, self._unit, self._t_offset_us),
            _integers(x),
            _integers(y),
            np.ascontiguousarray(p > 0).view(np.uint8),
        )

    def warnings(self) -> list[str]:
        """What was found so far, one sentence each."""
        sentences = []
        if self._unusable:
            sentences.append(
                f"{self._unusable:,} events were left out: no sensor could have their time or coordinates"
            )
        if self._odd_polarities:
            sentences.append(
                f"{self._odd_polarities:,} polarities are none of 0, 1 and -1; above 0 is taken as ON"
            )
        return sentences


def check_columns(path: Path | None = None, place: str = "", /, **columns: Column) -> None:
    """Nothing, if every column is one-dimensional and holds numbers.

    Raises:
        RecordingError: otherwise; names the column, and the file and the place in it where they are given.
    """
    for name, column in columns.items():
        if column.dtype.kind not in "iufb" or column.ndim != 1:
            raise RecordingError(
                f"expected one-dimensional numbers for {name}, got {column.ndim}-dimensional {column.dtype}",
                path=path,
                place=place,
                remedy="check how the file was written",
            )


def usable_times_us(t: Column, unit: str, offset_us: int) -> NDArray[np.int64]:
    """The times of a column in microseconds, without those that no sensor could have.

    Args:
        t: any number type; not changed.
        unit: a key of `TIME_UNITS`.
        offset_us: added to every time.
    """
    return _microseconds(t[_usable_times(t, unit)], unit, offset_us)


def _usable_times(t: Column, unit: str) -> NDArray[np.bool_]:
    times, over = TIME_UNITS[unit]
    if t.dtype.kind != "f":
        limit = min(MAX_T_US // times * over, np.iinfo(np.int64).max)
        if t.dtype.kind == "b" or np.iinfo(t.dtype).max <= limit:
            return np.ones(len(t), np.bool_)
        return np.asarray((t <= limit) & ((t >= -limit) if t.dtype.kind == "i" else True), np.bool_)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.abs(t.astype(np.float64)) <= MAX_T_US / times * over, np.bool_)


def _usable_coordinates(x: Column) -> NDArray[np.bool_]:
    if x.dtype in (np.uint16, np.uint8, np.bool_):
        return np.ones(len(x), np.bool_)
    with np.errstate(invalid="ignore"):
        return np.asarray((x > -0.5) & (x < 65535.5), np.bool_)


def _microseconds(t: Column, unit: str, offset_us: int) -> NDArray[np.int64]:
    times, over = TIME_UNITS[unit]
    if t.dtype.kind == "f":
        t_us = np.rint(t.astype(np.float64) * (times / over)).astype(np.int64)
    else:
        t_us = t.astype(np.int64)
        if times != 1:
            t_us *= times
        if over != 1:
            t_us //= over
    if offset_us:
        t_us += offset_us
    return t_us


def _integers(x: Column) -> NDArray[np.uint16]:
    return np.ascontiguousarray(np.rint(x) if x.dtype.kind == "f" else x, np.uint16)
