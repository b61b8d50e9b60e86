"""Two generated cameras in a process of their own: raw EVT3 over TCP, pictures over HTTP, in real time.

    python -m velora_runtime.bench.cameras --events recording.raw --video video.mp4 --rate 5e6 --fps 30

The event camera repeats a recording whose times were compressed or stretched to the rate asked for; times
go on from one repetition to the next. Words leave every 4,096 us, once their time has passed, as they do
from USB. The RGB camera repeats the video's pictures, each with its number, modulo 256, in its top left
corner.

Its own times are CLOCK_MONOTONIC's, which all processes of a machine share: what became of a picture or
an event of a given time can be told from outside. The line of JSON that it prints first names both ports;
`/state` on the pictures' port tells the rest. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.registry import open_events
from velora_edge.events.writers.raw import EVT3Writer
from velora_edge.preprocessing.registry import open_rgb_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK_US = 4096
"""What a TIME_HIGH word of EVT3 counts."""
TIME_HIGH, HIGH_MASK = 8, 0xFFF
MOST_EVENTS, MOST_BLOCKS = 4_000_000, 2048
MOST_PICTURES = 256
BIN_NS = 250_000_000
CODE_BITS, CODE_PX = 8, 8
"""A picture's number is eight squares, one for each bit, white for 1: whole blocks of a JPEG."""


@dataclass(frozen=True)
class Cycle:
    """A recording that can be repeated for ever.

    Attributes:
        header: of the .raw file.
        blocks: words of 4,096 us each, a TIME_HIGH among the first.
        events: in all blocks.
    """

    header: bytes
    blocks: list[NDArray[np.uint16]]
    events: int

    @property
    def rate_hz(self) -> float:
        """Events a second."""
        return self.events / (len(self.blocks) * BLOCK_US / 1e6)

    @property
    def bytes_per_event(self) -> float:
        """What an event takes on the wire."""
        return sum(block.nbytes for block in self.blocks) / self.events

    def block(self, number: int) -> bytes:
        """Block `number` of the endless stream, with its own time."""
        words = self.blocks[number % len(self.blocks)].copy()
        words[words >> 12 == TIME_HIGH] = TIME_HIGH << 12 | number & HIGH_MASK
        return words.tobytes()


def make_cycle(path: str, rate_hz: float) -> Cycle:
    """As many of a recording's events as give the rate in whole blocks.

    Raises:
        InputError: if the recording has no events.
    """
    whole, sensor = _read_events(path)
    if len(whole) < 2:
        raise InputError(
            f"holds {len(whole)} events", path=path, remedy="give a recording that can be repeated"
        )
    n_blocks = min(max(1, int(len(whole) / rate_hz * 1e6 / BLOCK_US)), MOST_BLOCKS)
    wanted = round(rate_hz * n_blocks * BLOCK_US / 1e6)
    while wanted > len(whole):
        whole = _again(whole)
    whole = whole[:wanted]
    t_us = whole.t_us - whole.t_us[0]
    t_us = t_us * (n_blocks * BLOCK_US - 1) // max(int(t_us[-1]), 1)
    edges = np.searchsorted(t_us, np.arange(n_blocks + 1) * BLOCK_US)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cycle.raw"
        with EVT3Writer(out, *sensor) as writer:
            for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
                if b > a:
                    batch = whole[slice(a, b)]
                    writer.write(EventBatch(t_us[a:b], batch.x, batch.y, batch.p))
        raw = out.read_bytes()
    end = raw.index(b"% end\n") + len(b"% end\n")
    return Cycle(raw[:end], _split(np.frombuffer(raw[end:], "<u2"), n_blocks), len(whole))


def _read_events(path: str) -> tuple[EventBatch, tuple[int, int]]:
    batches, events = [], 0
    with contextlib.closing(open_events(path)) as reader:
        for batch in reader:
            batches.append(batch)
            events += len(batch)
            if events >= MOST_EVENTS:
                break
        sensor = reader.width, reader.height
    return EventBatch.concatenate(batches), sensor


