"""Decoder of ECF, the codec of Prophesee's HDF5 files (filter 36559).

Layout (facts from prophesee-ai/hdf5_ecf, Apache-2.0; all numbers little endian). A chunk is

    u32  number of events << 2 | layout (2: yxp packed, 1: runs of y and xp packed, 0: runs of y, x, p)
    u64  time origin, us
    times, then coordinates and polarities as the layout says

Times are bytes of two nibbles. A high nibble of 15 adds the low nibble to a long step, least significant
nibble first; any other byte ends the long step, adds its high nibble to the time, and repeats that time as
often as the low nibble says (15: a u16 count follows).

Runs of y are u16 words: y in the upper 11 bits, the count in the lower 5 (31: a u16 count follows). A word of
x is a column in the upper 11 bits and a mask in the lower 5, most significant bit first, for the five columns
to its right. Runs of p are bytes: p in bit 7, the count below (127: a u16 count follows).

Packed values come in groups of four v0..v3 in three words w0..w2, the last group padded: 12 bits (x 11, p 1)
in u16 words, or 24 bits (y 12, x 11, p 1) in u32 words. v0 is the upper 3/4 of w0 and v3 the lower 3/4 of w2;
v1 has its low part at the bottom of w0 and its high part at the top of w1, v2 likewise in w1 and w2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_EVENTS = 65535
"""Events that one chunk can hold."""
HEADER_BYTES = 12

DAMAGED = -1
"""A kernel's answer to a chunk that ends too early or whose runs do not add up."""


@njit(cache=True, nogil=True)
def _u16(data: Any, at: Any) -> Any:
    return np.int64(data[at]) | np.int64(data[at + 1]) << 8


@njit(cache=True, nogil=True)
def _u32(data: Any, at: Any) -> Any:
    return _u16(data, at) | _u16(data, at + 2) << 16


@njit(cache=True, nogil=True)
def _decode_times(data: Any, at: Any, t: Any) -> Any:
    now = _u32(data, 4) | _u32(data, 8) << 32
    n, end, done = len(t), len(data), 0
    step, shift = np.int64(0), 0
    while done < n:
        if at >= end:
            return DAMAGED
        high, low = data[at] >> 4, np.int64(data[at] & 15)
        at += 1
        if high == 15:
            if shift > 60:
                return DAMAGED
            step |= low << shift
            shift += 4
            continue
        now += step + high
        step, shift = np.int64(0), 0
        if low == 15:
            if at + 2 > end:
                return DAMAGED
            low = _u16(data, at)
            at += 2
        if low > n - done:
            return DAMAGED
        for i in range(done, done + low):
            t[i] = now
        done += int(low)
    return at


@njit(cache=True, nogil=True)
def _decode_rows(data: Any, at: Any, y: Any) -> Any:
    n, end, done = len(y), len(data), 0
    while done < n:
        if at + 2 > end:
            return DAMAGED
        word = _u16(data, at)
        at += 2
        count = word & 31
        if count == 31:
            if at + 2 > end:
                return DAMAGED
            count = _u16(data, at)
            at += 2
        if count > n - done:
            return DAMAGED
        for i in range(done, done + count):
            y[i] = word >> 5
        done += int(count)
    return at


@njit(cache=True, nogil=True)
def _decode_columns(data: Any, at: Any, x: Any) -> Any:
    n, end, done = len(x), len(data), 0
    while done < n:
        if at + 2 > end:
            return DAMAGED
        word = _u16(data, at)
        at += 2
        x[done] = word >> 5
        done += 1
        for i in range(5):
            # The encoder may set bits for events past the end of the chunk: those are nobody's.
            if word & (16 >> i) and done < n:
                x[done] = (word >> 5) + i + 1
                done += 1
    return at


@njit(cache=True, nogil=True)
def _decode_polarities(data: Any, at: Any, p: Any) -> Any:
    n, end, done = len(p), len(data), 0
    while done < n:
        if at >= end:
            return DAMAGED
        polarity, count = data[at] >> 7, np.int64(data[at] & 127)
        at += 1
        if count == 127:
            if at + 2 > end:
                return DAMAGED
            count = _u16(data, at)
            at += 2
        if count > n - done:
            return DAMAGED
        for i in range(done, done + count):
            p[i] = polarity
        done += int(count)
    return at


