"""Everything that is fuzzed: each target takes bytes, has examples of them, and says what must hold."""

from __future__ import annotations

import importlib
import importlib.util
import random
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.fuzz import check
from tests.fuzz.samples import MADE, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADERS = {"hdf5": 0, "ecf": 0, "npy": 128, "aedat4": 0}
"""Bytes at the beginning of a format that are spoilt seldom: what follows is of interest."""
RAW_HEADER = 200
FUNCTIONS = "tests.fuzz.targets"


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


def _texts() -> dict[str, Target]:
    from tests.fuzz.texts import TEXTS, text_check

    targets = {}
    for name, (read, makers) in TEXTS.items():
        checked = text_check(read)
        packages = ("velora_edge", "velora_runtime", "yaml")
        targets[name] = Target(name, checked, partial(_made, makers), checked, packages)
    return targets


def _doors() -> dict[str, Target]:
    from tests.fuzz.doors import DOORS

    packages = {
        "web": ("velora_runtime", "h11", "uvicorn", "starlette"),
        "tcp": ("velora_runtime", "velora_edge"),
    }
    return {
        name: Target(name, checked, made, checked, packages[name]) for name, (checked, made) in DOORS.items()
    }


def _made(makers: tuple[Callable[[], bytes], ...]) -> tuple[bytes, ...]:
    return tuple(make() for make in makers)


def _functions() -> dict[str, Target]:
    """Readers that are functions of bytes, where `tests.fuzz.targets` lists some."""
    if importlib.util.find_spec(FUNCTIONS) is None:
        return {}
    readers = importlib.import_module(FUNCTIONS).TARGETS
    packages = ("velora_edge", "velora_runtime", "yaml")
    targets = {}
    for reader, known in readers.items():
        name = f"text.{reader.replace(' ', '_')}"
        checked = partial(_call, known.run)
        targets[name] = Target(name, checked, partial(tuple, known.seeds), checked, packages)
    return targets


def _call(run: Callable[[bytes], None], path: Path, rng: random.Random) -> str:
    run(path.read_bytes())
    return "events"


def load_targets() -> dict[str, Target]:
    """All of them by name; imports what they read with."""
    return {**_formats(), **_texts(), **_functions(), **_doors()}


def names() -> list[str]:
    """Of all targets."""
    return [*MADE, *TEXT_NAMES, *_functions(), *DOOR_NAMES]


TEXT_NAMES = ("config", "calibration", "mask", "manifest", "recording", "labels", "decide", "option")
DOOR_NAMES = ("web", "tcp")
