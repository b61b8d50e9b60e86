"""The two cameras of `soak.py`, in a process of their own: raw EVT3 over TCP, pictures over HTTP.

The event camera repeats a recording whose times were compressed until it has the rate asked for; times go on
from one repetition to the next. Words leave every 4,096 us, once their time has passed, as they do from USB.
The RGB camera repeats the video's pictures at its own rate. Both ports are printed, then nothing more.
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

import av
import cv2
import numpy as np

from velora_edge import open_events
from velora_edge.datatypes import EventBatch
from velora_edge.events.writers.raw import EVT3Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK_US = 4096
"""What a TIME_HIGH word of EVT3 counts."""
TIME_HIGH, HIGH_MASK = 8, 0xFFF
MOST_EVENTS = 4_000_000


@dataclass(frozen=True)
class Cycle:
    """A recording that can be repeated for ever.

    Attributes:
        header: of the .raw file.
        blocks: words of 4,096 us each, the first of each block a TIME_HIGH.
        events: in all blocks.
    """

    header: bytes
    blocks: list[NDArray[np.uint16]]
    events: int

    @property
    def rate_hz(self) -> float:
        """Events a second."""
        return self.events / (len(self.blocks) * BLOCK_US / 1e6)

    def block(self, number: int) -> bytes:
        """Block `number` of the endless stream, with its own time."""
        words = self.blocks[number % len(self.blocks)].copy()
        words[words >> 12 == TIME_HIGH] = TIME_HIGH << 12 | number & HIGH_MASK
        return words.tobytes()


def make_cycle(path: Path, rate_hz: float) -> Cycle:
    """As many of the recording's events as give the rate in whole blocks."""
    batches, events = [], 0
    for batch in open_events(path):
        batches.append(batch)
        events += len(batch)
        if events >= MOST_EVENTS:
            break
    whole = EventBatch.concatenate(batches)
    n_blocks = max(1, int(len(whole) / rate_hz * 1e6 / BLOCK_US))
    whole = whole[: round(rate_hz * n_blocks * BLOCK_US / 1e6)]
    t_us = whole.t_us - whole.t_us[0]
    t_us = t_us * (n_blocks * BLOCK_US - 1) // max(int(t_us[-1]), 1)
    with contextlib.closing(open_events(path)) as reader:
        sensor = reader.width, reader.height
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cycle.raw"
        with EVT3Writer(out, *sensor) as writer:
            for at in range(n_blocks):
                a, b = np.searchsorted(t_us, (at * BLOCK_US, (at + 1) * BLOCK_US))
                batch = whole[slice(int(a), int(b))]
                writer.write(EventBatch(t_us[a:b], batch.x, batch.y, batch.p))
        raw = out.read_bytes()
    end = raw.index(b"% end\n") + len(b"% end\n")
    return Cycle(raw[:end], _split(np.frombuffer(raw[end:], "<u2"), n_blocks), len(whole))


def _split(words: NDArray[np.uint16], n_blocks: int) -> list[NDArray[np.uint16]]:
    is_high = words >> 12 == TIME_HIGH
    at, highs = np.flatnonzero(is_high), words[is_high] & HIGH_MASK
    starts = [int(at[np.searchsorted(highs, k)]) for k in range(n_blocks)]
    starts[0] = 0
    return np.split(words, starts[1:])


class EventCamera:
    """Sends a cycle to one client after the other, from a thread of its own.

    Attributes:
        late_s: by how much the newest block left too late; grows where the client does not keep up.
        sent: events so far.
    """

    def __init__(self, cycle: Cycle) -> None:
        self.late_s, self.sent = 0.0, 0
        self._cycle = cycle
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(self._cycle.header)
                self._send(client)

    def _send(self, client: socket.socket) -> None:
        n_blocks, began_s, number = len(self._cycle.blocks), time.monotonic(), 0
        while True:
            due_s = began_s + (number + 1) * BLOCK_US / 1e6
            time.sleep(max(0.0, due_s - time.monotonic()))
            client.sendall(self._cycle.block(number))
            number += 1
            self.late_s = time.monotonic() - due_s
            self.sent = number * self._cycle.events // n_blocks


def make_jpegs(path: Path, size: tuple[int, int]) -> tuple[list[bytes], float]:
    """The video's pictures as JPEG of this size, and how many there are a second."""
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        rate_hz = float(stream.average_rate or 30)
        pictures = [frame.to_ndarray(format="bgr24") for frame in video.decode(stream)]
    scaled = (cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR) for picture in pictures)
    return [cv2.imencode(".jpg", picture)[1].tobytes() for picture in scaled], rate_hz


def serve_pictures(jpegs: list[bytes], rate_hz: float, events: EventCamera) -> int:
    """Serve them as motion JPEG, and the event camera's state under /state; return the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if self.path == "/state":
                body = json.dumps({"late_s": events.late_s, "sent": events.sent}).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            with contextlib.suppress(OSError):
                for jpeg in _paced(jpegs, rate_hz):
                    head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def _paced(jpegs: list[bytes], rate_hz: float) -> Iterator[bytes]:
    began_s, number = time.monotonic(), 0
    while True:
        yield jpegs[number % len(jpegs)]
        number += 1
        time.sleep(max(0.0, began_s + number / rate_hz - time.monotonic()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--size", default="640x480", help="of the pictures")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cycle = make_cycle(options.events, options.rate)
    events = EventCamera(cycle)
    port = serve_pictures(*make_jpegs(options.video, (width, height)), events)
    n_bytes = sum(block.nbytes for block in cycle.blocks)
    said = {"events": events.port, "pictures": port, "rate_hz": cycle.rate_hz}
    print(json.dumps({**said, "bytes_per_event": n_bytes / cycle.events}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
