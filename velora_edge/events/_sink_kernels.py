"""Where a walk over raw words puts the events that it meets: arrays, a frame, or nowhere.

Every walk is written once, over these functions, and compiled for each kind of sink (see `_dispatch`). `n` is
the walk's place in the sink: events written so far, or fallen on the frame, or seen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from velora_edge.events._bits import count_ones, count_trailing_zeros
from velora_edge.events._dispatch import Switch, overload
from velora_edge.events._frame_kernels import add_event, find_cell, find_row

SLACK = 64
"""Places that an array keeps free: writes are overwritten, not undone, so they reach past the last event."""
_ENDLESS = 1 << 60


class ArraySink(NamedTuple):
    """Events into arrays of one length: int64, uint16, uint16, uint8."""

    t_us: Any
    x: Any
    y: Any
    p: Any


class FrameSink(NamedTuple):
    """Events onto a frame: the registration map's table and the representation's state."""

    table: Any
    state: Any


class CountSink(NamedTuple):
    """Events are counted only; numba wants a field."""

    nothing: int = 0


_ROOM, _EVENT, _VECTOR, _BLOCK = Switch(), Switch(), Switch(), Switch()


def find_room(sink: Any, n: Any) -> Any:
    """How many more events may be put, those that later ones overwrite included."""
    return int(_ROOM.of(sink)(sink, n))


def put_event(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, is_event: Any) -> Any:
    """Put one event if `is_event` is 1; costs the same, and has no effect, if it is 0. The new `n`."""
    return int(_EVENT.of(sink)(sink, n, t_us, x, y, p, is_event))


def put_vector(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, mask: Any) -> Any:
    """Put an event at `x` + k for each bit k, below 32, of the mask. The new `n`."""
    return int(_VECTOR.of(sink)(sink, n, t_us, x, y, p, mask))


def put_block(sink: Any, n: Any, words: Any, start: Any, end: Any, t_high_us: Any) -> Any:
    """Put the EVT2 words from `start` to `end`, which are events inside the sensor. The new `n`."""
    return int(_BLOCK.of(sink)(sink, n, words, start, end, t_high_us))


@overload(find_room)
def _find_room(sink: Any, n: Any) -> Any:
    return _ROOM.of_type(sink)


@overload(put_event)
def _put_event(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, is_event: Any) -> Any:
    return _EVENT.of_type(sink)


@overload(put_vector)
def _put_vector(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, mask: Any) -> Any:
    return _VECTOR.of_type(sink)


@overload(put_block)
def _put_block(sink: Any, n: Any, words: Any, start: Any, end: Any, t_high_us: Any) -> Any:
    return _BLOCK.of_type(sink)


@_ROOM.when(ArraySink)
def _array_room(sink: Any, n: Any) -> Any:
    return np.int64(len(sink.t_us)) - n - SLACK


@_EVENT.when(ArraySink)
def _array_event(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, is_event: Any) -> Any:
    at = np.uint64(n)
    sink.t_us[at] = t_us
    sink.x[at] = x
    sink.y[at] = y
    sink.p[at] = p
    return n + is_event


@_VECTOR.when(ArraySink)
def _array_vector(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, mask: Any) -> Any:
    # Most masks hold two events or fewer: two are written without asking, so that the loop is seldom entered.
    at = np.uint64(n)
    rest = mask & (mask - 1)
    sink.t_us[at] = t_us
    sink.x[at] = (x + count_trailing_zeros(mask)) & 0xFFFF
    sink.y[at] = y
    sink.p[at] = p
    at += np.uint64(1)
    sink.t_us[at] = t_us
    sink.x[at] = (x + count_trailing_zeros(rest)) & 0xFFFF
    sink.y[at] = y
    sink.p[at] = p
    rest &= rest - 1
    while rest != 0:
        at += np.uint64(1)
        sink.t_us[at] = t_us
        sink.x[at] = x + count_trailing_zeros(rest)
        sink.y[at] = y
        sink.p[at] = p
        rest &= rest - 1
    return n + count_ones(mask)


@_BLOCK.when(ArraySink)
def _array_block(sink: Any, n: Any, words: Any, start: Any, end: Any, t_high_us: Any) -> Any:
    for i in range(end - start):
        word = np.uint32(words[np.uint64(start + i)])
        at = np.uint64(n + i)
        sink.t_us[at] = t_high_us + np.int64((word >> 22) & 63)
        sink.x[at] = (word >> 11) & 0x7FF
        sink.y[at] = word & 0x7FF
        sink.p[at] = word >> 28
    return n + (end - start)


@_ROOM.when(FrameSink)
def _frame_room(sink: Any, n: Any) -> Any:
    return np.int64(_ENDLESS)


@_EVENT.when(FrameSink)
def _frame_event(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, is_event: Any) -> Any:
    cell = find_cell(sink.table, find_row(sink.table, y), x)
    if (cell >= 0) & (is_event != 0):
        add_event(sink.state, cell, t_us, p)
        n += 1
    return n


@_VECTOR.when(FrameSink)
def _frame_vector(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, mask: Any) -> Any:
    row = find_row(sink.table, y)
    while mask != 0:
        cell = find_cell(sink.table, row, x + count_trailing_zeros(mask))
        if cell >= 0:
            add_event(sink.state, cell, t_us, p)
            n += 1
        mask &= mask - 1
    return n


@_BLOCK.when(FrameSink)
def _frame_block(sink: Any, n: Any, words: Any, start: Any, end: Any, t_high_us: Any) -> Any:
    for i in range(start, end):
        word = np.int64(words[np.uint64(i)])
        cell = find_cell(sink.table, find_row(sink.table, word & 0x7FF), (word >> 11) & 0x7FF)
        if cell >= 0:
            add_event(sink.state, cell, t_high_us + ((word >> 22) & 63), word >> 28)
            n += 1
    return n


@_ROOM.when(CountSink)
def _count_room(sink: Any, n: Any) -> Any:
    return np.int64(_ENDLESS)


@_EVENT.when(CountSink)
def _count_event(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, is_event: Any) -> Any:
    return n + is_event


@_VECTOR.when(CountSink)
def _count_vector(sink: Any, n: Any, t_us: Any, x: Any, y: Any, p: Any, mask: Any) -> Any:
    return n + count_ones(mask)


@_BLOCK.when(CountSink)
def _count_block(sink: Any, n: Any, words: Any, start: Any, end: Any, t_high_us: Any) -> Any:
    return n + (end - start)
