"""Streaming responses: state as server-sent events, pictures as motion JPEG, compressed once for all.

Each viewer gets what is newest when it is ready for more: a slow one gets less, and one that never reads
waits by itself, with no more in memory than the connection's own buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
from starlette.responses import Response

from velora_runtime.web.snapshot import PICTURES_HZ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import numpy as np
    from numpy.typing import NDArray
    from starlette.types import Receive, Scope, Send

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
