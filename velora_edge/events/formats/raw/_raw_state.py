"""State of a walk over raw words between two chunks: named places in one int64 array."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._intrinsics import kernel

(
    WIDTH,  # of the sensor, at most 2048: addresses have 11 bits
    HEIGHT,
    SYNCED,  # 1 once a TIME_HIGH was seen
    T_US,  # the time that the stream has reached
    HIGH,  # the last TIME_HIGH's payload
    WRAPS,  # how often it has come round
    Y,  # EVT3: the row, or NOWHERE
    BASE,  # EVT3: the next vector's first column, or NOWHERE
    BASE_P,  # EVT3: its polarity
    PLACED,  # in and out: the place in the sink
    WALKED,  # out: events walked over by the last call
    EDGES,  # trigger edges that lie in the buffer
    EARLY,  # events before the first TIME_HIGH
    EARLY_EDGES,  # trigger edges before it
    OUTSIDE,  # events outside the sensor
    HOMELESS,  # EVT3: events before the first row or vector base
    BACKWARDS,  # steps back of the time, from one event to a later one
    EVENT_US,  # the time of the last event
    UNKNOWN,  # words of a type that the format does not have
    PADDING,  # EVT3: padding words
    SIZE,
) = range(21)

BLOCK = 2048
"""Words that are walked at once: what is gathered from them stays in the first cache."""
NOWHERE = 4096
"""Beyond any address."""
WOBBLE = 16
"""A TIME_HIGH this close to the turn may still come from before it."""


class Scratch(NamedTuple):
    """Room for a walk to work in: packed events, int64[3 * BLOCK], and a table, int64[128]."""

    packed: Any
    table: Any


class EdgeBuffer(NamedTuple):
    """Trigger edges: int64[N], uint8[N], uint8[N]."""

    t_us: Any
    id: Any
    p: Any


@kernel
def count_turn(high: Any, new: Any, turn: Any, wraps: Any) -> Any:
    """How often TIME_HIGH has come round, now that `new` follows `high`; it counts to `turn` and begins anew.

    A step back by more than half the range is a turn. A smaller one is not: the time does go back (words out
    of order, or a recording glued together). A word from just before the turn that comes just after it
    undoes the turn, and the next one does it again.
    """
    if high - new > turn // 2:
        return wraps + 1
    if wraps > 0 and high < WOBBLE and new >= turn - WOBBLE:
        return wraps - 1
    return wraps


@kernel
def put_edge(edges: Any, state: Any, t_us: Any, channel: Any, p: Any) -> Any:
    """Keep a trigger edge, if there is room for it; whether there was."""
    at = state[EDGES]
    if at >= len(edges.t_us):
        return False
    edges.t_us[at] = t_us
    edges.id[at] = channel
    edges.p[at] = p
    state[EDGES] = at + 1
    return True


def new_scratch() -> Scratch:
    """Room for one walker."""
    return Scratch(np.empty(3 * BLOCK, np.int64), np.empty(128, np.int64))


def new_state(width: int, height: int) -> Any:
    """The state before the first word."""
    state = np.zeros(SIZE, np.int64)
    state[WIDTH], state[HEIGHT] = min(width, 2048), min(height, 2048)
    state[Y] = state[BASE] = NOWHERE
    state[EVENT_US] = np.iinfo(np.int64).min
    return state
