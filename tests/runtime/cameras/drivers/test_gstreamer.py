"""GStreamer's pipelines as processes: what they are asked, what they give, how they fail."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings, RGBSettings
from velora_runtime.cameras.drivers import appsink, gstreamer
from velora_runtime.cameras.drivers.appsink import AppSinkCamera, find_elements, load_gstreamer
from velora_runtime.cameras.drivers.av_camera import AvCamera
from velora_runtime.cameras.drivers.gstreamer import (
    DecodedCamera,
    GStreamerCamera,
    csi_pipeline,
    open_csi,
    open_network,
    open_pipeline,
    open_v4l2,
)
from velora_runtime.cameras.feeds import LiveSetup, Shot

from tests.fakes import FakeClock
from tests.fakes_cameras import ScriptedFeed
from tests.peers import free_port, peer, rtsp_server
from tests.videos import write_video
from velora_edge.errors import CameraError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

SETUP = LiveSetup(FakeClock(), threading.Event(), print)


def setup_of(notes: list[str] | None = None, **rgb: Any) -> LiveSetup:
    settings = CameraSettings(rgb=RGBSettings(**rgb))
    return LiveSetup(
        FakeClock(), threading.Event(), print if notes is None else notes.append, settings=settings
    )


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A gst-launch-1.0 that runs a shell script."""
    program = folder / "gst-launch-1.0"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_pipelines_pictures_come_with_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mkv", [0, 40_000])
    stand_in(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; exec cat {tmp_path}/v.mkv')
    camera = open_pipeline("gst://videotestsrc ! video/x-raw,format=I420", SETUP)
    camera.open()
    times = [shot.t_us for shot in (camera.read(), camera.read()) if shot is not None]
    assert times == [0, 40_000]
    with pytest.raises(CameraError, match=r"^the pipeline ended$"):
        camera.read()
    camera.close()
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-q videotestsrc ! video/x-raw,format=I420 ! queue leaky=downstream")
    assert asked.rstrip().endswith(
        "matroskamux streamable=true timecodescale=100000 ! fdsink fd=1 sync=false"
    )


def test_a_pipeline_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo WARNING: a >&2; echo ERROR: no sensor 0 >&2; echo more >&2; exit 1")
    with pytest.raises(CameraError, match=r"^cannot be opened: .*: ERROR: no sensor 0$"):
        open_csi("csi://0", SETUP).open()


def test_a_pipeline_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mkv", [0, 40_000])
    stand_in(tmp_path, monkeypatch, f"cat {tmp_path}/v.mkv; exec sleep 600")
    monkeypatch.setattr(gstreamer, "SILENCE_S", 0.3)
    camera = open_csi("csi://0", SETUP)
    camera.open()
    assert [shot is not None for shot in (camera.read(), camera.read())] == [True, True]
    with pytest.raises(CameraError, match=r"^the pipeline gave nothing for 0\.3 s$"):
        camera.read()
    process = camera._process
    camera.close()
    assert process is not None
    assert process.poll() is not None


def test_a_csi_camera_is_asked_for_what_the_user_wants() -> None:
    assert csi_pipeline(1, RGBSettings()) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30000/1000 "
        "! nvvidconv ! video/x-raw,format=I420"
    )
    asked = RGBSettings(width=1920, height=1080, rate_hz=59.94)
    assert "width=1920,height=1080,framerate=59940/1000" in csi_pipeline(0, asked)


def test_without_gstreamer_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        SourceError, match=r"^csi://0: needs gst-launch-1\.0; apt install gstreamer1\.0-tools"
    ):
        open_csi("csi://0", SETUP)


@pytest.mark.parametrize("text", ["csi://", "csi://front", "csi://0/1"])
def test_what_is_no_sensors_number_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match=f"^{text}: expected csi://N, the sensor's number; such as csi://0"):
        open_csi(text, SETUP)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="needs gst-launch-1.0")
