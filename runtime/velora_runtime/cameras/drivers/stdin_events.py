"""Raw EVT bytes on standard input: `-`."""

from __future__ import annotations

import os
import select
import sys
from typing import TYPE_CHECKING

from velora_edge.errors import CameraError, SourceError
from velora_runtime.cameras.drivers.raw_bytes import RECEIVE_BYTES, RawByteFeed
from velora_runtime.cameras.feed import FeedEndError

if TYPE_CHECKING:
    from velora_runtime.cameras.event_feed import LiveSetup


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
