"""Web application: the page, its JSON, pictures, streams, metrics and commands.

GET  /                    the page
GET  /api/snapshot        the state, JSON
GET  /api/trend           events a second, latency and best labels over the last minute
GET  /api/stream          the same whenever it changes, server-sent events
GET  /frames/CAMERA.jpg   the newest picture of `rgb` or `event`
GET  /frames/CAMERA.mjpeg the same, going on
GET  /metrics             for Prometheus
GET  /healthz             200 while pairs come, 503 otherwise; the only one that needs no token
POST /api/record/start    begin a recording in a new folder
POST /api/record/stop     end it
POST /api/clip            save the last seconds
GET  /api/recordings      those that have ended
     /recordings/NAME/... one of them, to replay and to label
POST /api/takes/again     set a take aside and record it again
POST /api/marks/NUMBER    begin or end a segment of the running recording, by its label's number from 0
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from importlib import resources
from typing import TYPE_CHECKING, Any, Protocol, cast

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from velora_edge.errors import InputError
from velora_runtime.web.access import Hardened
from velora_runtime.web.metrics import CONTENT_TYPE
from velora_runtime.web.snapshot import PICTURES_HZ
from velora_runtime.web.streams import (
    BOUNDARY,
    Pictures,
    Stream,
    ViewerLimit,
    motion_jpeg,
    server_sent_events,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from velora_runtime.recording.recorder import Recorder
    from velora_runtime.web.access import Gate
    from velora_runtime.web.snapshot import Watched
    from velora_runtime.web.streams import Camera

    Answer = Callable[[Request], Awaitable[Response]]

STATES_HZ = 10
_ENTER = """<!doctype html><meta charset="utf-8"><title>velora</title>
<form><label>Token <input name="token" type="password" autofocus></label> <button>Watch</button></form>"""


class PageSite:
    """A page, and handlers of requests that a gate lets through. Single-threaded: the server's thread.

    Args:
        page: the page's file in this package, with its one script and one style.
        gate: who may look.

    Attributes:
        verb: what the page is opened for, as the line with its address says.
        allows: what whoever reaches it can do.
    """

    verb, allows = "watch", "watch and record"

    def __init__(self, page: str, gate: Gate) -> None:
        self._gate = gate
        self._page = resources.files("velora_runtime.web").joinpath(page).read_text("utf-8")
        self._policy = _content_policy(self._page)
        self.crowd = ViewerLimit()

    def answers(self) -> list[tuple[str, str, Answer]]:
        """Verb, path and handler of each kind of request beside the page."""
        raise NotImplementedError

    def open_routes(self) -> list[Route]:
        """Requests that need no token."""
        return []

    def close(self) -> None:
        """Let go of what it has opened. May be called again."""

    def app(self) -> ASGIApp:
        """The ASGI application."""
        answers: list[tuple[str, str, Answer]] = [("GET", "/", self._show_page), *self.answers()]
        routes = [Route(path, self._guarded(answer), methods=[verb]) for verb, path, answer in answers]
        return Hardened(Starlette(routes=[*routes, *self.open_routes()]))

    def _guarded(self, answer: Answer) -> Answer:
        async def ask(request: Request) -> Response:
            refused = self._gate.refusal(request)
            if refused is None:
                return await answer(request)
            status, reason = refused
            if request.url.path == "/" and status == 401:
                return HTMLResponse(_ENTER, status, {"WWW-Authenticate": "Bearer"})
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            return JSONResponse({"error": reason}, status, headers)

        return ask

    async def _show_page(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None and self._gate.token is not None:
            answer = RedirectResponse("/", 303)  # the token leaves the address bar and the history
            answer.set_cookie(self._gate.cookie, token, httponly=True, samesite="lax")
            return answer
        headers = {"Content-Security-Policy": self._policy, "Cache-Control": "no-store"}
        return HTMLResponse(self._page, headers=headers)


class Recorded(Protocol):
    """Recordings of a run, each with a page; see `velora_runtime.web.labelling.RecordedSites`."""

    def listing(self) -> list[dict[str, Any]]:
        """What the recordings are, as JSON takes it."""

    def open(self, name: str) -> ASGIApp:
        """The page of one of them."""

    def close(self) -> None:
        """Close what is open."""


class _Inner(Response):
    """Answer of another application, to the rest of the path."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        super().__init__()
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = {"path": self._path, "raw_path": self._path.encode(), "root_path": "", "path_params": {}}
        await self._app({**scope, **path}, receive, send)


