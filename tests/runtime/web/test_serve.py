"""The page's server: who may look, what it tells, and that nobody who watches costs the pipeline anything."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from velora_runtime.app.run_services import AttachOptions, RunFacts, RunServices
from velora_runtime.cameras.camera import CameraStates
from velora_runtime.recording.items import RecordOptions
from velora_runtime.recording.recorder import Recorder
from velora_runtime.report import RunReport
from velora_runtime.sinks.base import Result
from velora_runtime.web.access import Address, choose_token, is_loopback
from velora_runtime.web.snapshot import About, Latest, Watched

from tests.recordings import write_events
from tests.tools_prometheus import parse
from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.datatypes import EventFrame, FramePair, Prediction, RGBFrame
from velora_edge.errors import InputError
from velora_edge.preprocessing.folder import Facts, read_recording
from velora_edge.preprocessing.video_file import RecordedVideo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_runtime.web.server import WebServer

pytest.importorskip("uvicorn", reason="needs the web extra: pip install -e '.[web]'")
pytest.importorskip("starlette", reason="needs the web extra: pip install -e '.[web]'")


def seen(k: int, label: str = "wave", hw: tuple[int, int] = (48, 64), missing: int = 0) -> Result:
    rgb = RGBFrame(np.full((*hw, 3), k % 250, np.uint8), 1000 * k, k)
    event = EventFrame(np.full((28, 28, 3), 255 - k % 250, np.uint8), 0, 1000 * k, 5)
    top = ((label, 0.75), ("still", 0.25))
    said = Prediction(k, 1000 * k, label, 0.75, top, 5, 120, {"pack": 0.5, "total": 4.0}, {"rgb": 0})
    return Result(FramePair(k, 1000 * k, rgb, event, 120), None if missing else said, missing)


class Site:
    """A server with a run that a test moves on."""

    def __init__(
        self,
        recordings: Path | None = None,
        *,
        address: str = "127.0.0.1:0",
        token: str | None = None,
    ) -> None:
        from velora_runtime.web.server import WebServer, live_site

        self.notes: list[str] = []
        self.latest, self.report = Latest(), RunReport()
        self.recorder = None
        if recordings is not None:
            options = RecordOptions(None, recordings, 10_000_000, waits=True)
            self.recorder = Recorder(options, Facts(video={"source": "v"}), self.notes.append)
        states = CameraStates(self.report, object(), None)
        about = About("tiny", "a fake", {"rgb": "v.mp4", "event": "none"}, "realtime")
        watched = Watched(about, self.latest, self.report, states, self.recorder)
        self.server: WebServer = WebServer(address, token, live_site(watched), self.notes.append)
        self.port = self.server.port

    def ask(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}

    def ask_json(self, path: str, method: str = "GET") -> tuple[int, Any]:
        status, body, _ = self.ask(path, method)
        return status, json.loads(body)

    def open_stream(self, path: str, receive_bytes: int | None = None) -> socket.socket:
        viewer = socket.socket()
        if receive_bytes is not None:
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        viewer.settimeout(20)
        viewer.connect(("127.0.0.1", self.port))
        viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return viewer

    def close(self) -> None:
        self.server.close()
        if self.recorder is not None:
            self.recorder.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "recordings")
    yield made
    made.close()


def wait_until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come to be within 20 s")


# ---- who may look ---------------------------------------------------------------------------------------

PATHS = [
    *("/", "/api/snapshot", "/api/stream", "/metrics"),
    *("/frames/rgb.jpg", "/frames/event.jpg", "/frames/rgb.mjpeg"),
]
ORDERS = ["/api/record/start", "/api/record/stop", "/api/clip"]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "recordings", token="s3cret")
    yield made
    made.close()


def test_without_the_token_everything_is_401_but_the_health(guarded: Site, tmp_path: Path) -> None:
    asked = [(path, "GET") for path in PATHS] + [(path, "POST") for path in ORDERS]
    assert {guarded.ask(path, method)[0] for path, method in asked} == {401}
    assert {guarded.ask(path + "?token=wrong", method)[0] for path, method in asked} == {401}
    assert {guarded.ask(path, method, {"Authorization": "Bearer s3cre"})[0] for path, method in asked} == {
        401
    }
    assert guarded.ask("/healthz")[:2] == (200, b"starting\n")
    assert not (tmp_path / "recordings").exists()


def test_the_token_is_taken_from_a_header_the_address_or_a_cookie(guarded: Site) -> None:
    assert guarded.ask("/api/snapshot", headers={"Authorization": "Bearer s3cret"})[0] == 200
    assert guarded.ask("/metrics?token=s3cret")[0] == 200
    status, _, headers = guarded.ask("/?token=s3cret")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert ("HttpOnly" in cookie, "samesite=lax" in cookie.lower()) == (True, True)
    status, body, _ = guarded.ask("/", headers={"Cookie": cookie.partition(";")[0]})
    assert (status, b"<title>velora</title>" in body) == (200, True)


def test_on_the_machine_itself_no_token_is_needed(site: Site) -> None:
    assert site.server.token is None
    assert site.notes == [f"watch at http://127.0.0.1:{site.port}/"]
    assert site.ask("/")[0] == 200


def test_elsewhere_a_random_token_is_made_and_told_in_the_address() -> None:
    made = Site(address="0.0.0.0:0")
    try:
        token = made.server.token
        assert token is not None
        assert len(token) >= 20
        assert made.notes == [f"watch at http://{socket.gethostname()}:{made.port}/?token={token}"]
        assert [made.ask("/api/snapshot")[0], made.ask(f"/api/snapshot?token={token}")[0]] == [401, 200]
    finally:
        made.close()


def test_no_token_elsewhere_must_be_asked_for_and_is_told() -> None:
    made = Site(address="0.0.0.0:0", token="none")
    try:
        assert made.ask("/api/snapshot", headers={"Host": "robot.example:80"})[0] == 200
        assert made.notes[1] == "whoever reaches this address can watch and record: --token none"
    finally:
        made.close()


def test_a_page_from_elsewhere_cannot_ask_in_the_users_browser(site: Site) -> None:
    """By a name that it lets point to this machine, or by a form."""
    assert site.ask("/api/snapshot", headers={"Host": "evil.example"})[0] == 403
    assert site.ask("/api/record/start", "POST", {"Origin": "http://evil.example"})[0] == 403
    assert site.ask("/api/snapshot", headers={"Host": f"localhost:{site.port}"})[0] == 200
    own = {"Host": f"127.0.0.1:{site.port}", "Origin": f"http://127.0.0.1:{site.port}"}
    assert site.ask("/api/record/start", "POST", own)[0] == 200


def test_the_page_may_run_nothing_but_its_own_script(site: Site) -> None:
    _, body, headers = site.ask("/")
    policy = headers["content-security-policy"]
    assert re.match(
        r"default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'sha256-[\w+/=]+'; ", policy
    )
    assert re.findall(rb"""(?:src|href)\s*=\s*["'][^"']*//""", body) == []  # nothing from elsewhere


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        (":8080", "127.0.0.1", 8080),
        ("8080", "127.0.0.1", 8080),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("[::1]:80", "::1", 80),
        ("robot.local:80", "robot.local", 80),
    ],
)
def test_an_address_is_understood(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize("text", ["", "here", "1.2.3.4", "host:", "::1:80", "host:65536", "http://host:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected --serve HOST:PORT"):
        Address.parse(text)


def test_a_port_that_is_taken_is_told(site: Site) -> None:
    with pytest.raises(InputError, match=rf"cannot serve on 127.0.0.1:{site.port}: Address already in use"):
        Address("127.0.0.1", site.port).listen()


def test_loopback_is_told_from_the_rest() -> None:
    names = ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "a.localhost")
    assert {is_loopback(name) for name in names} == {True}
    assert {is_loopback(name) for name in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "")} == {False}
    assert (choose_token(None, is_local=True), choose_token("a", is_local=True)) == (None, "a")
    assert choose_token("none", is_local=False) is None
    assert choose_token(None, is_local=False) != choose_token(None, is_local=False)


