"""Everything that is fuzzed: each target takes bytes, has examples of them, and says what must hold."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.fuzz import check, targets
from tests.fuzz.samples import MADE, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADERS = {"hdf5": 0, "ecf": 0, "npy": 128, "aedat4": 0}
"""Bytes at the beginning of a format that are spoilt seldom: what follows is of interest."""
RAW_HEADER = 200


@dataclass(frozen=True)
class Target:
    """One of them.

    Attributes:
        name: of a format, a text or a door.
        check: reads a file of any content; what goes wrong is an exception that is none of ours.
        samples: files that are as they should be.
        warm_up: reads one of them, so that compiling does not count as time spent on a file.
        packages: whose code says, by which lines of it were reached, that a file is of interest.
    """

    name: str
    check: Callable[[Path, random.Random], str]
    samples: Callable[[], tuple[bytes, ...]]
    warm_up: Callable[[Path, random.Random], object]
    packages: tuple[str, ...] = ("velora_edge",)

    def run(self, path: Path) -> str:
        """Check a file; the same bytes always in the same way."""
        return self.check(path, random.Random(zlib.crc32(path.read_bytes())))

    def header_bytes(self, data: bytes) -> int:
        """How many bytes at the beginning are to be spoilt seldom."""
        end = data.find(b"% end\n")
        return end + 6 if 0 <= end < RAW_HEADER else HEADERS.get(self.name, 0)


def _formats() -> dict[str, Target]:
    packages = {"bag": ("rosbags",), "mcap": ("rosbags",), "db3": ("rosbags",)}
    return {
        name: Target(
            name,
            check.check_file,
            partial(samples, name),
            check.warm_up,
            ("velora_edge", *packages.get(name, ())),
        )
        for name in MADE
    }


def _doors() -> dict[str, Target]:
    from tests.fuzz.doors import DOORS

    packages = {
        "web": ("velora_runtime", "h11", "uvicorn", "starlette"),
        "tcp": ("velora_runtime", "velora_edge"),
    }
    return {
        name: Target(name, checked, made, checked, packages[name]) for name, (checked, made) in DOORS.items()
    }


def _texts() -> dict[str, Target]:
    packages = ("velora_edge", "velora_runtime", "yaml")
    return {
        name: Target(name, checked, partial(tuple, known.seeds), checked, packages)
        for name, known in ((text_name(reader), known) for reader, known in targets.TARGETS.items())
        for checked in (partial(_call, known.run),)
    }


def text_name(reader: str) -> str:
    """Of a reader of texts, among all targets."""
    return f"text.{reader.replace(' ', '_')}"


def _call(run: Callable[[bytes], None], path: Path, rng: random.Random) -> str:
    run(path.read_bytes())
    return "events"


def load_targets() -> dict[str, Target]:
    """All of them by name; imports what they read with."""
    return {**_formats(), **_texts(), **_doors()}


def names() -> list[str]:
    """Of all targets."""
    return [*MADE, *map(text_name, targets.TARGETS), *DOOR_NAMES]


DOOR_NAMES = ("web", "tcp")
