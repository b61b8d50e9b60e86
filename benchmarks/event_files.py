"""Long recordings for benchmarks: a real payload repeated, time going on from one repetition to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One recording to measure on.

    Attributes:
        name: as the tables call it.
        source: the real recording that it is made of.
        word: dtype of a word of its payload.
        high_shift: bits of a TIME_HIGH word above its value's, where the type stands.
        high_bits: bits of the TIME_HIGH value.
        low_bits: bits of time below it.
        size_mb: megabytes of a full run's file.
    """

    name: str
    source: str
    word: str
    high_shift: int
    high_bits: int
    low_bits: int
    size_mb: int


CASES = (
    Case("dense", "expelliarmus_evt3_sample.raw", "<u2", 12, 12, 12, 180),
    Case("sparse", "ecpy_test1_evt3_triggers.raw", "<u2", 12, 12, 12, 140),
    Case("evt2", "expelliarmus_evt2_sample.raw", "<u4", 28, 28, 6, 140),
)
TIME_HIGH = 8


def build(case: Case, source: Path, folder: Path, size_mb: float) -> Path:
    """The recording of at least `size_mb` megabytes, made once in `folder`.

    Each repetition is the payload with its TIME_HIGH words moved on by the payload's length, so that times
    go on rising; they wrap where the camera's would.
    """
    out = folder / f"{case.name}_{size_mb:g}mb.raw"
    if out.exists():
        return out
    header, payload = split_header(source.read_bytes())
    words = np.frombuffer(payload[: len(payload) // int(case.word[2]) * int(case.word[2])], case.word)
    is_high = words >> case.high_shift == TIME_HIGH
    mask = (1 << case.high_bits) - 1
    highs = words[is_high].astype(np.int64) & mask
    span = int((highs.max() - highs.min()) % (mask + 1)) + 1
    folder.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".part")
    with partial.open("wb") as file:
        file.write(header)
        for repetition in range(max(1, round(size_mb * 1e6 / len(payload)))):
            again = words.copy()
            again[is_high] = (TIME_HIGH << case.high_shift) | ((highs + repetition * span) & mask)
            file.write(again.tobytes())
    partial.rename(out)
    return out


def split_header(raw: bytes) -> tuple[bytes, bytes]:
    """A .raw file's header, `% end` included and added where it was missing, and its payload."""
    end = 0
    while raw[end : end + 2] == b"% ":
        end = raw.index(b"\n", end) + 1
    header = raw[:end]
    return (header if header.endswith(b"% end\n") else header + b"% end\n"), raw[end:]
