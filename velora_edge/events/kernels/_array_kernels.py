"""Kernels over arrays of events: checks, the end of a window, accumulation into a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.kernels._frame_kernels import add_event, find_cell, find_place
from velora_edge.events.kernels._intrinsics import borrow, kernel

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