def test_a_real_gstreamer_gives_pictures_at_its_own_rate() -> None:
    camera = GStreamerCamera(
        "test", "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=50/1"
    )
    try:
        camera.open()
    except CameraError as error:
        pytest.skip(f"this GStreamer lacks an element: {error}")
    try:
        shots = [camera.read() for _ in range(20)]
        times = [shot.t_us for shot in shots if shot is not None and shot.t_us is not None]
        gaps_us = sorted(b - a for a, b in pairwise(times))
        assert camera.size == (64, 48)
        assert gaps_us[len(gaps_us) // 2] == pytest.approx(20_000, abs=1_000)
    finally:
        camera.close()


# ---- in this process ------------------------------------------------------------------------------------


@pytest.fixture
def gst() -> None:
    """GStreamer's library and its elements for tests; Debian's."""
    if load_gstreamer() is None or not find_elements(("videotestsrc",)):
        pytest.skip("needs GStreamer's library: .ci/install-peers")


def images(camera: Any, n: int) -> list[np.ndarray]:
    """The next pictures."""
    found: list[np.ndarray] = []
    until_s = time.monotonic() + 20
    while len(found) < n:
        assert time.monotonic() < until_s, f"{len(found)} of {n} pictures came"
        shot = camera.read()
        found += [] if shot is None else [shot.render()]
    return found


def of_red(width: int, height: int, buffers: int = -1) -> str:
    return (
        f"videotestsrc pattern=solid-color foreground-color=0xff{0xC81E0A:06x} num-buffers={buffers} "
        f"! video/x-raw,format=RGB,width={width},height={height},framerate=50/1"
    )


@pytest.mark.usefixtures("gst")
@pytest.mark.parametrize("width", [8, 10])  # rows are padded to multiples of four bytes
def test_pictures_in_this_process_are_those_of_the_pipeline(width: int) -> None:
    camera = open_pipeline(f"gst://{of_red(width, 4, buffers=2)}", setup_of(gstreamer="appsink"))
    assert isinstance(camera, AppSinkCamera)
    camera.open()
    shots = [camera.read(), camera.read()]
    assert camera.size == (width, 4)
    assert [shot and shot.t_us for shot in shots] == [0, 20_000]
    assert shots[0] is not None
    np.testing.assert_array_equal(shots[0].render(), np.full((4, width, 3), (200, 30, 10), np.uint8))
    with pytest.raises(CameraError, match=r"^the pipeline ended$"):
        camera.read()
    camera.close()
    camera.close()


@pytest.mark.usefixtures("gst")
@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 48), (62, 46), (64, 47), (62, 47), (1280, 720)])
def test_either_way_the_pictures_are_the_same(size: tuple[int, int]) -> None:
    """But for how each makes colours of neighbours that share one."""
    text = (
        "videotestsrc pattern=solid-color foreground-color=0xff3264c8 "
        f"! video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=50/1"
    )
    found = []
    for camera in (AppSinkCamera("a", text), GStreamerCamera("b", text)):
        camera.open()
        found.append(images(camera, 1)[0].astype(int))
        camera.close()
    assert found[0].shape == found[1].shape == (size[1], size[0], 3)
    assert np.ptp(found[0], axis=(0, 1)).max() == 0
    assert np.abs(found[0] - found[1]).max() <= 3


@pytest.mark.usefixtures("gst")
def test_planes_are_put_together_in_their_places() -> None:
    """Black and white, of a width whose rows are padded."""
    text = "videotestsrc pattern=pinwheel num-buffers=1 ! video/x-raw,format=RGB,width=62,height=46"
    plain, planes = (
        AppSinkCamera("a", text),
        AppSinkCamera("b", f"{text} ! videoconvert ! video/x-raw,format=I420"),
    )
    found = []
    for camera in (plain, planes):
        camera.open()
        found.append(images(camera, 1)[0].astype(int))
        camera.close()
    grey = [image.mean(axis=2) for image in found]
    assert np.abs(grey[0] - grey[1]).max() <= 4
    assert np.ptp(grey[0]) > 200


@pytest.mark.usefixtures("gst")
def test_an_error_of_an_element_is_told_without_what_is_secret() -> None:
    camera = AppSinkCamera("a", "filesrc name=source ! decodebin", location="/none/rtsp://u:hunter2@host")
    with pytest.raises(CameraError, match=r'^cannot be opened: .*"/none/rtsp://\*\*\*@host"'):
        camera.open()


@pytest.mark.usefixtures("gst")
def test_a_pipeline_that_cannot_be_made_is_told_in_gstreamers_words() -> None:
    with pytest.raises(CameraError, match=r'^cannot be opened: no element "nosuchelement"$'):
        AppSinkCamera("a", "nosuchelement").open()


