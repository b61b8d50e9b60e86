"""Kernels of event filters: by neighbours, by the pixel's last event, by rate.

The caller has checked that the events are inside the sensor. Memory of earlier batches is in the arrays
`last` and `span`, so that a recording gives the same events however it is cut into batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.kernels._intrinsics import kernel

LONG_AGO = np.iinfo(np.int64).min
# Places in the `span` array of `thin_spans`, int64[3].
BEGIN_US, END_US, IS_OPEN = range(3)
STEP_BACK_US = 1_000_000
"""A time that steps back by more is a clock that began anew."""


@kernel
def _put(n: Any, i: Any, batch: Any, out: Any) -> None:
    out[0][n], out[1][n], out[2][n], out[3][n] = batch[0][i], batch[1][i], batch[2][i], batch[3][i]


@kernel
def keep_active(batch: Any, last: Any, stride: Any, window_us: Any, out: Any) -> Any:
    """Pass on the events of which one of the eight neighbours fired within the window before, or after.

    Args:
        batch: t_us, x, y and p: int64[N], uint16[N], uint16[N], uint8[N].
        last: int64[(H + 2) * (W + 2)], time of each pixel's last event, with a border; changed.
        stride: W + 2.
        window_us: how long ago.
        out: as `batch`, written to.

    Returns:
        How many were passed on.
    """
    t_us, x, y = batch[0], batch[1], batch[2]
    n, width = np.int64(0), np.uint64(2 * window_us)
    for i in range(len(t_us)):
        t = t_us[i]
        since = t - window_us
        cell = (np.int64(y[i]) + 1) * stride + np.int64(x[i]) + 1
        active = np.int64(0)
        for row in (cell - stride, cell, cell + stride):
            active |= np.int64(np.uint64(last[row - 1] - since) <= width)
            active |= np.int64(np.uint64(last[row + 1] - since) <= width)
        active |= np.int64(np.uint64(last[cell - stride] - since) <= width)
        active |= np.int64(np.uint64(last[cell + stride] - since) <= width)
        last[cell] = t
        _put(n, i, batch, out)
        n += active
    return n


@kernel
def keep_rested(batch: Any, last: Any, stride: Any, rest_us: Any, out: Any) -> Any:
    """Pass on the events whose pixel's last event that was passed on is `rest_us` old, or more.

    Args:
        batch: as in `keep_active`.
        last: int64[H * W], time of each pixel's last event that was passed on; changed.
        stride: W.
        rest_us: how long a pixel has to rest.
        out: as `batch`, written to.

    Returns:
        How many were passed on.
    """
    t_us, x, y = batch[0], batch[1], batch[2]
    n = np.int64(0)
    for i in range(len(t_us)):
        t = t_us[i]
        cell = np.int64(y[i]) * stride + np.int64(x[i])
        # A time that steps back does not silence the pixel until it is made up for.
        is_rested = (last[cell] <= t - rest_us) | (last[cell] > t)
        if is_rested:
            last[cell] = t
        _put(n, i, batch, out)
        n += np.int64(is_rested)
    return n


@kernel
def _mix(a: Any, b: Any) -> Any:
    """Bits that look random (SplitMix64)."""
    z = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def count_allowed(begin_us: Any, end_us: Any, rate: Any) -> Any:
    """Events that `rate` a second allows in [begin, end): spans that meet add up without rounding."""
    second = np.int64(1_000_000)
    from_s, to_s = begin_us // second, end_us // second
    rest = (end_us - to_s * second) * rate // second - (begin_us - from_s * second) * rate // second
    return (to_s - from_s) * rate + rest


@kernel
def thin_span(batch: Any, start: Any, stop: Any, allowed: Any, seed: Any, out: Any, n: Any) -> Any:
    """Pass on `allowed` of the events from `start` to `stop`, one of each equal share; the new `n`.

    Every second event, say, would always be the even columns where a row fires at once.
    """
    count = stop - start
    if count <= allowed:
        for i in range(start, stop):
            _put(n + i - start, i, batch, out)
        return n + count
    for k in range(allowed):
        first, after = k * count // allowed, (k + 1) * count // allowed
        place = np.int64(_mix(seed, k) % np.uint64(after - first))
        _put(n + k, start + first + place, batch, out)
    return n + allowed


@kernel
def thin_spans(batch: Any, span: Any, slice_us: Any, rate: Any, most: Any, out: Any) -> Any:
    """Thin slice after slice of time to `rate` events a second.

    Args:
        batch: as in `keep_active`; the first events may be left from the call before.
        span: int64[3], the time for which events are gathered; changed.
        slice_us: how long that is; slices begin at multiples of it.
        rate: events a second.
        most: of the events of one slice, beyond which it is closed early and the others are dropped.
        out: as `batch`, written to.

    Returns:
        How many events were passed on, and the first event that is left for the next call.
    """
    t_us = batch[0]
    n, start = np.int64(0), np.int64(0)
    for i in range(len(t_us)):
        t = np.int64(t_us[i])
        is_restart = span[IS_OPEN] == 0 or t < span[BEGIN_US] - STEP_BACK_US
        is_new = is_restart or t >= span[END_US]
        if is_new or i - start >= most:
            if i > start:
                allowed = count_allowed(span[BEGIN_US], span[END_US], rate)
                n = thin_span(batch, start, i, allowed, span[BEGIN_US], out, n)
            start = np.int64(i)
            span[BEGIN_US] = span[END_US]
            if is_new:
                slice_begin = t // slice_us * slice_us
                span[BEGIN_US] = t if is_restart else slice_begin
                span[END_US], span[IS_OPEN] = slice_begin + slice_us, 1
    return n, start
