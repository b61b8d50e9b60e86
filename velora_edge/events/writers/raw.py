"""Writers of EVT2, EVT2.1 and EVT3 `.raw` files, with external triggers.

Each kernel merges both lists by time and goes on where it stopped, when the room for words is used up: `at`
holds the next event and the next edge, `state` what the decoder will remember. The caller has checked that
times do not decrease and that all values fit.

Word layouts: Prophesee's documentation of the EVT 2.0, 2.1 and 3.0 formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.kernels._intrinsics import kernel
from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


# Places in `state`, int64[4]: -1 at the start of a stream, but for the sensor's width.
HIGH, LOW, ROW, WIDTH = range(4)

_VECTOR = 32
_EVT3_JUMP = 1 << 10
_EVT2_JUMP = 1 << 26


@kernel
def encode_evt3(events: Any, triggers: Any, state: Any, at: Any, words: Any) -> Any:
    """Write uint16 words; return how many. See the module for `state` and `at`.

    Every TIME_HIGH is written, one each 4096 us, as cameras do; in a gap of more than a wrap, four a wrap.
    Vectors stand where they take fewer words than single events: always VECT_12, VECT_12 and VECT_8, for 32
    pixels that all lie on the sensor. The format allows others, but OpenEB and evutils take these only.
    """
    t, x, y, p = events
    edge_t, edge_id, edge_p = triggers
    i, j, n = at[0], at[1], 0
    high, low, row = state[HIGH], state[LOW], state[ROW]
    base: Any = -1
    base_p: Any = -1  # where the next vector word would begin, in this row at this time
    room, last_base = len(words) - 7, state[WIDTH] - _VECTOR
    while (i < len(t) or j < len(edge_t)) and n < room:
        is_edge = j < len(edge_t) and (i == len(t) or edge_t[j] <= t[i])
        now = edge_t[j] if is_edge else t[i]
        if now >> 12 != high:
            gap = (now >> 12) - high
            if high < 0:
                high = now >> 12 if gap <= 4096 else 0
            else:
                high += 1 if gap <= 4096 else _EVT3_JUMP
            words[n] = 0x8000 | (high & 0xFFF)
            low, n = -1, n + 1
            continue
        if now & 0xFFF != low:
            low, base = now & 0xFFF, -1
            words[n] = 0x6000 | low
            n += 1
        if is_edge:
            words[n] = 0xA000 | (np.int64(edge_id[j]) << 8) | edge_p[j]
            n, j = n + 1, j + 1
            continue
        if y[i] != row:
            row, base = np.int64(y[i]), -1
            words[n] = row
            n += 1
        is_next = 0 <= base <= last_base and p[i] == base_p and base <= x[i] < base + _VECTOR
        start = base if is_next else min(np.int64(x[i]), last_base)
        end, mask = i + 1, 1 << (np.int64(x[i]) - start)
        while (
            end < len(t)
            and t[end] == now
            and y[end] == row
            and p[end] == p[i]
            and x[end] > x[end - 1]
            and x[end] < start + _VECTOR
        ):
            mask |= 1 << (np.int64(x[end]) - start)
            end += 1
        polarity = np.int64(p[i]) << 11
        if start >= 0 and end - i >= (4 if is_next else 5):
            if not is_next:
                words[n] = 0x3000 | polarity | start
                n += 1
            words[n] = 0x4000 | (mask & 0xFFF)
            words[n + 1] = 0x4000 | ((mask >> 12) & 0xFFF)
            words[n + 2] = 0x5000 | (mask >> 24)
            n += 3
            base, base_p, i = start + _VECTOR, p[i], end
        else:
            words[n] = 0x2000 | polarity | x[i]
            n, base, i = n + 1, -1, i + 1
    at[0], at[1] = i, j
    state[HIGH], state[LOW], state[ROW] = high, low, row
    return n


@kernel
def next_evt2_high(high: Any, target: Any) -> Any:
    """The TIME_HIGH that follows `high` on the way to `target`: a decoder must be able to count the wraps."""
    if high < 0:
        return target if target < 1 << 28 else 0
    return target if target - high <= _EVT2_JUMP else high + _EVT2_JUMP


@kernel
def encode_evt2(events: Any, triggers: Any, state: Any, at: Any, words: Any) -> Any:
    """Write uint32 words; return how many. See the module for `state` and `at`."""
    t, x, y, p = events
    edge_t, edge_id, edge_p = triggers
    i, j, n, high = at[0], at[1], 0, state[HIGH]
    while (i < len(t) or j < len(edge_t)) and n < len(words):
        is_edge = j < len(edge_t) and (i == len(t) or edge_t[j] <= t[i])
        now = edge_t[j] if is_edge else t[i]
        if now >> 6 != high:
            high = next_evt2_high(high, now >> 6)
            words[n] = (8 << 28) | (high & 0xFFFFFFF)
        elif is_edge:
            words[n] = (0xA << 28) | ((now & 63) << 22) | (np.int64(edge_id[j]) << 8) | edge_p[j]
            j += 1
        else:
            place = (np.int64(x[i]) << 11) | np.int64(y[i])
            words[n] = (np.int64(p[i]) << 28) | ((now & 63) << 22) | place
            i += 1
        n += 1
    at[0], at[1], state[HIGH] = i, j, high
    return n


@kernel
def encode_evt21(events: Any, triggers: Any, state: Any, at: Any, words: Any) -> Any:
    """Write uint64 words; return how many. See the module for `state` and `at`.

    Events of one time, row, polarity and group of 32 columns share a word where their columns ascend.
    """
    t, x, y, p = events
    edge_t, edge_id, edge_p = triggers
    i, j, n, high = at[0], at[1], 0, state[HIGH]
    while (i < len(t) or j < len(edge_t)) and n < len(words):
        is_edge = j < len(edge_t) and (i == len(t) or edge_t[j] <= t[i])
        now = edge_t[j] if is_edge else t[i]
        if now >> 6 != high:
            high = next_evt2_high(high, now >> 6)
            words[n] = (np.uint64(8) << np.uint64(60)) | (np.uint64(high & 0xFFFFFFF) << np.uint64(32))
        elif is_edge:
            fields = (np.int64(edge_id[j]) << 8) | edge_p[j]
            words[n] = _word64(0xA, now, fields, 0)
            j += 1
        else:
            group, mask, end = np.int64(x[i]) & ~31, 1 << (np.int64(x[i]) & 31), i + 1
            while (
                end < len(t)
                and t[end] == now
                and y[end] == y[i]
                and p[end] == p[i]
                and x[end] > x[end - 1]
                and x[end] < group + 32
            ):
                mask |= 1 << (np.int64(x[end]) & 31)
                end += 1
            words[n] = _word64(np.int64(p[i]), now, (group << 11) | np.int64(y[i]), mask)
            i = end
        n += 1
    at[0], at[1], state[HIGH] = i, j, high
    return n


@kernel
def _word64(kind: Any, now: Any, fields: Any, mask: Any) -> Any:
    upper = (np.uint64(kind) << np.uint64(28)) | (np.uint64(now & 63) << np.uint64(22)) | np.uint64(fields)
    return (upper << np.uint64(32)) | np.uint64(mask)


_ROOM_WORDS = 1 << 17


class RawWriter(EventWriter):
    """Base of the three writers: header, merge of events and edges, bounded memory."""

    holds_triggers: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = True
    largest_side_px: ClassVar[int] = 2048
    largest_id: ClassVar[int] = 31
    word: ClassVar[str]
    header: ClassVar[tuple[str, ...]]
    encode: ClassVar[Callable[..., int]]

    def _open(self, path: Path) -> None:
        self._file = path.open("wb")
        lines = (
            "camera_integrator_name Prophesee",
            *self.header,
            f"geometry {self.width}x{self.height}",
            "end",
        )
        text = "".join(f"% {line}\n" for line in lines)
        self._file.write(text.format(width=self.width, height=self.height).encode("ascii"))
        self._state = np.full(4, -1, np.int64)
        self._state[WIDTH] = self.width
        self._words = np.empty(_ROOM_WORDS, np.dtype(self.word))
        self._pending = TriggerBatch.empty()

    def _write(self, batch: EventBatch) -> None:
        due = int(np.searchsorted(self._pending.t_us, batch.t_us[-1], side="right"))
        self._encode(batch, _cut(self._pending, slice(due)))
        self._pending = _cut(self._pending, slice(due, None))

    def _write_triggers(self, triggers: TriggerBatch) -> None:
        self._check_triggers(triggers, self._pending)
        if triggers.id.max() > self.largest_id or triggers.p.max() > 1:
            raise InputError(
                f"expected trigger inputs 0 to {self.largest_id} and edges 0 or 1 for {self.format}, "
                f"got input {triggers.id.max()}, edge {triggers.p.max()}",
                path=self.path,
            )
        self._pending = TriggerBatch.concatenate([self._pending, triggers])

    def _encode(self, batch: EventBatch, triggers: TriggerBatch) -> None:
        events = tuple(np.ascontiguousarray(a) for a in (batch.t_us, batch.x, batch.y, batch.p))
        edges = tuple(np.ascontiguousarray(a) for a in (triggers.t_us, triggers.id, triggers.p))
        at = np.zeros(2, np.int64)
        while at[0] < len(batch) or at[1] < len(triggers):
            n = type(self).encode(events, edges, self._state, at, self._words)
            self._file.write(self._bytes(self._words[:n]))

    def _bytes(self, words: NDArray[Any]) -> memoryview:
        return words.data

    def _finish(self) -> None:
        self._encode(EventBatch.empty(), self._pending)
        self._file.close()

    def _discard(self) -> None:
        self._file.close()


class EVT3Writer(RawWriter):
    """16-bit words; the smallest of the three where many pixels of a row fire together."""

    format = "EVT3"
    end_us = 1 << 44  # half a year; beyond, a decoder would have to be led through millions of wraps
    largest_id = 15
    word = "<u2"
    header = ("evt 3.0", "format EVT3;height={height};width={width}")
    encode = staticmethod(encode_evt3)


class EVT2Writer(RawWriter):
    """32-bit words, one an event."""

    format = "EVT2"
    end_us = 1 << 52
    word = "<u4"
    header = ("evt 2.0", "format EVT2;height={height};width={width}")
    encode = staticmethod(encode_evt2)


class EVT21Writer(RawWriter):
    """64-bit words, little endian, one for up to 32 pixels of a row."""

    format = "EVT2.1"
    end_us = 1 << 52
    word = "<u8"
    header = ("endianness little", "evt 2.1", "format EVT21;height={height};width={width}")
    encode = staticmethod(encode_evt21)


def _cut(triggers: TriggerBatch, which: slice) -> TriggerBatch:
    return TriggerBatch(triggers.t_us[which], triggers.id[which], triggers.p[which])
