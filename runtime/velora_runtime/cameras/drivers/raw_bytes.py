"""Drivers of raw EVT bytes over TCP (`tcp://HOST:PORT`) and standard input (`-`), headers included."""

from __future__ import annotations

import os
import re
import select
import socket
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from velora_edge.errors import CameraError, InputError, SourceError
from velora_edge.events.formats.raw.raw_header import LONGEST_HEADER, parse_header
from velora_runtime.cameras.feeds import OPEN_WAIT_S, READ_WAIT_S, FeedEndError, WordLayout

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding
    from velora_edge.events.formats.raw.raw_header import RawHeader
    from velora_runtime.cameras.feeds import LiveSetup


RECEIVE_BYTES = 1 << 17
OPTIONS = "--sensor WxH --event-format EVT3"


class RawByteFeed(ABC):
    """A feed of raw words. Single-threaded: the camera's thread.

    Args:
        name: what the user called it.
        setup: sensor and encoding stand in for a header.
    """

    may_be_silent = False
    comes_back = True
    can_wait = True

    def __init__(self, name: str, setup: LiveSetup) -> None:
        self.name = name
        self.sensor = (0, 0)
        self.layout: WordLayout | None = None
        self._setup = setup
        self._pending = b""

    @abstractmethod
    def connect(self) -> None:
        """Open the way; blocks for `OPEN_WAIT_S` at most.

        Raises:
            CameraError: if it is not there.
        """

    @abstractmethod
    def receive(self, wait_s: float) -> bytes | None:
        """The next bytes, at least one; None if none came within `wait_s`.

        Raises:
            CameraError: if the other side is gone.
            FeedEndError: if there are no more.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    def open(self) -> None:
        """Connect, and read the header if there is one."""
        self.connect()
        try:
            data = self._read_header()
            header = self._parse(data)
            self._take_header(header, data[: header.payload_at])
            self._pending = data[header.payload_at :]
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes | None:
        """The next bytes, without the header."""
        if self._pending:
            pending, self._pending = self._pending, b""
            return pending
        return self.receive(READ_WAIT_S)

    def _read_header(self) -> bytes:
        """The header's bytes and the first ones after it; one deadline for all of it."""
        deadline_us = self._setup.clock.now_us() + round(OPEN_WAIT_S * 1e6)
        data, ending = bytearray(self._receive_by(deadline_us, b"")), _HeaderEnd()
        while not ending.is_in(data) and len(data) < LONGEST_HEADER:
            data += self._receive_by(deadline_us, data)
        return bytes(data)

    def _receive_by(self, deadline_us: int, before: bytes | bytearray) -> bytes:
        left_us = deadline_us - self._setup.clock.now_us()
        data = self.receive(left_us / 1e6) if left_us > 0 else None
        if data is None:
            what = f"the header did not end within {OPEN_WAIT_S:.0f} s" if before else None
            raise CameraError(what or f"nothing came for {OPEN_WAIT_S:.0f} s")
        return data

    def _parse(self, data: bytes) -> RawHeader:
        try:
            return parse_header(data, None, self._setup.sensor)
        except InputError as error:
            raise SourceError(
                error.problem, path=self.name, place=error.place, remedy=f"pass {OPTIONS}"
            ) from error

    def _take_header(self, header: RawHeader, head: bytes) -> None:
        encoding: Encoding | None = self._setup.encoding or header.encoding
        sensor = self._setup.sensor or header.sensor
        if encoding is None or sensor is None:
            lack = "the encoding" if encoding is None else "the sensor's size"
            where = "the header does not tell" if head else "there is no header, and nobody told"
            raise SourceError(f"{where} {lack}", path=self.name, remedy=f"pass {OPTIONS}")
        is_legacy = True if header.is_legacy is None else header.is_legacy
        found = WordLayout(encoding, is_legacy, head)
        if self.layout is None:
            self.sensor, self.layout = sensor, found
        before = self.layout
        if (sensor, encoding, is_legacy) != (self.sensor, before.encoding, before.is_legacy):
            width, height = sensor
            raise CameraError(f"another camera is there now: {encoding}, {width}x{height}")


class _HeaderEnd:
    """Finds where a header ends in bytes that come piece by piece; looks at each byte once."""

    def __init__(self) -> None:
        self._line_at = self._seen = 0

    def is_in(self, data: bytearray) -> bool:
        """Whether the header has ended, or there is none: `parse_header` finds all of it in `data`."""
        while (newline := data.find(b"\n", self._seen)) >= 0:
            line = data[self._line_at : newline]
            if not self._may_be_header(line) or line[1:].strip() == b"end":
                return True
            self._line_at = self._seen = newline + 1
        line, is_new = data[self._line_at :], data[self._seen :]
        self._seen = len(data)
        return bool(line) and not (line[:1] == b"%" and self._is_text(is_new))

    def _may_be_header(self, line: bytearray) -> bool:
        return line[:1] == b"%" and bytes(line[1:2]) in (b"", b" ", b"\t", b"\r") and self._is_text(line)

    @staticmethod
    def _is_text(data: bytearray) -> bool:
        """Printable, as the lines of a header are; payload may begin with a % as well."""
        return all(byte in (9, 13) or 32 <= byte < 127 for byte in data)


class StdinEvents(RawByteFeed):
    """The process's standard input, or another file descriptor. It ends where the pipe ends.

    Args:
        text: what the user called it.
        setup: see `LiveSetup`.
        descriptor: to read from; None: standard input.

    Raises:
        SourceError: if it is a terminal.
    """

    may_be_silent = True
    comes_back = False

    def __init__(self, text: str, setup: LiveSetup, descriptor: int | None = None) -> None:
        super().__init__(text, setup)
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        if os.isatty(self._descriptor):
            raise SourceError(
                "standard input is a terminal",
                path=text,
                remedy="pipe raw events into it: camera | velora-live ...",
            )

    def connect(self) -> None:
        """It is there, or not."""

    def receive(self, wait_s: float) -> bytes | None:
        """The next bytes; None if none came in time."""
        try:
            ready, _, _ = select.select([self._descriptor], [], [], wait_s)
            if not ready:
                return None
            data = os.read(self._descriptor, RECEIVE_BYTES)
        except (OSError, ValueError) as error:
            raise CameraError(f"cannot be read: {error}") from error
        if not data:
            raise FeedEndError
        return data

    def close(self) -> None:
        """Leave it open: it is not ours."""


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
