"""Raw EVT bytes over TCP: `tcp://HOST:PORT`."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from velora_edge.errors import CameraError, SourceError
from velora_runtime.cameras.drivers.raw_bytes import RECEIVE_BYTES, RawByteFeed
from velora_runtime.cameras.feed import OPEN_WAIT_S

if TYPE_CHECKING:
    from velora_runtime.cameras.event_feed import LiveSetup

BUFFER_BYTES = 1 << 21
"""The system's own buffer: 20 ms of a fast camera."""


class TcpEvents(RawByteFeed):
    """A client of a server that sends raw words; connects again when it is lost.

    Raises:
        SourceError: if the text is no host and port.
    """

    def __init__(self, text: str, setup: LiveSetup) -> None:
        super().__init__(text, setup)
        found = re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/\[\]]+):(\d{1,5})/?", text)
        if found is None or not 0 < int(found[2]) < 65536:
            raise SourceError(
                "expected tcp://HOST:PORT",
                path=text,
                remedy="give the port of the server, as in tcp://camera:7777",
            )
        self._address = found[1].strip("[]"), int(found[2])
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the server."""
        try:
            self._socket = socket.create_connection(self._address, OPEN_WAIT_S)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        except OSError as error:
            raise CameraError(f"cannot connect: {_why(error)}") from error

    def receive(self, wait_s: float) -> bytes | None:
        """The next bytes; None if none came in time."""
        if self._socket is None:
            raise CameraError("the connection is closed")
        try:
            self._socket.settimeout(wait_s)
            data = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            return None
        except OSError as error:
            raise CameraError(f"the connection broke: {_why(error)}") from error
        if not data:
            raise CameraError("the other side closed the connection")
        return data

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _why(error: OSError) -> str:
    return error.strerror or str(error)
