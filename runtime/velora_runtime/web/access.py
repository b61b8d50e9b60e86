"""Access control of the page: listening address, token, and protection against cross-site requests.

On the machine itself no token is needed; but then a page from elsewhere, opened in the same browser, could
ask too (by a form, or by a name that it lets point here). So a request must name this machine in `Host`, and
one that changes something must not come from another page (`Origin`).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BACKLOG = 16
"""Connections that nobody has accepted; asyncio tries as many at once when descriptors run out."""
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
)
"""Of every answer, where it has none of its own: nothing in it is run, framed, or shown by another page."""
NO_TOKEN = "none"
"""What a user gives as token to have none where one would be made."""


@dataclass(frozen=True, slots=True)
class Address:
    """Address that the server listens on.

    Attributes:
        host: as the user gave it, without brackets.
        port: 0 for any that is free.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """HOST:PORT, [IPv6]:PORT, :PORT or PORT; without a host, the machine itself alone.

        Raises:
            InputError: if it is none of these.
        """
        found = re.fullmatch(r"(?:(\[[^\]]*\]|[^:\[\]]*):)?(\d{1,5})", text.strip())
        if found is None or int(found[2]) > 65535:
            raise InputError(
                f"expected --serve HOST:PORT, got {text!r}",
                remedy="such as 127.0.0.1:8080, or 0.0.0.0:8080 for other machines to watch",
            )
        return cls((found[1] or "").strip("[]") or "127.0.0.1", int(found[2]))

    def listen(self) -> socket.socket:
        """A socket that is bound and listens.

        Raises:
            InputError: if the port is taken, or the host is not of this machine.
        """
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
        except OSError as error:
            raise self._cannot(error) from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            raise self._cannot(error) from error
        return listening

    def _cannot(self, error: OSError) -> InputError:
        return InputError(
            f"cannot serve on {self.host}:{self.port}: {error.strerror or error}",
            remedy="choose another address or port with --serve",
        )


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine alone, seen from itself."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def choose_token(given: str | None, *, is_local: bool) -> str | None:
    """The token that requests must bring; None for none.

    Args:
        given: the user's; `none` for none, None where the user said nothing.
        is_local: the server can be reached from this machine alone.
    """
    if given == NO_TOKEN:
        return None
    if given:
        return given
    return None if is_local else secrets.token_urlsafe(18)


class Gate:
    """Decides on a request.

    Args:
        token: that it must bring, or None.
        port: of the server; cookies are the same for all ports of a host, so their name tells it.
        is_local: the server can be reached from this machine alone.
    """

    def __init__(self, token: str | None, port: int, *, is_local: bool) -> None:
        self.token, self.cookie, self._is_local = token, f"velora-{port}", is_local

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """Status and reason if the request is refused."""
        is_bare = self.token is None and self._is_local
        if is_bare and not is_loopback(_host_of(request.headers.get("host", ""))):
            return 403, "without a token, the server answers to localhost alone"
        if self.token is not None and not self._brings_token(request):
            return 401, "a token is needed: open the address that was printed, with ?token="
        if request.method != "GET" and not _is_same_origin(request):
            return 403, "the request comes from another page"
        return None

    def health_refusal(self, request: Request) -> tuple[int, str] | None:
        """Likewise for the one question that needs no token: a page from elsewhere may not ask it either."""
        if self._is_local and not is_loopback(_host_of(request.headers.get("host", ""))):
            return 403, "the server answers to localhost alone"
        return None

    def _brings_token(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        offers = (
            bearer.strip() if scheme.lower() == "bearer" else "",
            request.query_params.get("token", ""),
            request.cookies.get(self.cookie, ""),
        )
        wanted = (self.token or "").encode()
        return any(hmac.compare_digest(offer.encode(), wanted) for offer in offers)


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(request: Request) -> bool:
    """Browsers name the page that a request comes from; others do not, and need not."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        return False


class Hardened:
    """An ASGI application whose every answer has `HEADERS`. Single-threaded: the server's thread.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}
                message["headers"] = own + [(name, value) for name, value in HEADERS if name not in names]
            await send(message)

        await self._app(scope, receive, send_hardened)
