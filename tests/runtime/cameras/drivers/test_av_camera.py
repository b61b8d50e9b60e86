"""Live pictures by PyAV: times where the stream has any, and the ways in which a stream ends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from velora_runtime.cameras.camera_settings import CameraSettings, RGBSettings
from velora_runtime.cameras.drivers.av_camera import AvCamera, open_network, open_v4l2, v4l2_options
from velora_runtime.cameras.feeds import LiveSetup

from tests.fakes import FakeClock
from tests.videos import write_video
from velora_edge.errors import CameraError

if TYPE_CHECKING:
    from pathlib import Path

TIMES_US = [0, 33_333, 100_000]


def setup(**settings: object) -> LiveSetup:
    of_cameras = CameraSettings.model_validate({"rgb": settings})
    return LiveSetup(FakeClock(), threading.Event(), print, settings=of_cameras)


def read_all(camera: AvCamera) -> list[tuple[int | None, str, int]]:
    """Time, clock and grey of each picture until the stream ends."""
    found: list[tuple[int | None, str, int]] = []
    with pytest.raises(CameraError, match=r"^the stream ended$"):
        read_on(camera, found)
    return found


def read_on(camera: AvCamera, found: list[tuple[int | None, str, int]]) -> None:
    while True:
        shot = camera.read()
        if shot is not None:
            image = shot.render()
            assert (image.shape, image.dtype) == ((32, 48, 3), np.uint8)
            found.append((shot.t_us, shot.clock, round(int(image[16, 24, 0]) / 10) * 10))


def test_pictures_have_the_streams_times(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", TIMES_US)
    camera = AvCamera("v", str(tmp_path / "v.mkv"))
    camera.open()
    assert camera.size == (48, 32)
    found = read_all(camera)
    assert [(clock, grey) for _, clock, grey in found] == [("device", 0), ("device", 10), ("device", 20)]
    assert [abs((t_us or 0) - wanted) <= 1000 for (t_us, _, _), wanted in zip(found, TIMES_US, strict=True)]
    camera.close()
    camera.close()


def test_a_stream_can_be_opened_again(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", TIMES_US)
    camera = AvCamera("v", str(tmp_path / "v.mkv"))
    for _ in range(2):
        camera.open()
        assert len(read_all(camera)) == 3


def test_motion_jpeg_has_no_times_and_none_are_made_up(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mjpeg"), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        for k in range(3):
            image = np.full((32, 48, 3), 10 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    camera = AvCamera("v", str(tmp_path / "v.mjpeg"))
    camera.open()
    assert [t_us for t_us, _, _ in read_all(camera)] == [None, None, None]


@pytest.mark.parametrize("name", ["missing.mkv", "text.mkv", "/dev/video99"])
def test_what_cannot_be_opened_is_a_camera_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.mkv").write_text("no video")
    with pytest.raises(CameraError, match=r"^cannot be opened: "):
        AvCamera("v", str(tmp_path / name)).open()


def test_damaged_pictures_are_passed_over_and_none_is_without_its_time(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv", [33_333 * k for k in range(60)])
    data = bytearray((tmp_path / "v.mkv").read_bytes())
    rng = np.random.default_rng(2)
    for place in rng.integers(len(data) // 3, 2 * len(data) // 3, 40):
        data[place] = int(rng.integers(256))
    (tmp_path / "v.mkv").write_bytes(data)
    camera = AvCamera("v", str(tmp_path / "v.mkv"))
    camera.open()
    times = [t_us for t_us, _, _ in read_all(camera)]
    assert 1 < len(times) < 60
    assert None not in times


def test_times_near_the_machines_own_clock_are_of_that_clock(tmp_path: Path) -> None:
    now_us = round(time.monotonic() * 1e6)
    write_video(tmp_path / "v.mkv", [now_us, now_us + 33_333])
    device = AvCamera("0", str(tmp_path / "v.mkv"), is_device=True)
    device.open()
    assert [clock for _, clock, _ in read_all(device)] == ["host", "host"]
    network = AvCamera("http://x", str(tmp_path / "v.mkv"))
    network.open()
    assert [clock for _, clock, _ in read_all(network)] == ["device", "device"]


def test_settings_become_options_of_ffmpegs_inputs() -> None:
    asked = RGBSettings(width=640, height=480, rate_hz=29.97, pixel_format="mjpeg")
    assert v4l2_options(asked) == {
        "video_size": "640x480",
        "framerate": "29.97",
        "input_format": "mjpeg",
    }
    assert v4l2_options(RGBSettings()) == {}
    assert (open_v4l2("2", setup())._target, open_v4l2("/dev/video4", setup())._target) == (
        "/dev/video2",
        "/dev/video4",
    )
    rtsp = open_network("rtsp://camera/1", setup(transport="udp"))
    assert (rtsp._options["rtsp_transport"], rtsp._options["fflags"]) == ("udp", "nobuffer")
    assert "rtsp_transport" not in open_network("http://camera/1", setup())._options
