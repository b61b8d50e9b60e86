"""Connections and what goes on over them: state as server-sent events, pictures compressed once for all.

Each viewer gets what is newest when it is ready for more: a slow one gets less, and one that never reads
waits by itself, with no more in memory than the connection's own buffer.

A connection costs a descriptor before anybody has shown a token, and descriptors are what a lost camera is
opened with. So all connections together have a limit that leaves some in reserve; a request has to be there
within a deadline; and at the limit, the connection that has been waited for the longest makes room.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from velora_runtime.web.access import HEADERS
from velora_runtime.web.snapshot import PICTURES_HZ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive, Scope, Send

    from velora_edge.console import RateLimitedNotes
    from velora_runtime.web.snapshot import Latest


Camera = Literal["rgb", "event"]
LARGEST_PX = 960
SMALLEST_PX = 448
"""Event frames are as small as the model takes them; enlarged, their pixels survive the compression."""
QUALITY = 80


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A compressed picture.

    Attributes:
        number: of its scene.
        data: the JPEG.
    """

    number: int
    data: bytes


class Pictures:
    """Single-threaded: the server's thread."""

    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._made: dict[Camera, tuple[float, Jpeg]] = {}

    def get(self, camera: Camera) -> Jpeg | None:
        """The newest picture, at most 1/15 s older than it could be; None where the camera is absent.

        The first after a second without viewers may be a second old: nobody had it copied.
        """
        scene = self._latest.scene
        image = scene.rgb if camera == "rgb" else scene.event
        self._latest.watched_s = now_s = time.monotonic()
        if image is None:
            return None
        made_s, jpeg = self._made.get(camera, (float("-inf"), None))
        if jpeg is not None and (jpeg.number == scene.number or now_s - made_s < 1 / PICTURES_HZ):
            return jpeg
        jpeg = Jpeg(scene.number, compress(image))
        self._made[camera] = now_s, jpeg
        return jpeg


def compress(image: NDArray[np.uint8]) -> bytes:
    """A JPEG of the picture, uint8[H, W, 3] RGB, its longer side brought to 448 to 960 pixels."""
    longer = max(image.shape[:2])
    if longer > LARGEST_PX:
        size = [round(side * LARGEST_PX / longer) for side in image.shape[1::-1]]
        image = cv2.resize(image, (max(size[0], 1), max(size[1], 1)), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    elif longer < SMALLEST_PX:
        times = -(-SMALLEST_PX // longer)
        image = image.repeat(times, axis=0).repeat(times, axis=1)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


MOST_STREAMS = 32
BOUNDARY = "frame"


class ViewerLimit:
    """Limit to the number of open streams. Single-threaded: the server's thread."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self.streams, self.most = 0, most
        self.closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """No more streams are served."""
        return self.streams >= self.most


class Stream(Response):
    """Sends piece after piece until the viewer has gone or the server closes."""

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str, crowd: ViewerLimit) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._pieces, self._crowd = pieces, crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer."""
        self._crowd.streams += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            sending = asyncio.ensure_future(self._send_pieces(send))
            leaving = asyncio.ensure_future(_wait_until_gone(receive))
            closing = asyncio.ensure_future(self._crowd.closing.wait())
            tasks = (sending, leaving, closing)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._crowd.streams -= 1

    async def _send_pieces(self, send: Send) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def server_sent_events(get: Callable[[], bytes], period_s: float) -> AsyncIterator[bytes]:
    """An event each time that the state has changed, at most one a period; the same one after 2 s.

    Args:
        get: the newest state, on one line.
        period_s: from one look to the next.
    """
    last, idle_s = b"", 0.0
    while True:
        state = get()
        if state != last or idle_s >= 2:
            last, idle_s = state, 0.0
            yield b"data: " + state + b"\n\n"
        await asyncio.sleep(period_s)
        idle_s += period_s


async def motion_jpeg(get: Callable[[], bytes | None], period_s: float) -> AsyncIterator[bytes]:
    """Parts of a multipart/x-mixed-replace body, one for each new picture."""
    last: bytes | None = None
    while True:
        data = get()
        if data is not None and data is not last:
            last = data
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            yield head.encode() + data + b"\r\n"
        await asyncio.sleep(period_s)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


REQUEST_S = 10.0
"""A request, or the next one on the same connection, has to be there within this time, all of its head."""
FLUSH_S = 20.0
"""After that, so long may an answer lie unread."""
MOST_CONNECTIONS = 96
"""Three times the streams that are served, for a page opens a handful."""
LEAST_CONNECTIONS = 8
RESERVE = 64
"""Descriptors that cameras, recordings and models need beside those that are open when the page begins."""


def most_connections() -> int:
    """How many connections may be open, by the descriptors that this process may have and has."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        used = RESERVE
    return max(LEAST_CONNECTIONS, min(MOST_CONNECTIONS, limit - used - RESERVE))


class Connections:
    """Those that are open. Single-threaded: the server's thread.

    Args:
        most: that may be open.
        notes: gets a line where some had to go.

    Attributes:
        refused: connections that had to go, or that asked nothing in time.
    """

    def __init__(self, most: int, notes: RateLimitedNotes) -> None:
        self.most, self.refused = most, 0
        self._notes = notes
        self._open: set[GuardedProtocol] = set()
        self._waiting: dict[GuardedProtocol, None] = {}

    def admit(self, connection: GuardedProtocol) -> None:
        """Take a new one in; the one that has been waited for the longest makes room, or else the new one."""
        self._open.add(connection)
        if len(self._open) <= self.most:
            return
        leaving = next(iter(self._waiting), connection)
        self.forget(leaving)
        leaving.transport.abort()
        self.refuse(f"more than {self.most} connections at once: those that ask nothing are closed")

    def refuse(self, why: str) -> None:
        """Count one that has to go."""
        self.refused += 1
        self._notes("connections", f"page: {why}")

    def wait_for(self, connection: GuardedProtocol) -> None:
        """Its request is due."""
        if connection in self._open:
            self._waiting[connection] = None

    def stop_waiting_for(self, connection: GuardedProtocol) -> None:
        """Its request is there."""
        self._waiting.pop(connection, None)

    def forget(self, connection: GuardedProtocol) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)


class GuardedProtocol(H11Protocol):
    """One connection, with a deadline for each request. Single-threaded: the server's thread.

    Args:
        guard: of all connections.
        given: see uvicorn's H11Protocol.
    """

    def __init__(self, guard: Connections, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._guard = guard
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._guard.admit(self)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        self._guard.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of a request, or all of it."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be there already."""
        super().on_response_complete()
        self._look()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, with the headers that every answer has."""
        import h11

        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *HEADERS]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=STATUS_PHRASES[400]),
            h11.Data(data=msg.encode("ascii", "replace")),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look(self) -> None:
        """Wait where no request is being answered; an answer takes the time that it takes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(REQUEST_S, self._give_up)
            self._guard.wait_for(self)

    def _stop_waiting(self) -> None:
        self._guard.stop_waiting_for(self)
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        """Nothing was asked in time; an answer that is still on its way has some time more."""
        if self.cycle is None:
            self._guard.refuse(f"a connection that asked nothing for {REQUEST_S:g} s was closed")
        self.transport.close()
        self._due = self.loop.call_later(FLUSH_S, self.transport.abort)
