"""Driver of RGB cameras by GStreamer: a Jetson's CSI cameras (`csi://0`), any pipeline (`gst://ELEMENTS`).

So are RTSP streams and motion JPEG of V4L2 cameras, where a hardware decoder is there.

A pipeline runs in a process of its own, gst-launch-1.0, and hands its pictures over a pipe as Matroska, which
keeps their times: a driver that hangs can be ended. Or it runs in this process (`appsink.py`), where the user
asks for it, and where the address may hold a password, which a process's arguments would show.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any

from velora_edge.errors import Address, CameraError, SourceError, redact
from velora_runtime.cameras.drivers import av_camera
from velora_runtime.cameras.drivers.appsink import AppSinkCamera, find_elements
from velora_runtime.cameras.drivers.av_camera import SILENCE_S, AvCamera

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.cameras.camera_settings import RGBSettings
    from velora_runtime.cameras.feeds import LiveSetup, RGBFeed, Shot

LAUNCH = "gst-launch-1.0"
TO_PIPE = (
    "queue leaky=downstream max-size-buffers=2 ! videoconvert "
    "! video/x-raw,width=[8,32768,8],height=[2,32768,2];video/x-raw,format=UYVY,width=[2,32768,2] "
    "! matroskamux streamable=true timecodescale=100000 ! fdsink fd=1 sync=false"
)
"""Rows and planes of other sizes are padded, which Matroska does not tell; those of UYVY are not."""
SIZE, RATE_HZ = (1280, 720), 30.0
"""What a CSI camera is asked for where nobody says."""
END_WAIT_S = 2.0


class _Pipe:
    """The reading end of a pipe that is taken for ended where nothing comes for `wait_s`."""

    def __init__(self, stream: IO[bytes], wait_s: float) -> None:
        self.is_silent = False
        self._stream, self._wait_s = stream, wait_s

    def read(self, n_bytes: int) -> bytes:
        ready, _, _ = select.select([self._stream], [], [], self._wait_s)
        self.is_silent = not ready
        return os.read(self._stream.fileno(), n_bytes) if ready else b""


class GStreamerCamera(AvCamera):
    """A pipeline that ends in raw pictures. Single-threaded: the camera's thread.

    Args:
        name: what the user called it.
        pipeline: elements up to the raw pictures, as for gst-launch-1.0.

    Raises:
        SourceError: if there is no gst-launch-1.0.
    """

    def __init__(self, name: str, pipeline: str) -> None:
        super().__init__(name, None, "matroska")
        launch = shutil.which(LAUNCH)
        if launch is None:
            raise SourceError(
                f"needs {LAUNCH}",
                path=name,
                remedy="apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
            )
        self._command = [launch, "-q", *f"{pipeline} ! {TO_PIPE}".split()]
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._last_words = ""
        self._pipe: _Pipe | None = None

    def connect(self) -> Any:
        """Start the pipeline; its output."""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody reads would block it)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
        )
        assert self._process.stdout is not None
        self._pipe = _Pipe(self._process.stdout, SILENCE_S)
        return self._pipe

    def open(self) -> None:
        """Start the pipeline and wait for its first picture."""
        try:
            super().open()
        except CameraError as error:
            raise CameraError(f"{error}{self._complaint()}") from error

    def ended(self) -> CameraError:
        """The pipeline ended, for the reason that it gave, or hangs."""
        if self._pipe is not None and self._pipe.is_silent:
            return CameraError(f"the pipeline gave nothing for {SILENCE_S:g} s{self._complaint()}")
        return CameraError(f"the pipeline ended{self._complaint()}")

    def close(self) -> None:
        """End the pipeline."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(END_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().close()
        if process is not None and process.stdout is not None:
            process.stdout.close()
        if self._said is not None:
            self._last_words = self._complaint()
            self._said.close()
            self._said = None

    def _complaint(self) -> str:
        """The first error that the pipeline printed."""
        if self._said is None:
            return self._last_words
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        found = next((line for line in lines if "ERROR" in line), lines[-1] if lines else "")
        return f": {redact(found.strip())}" if found else ""


Pipeline = GStreamerCamera | AppSinkCamera


def _make(name: str, pipeline: str, setup: LiveSetup) -> Pipeline:
    """A pipeline as the user wants it run."""
    kind = AppSinkCamera if setup.settings.rgb.gstreamer == "appsink" else GStreamerCamera
    return kind(name, pipeline)


def open_csi(text: str, setup: LiveSetup) -> Pipeline:
    """A Jetson's CSI camera, `csi://N`.

    Raises:
        SourceError: if the text is no such source, or GStreamer is not installed.
    """
    found = re.fullmatch(r"csi://(\d+)", text)
    if found is None:
        raise SourceError("expected csi://N, the sensor's number", path=text, remedy="such as csi://0")
    return _make(text, csi_pipeline(int(found[1]), setup.settings.rgb), setup)


