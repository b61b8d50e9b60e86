"""A sink, a live event camera and an event format that come from outside of VELoRA-edge."""

from __future__ import annotations

import math
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.cameras.feeds import READ_WAIT_S
from velora_runtime.ingest.packets import Decoded
from velora_runtime.sinks.base import Result, Sink
from velora_runtime.sinks.jsonl import encode_line

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.formats.arrays import ArrayReader
from velora_edge.extensions import Extension

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_runtime.cameras.feeds import LiveSetup
    from velora_runtime.sinks.base import SinkContext


class UdpSink(Sink):
    """Sends each prediction as one datagram, a line of JSON.

    Args:
        target: HOST:PORT.
        context: not used.
    """

    name = "udp"
    may_lose = True

    def __init__(self, target: str, context: SinkContext) -> None:
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit():
            raise InputError("expected HOST:PORT", path=target, remedy="--sink udp=127.0.0.1:9000")
        self._address = host, int(port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def take(self, result: Result) -> Any:
        """The prediction, where there is one."""
        return result.prediction

    def write(self, item: Any) -> None:
        """Send it."""
        self._socket.sendto(encode_line(item), self._address)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


SIDE, RADIUS, TURN_US, STEP_US = 128, 40, 1_000_000, 1000


class CircleEvents:
    """An event camera's view of a dot that goes round once a second. Single-threaded: the camera's thread.

    Args:
        text: what the user called it.
        setup: not used.
    """

    may_be_silent = False
    comes_back = True
    can_wait = False
    layout = None
    sensor = (SIDE, SIDE)

    def __init__(self, text: str, setup: LiveSetup) -> None:
        self.name = text
        self._begun_us = self._reached_us = 0

    def open(self) -> None:
        """Begin at time 0."""
        self._begun_us, self._reached_us = time.monotonic_ns() // 1000, 0

    def read(self) -> Decoded | None:
        """The events since the call before: at each step an ON event before the dot, an OFF event behind."""
        time.sleep(READ_WAIT_S / 20)
        now_us = time.monotonic_ns() // 1000 - self._begun_us
        t_us = np.arange(self._reached_us, now_us, STEP_US).repeat(2)
        self._reached_us = now_us
        if not len(t_us):
            return None
        p = np.tile(np.array([1, 0], np.uint8), len(t_us) // 2)
        angle = 2 * math.pi * t_us / TURN_US + np.where(p == 1, 0.1, -0.1)
        x = (SIDE / 2 + RADIUS * np.cos(angle)).astype(np.uint16)
        y = (SIDE / 2 + RADIUS * np.sin(angle)).astype(np.uint16)
        return Decoded(EventBatch(t_us, x, y, p), TriggerBatch.empty(), now_us)

    def close(self) -> None:
        """There is nothing to let go of."""


MAGIC = b"TXYP"
RECORD = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])


class TxypReader(ArrayReader):
    """A recording: `TXYP`, width and height uint16, then records of t int64, x, y uint16, p uint8.

    Args:
        path: the file.
        sensor: width and height, before what the file tells.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        width, height = np.fromfile(path, "<u2", count=2, offset=len(MAGIC)).tolist()
        super().__init__(path, "TXYP", sensor or (width, height))

    def batches(self) -> Iterator[EventBatch]:
        """The events in file order."""
        with self.path.open("rb") as file:
            file.seek(len(MAGIC) + 4)
            while len(rows := np.fromfile(file, RECORD, count=1 << 16)):
                yield EventBatch(*(np.ascontiguousarray(rows[name]) for name in "txyp"))


UDP = Extension("udp", "velora_plugin:UdpSink", "datagrams of JSON")
CIRCLE = Extension(
    "circle",
    "velora_plugin:CircleEvents",
    "circle://",
    modality="events",
    listing="velora_plugin:list_circles",
)
TXYP = Extension("TXYP", "velora_plugin:TxypReader", "13 bytes an event", lambda head, _: head[:4] == MAGIC)


def list_circles() -> list[str]:
    """The one camera that there is."""
    return ["circle://"]