class Site(PageSite):
    """The live page. Single-threaded: the server's thread.

    Args:
        watched: the run.
        gate: who may look.
        refused: how many connections had to go so far.
        recorded: None where nothing can be recorded.
    """

    def __init__(
        self, watched: Watched, gate: Gate, refused: Callable[[], int], recorded: Recorded | None = None
    ) -> None:
        super().__init__("page.html", gate)
        self._watched, self._refused, self._recorded = watched, refused, recorded
        self._pictures = Pictures(watched.latest)
        self._state: tuple[float, bytes] = (float("-inf"), b"")

    def answers(self) -> list[tuple[str, str, Answer]]:
        """See `PageSite.answers`."""
        return [
            ("GET", "/api/snapshot", self._snapshot),
            ("GET", "/api/trend", self._trend),
            ("GET", "/api/stream", self._stream),
            ("GET", "/frames/{camera}.jpg", self._picture),
            ("GET", "/frames/{camera}.mjpeg", self._video),
            ("GET", "/metrics", self._metrics),
            ("POST", "/api/record/start", self._start),
            ("POST", "/api/record/stop", self._stop),
            ("POST", "/api/clip", self._clip),
            ("GET", "/api/recordings", self._list_recordings),
            ("GET", "/recordings/{name}/{rest:path}", self._show_recording),
            ("POST", "/recordings/{name}/{rest:path}", self._show_recording),
            ("POST", "/api/takes/again", self._again),
            ("POST", "/api/marks/{number:int}", self._mark),
        ]

    def open_routes(self) -> list[Route]:
        """See `PageSite.open_routes`."""
        return [Route("/healthz", self._health)]

    async def _snapshot(self, request: Request) -> Response:
        return Response(
            self._state_line(), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def _trend(self, request: Request) -> Response:
        return JSONResponse(self._watched.trend(), headers={"Cache-Control": "no-store"})

    async def _stream(self, request: Request) -> Response:
        pieces = server_sent_events(self._state_line, 1 / STATES_HZ)
        return self._going_on(Stream(pieces, "text/event-stream", self.crowd))

    async def _picture(self, request: Request) -> Response:
        jpeg = self._get_picture(request)
        if jpeg is None:
            return JSONResponse({"error": "there is no such picture at the moment"}, 404)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    async def _video(self, request: Request) -> Response:
        if request.path_params["camera"] not in ("rgb", "event"):
            return JSONResponse({"error": "there is no such camera"}, 404)
        pieces = motion_jpeg(lambda: self._get_picture(request), 1 / PICTURES_HZ)
        return self._going_on(Stream(pieces, f"multipart/x-mixed-replace; boundary={BOUNDARY}", self.crowd))

    async def _metrics(self, request: Request) -> Response:
        return Response(
            self._watched.metrics(self.crowd.streams, self._refused()), headers={"Content-Type": CONTENT_TYPE}
        )

    async def _health(self, request: Request) -> Response:
        if (refused := self._gate.health_refusal(request)) is not None:
            return JSONResponse({"error": refused[1]}, refused[0])
        health = self._watched.health()
        return PlainTextResponse(f"{health}\n", 200 if health in ("ok", "starting") else 503)

    async def _start(self, request: Request) -> Response:
        return await self._order(lambda recorder: {"folder": str(recorder.start())})

    async def _stop(self, request: Request) -> Response:
        return await self._order(lambda recorder: recorder.stop().as_dict())

    async def _clip(self, request: Request) -> Response:
        return await self._order(lambda recorder: {"folder": str(recorder.save_clip())})

    def close(self) -> None:
        """See `PageSite.close`."""
        if self._recorded is not None:
            self._recorded.close()

    async def _list_recordings(self, request: Request) -> Response:
        found = [] if self._recorded is None else await asyncio.to_thread(self._recorded.listing)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def _show_recording(self, request: Request) -> Response:
        if self._recorded is None:
            return JSONResponse({"error": "nothing can be recorded in this run"}, 404)
        name, rest = request.path_params["name"], request.path_params["rest"]
        try:
            return _Inner(await asyncio.to_thread(self._recorded.open, name), f"/{rest}")
        except InputError as error:
            return JSONResponse({"error": error.problem}, 404)

    async def _again(self, request: Request) -> Response:
        if self._watched.takes is None:
            return JSONResponse({"error": "no takes are recorded in this run"}, 409)
        self._watched.takes.again()
        return JSONResponse({})

    async def _mark(self, request: Request) -> Response:
        marks, number = self._watched.marks, request.path_params["number"]
        if marks is None or number >= len(marks.labels):
            return JSONResponse({"error": "there is no such label: record with --labels"}, 409)
        try:
            return JSONResponse({"said": await asyncio.to_thread(marks.press, number)})
        except InputError as error:
            return JSONResponse({"error": str(error)}, 409)

    async def _order(self, order: Callable[[Recorder], dict[str, Any]]) -> Response:
        """Call the recorder without blocking the server, and answer with its result."""
        recorder = self._watched.recorder
        if recorder is None:
            return JSONResponse({"error": "nothing can be recorded in this run"}, 409)
        try:
            return JSONResponse(await asyncio.to_thread(order, recorder))
        except InputError as error:
            return JSONResponse({"error": str(error)}, 409)

    def _going_on(self, stream: Stream) -> Response:
        if self.crowd.is_full:
            return JSONResponse({"error": f"{self.crowd.most} streams are open already"}, 503)
        return stream

    def _state_line(self) -> bytes:
        """The state on one line, made at most ten times a second for all who ask."""
        made_s, line = self._state
        now_s = time.monotonic()
        if now_s - made_s >= 0.9 / STATES_HZ:
            line = json.dumps(self._watched.snapshot(), ensure_ascii=False, separators=(",", ":")).encode()
            self._state = now_s, line
        return line

    def _get_picture(self, request: Request) -> bytes | None:
        camera = request.path_params["camera"]
        if camera not in ("rgb", "event"):
            return None
        jpeg = self._pictures.get(cast("Camera", camera))
        return None if jpeg is None else jpeg.data


def _content_policy(page: str) -> str:
    """Nothing but the page's own script and style runs, and nothing is fetched from elsewhere."""
    script, style = (
        "'sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode() + "'"
        for found in (re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL) for tag in ("script", "style"))
        if found is not None
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