def csi_pipeline(number: int, settings: RGBSettings) -> str:
    """Elements that take pictures from a CSI sensor and bring them out of the GPU's memory."""
    width, height = settings.width or SIZE[0], settings.height or SIZE[1]
    rate = f"{round((settings.rate_hz or RATE_HZ) * 1000)}/1000"
    return (
        f"nvarguscamerasrc sensor-id={number} "
        f"! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} "
        "! nvvidconv ! video/x-raw,format=I420"
    )


def open_pipeline(text: str, setup: LiveSetup) -> Pipeline:
    """Any pipeline that ends in raw pictures: `gst://v4l2src ! videoconvert ! video/x-raw,format=I420`."""
    address = Address(text)
    return _make(address, address.secret.removeprefix("gst://"), setup)


DECODERS = (
    "nvv4l2decoder",
    "nvh264dec",
    "nvh265dec",
    "vah264dec",
    "vah265dec",
    "v4l2h264dec",
    "v4l2slh264dec",
)
JPEG_DECODERS = ("nvjpegdec", "vajpegdec", "v4l2jpegdec")
"""Elements of hardware decoders: of Jetsons, of NVIDIA's, Intel's and AMD's GPUs, of small boards."""
LATENCY_MS = 100
"""How long rtspsrc waits for packets that are late."""


class DecodedCamera:
    """A camera whose pictures hardware decodes, or, where that does not work, the CPU.

    What has worked is kept. Single-threaded: the camera's thread.

    Args:
        hardware: by GStreamer.
        software: by PyAV.
        note: gets a line where the second takes the place of the first.

    Attributes:
        size: width and height, pixels, once it was opened.
    """

    may_be_silent = False
    comes_back = True

    def __init__(self, hardware: RGBFeed, software: RGBFeed, note: Callable[[str], None]) -> None:
        self.name, self.size = software.name, (0, 0)
        self._software, self._note = software, note
        self._used, self._has_worked = hardware, False

    def open(self) -> None:
        """Connect: at first in the one way, and where that fails in the other."""
        try:
            self._used.open()
        except CameraError as error:
            if self._has_worked:
                raise
            self._software.open()
            self._used = self._software
            self._note(f"{self.name}: decoded on the CPU, for in hardware it {error}")
        self.size, self._has_worked = self._used.size, True

    def read(self) -> Shot | None:
        """The next picture."""
        return self._used.read()

    def close(self) -> None:
        """Let go of it."""
        self._used.close()


def open_network(text: str, setup: LiveSetup) -> RGBFeed:
    """A network stream; the pictures of an RTSP stream are decoded by hardware where there is a decoder.

    Raises:
        SourceError: if hardware is required, and there is none.
    """
    software = av_camera.open_network(text, setup)
    if not re.match(r"rtsps?://", text, re.IGNORECASE):
        return software
    transport = setup.settings.rgb.transport
    source = f"rtspsrc name=source latency={LATENCY_MS} protocols={transport} ! application/x-rtp,media=video"
    return _decoded(software, DECODERS, source, setup, location=Address(text).secret)


def open_v4l2(text: str, setup: LiveSetup) -> RGBFeed:
    """A V4L2 camera; motion JPEG (`rgb.pixel_format: mjpeg`) is decoded by hardware where there is a decoder.

    Raises:
        SourceError: if hardware is required, and there is none.
    """
    software, rgb = av_camera.open_v4l2(text, setup), setup.settings.rgb
    if rgb.pixel_format != "mjpeg":
        return software
    asked = "image/jpeg"
    if rgb.width is not None:
        asked += f",width={rgb.width},height={rgb.height}"
    if rgb.rate_hz is not None:
        asked += f",framerate={round(rgb.rate_hz * 1000)}/1000"
    device = f"/dev/video{text}" if text.isdigit() else text
    return _decoded(software, JPEG_DECODERS, f"v4l2src name=source ! {asked}", setup, device=device)


def _decoded(
    software: AvCamera, decoders: tuple[str, ...], source: str, setup: LiveSetup, **properties: str
) -> RGBFeed:
    """The camera as the user wants it decoded; `properties` are those of the source, such as its address."""
    asked = setup.settings.rgb.decoder
    if asked == "software":
        return software
    if not find_elements(decoders):
        if asked == "auto":
            return software
        raise SourceError(
            f"expected one of GStreamer's elements {', '.join(decoders)}, there is none",
            path=software.name,
            remedy="install the maker's GStreamer plugins, or leave out rgb.decoder: hardware",
        )
    # A Jetson's decoders leave pictures in the GPU's memory; elsewhere they give them in the host's.
    fetch = " ! nvvidconv ! video/x-raw,format=I420" if find_elements(("nvvidconv",)) else ""
    hardware = AppSinkCamera(software.name, f"{source} ! decodebin{fetch}", **properties)
    return hardware if asked == "hardware" else DecodedCamera(hardware, software, setup.note)
