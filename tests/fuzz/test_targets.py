"""Each reader of text and JSON on its seeds and on changed ones, for a moment."""

from __future__ import annotations

import random
import time

import pytest

from tests.fuzz.spoil import spoil
from tests.fuzz.targets import TARGETS

SECONDS = 0.5
WORDS = [
    b"9" * 30,
    b"9" * 5000,
    b"+-5",
    b"--",
    b"[" * 3000,
    b"]" * 50,
    b"{" * 3000,
    b'{"a":' * 3000,
    b"\xff",
    b"\0",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b"NaN",
    b"1e999",
    b"-1e999",
    b"2001-99-99",
    b"&a [*a]",
    b"*x",
    b"!!int x",
    b"!!python/name:os.system",
    b"? ",
    b"\xe2\x80\xa8",
    b"\r",
    b"\x0c",
    b"\xd9\xa5",
    b"true",
    b"null",
    b"''",
    b"%",
    b"../",
    b"/",
    b"-0",
    b"1_0",
    b"0x10",
    b"0o17",
    b"1:60",
    b".inf",
    b".nan",
    b"65536",
    b"4294967296",
    b"#",
    b"\n",
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The text with something wrong with it."""
    if rng.random() < 0.4:
        return spoil(data, rng)
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(body) + 1)
        stop = at + rng.choice((0, 0, 1, 3, 10))
        body[at:stop] = rng.choice(WORDS)
    return bytes(body)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_seeds_give_one_line_or_a_value(name: str) -> None:
    target, rng = TARGETS[name], random.Random(name)
    end = time.monotonic() + SECONDS
    for k in range(2000):
        data = mutate(rng.choice(target.seeds), rng)
        target.run(data)
        if k >= 20 and time.monotonic() > end:
            break
