"""Raw words from sockets and pipes, with a header or without, however the bytes are split."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from velora_runtime.cameras.drivers.raw_bytes import RawByteFeed, StdinEvents, TcpEvents
from velora_runtime.cameras.feeds import FeedEndError, LiveSetup, WordLayout

from tests.fakes import FakeClock
from tests.fakes_cameras import evt3
from velora_edge.errors import CameraError, SourceError
from velora_edge.events.formats.raw.raw_header import parse_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADER = b"% camera_integrator_name Prophesee\n% evt 3.0\n% geometry 8x6\n% end\n"
WORDS = evt3((100, 1, 2, 1), (200, 3, 4, 0))


class Pieces(RawByteFeed):
    """Gives bytes as a test cuts them; None: nothing came in time."""

    def __init__(self, pieces: Iterable[bytes | None], setup: LiveSetup) -> None:
        super().__init__("pieces", setup)
        self.pieces = list(pieces)
        self.closed = 0

    def connect(self) -> None:
        pass

    def receive(self, wait_s: float) -> bytes | None:
        return self.pieces.pop(0) if self.pieces else None

    def close(self) -> None:
        self.closed += 1


def setup(**how: Any) -> LiveSetup:
    return LiveSetup(FakeClock(), threading.Event(), print, **how)


def read_all(feed: Pieces) -> bytes:
    return b"".join(iter(feed.read, None))


@pytest.mark.parametrize("at", range(1, len(HEADER) + len(WORDS)))
def test_a_header_split_at_any_byte_is_read_and_the_words_after_it_are_whole(at: int) -> None:
    data = HEADER + WORDS
    feed = Pieces([data[:at], data[at:]], setup())
    feed.open()
    assert (feed.sensor, feed.layout) == ((8, 6), WordLayout("EVT3", True, HEADER))
    assert read_all(feed) == WORDS


def test_a_header_may_come_byte_by_byte() -> None:
    feed = Pieces([bytes([b]) for b in HEADER + WORDS], setup())
    feed.open()
    assert (feed.layout, read_all(feed)) == (WordLayout("EVT3", True, HEADER), WORDS)


def test_without_a_header_the_user_says_what_it_is() -> None:
    feed = Pieces([WORDS], setup(sensor=(8, 6), encoding="EVT3"))
    feed.open()
    assert (feed.sensor, feed.layout, read_all(feed)) == ((8, 6), WordLayout("EVT3"), WORDS)


@pytest.mark.parametrize(
    ("data", "how", "lack"),
    [
        (WORDS, {}, "there is no header, and nobody told the encoding"),
        (WORDS, {"encoding": "EVT3"}, "there is no header, and nobody told the sensor's size"),
        (b"% evt 3.0\n% end\n" + WORDS, {}, "the header does not tell the sensor's size"),
    ],
)
def test_what_is_not_known_is_asked_for(data: bytes, how: dict[str, Any], lack: str) -> None:
    feed = Pieces([data], setup(**how))
    with pytest.raises(SourceError, match=f"^pieces: {lack}; pass --sensor WxH --event-format EVT3$"):
        feed.open()
    assert feed.closed == 1


def test_nothing_at_all_is_a_camera_that_is_not_there() -> None:
    with pytest.raises(CameraError, match=r"^nothing came for 5 s$"):
        Pieces([None], setup()).open()


class Slow(Pieces):
    """Gives byte after byte, one a second."""

    def receive(self, wait_s: float) -> bytes | None:
        clock: FakeClock = self._setup.clock  # type: ignore[assignment]
        self.waits.append(wait_s)
        clock.t_us += round(min(wait_s, 1.0) * 1e6)
        return super().receive(wait_s) if wait_s >= 1.0 else None

    waits: list[float]


def test_a_header_that_comes_too_slowly_has_one_deadline() -> None:
    feed = Slow([bytes([b]) for b in HEADER + WORDS], setup())
    feed.waits = []
    with pytest.raises(CameraError, match=r"^the header did not end within 5 s$"):
        feed.open()
    assert (feed.waits, feed.closed) == ([5.0, 4.0, 3.0, 2.0, 1.0], 1)


def test_a_header_that_comes_byte_by_byte_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from velora_runtime.cameras.drivers import raw_bytes

    parsed: list[int] = []

    def parse(data: bytes, *given: Any) -> Any:
        parsed.append(len(data))
        return parse_header(data, *given)

    monkeypatch.setattr(raw_bytes, "parse_header", parse)
    head = b"% evt 3.0\n% geometry 8x6\n" + b"% note " + 50_000 * b"x" + b"\n% end\n"
    feed = Pieces([bytes([b]) for b in head + WORDS], setup())
    feed.open()
    assert (len(parsed), feed.layout, read_all(feed)) == (1, WordLayout("EVT3", True, head), WORDS)


@pytest.mark.parametrize(
    "data", [b"%", b"% ", b"% evt", b"%\x80", b"%\x80\n", b"% a\n\x80", b"%%\n", b"% e\r\n"]
)
def test_what_begins_as_a_header_and_is_none_is_words(data: bytes) -> None:
    """However it is split, and whether or not more follows."""
    end = parse_header(data + 2000 * b"\0").payload_at
    for at in range(1, len(data) + 1):
        feed = Pieces([data[:at], data[at:] + 2000 * b"\0"], setup(sensor=(8, 6), encoding="EVT3"))
        feed.open()
        assert feed.layout is not None
        assert (feed.layout.header, read_all(feed)) == (data[:end], data[end:] + 2000 * b"\0")


def test_another_camera_at_the_same_place_is_not_taken_for_it() -> None:
    feed = Pieces([HEADER + WORDS], setup())
    feed.open()
    feed.pieces = [HEADER.replace(b"8x6", b"9x6") + WORDS]
    with pytest.raises(CameraError, match=r"^another camera is there now: EVT3, 9x6$"):
        feed.open()
    feed.pieces = [HEADER + WORDS]
    feed.open()
    assert feed.sensor == (8, 6)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_tcp_gives_what_comes_nothing_in_time_and_the_loss(server: socket.socket) -> None:
    feed = TcpEvents(f"tcp://127.0.0.1:{server.getsockname()[1]}", setup(sensor=(8, 6), encoding="EVT3"))
    accepted: list[socket.socket] = []

    def serve() -> None:
        accepted.append(server.accept()[0])
        accepted[0].sendall(WORDS)

    thread = threading.Thread(target=serve)
    thread.start()
    feed.open()
    thread.join()
    assert feed.read() == WORDS
    assert feed.read() is None
    accepted[0].close()
    with pytest.raises(CameraError, match=r"^the other side closed the connection$"):
        feed.read()
    feed.close()
    feed.close()
    with pytest.raises(CameraError, match=r"^the connection is closed$"):
        feed.read()


def test_a_server_that_is_not_there_is_a_camera_that_is_not_there(server: socket.socket) -> None:
    port = server.getsockname()[1]
    server.close()
    with pytest.raises(CameraError, match=r"^cannot connect: Connection refused$"):
        TcpEvents(f"tcp://localhost:{port}", setup()).open()


@pytest.mark.parametrize(
    "text", ["tcp://camera", "tcp://camera:0", "tcp://camera:65536", "tcp://:7777", "tcp://a:b:1", "tcp://"]
)
def test_what_is_no_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match=f"^{text}: expected tcp://HOST:PORT; give the port of the server"):
        TcpEvents(text, setup())


def test_an_address_of_ip_6_may_be_given() -> None:
    assert TcpEvents("tcp://[::1]:7777", setup())._address == ("::1", 7777)


def test_a_pipe_ends_with_its_other_side_and_does_not_come_back() -> None:
    reading, writing = os.pipe()
    try:
        feed = StdinEvents("-", setup(), reading)
        os.write(writing, HEADER + WORDS)
        feed.open()
        assert (feed.layout, feed.read(), feed.read()) == (WordLayout("EVT3", True, HEADER), WORDS, None)
        os.close(writing)
        with pytest.raises(FeedEndError):
            feed.read()
        assert (feed.comes_back, feed.may_be_silent) == (False, True)
        feed.close()
        os.fstat(reading)  # still open: it is not ours
    finally:
        os.close(reading)


def test_a_terminal_gives_no_events() -> None:
    main, terminal = os.openpty()
    try:
        with pytest.raises(SourceError, match=r"^-: standard input is a terminal; pipe raw events into it"):
            StdinEvents("-", setup(), terminal)
    finally:
        os.close(main)
        os.close(terminal)