# ---- what is told ---------------------------------------------------------------------------------------


def test_the_state_is_told_whole(site: Site) -> None:
    site.latest.take(seen(0, missing=2))
    assert site.ask_json("/api/snapshot")[1]["missing"] == 2
    for k, label in enumerate(("wave", "wave", "nod"), start=1):
        site.latest.take(seen(k, label))
    site.report.frames.read, site.report.pairs.packed, site.report.predictions = 4, 4, 3
    wait_until(lambda: site.ask_json("/api/snapshot")[1]["number"] == 4, "the newest state")
    state = site.ask_json("/api/snapshot")[1]
    assert (state["label"], state["score"], state["t_us"]) == ("nod", 0.75, 3000)
    assert state["top"] == [["nod", 0.75], ["still", 0.25]]
    assert state["history"] == [
        {"label": "wave", "t0_us": 1000, "t1_us": 2000, "score": 0.75},
        {"label": "nod", "t0_us": 3000, "t1_us": 3000, "score": 0.75},
    ]
    assert (state["skew_us"], state["pairs"], state["predictions"]) == (120, 4, 3)
    assert state["latency_ms"]["total"]["last"] == 4.0
    assert state["dropped"] == {"rgb": 0, "events": 0, "pairs": 0, "late": 0, "unplaced": 0, "sinks": 0}
    assert 0 <= state["cameras"]["rgb"].pop("rate_hz") <= 4
    assert state["cameras"] == {
        "rgb": {"state": "live", "source": "v.mp4", "dropped": 0},
        "event": {"state": "none", "source": "none", "rate_hz": 0, "dropped": 0},
    }
    assert (state["health"], state["model"], state["engine"]) == ("ok", "tiny", "a fake")
    assert state["recorder"]["folder"] is None


