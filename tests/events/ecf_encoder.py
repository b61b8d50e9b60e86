"""An encoder for ECF chunks in each of the codec's three layouts, to test the decoder with."""

from __future__ import annotations

import struct
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS, PACKED_XP, PACKED_YXP = 0, 1, 2


def encode_ecf(t: Sequence[int], x: Sequence[int], y: Sequence[int], p: Sequence[int], layout: int) -> bytes:
    """A chunk of events whose times never fall."""
    head = struct.pack("<I", len(t) << 2 | layout) + struct.pack("<Q", t[0] if t else 0)
    if layout == PACKED_YXP:
        body = _packed([b << 12 | a << 1 | c for a, b, c in zip(x, y, p, strict=True)], 24)
    elif layout == PACKED_XP:
        body = _rows(y) + _packed([a << 1 | c for a, c in zip(x, p, strict=True)], 12)
    else:
        body = _rows(y) + _columns(x) + _polarities(p)
    return head + _times(t) + body


def _times(t: Sequence[int]) -> bytes:
    coded, now = bytearray(), t[0] if t else 0
    for value, run in _runs(t):
        step = value - now
        if step > 14:
            while step:
                coded.append(0xF0 | step & 15)
                step >>= 4
        coded += _counted(step << 4, run, 15)
        now = value
    return bytes(coded)


def _rows(y: Sequence[int]) -> bytes:
    coded = b""
    for value, run in _runs(y):
        coded += struct.pack("<H", value << 5 | min(run, 31)) + (struct.pack("<H", run) if run >= 31 else b"")
    return coded


def _columns(x: Sequence[int]) -> bytes:
    coded, i = b"", 0
    while i < len(x):
        word, base = x[i] << 5, x[i]
        i += 1
        for right in range(1, 6):
            if i < len(x) and x[i] == base + right:
                word |= 1 << (5 - right)
                i += 1
        coded += struct.pack("<H", word)
    return coded


def _polarities(p: Sequence[int]) -> bytes:
    return b"".join(_counted(value << 7, run, 127) for value, run in _runs(p))


def _counted(high: int, run: int, limit: int) -> bytes:
    if run < limit:
        return bytes([high | run])
    return bytes([high | limit]) + struct.pack("<H", run)


def _runs(values: Sequence[int]) -> list[tuple[int, int]]:
    return [(value, len(list(same))) for value, same in groupby(values)]


def _packed(values: list[int], bits: int) -> bytes:
    values = values + [0] * (-len(values) % 4)
    third, code = bits // 3, "H" if bits == 12 else "I"
    low, middle = (1 << third) - 1, (1 << 2 * third) - 1
    coded = b""
    for v0, v1, v2, v3 in zip(*[iter(values)] * 4, strict=True):
        words = (
            v0 << third | v1 & low,
            (v1 >> third) << 2 * third | v2 & middle,
            (v2 >> 2 * third) << bits | v3,
        )
        coded += struct.pack(f"<3{code}", *words)
    return coded
