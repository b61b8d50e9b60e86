"""GStreamer's pipelines as processes: what they are asked, what they give, how they fail."""

from __future__ import annotations

import os
import shutil
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from velora_runtime.cameras.camera_settings import RGBSettings
from velora_runtime.cameras.drivers import gstreamer
from velora_runtime.cameras.drivers.gstreamer import GStreamerCamera, csi_pipeline, open_csi, open_pipeline
from velora_runtime.cameras.feeds import LiveSetup

from tests.fakes import FakeClock
from tests.videos import write_video
from velora_edge.errors import CameraError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

SETUP = LiveSetup(FakeClock(), threading.Event(), print)


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