def _again(whole: EventBatch) -> EventBatch:
    """Twice the events, the second time after the first."""
    later = whole.t_us - whole.t_us[0] + whole.t_us[-1] + 1
    return EventBatch.concatenate([whole, EventBatch(later, whole.x, whole.y, whole.p)])


def _split(words: NDArray[np.uint16], n_blocks: int) -> list[NDArray[np.uint16]]:
    """Words by block; one without events has its time alone."""
    is_high = words >> 12 == TIME_HIGH
    at, highs = np.flatnonzero(is_high), words[is_high] & HIGH_MASK
    numbers, first = np.unique(highs, return_index=True)
    starts = at[first]
    starts[0] = 0
    found = dict(zip(numbers.tolist(), np.split(words, starts[1:]), strict=True))
    empty = np.array([TIME_HIGH << 12], np.uint16)
    return [found.get(number, empty) for number in range(n_blocks)]


class Lateness:
    """By how much a camera sent too late, in stretches of a quarter of a second.

    Attributes:
        bins: of each stretch: its beginning (ns), the most that the camera was late by itself, and the most
            that it was late because its client did not take what came before, milliseconds.
    """

    def __init__(self) -> None:
        self.bins: list[list[float]] = []
        self._free_ns = self._own_ns = 0

    def sent(self, due_ns: int, begun_ns: int, now_ns: int) -> None:
        """Something that was due at `due_ns`, and begun to be sent later, was sent at `now_ns`."""
        if self._free_ns <= due_ns:
            self._own_ns = begun_ns - due_ns
        else:  # it is behind: what it does between two things is added up
            self._own_ns += begun_ns - self._free_ns
        self._free_ns = now_ns
        own_ms, held_ms = self._own_ns / 1e6, (now_ns - due_ns - self._own_ns) / 1e6
        if not self.bins or now_ns - self.bins[-1][0] > BIN_NS:
            self.bins.append([now_ns, 0.0, 0.0])
        newest = self.bins[-1]
        newest[1], newest[2] = max(newest[1], own_ms), max(newest[2], held_ms)


class EventCamera:
    """Sends a cycle to one client after the other, from a thread of its own.

    Attributes:
        began_ns: CLOCK_MONOTONIC at the stream's time 0; 0 before a client came.
        lateness: since then.
        sent: events so far.
    """

    def __init__(self, cycle: Cycle) -> None:
        self.began_ns = self.sent = 0
        self.lateness = Lateness()
        self._cycle = cycle
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client, contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(self._cycle.header)
                self._send(client)

    def _send(self, client: socket.socket) -> None:
        self.lateness = Lateness()
        n_blocks, self.began_ns, number = len(self._cycle.blocks), time.monotonic_ns(), 0
        while True:
            due_ns = self.began_ns + (number + 1) * BLOCK_US * 1000
            time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            block, begun_ns = self._cycle.block(number), time.monotonic_ns()
            client.sendall(block)
            self.lateness.sent(due_ns, begun_ns, time.monotonic_ns())
            number += 1
            self.sent = number * self._cycle.events // n_blocks


class RGBCamera:
    """Sends numbered pictures at an even rate.

    Args:
        jpegs: repeated for ever.
        rate_hz: pictures a second.

    Attributes:
        exposures_ns: when each picture that was sent was due, CLOCK_MONOTONIC.
        lateness: since the newest client came.
    """

    def __init__(self, jpegs: list[bytes], rate_hz: float) -> None:
        self.exposures_ns: list[int] = []
        self.lateness = Lateness()
        self._jpegs, self._rate_hz = jpegs, rate_hz

    def parts(self) -> Iterator[bytes]:
        """Parts of a motion JPEG, each when it is due."""
        began_ns, number = time.monotonic_ns(), 0
        self.exposures_ns, self.lateness = [], Lateness()
        while True:
            due_ns = began_ns + round(number / self._rate_hz * 1e9)
            time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            jpeg = self._jpegs[number % len(self._jpegs)]
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.exposures_ns.append(due_ns)
            begun_ns = time.monotonic_ns()
            yield head.encode() + jpeg + b"\r\n"
            self.lateness.sent(due_ns, begun_ns, time.monotonic_ns())
            number += 1