@pytest.mark.usefixtures("gst")
def test_a_pipeline_that_gives_nothing_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appsink, "OPEN_WAIT_S", 0.2)
    camera = AppSinkCamera("a", f"{of_red(8, 4)} ! valve drop=true")
    with pytest.raises(CameraError, match=r"^cannot be opened: it gives no pictures$"):
        camera.open()


@pytest.mark.usefixtures("gst")
def test_a_reader_that_is_slow_gets_the_newest_pictures() -> None:
    camera = AppSinkCamera("a", f"{of_red(8, 4).replace('videotestsrc', 'videotestsrc is-live=true')}")
    camera.open()
    assert camera.read() is not None
    time.sleep(0.5)  # 25 pictures; four have room, and what was on its way
    times = [
        shot.t_us for shot in (camera.read() for _ in range(6)) if shot is not None and shot.t_us is not None
    ]
    camera.close()
    assert times == sorted(times)
    assert times[-1] >= 400_000
    assert max(b - a for a, b in pairwise([0, *times])) >= 200_000


def test_without_the_library_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appsink, "load_gstreamer", lambda: None)
    with pytest.raises(SourceError, match=r"^csi://0: needs GStreamer's library; apt install libgstreamer"):
        open_csi("csi://0", setup_of(gstreamer="appsink"))


# ---- decoded by hardware, for which an element of GStreamer's own stands -----------------------------------


@pytest.fixture
def as_hardware(gst: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer, "DECODERS", ("jpegdec",))
    monkeypatch.setattr(gstreamer, "JPEG_DECODERS", ("jpegdec",))


def test_without_a_decoder_the_cpu_decodes_unless_hardware_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gstreamer, "DECODERS", ("nosuchdecoder",))
    assert isinstance(open_network("rtsp://host/camera", setup_of()), AvCamera)
    with pytest.raises(
        SourceError, match=r"^rtsp://host/camera: expected one of .* nosuchdecoder, there is none"
    ):
        open_network("rtsp://host/camera", setup_of(decoder="hardware"))


@pytest.mark.usefixtures("as_hardware")
@pytest.mark.parametrize(
    ("text", "rgb", "kind"),
    [
        ("rtsp://host/camera", {}, DecodedCamera),
        ("rtsp://host/camera", {"decoder": "hardware"}, AppSinkCamera),
        ("rtsp://host/camera", {"decoder": "software"}, AvCamera),
        ("http://host/camera", {}, AvCamera),
        ("0", {"pixel_format": "mjpeg"}, DecodedCamera),
        ("0", {"pixel_format": "yuyv422"}, AvCamera),
        ("0", {}, AvCamera),
    ],
)
def test_what_is_decoded_by_hardware(text: str, rgb: dict[str, Any], kind: type) -> None:
    opener = open_v4l2 if text.isdigit() else open_network
    assert type(opener(text, setup_of(**rgb))) is kind


@pytest.mark.usefixtures("as_hardware")
def test_a_v4l2_camera_is_asked_for_what_the_user_wants() -> None:
    rgb = {"pixel_format": "mjpeg", "width": 640, "height": 480, "rate_hz": 30, "decoder": "hardware"}
    camera = open_v4l2("2", setup_of(**rgb))
    assert isinstance(camera, AppSinkCamera)
    assert camera._text.startswith(
        "v4l2src name=source ! image/jpeg,width=640,height=480,framerate=30000/1000 ! decodebin ! queue"
    )
    assert camera._source == {"device": "/dev/video2"}


def test_where_hardware_does_not_decode_the_cpu_does_from_then_on() -> None:
    clock, notes = FakeClock(), list[str]()
    shot = Shot(lambda: np.zeros((2, 2, 3), np.uint8), 0)
    hardware: Any = ScriptedFeed(clock, opens=[CameraError("cannot be opened: no buffers")])
    software: Any = ScriptedFeed(clock, [(0, shot)])
    hardware.size, software.size = (0, 0), (2, 2)
    camera = DecodedCamera(hardware, software, notes.append)
    camera.open()
    camera.open()
    assert (camera.size, camera.read(), len(hardware.opened), len(software.opened)) == ((2, 2), shot, 1, 2)
    assert notes == ["scripted: decoded on the CPU, for in hardware it cannot be opened: no buffers"]


def test_hardware_that_has_decoded_is_waited_for_after_a_loss() -> None:
    clock = FakeClock()
    hardware: Any = ScriptedFeed(clock, opens=[True, CameraError("away"), True])
    software: Any = ScriptedFeed(clock)
    hardware.size = software.size = (2, 2)
    camera = DecodedCamera(hardware, software, print)
    camera.open()
    with pytest.raises(CameraError, match="away"):
        camera.open()
    camera.open()
    assert (len(hardware.opened), len(software.opened)) == (3, 0)


