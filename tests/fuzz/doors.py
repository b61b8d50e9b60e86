"""Doors that bytes come in by while a run goes on: the page's port, and an event camera's connection."""

from __future__ import annotations

import atexit
import contextlib
import functools
import socket
import threading
from typing import TYPE_CHECKING

from velora_runtime.cameras.camera import Camera
from velora_runtime.cameras.drivers.raw_bytes import TcpEvents
from velora_runtime.cameras.feeds import LiveSetup, Patience
from velora_runtime.ingest.event_ingest import EventIngest, PacketRateCap
from velora_runtime.ingest.live_stream import LiveStream
from velora_runtime.ingest.packets import CameraState
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.queues import PacketQueue

from tests.fuzz.samples import samples
from tests.fuzz.targets import check_line
from velora_edge.clock import SystemClock
from velora_edge.errors import VeloraError
from velora_edge.events.formats.raw.raw_walker import RawWalker, WordCursor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from velora_runtime.ingest.packets import EventPacket

    from tests.runtime.web.test_serve import Site

ANSWER_S = 5.0
_GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n"
_SENSOR = (640, 480)
LARGEST = 1 << 22
"""Pixels of a sensor that is walked over."""


# ---- the page -------------------------------------------------------------------------------------------


def web_samples() -> tuple[bytes, ...]:
    """Requests of every kind that the server knows, and some that it does not."""
    paths = (
        b"/",
        b"/api/snapshot",
        b"/frames/rgb.jpg",
        b"/frames/../x.jpg",
        b"/metrics",
        b"/healthz",
        b"/docs",
    )
    asked = [_GET % (path, b"") for path in paths]
    asked.append(
        _GET % (b"/?token=s3cret", b"Cookie: velora-1=s3cret; a=b\r\nAuthorization: Bearer s3cret\r\n")
    )
    asked.append(_GET % (b"/%2e%2e/%00", b"Accept-Encoding: gzip\r\nRange: bytes=0-\r\n"))
    for order in (b"/api/clip", b"/api/record/start", b"/api/record/stop"):
        head = b"Content-Length: 5\r\nOrigin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"
        asked.append((_GET % (order, head)).replace(b"GET", b"POST") + b"12345")
    asked.append(
        b"POST /api/clip HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nabcde\r\n0\r\n\r\n"
    )
    asked.append(_GET[:-2] % (b"/", b"Upgrade: websocket\r\nExpect: 100-continue\r\n") + b"\r\n" + asked[1])
    return tuple(asked)


@functools.cache
def _site() -> Site:
    """One server for all requests, with a token, on this machine alone."""
    from tests.runtime.web.test_serve import Site, seen

    site = Site(token="s3cret")
    site.latest.take(seen(1))
    atexit.register(close_site)
    return site


def close_site() -> None:
    """End the server, where one was asked."""
    if _site.cache_info().currsize:
        _site().close()
        _site.cache_clear()


def check_web(path: Path, rng: random.Random) -> str:
    """Send the bytes; the server answers as HTTP, never with 500, hangs up, and serves the next one."""
    site = _site()
    data = path.read_bytes()
    answer = _send(site.port, data)
    for status in _statuses(answer):
        assert status < 500 or status == 503, answer[:200]  # 503: no pairs come
    assert site.ask("/healthz")[0] in (200, 503)  # no pairs come
    site.notes[1:] = [note for note in site.notes[1:] if "asked nothing" not in note]
    assert len(site.notes) == 1, site.notes
    return "events" if b" 200 " in answer[:15] else "refused"


def _send(port: int, data: bytes) -> bytes:
    """All that the server answers until the connection has ended, or streams."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answer += piece
                if b"text/event-stream" in answer or b"multipart/x-mixed-replace" in answer:
                    break
        return answer


def _statuses(answer: bytes) -> list[int]:
    found = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    return [int(status) for status in found if status.isdigit()]


# ---- an event camera's connection -----------------------------------------------------------------------


def tcp_samples() -> tuple[bytes, ...]:
    """What event cameras send."""
    return tuple(data[:20_000] for name in ("evt2", "evt21", "evt3") for data in samples(name))


def check_tcp(path: Path, rng: random.Random) -> str:
    """Let a camera send the bytes in pieces; every event is counted once, and the end is one of ours."""
    notes: list[str] = []
    setup = LiveSetup(SystemClock(), threading.Event(), notes.append, sensor=rng.choice((None, _SENSOR)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        feed = TcpEvents(f"tcp://127.0.0.1:{server.getsockname()[1]}", setup)
        sending = threading.Thread(target=_serve_once, args=(server, path.read_bytes(), rng), daemon=True)
        sending.start()
        try:
            feed.open()
            _take_all(feed, setup)
        except VeloraError as error:
            check_line(str(error))
            return "refused"
        finally:
            feed.close()
            sending.join(ANSWER_S)
    return "events"


def _serve_once(server: socket.socket, data: bytes, rng: random.Random) -> None:
    connection, _ = server.accept()
    with connection, contextlib.suppress(OSError):
        at = 0
        while at < len(data):
            size = rng.choice((1, 7, 1000, 1 << 16))
            connection.sendall(data[at : at + size])
            at += size


def _take_all(feed: TcpEvents, setup: LiveSetup) -> None:
    """Through the camera's thread's part and the packing thread's, until the camera hangs up."""
    layout = feed.layout
    assert layout is not None
    if feed.sensor[0] * feed.sensor[1] > LARGEST:
        return
    queue: PacketQueue[EventPacket] = PacketQueue(1 << 22, waits=False)
    scanner = RawScanner(layout.encoding, feed.sensor, layout.is_legacy)
    ingest = EventIngest(
        queue, scanner, PacketRateCap(None), setup.clock, setup.stop, is_paced=False, note=setup.note
    )
    camera: Camera[bytes] = Camera(feed, ingest, Patience(), setup.clock, setup.note)
    cursor = WordCursor(RawWalker(layout.encoding, feed.sensor, layout.is_legacy))
    stream = LiveStream(camera, ingest, queue, cursor, feed.sensor, setup.clock, setup.stop, is_paced=False)
    camera.adopt()
    while camera.state is not CameraState.LOST:
        camera.step()
    ingest.end()
    walked, counts = stream.skip_until(1 << 62), ingest.counts
    assert walked + sum(counts.dropped.values()) <= counts.received


DOORS: dict[str, tuple[Callable[[Path, random.Random], str], Callable[[], tuple[bytes, ...]]]] = {
    "web": (check_web, web_samples),
    "tcp": (check_tcp, tcp_samples),
}