def test_metrics_are_read_by_prometheus(site: Site) -> None:
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install -e '.[test]'")
    site.latest.take(seen(1))
    site.report.predictions = 1
    status, body, headers = site.ask("/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = parse(body.decode())
    assert found["velora_predictions_total",] == 1
    assert found["velora_stage_latency_seconds_count", "stage", "total"] == 1
    assert found["velora_camera_state", "camera", "event", "state", "none"] == 1
    assert found["velora_info", "engine", "a fake", "model", "tiny", "pace", "realtime"] == 1
    assert (found["velora_up",], found["velora_recording",]) == (1, 0)


def test_health_is_503_once_the_run_has_ended(site: Site) -> None:
    site.latest.take(seen(1))
    assert site.ask("/healthz")[:2] == (200, b"ok\n")
    site.report.wall_us = 1
    assert site.ask("/healthz")[:2] == (503, b"ended\n")


def test_a_camera_that_gives_nothing_for_two_seconds_is_stalled() -> None:
    now_s, report = [0.0], RunReport()
    states = CameraStates(report, object(), object(), lambda: now_s[0])
    assert states() == {"rgb": "starting", "event": "starting"}
    report.frames.read, report.pairs.packed = 3, 2
    assert states() == {"rgb": "live", "event": "live"}
    now_s[0], report.frames.read = 2.5, 4
    assert states() == {"rgb": "live", "event": "stalled"}


def test_a_source_may_tell_its_state_itself() -> None:
    class Camera:
        state = "connecting"

    assert CameraStates(RunReport(), Camera(), None)()["rgb"] == "connecting"


def decode(jpeg: bytes) -> np.ndarray[Any, Any]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_pictures_are_jpegs_of_bounded_size(site: Site) -> None:
    assert site.ask("/frames/rgb.jpg")[0] == 404
    site.latest.take(seen(100, hw=(1080, 1920)))
    status, body, headers = site.ask("/frames/rgb.jpg")
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "image/jpeg", "no-store")
    assert (decode(body).shape, abs(int(decode(body).mean()) - 100) <= 2) == ((540, 960, 3), True)
    event = decode(site.ask("/frames/event.jpg")[1])
    assert (event.shape, abs(int(event.mean()) - 155) <= 2) == ((448, 448, 3), True)
    assert site.ask("/frames/other.jpg")[0] == 404


def test_a_stream_tells_each_new_state(site: Site) -> None:
    site.latest.take(seen(1))
    with contextlib.closing(site.open_stream("/api/stream")) as viewer, viewer.makefile("rb") as lines:
        states = events_of(lines)
        assert next(states)["number"] == 1
        site.latest.take(seen(2))
        assert next(state["number"] for state in states if state["number"] != 1) == 2


def events_of(lines: Any) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_motion_jpeg_gives_each_new_picture(site: Site) -> None:
    site.latest.take(seen(50))
    with contextlib.closing(site.open_stream("/frames/rgb.mjpeg")) as viewer, viewer.makefile("rb") as body:
        values = []
        for value in (50, 200):
            size = next(int(line.split(b":")[1]) for line in body if line.startswith(b"Content-Length"))
            body.readline()
            values.append(round(float(decode(body.read(size)).mean())))
            assert abs(values[-1] - value) <= 2
            site.latest.take(seen(200))


# ---- what it costs --------------------------------------------------------------------------------------


