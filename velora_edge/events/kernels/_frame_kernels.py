"""Kernels that put events into a frame: one by one, as walks call them, and from arrays.

All of these are chosen by type (see `Switch` in `_intrinsics`): by the registration map's form and by the
state of the frame's representation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._intrinsics import Switch, borrow, kernel, overload


class SeparableMap(NamedTuple):
    """cell = columns[x] + rows[y], or 0 where that is negative: int32, each as long as the sensor's side."""

    columns: Any
    rows: Any


class FullMap(NamedTuple):
    """cell = cells[y * width + x]: int32."""

    cells: Any
    width: int


class IdentityMap(NamedTuple):
    """cell = 1 + y * width + x: the sensor's own pixels."""

    width: int


_FIND_CELL, FIND_PLACE, ADD_EVENT = Switch(), Switch(), Switch()


def find_cell(table: Any, y: Any, x: Any) -> Any:
    """Find the cell of an event at the sensor's row `y` and column `x`: 1 + the model's pixel's index, or 0.

    All states have a cell 0, which nobody looks at: adding what falls beside the frame there costs less
    than asking.
    """
    return _FIND_CELL.of(table)(table, y, x)


def find_place(state: Any, cell: Any, p: Any) -> Any:
    """Find the index in the state's array for events of polarity 0 or 1 in a cell, below 2^31."""
    return FIND_PLACE.of(state)(state, cell, p)


def add_event(state: Any, place: Any, t_us: Any, p: Any) -> None:
    """Add an event of that polarity to the frame's state, at the place that was found for it."""
    ADD_EVENT.of(state)(state, place, t_us, p)


@overload(find_cell)
def _find_cell(table: Any, y: Any, x: Any) -> Any:
    return _FIND_CELL.of_type(table)


@overload(find_place)
def _find_place(state: Any, cell: Any, p: Any) -> Any:
    return FIND_PLACE.of_type(state)


@overload(add_event)
def _add_event(state: Any, place: Any, t_us: Any, p: Any) -> Any:
    return ADD_EVENT.of_type(state)


@_FIND_CELL.when(SeparableMap)
def _separable_cell(table: Any, y: Any, x: Any) -> Any:
    return max(np.int64(table.columns[np.uint64(x)]) + np.int64(table.rows[np.uint64(y)]), 0)


@_FIND_CELL.when(FullMap)
def _full_cell(table: Any, y: Any, x: Any) -> Any:
    return np.int64(table.cells[np.uint64(np.int64(y) * np.int64(table.width) + np.int64(x))])


@_FIND_CELL.when(IdentityMap)
def _own_cell(table: Any, y: Any, x: Any) -> Any:
    return np.int64(y) * np.int64(table.width) + np.int64(x) + 1


# Places in the `seen` array, int64[5].
LAST_US, OUTSIDE, LATE, LATEST_US, TIMELESS = range(5)
FARTHEST_US = (1 << 62) - 1
"""Times beyond this, either way, are no times: the difference of two would not fit."""


@kernel
def inspect_events(t_us: Any, x: Any, y: Any, width: Any, height: Any, seen: Any) -> Any:
    """Count the events that are not on the sensor, have no time, or are earlier than one before.

    Returns:
        How many are one of the first two.
    """
    last = seen[LAST_US]
    late, latest, outside, timeless = np.int64(0), seen[LATEST_US], np.int64(0), np.int64(0)
    for i in range(len(t_us)):
        outside += np.int64((x[i] >= width) | (y[i] >= height))
        t = t_us[i]
        if t < last:
            if t < -FARTHEST_US:
                timeless += 1
            else:
                late += 1
                latest = max(latest, last - t)
        elif t > FARTHEST_US or t < -FARTHEST_US:
            timeless += 1
        else:
            last = t
    seen[LAST_US], seen[LATEST_US] = last, latest
    seen[OUTSIDE] += outside
    seen[LATE] += late
    seen[TIMELESS] += timeless
    return outside + timeless


@kernel
def find_end(t_us: Any, start: Any, t1_us: Any) -> Any:
    """Position of the first event, from `start`, that is not before `t1_us`; times may be in any order."""
    i = np.int64(start)
    n = np.int64(len(t_us))
    while i < n and t_us[i] < t1_us:
        i += 1
    return i


@kernel
def accumulate_arrays(
    t_us: Any, x: Any, y: Any, p: Any, start: Any, t1_us: Any, table: Any, state: Any, counts: Any
) -> Any:
    """Add the events before `t1_us` to the frame; the events are inside the sensor.

    Args:
        t_us: int64[N].
        x: uint16[N].
        y: uint16[N].
        p: uint8[N].
        start: position to begin at.
        t1_us: the window's end.
        table: of the registration map.
        state: of the frame.
        counts: int64[1], grows by the events that fell on the frame.

    Returns:
        Position of the first event that was not walked over.
    """
    n = np.uint64(len(t_us))
    i = np.uint64(start)
    table, state = borrow(table), borrow(state)
    on_frame = np.int64(0)
    while i < n and t_us[i] < t1_us:
        cell = find_cell(table, y[i], x[i])
        add_event(state, find_place(state, cell, p[i]), t_us[i], p[i])
        on_frame += np.int64(cell > 0)
        i += np.uint64(1)
    counts[0] += on_frame
    return np.int64(i)
