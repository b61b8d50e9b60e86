"""Conversion of columns of numbers to an EventBatch: names, checks, wraps, counts of what was wrong."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Column = NDArray[Any]


# In use: DSEC, RVT, M3ED, TUM-VIE, tonic (t x y p), event_utils (ts xs ys ps), faery (on), and spelt out.
NAMES = {
    "t": ("t", "ts", "timestamp", "timestamps", "time", "times"),
    "x": ("x", "xs", "col", "x_pos"),
    "y": ("y", "ys", "row", "y_pos"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
UNIT_NAMES = {
    "s": "s", "sec": "s", "seconds": "s", "ms": "ms", "milliseconds": "ms", "us": "us", "µs": "us",
    "usec": "us", "microseconds": "us", "ns": "ns", "nsec": "ns", "nanoseconds": "ns",
}  # fmt: skip
"""Names of units of time, to the keys of `columns.TIME_UNITS`."""


def match_names(present: Sequence[str]) -> dict[str, str] | None:
    """Which of the names that are present stand for t, x, y and p; None unless all four are there."""
    plain = {_without_unit(name): name for name in reversed(present) if isinstance(name, str)}
    found = {role: plain[name] for role, names in NAMES.items() for name in reversed(names) if name in plain}
    return found if len(found) == 4 else None


def unit_in_name(name: str) -> str | None:
    """The unit of time in a column's name, such as "t_us" or "time [s]", as a key of `TIME_UNITS`."""
    return _split_unit(name)[1]


def guess_order(table: NDArray[Any]) -> str | None:
    """The order of four columns without names, or None where their values fit none.

    The polarity is the column that holds nothing but 0, 1 and -1; it is the last or the last but one. Where
    it is the last, x y t p is told from t x y p by the first column falling where the third never does.

    Args:
        table: numbers of shape (N, 4) or more columns, N > 0.
    """
    is_polarity = [bool(np.isin(table[:, k], (-1, 0, 1)).all()) for k in range(4)]
    never_falls = [bool((np.diff(table[:, k].astype(np.float64)) >= 0).all()) for k in range(4)]
    if is_polarity[3]:
        return "xytp" if never_falls[2] and not never_falls[0] else "txyp"
    return "xypt" if is_polarity[2] else None


def _without_unit(name: str) -> str:
    return _split_unit(name)[0]


def _split_unit(name: str) -> tuple[str, str | None]:
    lower = name.strip().strip("\"'").lower()
    match = re.fullmatch(r"([a-z]+?)(?:[ _]*[\[(]|[ _]+)([a-zµ]+)[\])]?", lower)
    if match and match[1] in NAMES["t"] and match[2] in UNIT_NAMES:
        return match[1], UNIT_NAMES[match[2]]
    return lower, None


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
    """Converter of one recording's columns into batches; counts invalid values.

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
        """Warnings so far, one sentence each."""
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


_WRAP_US = 1 << 32


class TimeUnwrapper:
    """Counts the wraps of 32-bit times.

    A fall by more than half the range is a wrap, a rise by as much is an event from before it; smaller falls
    are events out of order.
    """

    def __init__(self, last: int = -1, wraps: int = 0) -> None:
        self._last = last
        self._wraps = wraps

    @property
    def memory(self) -> tuple[int, int]:
        """The last time, -1 before the first, and the wraps."""
        return self._last, self._wraps

    def __call__(self, t_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The times with the wraps before them added, in place."""
        steps = np.diff(t_us, prepend=t_us[0] if self._last < 0 else self._last)
        self._last = int(t_us[-1])
        start, unwrapped = 0, t_us
        for turn in np.flatnonzero(np.abs(steps) > _WRAP_US // 2):
            unwrapped[start:turn] += self._wraps * _WRAP_US
            self._wraps = max(self._wraps + (1 if steps[turn] < 0 else -1), 0)
            start = int(turn)
        unwrapped[start:] += self._wraps * _WRAP_US
        return unwrapped