@njit(cache=True, nogil=True)
def _decode_packed_xp(data: Any, at: Any, x: Any, p: Any) -> Any:
    n, end = len(x), len(data)
    group = np.empty(4, np.int64)
    for first in range(0, n, 4):
        if at + 6 > end:
            return DAMAGED
        w0, w1, w2 = _u16(data, at), _u16(data, at + 2), _u16(data, at + 4)
        at += 6
        group[0] = w0 >> 4
        group[1] = (w0 & 0xF) | (w1 >> 8) << 4
        group[2] = (w1 & 0xFF) | (w2 >> 12) << 8
        group[3] = w2 & 0xFFF
        for i in range(min(4, n - first)):
            x[first + i] = group[i] >> 1
            p[first + i] = group[i] & 1
    return at


@njit(cache=True, nogil=True)
def _decode_packed_yxp(data: Any, at: Any, y: Any, x: Any, p: Any) -> Any:
    n, end = len(x), len(data)
    group = np.empty(4, np.int64)
    for first in range(0, n, 4):
        if at + 12 > end:
            return DAMAGED
        w0, w1, w2 = _u32(data, at), _u32(data, at + 4), _u32(data, at + 8)
        at += 12
        group[0] = w0 >> 8
        group[1] = (w0 & 0xFF) | (w1 >> 16) << 8
        group[2] = (w1 & 0xFFFF) | (w2 >> 24) << 16
        group[3] = w2 & 0xFFFFFF
        for i in range(min(4, n - first)):
            y[first + i] = group[i] >> 12 & 2047
            x[first + i] = group[i] >> 1 & 2047
            p[first + i] = group[i] & 1
    return at


@njit(cache=True, nogil=True)
def decode_chunk(data: Any, layout: Any, t: Any, x: Any, y: Any, p: Any) -> Any:
    """Decode a chunk of len(t) events.

    Args:
        data: uint8[B], the chunk, its header included; B >= HEADER_BYTES.
        layout: 0 to 3, the low bits of the header.
        t: int64[N] out; N is the header's number of events.
        x: uint16[N] out.
        y: uint16[N] out.
        p: uint8[N] out.

    Returns:
        Bytes used, or DAMAGED; then the columns hold nothing of use.
    """
    at = _decode_times(data, HEADER_BYTES, t)
    if at < 0:
        return at
    if layout & 2:
        return _decode_packed_yxp(data, at, y, x, p)
    at = _decode_rows(data, at, y)
    if at < 0:
        return at
    if layout & 1:
        return _decode_packed_xp(data, at, x, p)
    at = _decode_columns(data, at, x)
    if at < 0:
        return at
    return _decode_polarities(data, at, p)


FILTER_ID = 36559
"""The codec's number in the registry of HDF5 filters (0x8ECF)."""


def decode_ecf(chunk: bytes | NDArray[np.uint8]) -> EventBatch:
    """The events of one compressed chunk.

    Layout and source: see `_ecf_kernels`.

    Args:
        chunk: as `h5py.h5d.DatasetID.read_direct_chunk` gives it; not modified.

    Returns:
        As many events as the chunk's header announces, at most 65535.

    Raises:
        RecordingError: if the chunk ends too early or contradicts itself.
    """
    data = np.frombuffer(chunk, np.uint8)
    if len(data) < HEADER_BYTES:
        raise RecordingError(f"an ECF chunk of {len(data)} bytes, shorter than its header of 12")
    header = int.from_bytes(data[:4].tobytes(), "little")
    n = header >> 2
    if n > MAX_EVENTS:
        raise RecordingError(f"an ECF chunk that announces {n} events; {MAX_EVENTS} is the most")
    batch = EventBatch.empty(n)
    if decode_chunk(data, header & 3, batch.t_us, batch.x, batch.y, batch.p) < 0:
        raise RecordingError(f"an ECF chunk of {len(data)} bytes whose {n} events are cut off or damaged")
    return batch
