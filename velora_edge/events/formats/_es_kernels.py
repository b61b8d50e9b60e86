"""Kernel that decodes the bytes of Event Stream files."""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.kernels._intrinsics import kernel

DVS, ATIS, COLOUR = 1, 2, 4
"""Types of streams; numbers of the file's header."""
T_US, EXPOSURES = range(2)
"""Places in the decoder's memory, int64[2]: the time so far, and events of exposure that were passed over."""
EVENT_BYTES = 5
"""Of an event without colour, the shortest."""
NOT_SEEN = -1
"""Brightness of a pixel that sent no event yet."""


@kernel
def decode_events(
    data: Any, kind: Any, top: Any, memory: Any, brightness: Any, t_us: Any, x: Any, y: Any, p: Any
) -> Any:
    """Decode the whole events of some bytes.

    An event is a byte with the time since the one before it and flags, then x and y, then three bytes of
    colour; where the first byte's time is all ones, there is no event, and time passes.

    Args:
        data: uint8[N], begins with an event's first byte.
        kind: DVS, ATIS or COLOUR.
        top: y of the upper row, as the bytes count it.
        memory: int64[2], see above; changed.
        brightness: int16[H, W], for COLOUR: red + green + blue of each pixel's last event, or NOT_SEEN;
            changed.
        t_us: int64[N // 5 + 1] or longer, written.
        x: uint16, likewise.
        y: uint16, likewise.
        p: uint8, likewise.

    Returns:
        How many events were written, and how many bytes they took; the rest is part of an event.
    """
    n, at = np.int64(0), np.int64(0)
    end, t = np.int64(len(data)), np.int64(memory[T_US])
    exposures = np.int64(0)
    event_bytes = np.int64(8 if kind == COLOUR else 5)
    height, width = brightness.shape
    while at < end:
        first = np.int64(data[at])
        if kind == ATIS and first >= 0xFC:
            t += 63 * (first & 3)
            at += 1
            continue
        if kind != ATIS and first >= 0xFE:
            t += (254 if kind == COLOUR else 127) * (first & 1)
            at += 1
            continue
        if at + event_bytes > end:
            break
        column = np.int64(data[at + 1]) | np.int64(data[at + 2]) << 8
        row = np.int64(data[at + 3]) | np.int64(data[at + 4]) << 8
        is_change, is_on = True, first & 1
        if kind == DVS:
            t += first >> 1
        elif kind == ATIS:
            t += first >> 2
            is_change, is_on = first & 1 == 0, first >> 1 & 1
            exposures += np.int64(not is_change)
        else:
            t += first
            if row < height and column < width:
                before = np.int64(brightness[row, column])
                now = np.int64(data[at + 5]) + np.int64(data[at + 6]) + np.int64(data[at + 7])
                brightness[row, column] = now
                is_change, is_on = before != NOT_SEEN and now != before, np.int64(now > before)
        at += event_bytes
        if is_change:
            t_us[n], x[n], y[n], p[n] = t, column, (top - row) & 0xFFFF, is_on
            n += 1
    memory[T_US] = t
    memory[EXPOSURES] += exposures
    return n, at
