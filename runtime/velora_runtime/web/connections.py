"""Connections of the page's server: whoever asks nothing is let go of, and the run keeps its descriptors.

A connection costs a descriptor before anybody has shown a token, and descriptors are what a lost camera is
opened with. So all connections together have a limit that leaves some in reserve; a request has to be there
within a deadline; and at the limit, the connection that has been waited for the longest makes room.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from velora_runtime.web.access import HEADERS

if TYPE_CHECKING:
    import asyncio

    from velora_edge.console import RateLimitedNotes

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
