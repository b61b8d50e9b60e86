"""Ways to spoil a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_BYTES = (0, 1, 2, 0x7F, 0x80, 0x99, 0xFF)
_NUMBERS = (0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def spoil(data: bytes, rng: random.Random, header: int = 0) -> bytes:
    """The file with something wrong with it.

    Args:
        data: a whole file.
        rng: chooses what.
        header: bytes at its beginning that are spoilt in one case of ten only: what follows is of interest.
    """
    kept = 0 if rng.random() < 0.1 else min(header, len(data))
    body = bytearray(data[kept:])
    way = rng.randrange(8)
    if way == 0:
        return data[:kept] + rng.randbytes(rng.randrange(1, 4000))
    if way == 1:
        return rng.randbytes(rng.randrange(1, 4000))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if not body:
            break
        _change(body, rng)
    return data[:kept] + bytes(body)


def _change(body: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(body))
    way = rng.randrange(7)
    if way == 0:
        body[at] = rng.choice((*_BYTES, rng.randrange(256)))
    elif way == 1:
        body[at] ^= 1 << rng.randrange(8)
    elif way == 2:
        size = rng.choice((2, 4, 8))
        body[at : at + size] = (rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    elif way == 3:
        del body[at:]
    elif way == 4:
        del body[at : at + rng.randrange(1, 100)]
    elif way == 5:
        start = rng.randrange(len(body))
        body[at:at] = body[start : start + rng.randrange(1, 300)]
    else:
        size = rng.randrange(1, 100)
        body[at : at + size] = rng.randbytes(size)