def make_jpegs(video: str, size: tuple[int, int]) -> list[bytes]:
    """256 numbered pictures of a video, repeated where it has fewer, as JPEG of this width and height.

    Raises:
        InputError: if the video cannot be read, or the size has no room for the number.
    """
    if size[0] < CODE_BITS * CODE_PX or size[1] < CODE_PX:
        raise InputError(
            f"expected pictures of {CODE_BITS * CODE_PX}x{CODE_PX} or more, got {size[0]}x{size[1]}",
            place="--size",
        )
    source = open_rgb_source(video)
    assert source is not None
    pictures: list[NDArray[Any]] = []
    with contextlib.closing(source):
        for frame in source:
            scaled = cv2.resize(frame.image, size, interpolation=cv2.INTER_LINEAR)
            pictures.append(cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR))
            if len(pictures) == MOST_PICTURES:
                break
    if not pictures:
        raise InputError("holds no pictures", path=video, remedy="give another video")
    return [encode(pictures[k % len(pictures)], k) for k in range(MOST_PICTURES)]


def encode(picture: NDArray[Any], number: int) -> bytes:
    """A picture, uint8[H, W, 3], BGR, with its number as JPEG."""
    marked = picture.copy()
    bits = (number >> np.arange(CODE_BITS)) & 1
    row = np.repeat(bits * 255, CODE_PX).astype(np.uint8)
    marked[:CODE_PX, : CODE_BITS * CODE_PX] = row[None, :, None]
    return bytes(cv2.imencode(".jpg", marked)[1].tobytes())


def read_number(image: NDArray[np.uint8]) -> int:
    """The number in a picture's corner, modulo 256.

    Args:
        image: uint8[H, W, 3], any order of channels.
    """
    middle = image[CODE_PX // 2, CODE_PX // 2 : CODE_BITS * CODE_PX : CODE_PX, 1]
    return int(((middle > 127).astype(np.int64) << np.arange(CODE_BITS)).sum())


class _Handler(http.server.BaseHTTPRequestHandler):
    """Pictures, and the cameras' state under /state."""

    rgb: RGBCamera | None
    events: EventCamera | None

    def do_GET(self) -> None:
        """Answer a request."""
        self.send_response(200)
        if self.path == "/state" or self.rgb is None:
            body = json.dumps(self._state()).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(OSError):
            for part in self.rgb.parts():
                self.wfile.write(part)

    def log_message(self, *args: Any) -> None:
        """Nothing for people."""

    def _state(self) -> dict[str, Any]:
        events, rgb = self.events, self.rgb
        return {
            "began_ns": 0 if events is None else events.began_ns,
            "sent": 0 if events is None else events.sent,
            "exposures_ns": [] if rgb is None else list(rgb.exposures_ns),
            "lateness": [
                entry for camera in (events, rgb) if camera is not None for entry in camera.lateness.bins
            ],
            "cpu_s": time.process_time(),
        }


def serve(rgb: RGBCamera | None, events: EventCamera | None) -> int:
    """Serve pictures and state on a free port of this machine; gives the port."""
    handler = type("Handler", (_Handler,), {"rgb": rgb, "events": events})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", required=True)
    parser.add_argument("--video", required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second; 0: no event camera")
    parser.add_argument("--fps", type=float, default=30.0, help="pictures a second; 0: no RGB camera")
    parser.add_argument("--size", default="640x480", help="of the pictures")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    cycle = make_cycle(given.events, given.rate) if given.rate else None
    events = None if cycle is None else EventCamera(cycle)
    rgb = RGBCamera(make_jpegs(given.video, (width, height)), given.fps) if given.fps else None
    said: dict[str, Any] = {"events": None if events is None else events.port, "pictures": serve(rgb, events)}
    if cycle is not None:
        said |= {"rate_hz": cycle.rate_hz, "bytes_per_event": cycle.bytes_per_event}
    print(json.dumps(said), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
