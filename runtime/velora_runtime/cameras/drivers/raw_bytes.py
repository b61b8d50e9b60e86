"""Raw EVT bytes from wherever they come, with a file's header before them or without."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from velora_edge.errors import CameraError, InputError, SourceError
from velora_edge.events.formats.raw.raw_header import LONGEST_HEADER, parse_header
from velora_runtime.cameras.event_feed import WordLayout
from velora_runtime.cameras.feed import OPEN_WAIT_S, READ_WAIT_S

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding
    from velora_edge.events.formats.raw.raw_header import RawHeader
    from velora_runtime.cameras.event_feed import LiveSetup

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
            header, self._pending = self._read_header()
            self._take_header(header)
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes | None:
        """The next bytes, without the header."""
        if self._pending:
            pending, self._pending = self._pending, b""
            return pending
        return self.receive(READ_WAIT_S)

    def _read_header(self) -> tuple[bytes, bytes]:
        """The header's bytes, and the first ones after it."""
        data = self._receive_some()
        while data[:1] == b"%" and len(data) < LONGEST_HEADER:
            end = self._parse(data).payload_at
            is_whole = data[:end].rstrip().endswith(b"end") or end < len(data.rpartition(b"\n")[0])
            if is_whole or (end < len(data) and data[end : end + 1] != b"%"):
                break
            data += self._receive_some()
        end = self._parse(data).payload_at
        return data[:end], data[end:]

    def _receive_some(self) -> bytes:
        data = self.receive(OPEN_WAIT_S)
        if data is None:
            raise CameraError(f"nothing came for {OPEN_WAIT_S:.0f} s")
        return data

    def _parse(self, data: bytes) -> RawHeader:
        try:
            return parse_header(data, None, self._setup.sensor)
        except InputError as error:
            raise SourceError(
                error.problem, path=self.name, place=error.place, remedy=f"pass {OPTIONS}"
            ) from error

    def _take_header(self, head: bytes) -> None:
        header = self._parse(head)
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
