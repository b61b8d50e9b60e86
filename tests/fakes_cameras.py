"""Stand-ins for live cameras: feeds that follow a script, in time that a test moves on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.feeds import Patience
from velora_runtime.ingest.event_ingest import EventIngest, PacketRateCap
from velora_runtime.ingest.live_stream import LiveStream
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.queues import PacketQueue

from tests.fakes import FakeClock
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import CameraError
from velora_edge.events.chunk_stream import BatchCursor
from velora_edge.events.formats.raw.raw_walker import RawWalker, WordCursor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from velora_runtime.ingest.packets import EventPacket

    from velora_edge.events.base import Encoding


class ScriptedFeed:
    """Gives what the script says: (time, thing). A thing that is an error is raised; None: nothing came.

    `read` moves the clock on to the time. `opens` says what each opening does: True, or an error.
    """

    name = "scripted"
    can_wait = False

    def __init__(
        self,
        clock: FakeClock,
        script: Iterable[tuple[int, Any]] = (),
        *,
        opens: Iterable[Any] = (),
        may_be_silent: bool = False,
        comes_back: bool = True,
    ) -> None:
        self.may_be_silent, self.comes_back = may_be_silent, comes_back
        self.clock, self.script, self.opens = clock, list(script), list(opens)
        self.opened: list[int] = []
        self.closed = 0

    def open(self) -> None:
        self.opened.append(self.clock.t_us)
        answer = self.opens.pop(0) if self.opens else True
        if answer is not True:
            raise answer

    def read(self) -> Any:
        if not self.script:
            self.clock.t_us += 100_000
            return None
        t_us, thing = self.script.pop(0)
        self.clock.t_us = max(self.clock.t_us, t_us)
        if isinstance(thing, Exception):
            raise thing
        return thing

    def close(self) -> None:
        self.closed += 1


class Basket:
    """Keeps what a camera hands on."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def begin(self) -> None:
        self.got.append("begin")

    def take(self, item: Any, arrived_us: int) -> None:
        self.got.append((item, arrived_us))

    def end(self) -> None:
        self.got.append("end")


@dataclass
class Rig:
    """An event camera without threads: a test takes the steps."""

    clock: FakeClock
    feed: ScriptedFeed
    queue: PacketQueue
    ingest: EventIngest
    camera: Camera[Any]
    stream: LiveStream
    notes: list[str] = field(default_factory=list)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.camera.step()

    def run_script(self) -> None:
        """Take steps until the script is read."""
        while self.feed.script:
            self.camera.step()


def make_rig(
    script: Iterable[tuple[int, Any]] = (),
    *,
    sensor: tuple[int, int] = (8, 8),
    encoding: Encoding | None = "EVT3",
    opens: Iterable[Any] = (),
    room_bytes: int = 1 << 20,
    cap: float | None = None,
    is_paced: bool = True,
    patience: Patience | None = None,
) -> Rig:
    """A camera that gives raw words, or decoded events where there is no encoding."""
    clock, notes, stop = FakeClock(), [], threading.Event()
    feed = ScriptedFeed(clock, script, opens=[True, *opens])
    queue: PacketQueue[EventPacket] = PacketQueue(room_bytes, waits=not is_paced)
    scanner = None if encoding is None else RawScanner(encoding, sensor)
    ingest = EventIngest(
        queue, scanner, PacketRateCap(cap), clock, stop, is_paced=is_paced, note=notes.append
    )
    camera: Camera[Any] = Camera(feed, ingest, patience or Patience(), clock, notes.append)
    feed.open()
    camera.adopt()
    cursor = BatchCursor() if encoding is None else WordCursor(RawWalker(encoding, sensor, True))
    stream = LiveStream(camera, ingest, queue, cursor, sensor, clock, stop, is_paced=is_paced)
    return Rig(clock, feed, queue, ingest, camera, stream, notes)


def evt3(*events: tuple[int, int, int, int], end_us: int | None = None, edges: Iterable[int] = ()) -> bytes:
    """EVT3 words of events (t, x, y, p) and of rising trigger edges, each with its whole time before it."""
    words: list[int] = []
    things = sorted(
        [(t, (x, y, p)) for t, x, y, p in events] + [(t, None) for t in edges], key=lambda e: e[0]
    )
    for t, event in things:
        words += time_words(t)
        words += [0xA001] if event is None else [event[1], 0x2000 | event[2] << 11 | event[0]]
    if end_us is not None:
        words += time_words(end_us)
    return np.array(words, "<u2").tobytes()


def time_words(t_us: int) -> list[int]:
    """EVT3's two words of a time."""
    return [0x8000 | t_us >> 12 & 0xFFF, 0x6000 | t_us & 0xFFF]


def garbage(n_bytes: int, seed: int = 5) -> bytes:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, n_bytes, np.uint8).tobytes()


def batch(*events: tuple[int, int, int, int]) -> EventBatch:
    """Events (t, x, y, p) as arrays."""
    return EventBatch(
        *(np.array([e[i] for e in events], kind) for i, kind in enumerate(("i8", "u2", "u2", "u1")))
    )


def rising(*times_us: int, trigger_id: int = 0) -> TriggerBatch:
    """Rising edges on one input."""
    n = len(times_us)
    return TriggerBatch(np.array(times_us, np.int64), np.full(n, trigger_id, np.uint8), np.ones(n, np.uint8))


def gone(reason: str = "unplugged") -> CameraError:
    return CameraError(reason)
