"""What systemd wants to hear of a service: that it is ready, alive, or about to end (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class ServiceManager:
    """Speaks to systemd where the process runs under it, and to nobody elsewhere.

    Single-threaded: the main thread.

    Args:
        environment: with NOTIFY_SOCKET and WATCHDOG_USEC, as systemd sets them.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        path = given.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @ and addressed with a zero byte.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._every_us = int(given.get("WATCHDOG_USEC") or 0) // 2
        self._alive_us: int | None = None

    def ready(self) -> None:
        """The cameras deliver and the model is warm."""
        self._send("READY=1")

    def alive(self, now_us: int, status: str) -> None:
        """All is well; sent twice in the time that systemd allows."""
        if self._alive_us is not None and now_us - self._alive_us < (self._every_us or 5_000_000):
            return
        self._alive_us = now_us
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The run ends."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.connect(self._address)
                sender.send(text.encode())
        except OSError:
            pass  # systemd then restarts a service that it does not hear of: nothing better can be done here