def test_viewers_who_never_read_cost_the_pipeline_and_the_others_nothing(site: Site) -> None:
    """Pictures are random, so that a few of them fill all buffers on the way."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (720, 1280, 3), dtype=np.uint8) for _ in range(3)]

    def scene(k: int) -> Result:
        made = seen(k)
        return Result(FramePair(k, k, RGBFrame(images[k % 3], k, k), made.pair.event, 0), made.prediction)

    def median_take_us(first: int) -> float:
        taken = []
        for k in range(first, first + 60):
            start = time.perf_counter()
            site.latest.take(scene(k))
            taken.append((time.perf_counter() - start) * 1e6)
            time.sleep(0.005)
        return statistics.median(taken)

    alone_us = median_take_us(1)
    viewers = [site.open_stream("/frames/rgb.mjpeg", receive_bytes=4096) for _ in range(8)]
    viewers += [site.open_stream("/api/stream", receive_bytes=4096) for _ in range(8)]
    wait_until(lambda: site.server._site.crowd.streams == 16, "16 viewers")
    watched_us = median_take_us(100)
    assert watched_us < max(10 * alone_us, 2000)
    with contextlib.closing(site.open_stream("/api/stream")) as reader, reader.makefile("rb") as lines:
        site.latest.take(scene(1000))
        number = site.latest.scene.number
        assert next(s["number"] for s in events_of(lines) if s["number"] >= number) == number
    for viewer in viewers:
        viewer.close()
    wait_until(lambda: site.server._site.crowd.streams == 0, "an empty crowd")


def test_streams_are_limited_and_the_rest_is_not(site: Site) -> None:
    site.server._site.crowd.most = 2
    viewers = [site.open_stream("/api/stream") for _ in range(2)]
    wait_until(lambda: site.server._site.crowd.streams == 2, "two viewers")
    assert site.ask("/api/stream")[:2] == (503, b'{"error":"2 streams are open already"}')
    assert site.ask("/api/snapshot")[0] == 200
    for viewer in viewers:
        viewer.close()


def test_pictures_are_compressed_once_for_all_viewers_and_15_times_a_second_at_most(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velora_runtime.web import streams as pictures

    made: list[int] = []
    compress = pictures.compress
    monkeypatch.setattr(pictures, "compress", lambda image: made.append(1) or compress(image))
    viewers = [site.open_stream("/frames/rgb.mjpeg") for _ in range(5)]
    began_s = time.monotonic()
    while time.monotonic() - began_s < 1.0:
        site.latest.take(seen(int((time.monotonic() - began_s) * 200)))
        time.sleep(0.005)
    assert 3 <= len(made) <= 16
    for viewer in viewers:
        viewer.close()


def test_the_server_ends_at_once_with_viewers_who_never_read(tmp_path: Path) -> None:
    made = Site()
    made.latest.take(seen(1))
    viewer = made.open_stream("/api/stream", receive_bytes=4096)
    wait_until(lambda: made.server._site.crowd.streams == 1, "a viewer")
    began_s = time.monotonic()
    made.close()
    made.close()
    assert time.monotonic() - began_s < 4
    assert [thread.name for thread in threading.enumerate() if thread.name == "web"] == []
    viewer.close()


# ---- what can be asked for ------------------------------------------------------------------------------


def test_the_record_button_makes_a_recording_that_can_be_read(site: Site, tmp_path: Path) -> None:
    assert site.recorder is not None
    status, said = site.ask_json("/api/record/start", "POST")
    folder = tmp_path / "recordings" / said["folder"].rpartition("/")[2]
    assert (status, str(folder)) == (200, said["folder"])
    assert site.ask_json("/api/record/start", "POST")[0] == 409
    for k in range(20):
        site.recorder.take_picture(np.full((16, 16, 3), 10 * k, np.uint8), 33_333 * k)
    wait_until(lambda: site.ask_json("/api/snapshot")[1]["recorder"]["frames"] == 20, "20 frames")
    assert site.ask_json("/api/snapshot")[1]["recorder"]["folder"] == str(folder)
    status, said = site.ask_json("/api/record/stop", "POST")
    assert (status, said["whole"], said["counts"]["frames"]) == (200, True, 20)
    assert [frame.t_us for frame in RecordedVideo(str(folder))] == [33_333 * k for k in range(20)]
    assert site.ask_json("/api/record/stop", "POST")[0] == 409


def test_the_last_seconds_can_be_saved(site: Site) -> None:
    assert site.recorder is not None
    for k in range(20):
        site.recorder.take_picture(np.full((16, 16, 3), 10 * k, np.uint8), 33_333 * k)
    status, said = site.ask_json("/api/clip", "POST")
    assert (status, said["folder"].endswith("_clip")) == (200, True)
    wait_until(lambda: site.ask_json("/api/snapshot")[1]["recorder"]["ended"], "the clip")
    assert read_recording(said["folder"]).facts.counts["frames"] == 20


def record(folder: Path) -> None:
    """A recording of its own, that velora record might have written."""
    events = folder.with_suffix(".raw")
    folder.parent.mkdir(exist_ok=True)
    write_events(events)
    assert run(velora, ["record", str(folder), "--events", str(events), "--pace", "max"]) == 0


def test_recordings_are_listed_shown_and_labelled(site: Site, tmp_path: Path) -> None:
    record(tmp_path / "recordings" / "day1")
    (tmp_path / "recordings" / ".day0").mkdir()
    assert site.ask_json("/api/recordings") == (200, [{"name": "day1", "seconds": 0.4, "labels": []}])
    assert b"<title>velora label</title>" in site.ask("/recordings/day1/")[1]
    wait_until(lambda: site.ask_json("/recordings/day1/api/recording")[1]["is_read"], "the overview")
    state = site.ask_json("/recordings/day1/api/recording")[1]
    assert (state["name"], state["cameras"], state["segments"]) == ("day1", ["event"], [])
    assert site.ask(f"/recordings/day1/frames/event/{state['times_us'][-1]}.jpg")[1][:2] == b"\xff\xd8"
    assert site.ask("/recordings/day1/api/segments", "POST", {"Origin": "http://elsewhere"})[0] == 403


@pytest.mark.parametrize("name", ["day2", ".day0", "..", "%2e%2e", "linked"])
def test_nothing_but_recordings_of_the_run_is_shown(site: Site, tmp_path: Path, name: str) -> None:
    record(tmp_path / "elsewhere")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").joinpath("segments.csv").write_text("start,end,label\n")
    for rest in ("", "api/recording", "frames/event/0.jpg"):
        assert site.ask(f"/recordings/{name}/{rest}")[0] == 404


def test_a_run_that_cannot_record_says_so() -> None:
    made = Site()
    try:
        assert made.ask_json("/api/record/start", "POST") == (
            409,
            {"error": "nothing can be recorded in this run"},
        )
        assert made.ask_json("/api/snapshot")[1]["recorder"] is None
        assert made.ask("/api/record/start")[0] == 405
    finally:
        made.close()


# ---- beside a run ---------------------------------------------------------------------------------------


def test_what_was_not_asked_for_is_not_there() -> None:
    attached = RunServices(AttachOptions(), RunFacts(None, "none", "none", "max"), lambda line: None)
    attached.open_recorder(None)
    attached.begin(RunReport(), "a fake", dict)
    attached.end()
    assert (attached.sinks(), attached.summary(), attached.warnings()) == ([], {}, [])


def test_without_the_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from velora_edge.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"--serve needs uvicorn: pip install -e '\.\[web\]'"):
        Site()


def test_without_the_library_of_metrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from velora_edge.errors import MissingExtraError

    for name in [name for name in sys.modules if name.startswith("velora_runtime.web.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "velora_runtime.web.snapshot")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    facts = RunFacts(None, "none", "none", "max")
    attached = RunServices(AttachOptions(serve="127.0.0.1:0"), facts, lambda line: None)
    with pytest.raises(
        MissingExtraError, match=r"--serve needs prometheus_client: pip install -e '\.\[web\]'"
    ):
        attached.sinks()


def test_the_trend_has_four_moments_a_second_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("velora_runtime.web.snapshot.time.monotonic", lambda: now_s)
    latest = Latest()
    for k in range(699):
        now_s = 100 + k / 8
        latest.take(seen(k, missing=1 if k == 698 else 0))
    watched = Watched(About("m", "e", {}, "max"), latest, RunReport(), dict, None)
    trend = watched.trend()
    assert len(trend) == 240
    assert [age for age, *_ in trend] == [(239 - k) / 4 for k in range(240)]
    assert trend[0][1:] == [round(5 * 1e6 / (1000 * 220)), 4.0, [["wave", 0.75], ["still", 0.25]]]
    assert trend[-1][2:] == [None, []]
