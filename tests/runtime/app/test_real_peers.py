"""velora-live with other people's programs on the other side: an RTSP server, GStreamer, an MQTT broker.

.ci/install-peers installs them from Debian; a test is skipped where its program is absent.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes import write_tiny_bundle
from tests.peers import (
    Run,
    assert_accounted,
    end_live,
    free_port,
    peer,
    rtsp_server,
    start_live,
    wait_for_lines,
    wait_until_served,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
CLIP = 3
USER, PASSWORD = "admin", "hunter2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs."""
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny.velora", CLIP).path


def find_program(name: str) -> str:
    """A program of Debian's; the test is skipped where there is none."""
    found = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"needs {name}: .ci/install-peers")
    return found


# ---- an RTSP camera -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_camera_with_a_password_is_watched(model: Path, tmp_path: Path, transport: str) -> None:
    port = free_port()
    settings = tmp_path / "cameras.yaml"
    settings.write_text(f"rgb: {{transport: {transport}}}\n")
    with peer(rtsp_server(port, USER, PASSWORD), ready=b"ready"):
        rgb = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/camera"
        live = start_live(tmp_path, model, "--rgb", rgb, "--cameras", settings, "--duration", 2)
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    camera = run.report["cameras"]["rgb"]
    assert (camera["connections"], camera["outages"]) == (1, 0)
    assert 40 <= camera["frames"]["received"] <= 90
    gaps_us = [b["t_us"] - a["t_us"] for a, b in zip(run.lines, run.lines[1:], strict=False)]
    assert sorted(gaps_us)[len(gaps_us) // 2] == pytest.approx(33_333, abs=8_000)
    assert PASSWORD not in run.err


def test_a_wrong_password_is_refused_in_one_line_that_does_not_tell_it(model: Path, tmp_path: Path) -> None:
    port = free_port()
    with peer(rtsp_server(port, USER, PASSWORD), ready=b"ready"):
        rgb = f"rtsp://{USER}:wr0ng@127.0.0.1:{port}/camera"
        run = end_live(start_live(tmp_path, model, "--rgb", rgb), tmp_path)
    assert run.code == 2
    errors = [line for line in run.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert f"rtsp://***@127.0.0.1:{port}/camera: cannot be opened" in errors[0]
    assert "401" in errors[0]
    assert "wr0ng" not in run.err
    assert "Traceback" not in run.err


def test_an_rtsp_server_that_is_killed_and_started_again_is_back(model: Path, tmp_path: Path) -> None:
    port = free_port()
    command = rtsp_server(port)
    rgb = f"rtsp://127.0.0.1:{port}/camera"
    with peer(command, ready=b"ready"):
        live = start_live(tmp_path, model, "--rgb", rgb, "--duration", 12)
        wait_for_lines(tmp_path, 20)
    with peer(command, ready=b"ready"):
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    camera = run.report["cameras"]["rgb"]
    assert (camera["connections"], camera["outages"]) == (2, 1)
    assert run.lines[-1]["t_us"] > run.lines[0]["t_us"] + 6_000_000


def test_an_rtsp_server_that_stands_still_for_seconds_is_no_outage(model: Path, tmp_path: Path) -> None:
    port = free_port()
    with peer(rtsp_server(port), ready=b"ready") as server:
        live = start_live(tmp_path, model, "--rgb", f"rtsp://127.0.0.1:{port}/camera", "--duration", 8)
        wait_for_lines(tmp_path, 20)
        server.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        server.send_signal(signal.SIGCONT)
        run = end_live(live, tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    camera = run.report["cameras"]["rgb"]
    assert (camera["connections"], camera["outages"]) == (1, 0)
    assert run.lines[-1]["t_us"] > run.lines[0]["t_us"] + 6_000_000


# ---- GStreamer ------------------------------------------------------------------------------------------


def test_a_pipeline_of_gstreamer_is_watched(model: Path, tmp_path: Path) -> None:
    find_program("gst-launch-1.0")
    source = "gst://videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1"
    run = end_live(start_live(tmp_path, model, "--rgb", source, "--duration", 2), tmp_path)
    assert run.code == 0, run.err
    assert_accounted(run, CLIP)
    assert 40 <= run.report["cameras"]["rgb"]["frames"]["received"] <= 90


def test_a_pipeline_that_gstreamer_refuses_is_told_in_its_words(model: Path, tmp_path: Path) -> None:
    find_program("gst-launch-1.0")
    run = end_live(start_live(tmp_path, model, "--rgb", "gst://nosuchelement ! fakesink"), tmp_path)
    assert run.code == 2
    assert 'no element "nosuchelement"' in run.err
    assert "Traceback" not in run.err


# ---- a broker -------------------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> tuple[int, list[object]]:
    """The port, and the command, of a mosquitto that asks for a password."""
    pytest.importorskip("paho.mqtt", reason="needs the mqtt extra: pip install -e '.[mqtt]'")
    program, port = find_program("mosquitto"), free_port()
    passwords, config = tmp_path / "passwords", tmp_path / "mosquitto.conf"
    subprocess.run([find_program("mosquitto_passwd"), "-b", "-c", passwords, USER, PASSWORD], check=True)
    passwords.chmod(0o644)
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
    )
    return port, [program, "-c", config]


def listen(port: int, count: int) -> subprocess.Popen[bytes]:
    """A subscriber that ends after so many messages."""
    return subprocess.Popen(
        [
            find_program("mosquitto_sub"),
            "-p",
            str(port),
            "-u",
            USER,
            "-P",
            PASSWORD,
            "-t",
            "robot/#",
            "-C",
            str(count),
        ],
        stdout=subprocess.PIPE,
    )


def publish(model: Path, folder: Path, port: int, password: str, seconds: int) -> subprocess.Popen[bytes]:
    find_program("gst-launch-1.0")
    source = "gst://videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1"
    url = f"mqtt://{USER}:{password}@127.0.0.1:{port}/robot"
    return start_live(folder, model, "--rgb", source, "--publish", url, "--duration", seconds)


def check_published(run: Run) -> None:
    assert run.code == 0, run.err
    assert "Traceback" not in run.err
    assert PASSWORD not in run.err


def test_a_broker_with_a_password_gets_the_predictions(
    model: Path, broker: tuple[int, list[object]], tmp_path: Path
) -> None:
    port, command = broker
    with peer(command):
        wait_until_served(port)
        listener = listen(port, 21)
        run = end_live(publish(model, tmp_path, port, PASSWORD, 3), tmp_path)
        heard = listener.communicate(timeout=30)[0].splitlines()
    check_published(run)
    assert heard[0] == b"online"
    published = [json.loads(line)["seq"] for line in heard[1:]]
    assert published == [line["seq"] for line in run.lines if line["seq"] >= published[0]][:20]


def test_a_broker_that_refuses_the_password_costs_messages_and_nothing_else(
    model: Path, broker: tuple[int, list[object]], tmp_path: Path
) -> None:
    port, command = broker
    with peer(command):
        wait_until_served(port)
        run = end_live(publish(model, tmp_path, port, "wr0ng", 3), tmp_path)
    check_published(run)
    assert len(run.lines) > 40
    assert sum(run.report["dropped"]["sinks"].values()) + len(run.lines) > 0
    assert "wr0ng" not in run.err


def test_a_broker_that_is_killed_and_started_again_hears_on(
    model: Path, broker: tuple[int, list[object]], tmp_path: Path
) -> None:
    port, command = broker
    with peer(command):
        wait_until_served(port)
        live = publish(model, tmp_path, port, PASSWORD, 10)
        wait_for_lines(tmp_path, 20)
    time.sleep(0.5)
    with peer(command):
        wait_until_served(port)
        listener = listen(port, 20)
        run = end_live(live, tmp_path)
        heard = listener.communicate(timeout=30)[0].splitlines()
    check_published(run)
    assert len(heard) == 20
    assert json.loads(heard[-1])["seq"] > 20
