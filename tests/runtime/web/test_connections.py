"""Connections that ask nothing are closed: neither the page nor a camera runs out of descriptors."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
pytest.importorskip("starlette", reason="needs the web extra: pip install -e '.[web]'")

from velora_runtime.web import streams as connections

from tests.runtime.web.test_serve import Site, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server with room for eight connections, and a deadline of a fifth of a second."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    monkeypatch.setattr(connections, "REQUEST_S", 0.2)
    made = Site()
    yield made
    made.close()


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server with room for eight connections."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 8)
    made = Site()
    yield made
    made.close()


def connect(site: Site) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", site.port), 5)
    made.settimeout(10)
    return made


def is_closed(connection: socket.socket) -> bool:
    """The other side has hung up, now or within 10 s."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_a_connection_that_asks_nothing_is_closed(hurried: Site) -> None:
    with connect(hurried) as silent:
        began_s = time.monotonic()
        assert is_closed(silent)
        assert time.monotonic() - began_s < 3
    assert hurried.notes[1:] == ["page: a connection that asked nothing for 0.2 s was closed"]


def test_a_request_that_comes_byte_by_byte_has_one_deadline(hurried: Site) -> None:
    with connect(hurried) as slow:
        began_s, sent = time.monotonic(), 0
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /healthz HTTP/1.1\r\nX: " + 400 * b"x":
                slow.sendall(bytes([byte]))
                sent += 1
                time.sleep(0.02)
        assert sent < 200
        assert time.monotonic() - began_s < 4


def test_the_second_request_of_a_connection_has_a_deadline_as_the_first(hurried: Site) -> None:
    with connect(hurried) as one:
        one.sendall(ASK)
        assert one.recv(1000).startswith(b"HTTP/1.1 200")
        one.sendall(b"GET /health")
        assert is_closed(one)


def test_a_stream_goes_on_beyond_the_deadline(hurried: Site) -> None:
    with contextlib.closing(hurried.open_stream("/api/stream")) as viewer:
        viewer.recv(100)
        time.sleep(0.6)
        wait_until(lambda: hurried.server._site.crowd.streams == 1, "the stream")
        assert viewer.recv(1000)


def test_at_the_limit_the_connection_that_was_silent_for_the_longest_makes_room(crowded: Site) -> None:
    silent = [connect(crowded) for _ in range(40)]
    assert crowded.ask("/healthz")[:2] == (200, b"starting\n")
    assert [is_closed(one) for one in silent[:30]] == [True] * 30
    with contextlib.closing(silent[-1]):
        silent[-1].sendall(ASK)
        assert silent[-1].recv(1000).startswith(b"HTTP/1.1 200")
    refused = re.findall(rb"^velora_connections_refused (\d+)", crowded.ask("/metrics")[1], re.MULTILINE)
    assert int(refused[0]) >= 30
    notes = [line for line in crowded.notes if line.startswith("page:")]
    assert notes == ["page: more than 8 connections at once: those that ask nothing are closed"]
    for one in silent:
        one.close()


def test_the_limit_leaves_descriptors_in_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    used = len(list(Path("/proc/self/fd").iterdir()))
    for limit, wanted in ((100_000, 96), (used + 64 + 50, 50), (used, 8)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda what, limit=limit: (limit, limit))
        assert abs(connections.most_connections() - wanted) <= 1


FLOOD = """
import os, resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from tests.runtime.web.test_serve import Site
site = Site()
print(site.port, flush=True)
sys.stdin.readline()
files = [open("/dev/null") for _ in range(60)]
print(len(files), site.ask("/healthz")[0], flush=True)
while True:  # and where others have taken all of them
    try:
        files.append(open("/dev/null"))
    except OSError:
        break
print("full", flush=True)
sys.stdin.readline()
del files
site.close()
print(len(site.notes), flush=True)
"""


@pytest.mark.slow
def test_three_hundred_silent_connections_leave_the_page_the_files_and_the_log_as_they_are() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FLOOD],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port, silent = int(process.stdout.readline()), []
    for _ in range(300):
        with contextlib.suppress(OSError):
            silent.append(socket.create_connection(("127.0.0.1", port), 1))
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "60 200\n"
    assert process.stdout.readline() == "full\n"
    for _ in range(100):
        with contextlib.suppress(OSError):
            silent.append(socket.create_connection(("127.0.0.1", port), 0.05))
    time.sleep(3)
    out, err = process.communicate("\n", timeout=60)
    for one in silent:
        one.close()
    assert re.fullmatch(r"\d\n", out)
    assert err == ""


# ---- what every answer says to a browser ----------------------------------------------------------------


def test_every_answer_is_sniffed_run_and_shown_by_nobody(crowded: Site) -> None:
    answers = [crowded.ask(path) for path in ("/", "/healthz", "/api/snapshot", "/frames/rgb.jpg", "/docs")]
    answers += [crowded.ask("/api/clip", "POST"), crowded.ask("/healthz", "TRACE")]
    answers.append(crowded.ask("/api/snapshot", headers={"Host": "evil.example"}))
    assert [status for status, _, _ in answers] == [200, 200, 200, 404, 404, 409, 405, 403]
    for _, _, headers in answers:
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_what_is_no_http_is_answered_with_the_same_headers(crowded: Site) -> None:
    with connect(crowded) as one:
        one.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        answer = one.recv(4000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-content-type-options: nosniff\r\n" in answer.lower()


def test_a_page_from_elsewhere_cannot_ask_for_the_health(crowded: Site) -> None:
    assert crowded.ask("/healthz", headers={"Host": "evil.example"})[:2] == (
        403,
        b'{"error":"the server answers to localhost alone"}',
    )
    assert crowded.ask("/healthz", headers={"Host": "localhost:1"})[0] == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://["}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_an_order_of_another_page_is_refused_however_it_names_itself(
    crowded: Site, headers: dict[str, str]
) -> None:
    assert crowded.ask("/api/clip", "POST", headers)[:2] == (
        403,
        b'{"error":"the request comes from another page"}',
    )