@pytest.mark.usefixtures("as_hardware")
@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_real_rtsp_server_with_a_password_is_decoded_and_back_after_a_restart(transport: str) -> None:
    port = free_port()
    command = rtsp_server(port, "admin", "hunter2")
    notes: list[str] = []
    camera = open_network(
        f"rtsp://admin:hunter2@127.0.0.1:{port}/camera", setup_of(notes, transport=transport)
    )
    with peer(command, ready=b"ready"):
        camera.open()
        assert camera.size == (320, 240)
        assert all(image.any() for image in images(camera, 20))
    with pytest.raises(CameraError):
        images(camera, 1000)
    camera.close()
    with pytest.raises(CameraError, match=r"^cannot be opened: "):
        camera.open()
    with peer(command, ready=b"ready"):
        camera.open()
        images(camera, 20)
        camera.close()
    assert notes == []


@pytest.mark.usefixtures("as_hardware")
@pytest.mark.slow
def test_a_real_rtsp_server_that_stands_still_gives_nothing_and_then_goes_on() -> None:
    port = free_port()
    camera = open_network(f"rtsp://127.0.0.1:{port}/camera", setup_of(decoder="hardware"))
    with peer(rtsp_server(port), ready=b"ready") as server:
        camera.open()
        images(camera, 10)
        server.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        while camera.read() is not None:
            pass
        assert [camera.read() for _ in range(5)] == [None] * 5
        server.send_signal(signal.SIGCONT)
        images(camera, 10)
        camera.close()


@pytest.mark.usefixtures("as_hardware")
@pytest.mark.slow
def test_a_wrong_password_is_refused_either_way_and_not_told() -> None:
    port = free_port()
    camera = open_network(f"rtsp://admin:wr0ng@127.0.0.1:{port}/camera", setup_of())
    with (
        peer(rtsp_server(port, "admin", "hunter2"), ready=b"ready"),
        pytest.raises(CameraError, match=r"^cannot be opened: .*401") as told,
    ):
        camera.open()
    assert "wr0ng" not in str(told.value)


# ---- CSI, with GStreamer's own elements in the place of NVIDIA's ------------------------------------------


def csi_by_test_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gst-launch-1.0 that runs the real one with other elements."""
    real = shutil.which("gst-launch-1.0")
    if real is None:
        pytest.skip("needs gst-launch-1.0: .ci/install-peers")
    swaps = "; ".join(
        (
            "s/^nvarguscamerasrc$/videotestsrc is-live=true/",
            "s/^sensor-id=.*//",
            "s/(memory:NVMM)//",
            "s/^nvvidconv$/videoconvert/",
        )
    )
    script = f'exec {real} $(for word in "$@"; do echo "$word" | sed "{swaps}"; done)'
    stand_in(folder, monkeypatch, script)


@pytest.mark.slow
def test_a_csi_camera_is_read_by_a_real_gstreamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csi_by_test_pictures(tmp_path, monkeypatch)
    camera = open_csi("csi://0", setup_of(width=64, height=48, rate_hz=50))
    camera.open()
    shots = [camera.read() for _ in range(20)]
    camera.close()
    times = [shot.t_us for shot in shots if shot is not None and shot.t_us is not None]
    gaps_us = sorted(b - a for a, b in pairwise(times))
    assert (camera.size, len(times)) == ((64, 48), 20)
    assert gaps_us[len(gaps_us) // 2] == pytest.approx(20_000, abs=1_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "the pipeline ended"), (signal.SIGSTOP, "the pipeline gave nothing for 0.5 s")],
)
def test_a_csi_pipeline_that_dies_or_stands_still_is_lost_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    csi_by_test_pictures(tmp_path, monkeypatch)
    camera: Any = open_csi("csi://0", setup_of(width=64, height=48, rate_hz=50))
    camera.open()
    assert camera.read() is not None
    monkeypatch.setattr(gstreamer, "SILENCE_S", 0.5)
    camera._pipe._wait_s = 0.5
    camera._process.send_signal(number)
    with pytest.raises(CameraError, match=f"^{reason}"):
        images(camera, 1000)
    camera.close()
    camera.open()
    images(camera, 5)
    camera.close()
