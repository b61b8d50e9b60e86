"""Texts that a user or another program gives: configurations, calibrations, recordings, options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.inference.decision import read_decision_settings
from velora_runtime.sinks.mqtt import Broker
from velora_runtime.web.access import Address as ServeAddress

from velora_edge.bundle import MANIFEST, find_model, read_manifest
from velora_edge.config import load_config, read_labels
from velora_edge.errors import Address, VeloraError
from velora_edge.events.filters.filters import read_rate
from velora_edge.events.geometry.calibration_files import read_calibration, read_mask
from velora_edge.preprocessing.folder import INFO, TIMES, TRIGGERS, read_recording
from velora_edge.preprocessing.sync import parse_mode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path


LONGEST_MESSAGE = 20_000
_PARTED = b"\n--8<--\n"
_KALIBR = b"""cam0:
  camera_model: pinhole
  intrinsics: [55.0, 56.0, 32.0, 23.0]
  distortion_model: equidistant
  distortion_coeffs: [0.01, -0.02, 0.003, 0.0]
  resolution: [64, 48]
  rostopic: /rgb/image_raw
cam1:
  camera_model: pinhole
  intrinsics: [30.0, 31.0, 15.5, 12.0]
  distortion_model: radtan
  distortion_coeffs: [-0.2, 0.05, 0.001, -0.001]
  resolution: [32, 24]
  rostopic: /dvs/image
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, 0.05]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
"""
_OPENCV = b"""%YAML:1.0
---
image_width: 32
image_height: 24
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 30., 0., 15.5, 0., 31., 12., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: 4
   dt: d
   data: [ -0.2, 0.05, 0.001, -0.001 ]
"""
_HOMOGRAPHY = b"homography:\n- [2, 0, 1]\n- [0, 2, 3]\n- [0, 0, 1]\nresolution: [64, 48]\n"
_CAMERAS = b"""prophesee:
  biases: {bias_diff_on: 20}
  roi: [{x: 0, y: 0, width: 10, height: 10}]
  erc: {enabled: true, events_per_s: 1000}
rgb: {width: 640, height: 480, rate_hz: 30.0, delay_us: -5}
"""
_RECORDING = {
    "v": 1,
    "started": "2026-01-01T00:00:00.000+00:00",
    "ended": "2026-01-01T00:00:01.000+00:00",
    "why_ended": "asked for",
    "model": {"name": "demo", "path": "demo"},
    "events": {"source": "tcp://h:1", "encoding": "EVT3", "sensor": [64, 48]},
    "video": {"source": "0", "height": 48, "width": 64},
    "counts": {"frames": 2},
    "dropped": {},
    "first_us": 0,
    "last_us": 5,
}


def _config(path: Path, rng: random.Random) -> None:
    load_config(path, CameraSettings)


def _calibration(path: Path, rng: random.Random) -> None:
    read_calibration(str(path) + rng.choice(("", "#cam1", "#cam1:cam0")), (32, 24))


def _mask(path: Path, rng: random.Random) -> None:
    json_path = path.with_suffix(".json")
    json_path.write_bytes(path.read_bytes())
    read_mask(json_path)


def _manifest(path: Path, rng: random.Random) -> None:
    folder = path.parent / "bundle.velora"
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(path.read_bytes())
    read_manifest(folder)


def _recording(path: Path, rng: random.Random) -> None:
    folder = path.parent / "recording"
    folder.mkdir(exist_ok=True)
    parts = [*path.read_bytes().split(_PARTED), b"", b""]
    for name, data in zip((INFO, TIMES, TRIGGERS), parts, strict=False):
        (folder / name).write_bytes(data)
    recording = read_recording(folder)
    recording.triggers()
    recording.times_us()


def _labels(path: Path, rng: random.Random) -> None:
    read_labels(path)


def _decide(path: Path, rng: random.Random) -> None:
    words = path.read_bytes().decode("utf-8", "replace").split("\n")
    # A word without = is another file's name.
    read_decision_settings([*[word for word in words if "=" in word][:8], str(path)])


OPTIONS: dict[str, Callable[[str], object]] = {
    "serve": ServeAddress.parse,
    "publish": Broker.parse,
    "sync": parse_mode,
    "rate": read_rate,
    "address": Address,
}


def _option(path: Path, rng: random.Random) -> None:
    name, _, value = path.read_bytes().decode("utf-8", "surrogateescape").partition(" ")
    for known, read in OPTIONS.items():
        if name in (known, ""):
            read(value)


def check_line(error: VeloraError) -> None:
    """An error of ours is one line of bounded length."""
    message = str(error)
    assert "\n" not in message, message
    assert len(message) < LONGEST_MESSAGE, len(message)


def text_check(read: Callable[[Path, random.Random], None]) -> Callable[[Path, random.Random], str]:
    """The check of a reader: what it cannot read is one error of ours, of one line that can be printed."""

    def check(path: Path, rng: random.Random) -> str:
        try:
            read(path, rng)
        except VeloraError as error:
            check_line(error)
            return "refused"
        return "events"

    return check


TEXTS: dict[str, tuple[Callable[[Path, random.Random], None], tuple[Callable[[], bytes], ...]]] = {
    "config": (_config, (lambda: _CAMERAS,)),
    "calibration": (_calibration, (lambda: _KALIBR, lambda: _OPENCV, lambda: _HOMOGRAPHY)),
    "mask": (_mask, (lambda: b'{"sensor": [32, 24], "hot_pixels": [[1, 2], [31, 23]]}',)),
    "manifest": (_manifest, (lambda: (find_model("demo") / MANIFEST).read_bytes(),)),
    "recording": (
        _recording,
        (lambda: _PARTED.join((json.dumps(_RECORDING).encode(), b"0\n5\n", b"1,0,1\n2,0,0\n")),),
    ),
    "labels": (_labels, (lambda: b"wave\nnod\n\nstill \n",)),
    "decide": (_decide, (lambda: b"smooth_ms: 300\nenter: 0.6\n", lambda: b"enter=0.5\nidle=[a, b]\n")),
    "option": (
        _option,
        tuple(
            (lambda text=text: text)  # type: ignore[misc]
            for text in (
                b"serve [::1]:8080",
                b"publish mqtts://me:p%40ss@host:8883/a/b",
                b"sync offset=-300",
                b"rate 5M",
                b"address rtsp://me:pass@camera:554/s?a=b",
            )
        ),
    ),
}
