"""Passwords in the addresses of cameras and brokers: used to connect, and told to nobody."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from velora_runtime.app.run_services import AttachOptions
from velora_runtime.app.session import RunOptions
from velora_runtime.cameras.drivers.av_camera import open_network
from velora_runtime.cameras.drivers.gstreamer import GStreamerCamera
from velora_runtime.cameras.drivers.registry import open_live_events, open_live_rgb
from velora_runtime.cameras.feeds import LiveSetup
from velora_runtime.sinks.publishers import Broker

from tests.fakes import FakeClock
from tests.peers import ROOT, end_live, free_port, start_live
from velora_edge.errors import InputError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "hunter2"
SETUP = LiveSetup(FakeClock(), threading.Event(), print)


@pytest.fixture
def camera() -> Iterator[tuple[int, list[str]]]:
    """An HTTP camera that asks for a password: its port, and the passwords that it was told."""
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            if not given:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            told.append(base64.b64decode(given.split()[1]).decode())
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            for _ in range(150):
                self.wfile.write(head.encode() + jpeg + b"\r\n")
                time.sleep(0.02)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], told
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_run_tells_no_password_anywhere(camera: tuple[int, list[str]], tmp_path: Path) -> None:
    port, told = camera
    rgb = f"http://admin:{SECRET}@127.0.0.1:{port}/live?key={SECRET}"
    broker = f"mqtt://me:{SECRET}@127.0.0.1:{free_port()}/robot"
    live = start_live(
        tmp_path,
        *("demo", "--rgb", rgb, "--record", tmp_path / "rec", "--publish", broker, "--retry", 0),
        *("--serve", f"127.0.0.1:{(page := free_port())}", "--token", SECRET),
    )
    snapshot = ask(page, live)
    run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert told[0] == f"admin:{SECRET}"
    assert snapshot["cameras"]["rgb"]["source"] == f"http://***@127.0.0.1:{port}/live?***"
    facts = json.loads((tmp_path / "rec" / "recording.json").read_text())
    assert facts["video"]["source"] == f"http://***@127.0.0.1:{port}/live?***"
    assert f"http://***@127.0.0.1:{port}/live?***: lost" in run.err
    assert SECRET not in "".join((run.err, run.out, json.dumps(run.report), json.dumps(snapshot)))
    kept = [
        path.name for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert kept == []


def ask(port: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The page's state, once there is a page and a camera."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/snapshot", headers={"Authorization": f"Bearer {SECRET}"}
    )
    while process.poll() is None:
        try:
            with urllib.request.urlopen(asked, timeout=5) as answer:
                state: dict[str, Any] = json.loads(answer.read())
        except OSError:
            time.sleep(0.05)
            continue
        if state["pairs"]:
            return state
    raise AssertionError("the run ended before its page was there")


@pytest.mark.parametrize(
    "source",
    [
        f"rtsp://me:{SECRET}@127.0.0.1:1/x",
        f"http://127.0.0.1:1/?pwd={SECRET}",
        f"http://me:{SECRET}/x@127.0.0.1:1/",
    ],
)
def test_a_camera_that_is_not_there_is_told_without_its_password(source: str) -> None:
    with pytest.raises(SourceError, match=r"\*\*\*") as caught:
        open_live_rgb(source, SETUP)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("source", [f"tcp://me:{SECRET}@h:1", f"tcp://me:{SECRET}@h"])
def test_what_is_no_event_camera_is_told_without_its_password(source: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_live_events(source, SETUP)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"mqtt://me:{SECRET}@host",
        f"mqtt://me:{SECRET}/x@host/t",
        f"mqtts://me:{SECRET}@host/#",
        f"x://a:{SECRET}@h/t",
    ],
)
def test_what_is_no_broker_is_told_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Broker.parse(url)
    assert SECRET not in str(caught.value)


def test_neither_the_options_of_a_run_nor_a_broker_show_a_password() -> None:
    options = RunOptions(
        "demo",
        rgb=f"rtsp://me:{SECRET}@c/",
        attach=AttachOptions(token=SECRET),
        outputs=(("publish", f"mqtt://me:{SECRET}@h/t"),),
    )
    assert SECRET not in repr(options)
    assert SECRET not in repr(Broker.parse(options.outputs[0][1]))
    assert Broker.parse(options.outputs[0][1]).password == SECRET


def test_the_driver_gets_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f"rtsp://me:{SECRET}@camera/1"
    assert open_network(whole, SETUP).connect() == whole


def test_what_a_pipeline_says_of_its_address_is_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gst-launch-1.0"
    program.write_text(
        f"#!/bin/sh\necho ERROR: cannot open rtsp://me:{SECRET}@c/1 user-pw={SECRET} >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    source = f"gst://rtspsrc location=rtsp://me:{SECRET}@c/1 ! decodebin"
    with pytest.raises(SourceError, match=r"ERROR: cannot open rtsp://\*\*\*@c/1") as caught:
        open_live_rgb(source, SETUP)
    assert SECRET not in str(caught.value)
    assert f"location=rtsp://me:{SECRET}@c/1" in GStreamerCamera("x", source[6:])._command


@pytest.mark.slow
def test_the_doctor_tells_no_password_of_the_environment() -> None:
    environment = {"VELORA_LIVE": f"demo --rgb rtsp://me:{SECRET}@c/", "VELORA_TOKEN": SECRET}
    code = "import sys; from velora_cli.main import main; sys.argv = ['velora', 'doctor', '--json']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert re.search(r'"python"', done.stdout)
    assert SECRET not in done.stdout + done.stderr
