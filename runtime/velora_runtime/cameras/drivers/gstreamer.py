"""Driver of RGB cameras by GStreamer: a Jetson's CSI cameras (`csi://0`), any pipeline (`gst://ELEMENTS`).

The pipeline runs in a process of its own, gst-launch-1.0, and hands its pictures over a pipe as Matroska,
which keeps their times. So neither an OpenCV with GStreamer is needed (the index's has none, and takes the
place of JetPack's) nor GStreamer's Python, and a driver that hangs can be ended.
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
from velora_runtime.cameras.drivers.av_camera import SILENCE_S, AvCamera

if TYPE_CHECKING:
    from velora_runtime.cameras.camera_settings import RGBSettings
    from velora_runtime.cameras.feeds import LiveSetup

LAUNCH = "gst-launch-1.0"
TO_PIPE = (
    "queue leaky=downstream max-size-buffers=2 ! matroskamux streamable=true timecodescale=100000 "
    "! fdsink fd=1 sync=false"
)
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


def open_csi(text: str, setup: LiveSetup) -> GStreamerCamera:
    """A Jetson's CSI camera, `csi://N`.

    Raises:
        SourceError: if the text is no such source, or GStreamer is not installed.
    """
    found = re.fullmatch(r"csi://(\d+)", text)
    if found is None:
        raise SourceError("expected csi://N, the sensor's number", path=text, remedy="such as csi://0")
    return GStreamerCamera(text, csi_pipeline(int(found[1]), setup.settings.rgb))


def csi_pipeline(number: int, settings: RGBSettings) -> str:
    """Elements that take pictures from a CSI sensor and bring them out of the GPU's memory."""
    width, height = settings.width or SIZE[0], settings.height or SIZE[1]
    rate = f"{round((settings.rate_hz or RATE_HZ) * 1000)}/1000"
    return (
        f"nvarguscamerasrc sensor-id={number} "
        f"! video/x-raw(memory:NVMM),width={width},height={height},framerate={rate} "
        "! nvvidconv ! video/x-raw,format=I420"
    )


def open_pipeline(text: str, setup: LiveSetup) -> GStreamerCamera:
    """Any pipeline that ends in raw pictures: `gst://v4l2src ! videoconvert ! video/x-raw,format=I420`."""
    address = Address(text)
    return GStreamerCamera(address, address.secret.removeprefix("gst://"))
