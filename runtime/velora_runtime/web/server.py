"""Thread of the web server: started and ended with the run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from velora_edge.console import RateLimitedNotes
from velora_edge.errors import MissingExtraError
from velora_runtime.web.access import BACKLOG, Address, Gate, choose_token, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.web.app import PageSite
    from velora_runtime.web.snapshot import Watched

    MakeSite = Callable[[Gate, Callable[[], int]], PageSite]

GRACE_S = 2


def live_site(watched: Watched, note: Callable[[str], None] = lambda line: None) -> MakeSite:
    """Maker of the live page's site; `note` gets a line if a recording cannot be shown to its end."""

    def make(gate: Gate, refused: Callable[[], int]) -> PageSite:
        from velora_runtime.web.app import Site
        from velora_runtime.web.labelling import RecordedSites

        recorder = watched.recorder
        recorded = None if recorder is None else RecordedSites(recorder, gate, note)
        return Site(watched, gate, refused, recorded)

    return make


class WebServer:
    """Serves a site from a thread of its own; a pipeline neither waits for it nor knows of it.

    Args:
        address: HOST:PORT as the user gave it.
        token: the user's, `none`, or None for what fits the address.
        make_site: makes the site of a gate, and of what counts the connections that had to go.
        note: gets lines for people; where to look is the first.

    Attributes:
        port: that it listens on.
        token: that it asks for, or None.

    Raises:
        InputError: if it cannot listen there.
        MissingExtraError: if the libraries that it needs are not installed.
    """

    def __init__(
        self, address: str, token: str | None, make_site: MakeSite, note: Callable[[str], None]
    ) -> None:
        try:
            import uvicorn

            from velora_runtime.web.streams import Connections, GuardedProtocol, most_connections
        except ImportError as error:
            raise MissingExtraError(error.name or "starlette", "web", "--serve") from error
        self._socket = Address.parse(address).listen()
        host, self.port = self._socket.getsockname()[:2]
        is_local = is_loopback(host)
        self.token = choose_token(token, is_local=is_local)
        self._rare = RateLimitedNotes(note, lambda: time.monotonic_ns() // 1000)
        self._connections = Connections(most_connections(), self._rare)
        gate = Gate(self.token, self.port, is_local=is_local)
        self._site = make_site(gate, lambda: self._connections.refused)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._site.app(),
                http=partial(GuardedProtocol, self._connections),  # type: ignore[arg-type]
                backlog=BACKLOG,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._note = note
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()
        is_given = token is not None and self.token is not None
        note(
            f"{self._site.verb} at {self.url(host, shows_token=not is_given)}" + " with your token" * is_given
        )
        if self.token is None and not is_local:
            note(f"whoever reaches this address can {self._site.allows}: --token none")

    def url(self, host: str = "127.0.0.1", *, shows_token: bool = True) -> str:
        """The page's address, with the token; one that the user gave need not be told, and notes are kept."""
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/" + (f"?token={self.token}" if self.token and shows_token else "")

    def close(self) -> None:
        """End all streams and let go of the port. May be called again."""
        self._server.should_exit = True
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._site.crowd.closing.set)
        self._thread.join(2 * GRACE_S + 1)
        self._site.close()
        self._socket.close()

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:  # the run goes on without its page, and says so
            self._note(f"the page is gone: {error}")

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._note_trouble)
        await self._server.serve(sockets=[self._socket])

    def _note_trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell what asyncio would log as often as it happens, with a traceback each."""
        message, error = context.get("message", "trouble"), context.get("exception")
        self._rare(message, f"page: {message}" + (f": {error}" if error is not None else ""))
