"""Which column is which: by its name, or by its values where there are no names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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

ORDERS = ("txyp", "xypt", "xytp")
"""The orders of columns without names that are in use; the first is the most usual."""


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
