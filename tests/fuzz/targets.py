"""Readers of text and JSON, each as a function that a fuzzer calls: our own error of one line, or a value.

`TARGETS` lists them by name. A target takes any bytes; what it lets pass but a `VeloraError` (or a
`ValueError` of a plain parser) is a finding, and so are a line that cannot be printed and one without end.
`test_targets.py` runs each for a moment on its seeds and on changed ones.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.inference.decision import read_decision_settings
from velora_runtime.sinks.publishers import Broker
from velora_runtime.web.access import Address as ServeAddress

from velora_edge.bundle import MANIFEST, find_model, read_manifest
from velora_edge.config import Section, load_config, read_labels
from velora_edge.errors import Address, VeloraError
from velora_edge.events.filters.filters import read_rate
from velora_edge.events.formats.raw.raw_header import parse_header
from velora_edge.events.geometry.calibration_files import read_calibration, read_mask
from velora_edge.events.registry import open_events
from velora_edge.limits import load_json, load_yaml, parse_int
from velora_edge.ort import external_files
from velora_edge.preprocessing.folder import INFO, TIMES, TRIGGERS, read_recording
from velora_edge.preprocessing.pictures import ImageFolder
from velora_edge.preprocessing.sync import parse_mode
from velora_edge.vision import decode_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_LINE = 3000
_PARTED = b"\n--8<--\n"
"""Between a recording's files, which a target takes as one."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        run: reads any bytes; raises where the reader is at fault.
        seeds: what it reads without an error.
    """

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


@cache
def folder() -> Path:
    """Where the files lie that are read; one for the whole process."""
    return Path(tempfile.mkdtemp(prefix="velora-fuzz-"))


@contextmanager
def ours() -> Iterator[None]:
    """Lets our own errors pass, if they are one line that can be printed."""
    try:
        yield
    except VeloraError as error:
        check_line(str(error))


def check_line(text: str) -> None:
    """A message for people: one line, of bounded length, that any terminal can be given."""
    assert "\n" not in text, text
    assert len(text) < LONGEST_LINE, text[:LONGEST_LINE]
    text.encode("utf-8")


def _write(name: str, data: bytes) -> Path:
    path = folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def read_json_text(data: bytes) -> None:
    """JSON from anywhere; what is read can be written again."""
    try:
        value = load_json(data)
    except ValueError as error:
        check_line(str(error))
        return
    json.dumps(value).encode("utf-8")


def read_yaml_text(data: bytes) -> None:
    """YAML from anywhere."""
    try:
        load_yaml(data.decode("utf-8", "replace"))
    except ValueError as error:
        check_line(str(error))


def read_integer(data: bytes) -> None:
    """A whole number."""
    number = parse_int(data.decode("utf-8", "replace"))
    assert number is None or -(2**62) <= number <= 2**62


def read_recording_folder(data: bytes) -> None:
    """A recording's facts, times and triggers, one after another."""
    for name, part in zip((INFO, TIMES, TRIGGERS), [*data.split(_PARTED), b"", b""], strict=False):
        _write(f"recording/{name}", part)
    with ours():
        found = read_recording(folder() / "recording")
        for warning in found.warnings:
            check_line(warning)
        json.dumps([found.facts.model, found.facts.events, found.facts.video, found.facts.counts])
        if found.facts.model is not None:
            assert isinstance(found.facts.model["path"], str)
        found.triggers()
        found.times_us()


def read_image_times(data: bytes) -> None:
    """An image folder's `timestamps.txt`."""
    for name in ("a.png", "b.png"):
        _write(f"images/{name}", _picture(".png"))
    _write("images/timestamps.txt", data)
    with ours():
        ImageFolder(str(folder() / "images")).times_us()


def read_bundle_manifest(data: bytes) -> None:
    """A bundle's `manifest.json`."""
    _write(f"bundle/{MANIFEST}", data)
    with ours():
        check_line(read_manifest(folder() / "bundle").name[:100])


class _Inner(Section):
    rate: float = 1.0


class _Config(Section):
    name: str = ""
    size: int = 1
    inner: _Inner = _Inner()


def read_config(data: bytes) -> None:
    """A configuration file."""
    with ours():
        load_config(_write("config.yaml", data), _Config)


def read_camera_settings(data: bytes) -> None:
    """The file of `--cameras`."""
    with ours():
        load_config(_write("cameras.yaml", data), CameraSettings)


def read_class_names(data: bytes) -> None:
    """A file of labels."""
    with ours():
        read_labels(_write("labels.txt", data))


def read_decisions(data: bytes) -> None:
    """What `--decide` is given: `key=value`, or a file."""
    path = _write("decide.yaml", data)
    words = data.decode("utf-8", "replace").split("\n")
    with ours():  # a word without = is another file's name
        read_decision_settings([*[word for word in words if "=" in word][:8], str(path)])


OPTIONS: dict[str, Callable[[str], object]] = {
    "serve": ServeAddress.parse,
    "publish": Broker.parse,
    "sync": parse_mode,
    "rate": read_rate,
    "address": Address,
}


def read_option(data: bytes) -> None:
    """The name of an option and its value; a value without a name goes to all of them."""
    name, _, value = data.decode("utf-8", "surrogateescape").partition(" ")
    for known, read in OPTIONS.items():
        if name in (known, ""):
            with ours():
                read(value)


def read_override(data: bytes) -> None:
    """A `key=value` of the command line."""
    path = _write("empty.yaml", b"{}")
    with ours():
        load_config(path, _Config, [data.decode("utf-8", "replace")])


def read_calibration_yaml(data: bytes) -> None:
    """A lens calibration."""
    path = _write("calibration.yaml", data)
    with ours():
        read_calibration(str(path), (20, 10))


def read_hot_pixels(data: bytes) -> None:
    """A list of hot pixels."""
    path = _write("mask.json", data)
    with ours():
        read_mask(path)


def _read_events(name: str, data: bytes) -> None:
    path = _write(name, data)
    with ours(), open_events(path) as reader:
        for batch in reader:
            assert int(batch.x.max()) < reader.width
            assert int(batch.y.max()) < reader.height
        reader.triggers()
        for warning in reader.warnings:
            check_line(warning)


def read_csv(data: bytes) -> None:
    """Events as text."""
    _read_events("events.csv", data)


def read_dat_header(data: bytes) -> None:
    """A DAT file."""
    _read_events("events.dat", data)


def read_raw_header(data: bytes) -> None:
    """The header of raw words."""
    with ours():
        parse_header(data)


def read_graph(data: bytes) -> None:
    """The files that an ONNX graph refers to."""
    try:
        external_files(data)
    except ValueError as error:
        check_line(str(error))


def read_picture(data: bytes) -> None:
    """A picture of any kind."""
    try:
        picture = decode_picture(data)
    except ValueError as error:
        check_line(str(error))
        return
    assert picture is None or picture.shape[2] == 3


@cache
def _picture(ending: str) -> bytes:
    return bytes(cv2.imencode(ending, np.full((6, 8, 3), 100, np.uint8))[1])


_FACTS = json.dumps(
    {
        "v": 1, "started": "2026-01-01T00:00:00.000+00:00", "ended": "x", "why_ended": "asked for",
        "model": {"name": "demo", "path": "demo"},
        "events": {"source": "x", "encoding": "EVT3", "sensor": [64, 48]},
        "video": {"source": "y", "height": 48, "width": 64}, "counts": {"frames": 5}, "dropped": {"gaps": 0},
        "first_us": 5, "last_us": 9,
    }
).encode()  # fmt: skip
_RECORDINGS = (
    (_FACTS, b"0\n5\n", b"t_us,id,p\n5,0,1\n9,1,0\n"),
    (b'{"v": 1, "ended": null}', b"5\n10\n20\n", b"1,0,1\n2,0,0\n"),
    (b'{"v": 1, "ended": "x"}', b"-3\n0\n"),
)
_OPENCV = (
    b"%YAML:1.0\n"
    b"---\n"
    b"image_width: 20\n"
    b"image_height: 10\n"
    b"camera_matrix: !!opencv-matrix\n"
    b"   rows: 3\n"
    b"   cols: 3\n"
    b"   dt: d\n"
    b"   data: [9., 0., 9., 0., 9., 5., 0., 0., 1.]\n"
    b"distortion_coefficients: [0.1, 0.01, 0, 0, 0]\n"
)
_KALIBR = (
    b"cam0:\n"
    b"  intrinsics: [9, 9, 9, 5]\n"
    b"  resolution: [20, 10]\n"
    b"  distortion_model: radtan\n"
    b"  distortion_coeffs: [0, 0, 0, 0]\n"
    b"  rostopic: /dvs/image\n"
    b"cam1:\n"
    b"  intrinsics: [9, 9, 9, 5]\n"
    b"  resolution: [30, 20]\n"
    b"  T_cn_cnm1: [[1,0,0,0.1],[0,1,0,0],[0,0,1,0],[0,0,0,1]]\n"
)
_DSEC = (
    b"intrinsics:\n"
    b"  cam0: {camera_matrix: [9, 9, 9, 5], resolution: [20, 10]}\n"
    b"  cam1: {camera_matrix: [9, 9, 9, 5], resolution: [20, 10]}\n"
    b"  camRect1: {camera_matrix: [9, 9, 9, 5], resolution: [20, 10]}\n"
    b"extrinsics:\n"
    b"  T_10: [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]\n"
    b"  R_rect1: [[1,0,0],[0,1,0],[0,0,1]]\n"
)
_HOMOGRAPHY = b"homography: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\nresolution: [20, 10]\n"
_CAMERAS = b"""prophesee:
  biases: {bias_diff_on: 20}
  roi: [{x: 0, y: 0, width: 10, height: 10}]
  erc: {enabled: true, events_per_s: 1000}
rgb: {width: 640, height: 480, rate_hz: 30.0, delay_us: -5}
"""
_OPTIONS = (
    b"serve [::1]:8080",
    b"publish mqtts://me:p%40ss@host:8883/a/b",
    b"sync offset=-300",
    b"rate 5M",
    b"address rtsp://me:pass@camera:554/s?a=b",
)
_CSV = b"# geometry 64x48\nt,x,y,p\n" + b"".join(
    b"%d,%d,%d,%d\n" % (9 * k, k % 64, k % 48, k % 2) for k in range(50)
)
_DAT = (
    b"% Data file containing CD events.\n% Version 2\n% Width 64\n% Height 48\n\x0c\x08"
    + bytes(range(64)) * 4
)
_RAW = b"% camera_integrator_name Prophesee\n% format EVT3;height=720;width=1280\n% generation 4.2\n% end\n"

TARGETS: dict[str, Target] = {
    "json": Target(read_json_text, (_FACTS, b'{"a": [1, 2.5, null, "\\u00e9"]}')),
    "yaml": Target(
        read_yaml_text, (_OPENCV.partition(b"\n")[2], _KALIBR, b"a: &x {b: 1}\nc: *x\nd: 2001-01-01\n")
    ),
    "integer": Target(read_integer, (b"5", b"-17", b"+9000000000000000000")),
    "recording": Target(read_recording_folder, tuple(_PARTED.join(parts) for parts in _RECORDINGS)),
    "image times": Target(read_image_times, (b"5\n10\n", b"a.png 5 # x\nb.png 10\n", b"b.png,5\n")),
    "manifest.json": Target(read_bundle_manifest, ((find_model("demo") / MANIFEST).read_bytes(),)),
    "config": Target(read_config, (b"name: x\nsize: 5\ninner: {rate: 0.5}\n", b"")),
    "override": Target(read_override, (b"size=5", b"inner.rate=0.5", b"name=[x]")),
    "camera settings": Target(read_camera_settings, (_CAMERAS,)),
    "labels": Target(read_class_names, (b"wave\nnod\n\nstill \n",)),
    "decide": Target(read_decisions, (b"smooth_ms: 300\nenter: 0.6\n", b"enter=0.5\nidle=[a, b]\n")),
    "option": Target(read_option, _OPTIONS),
    "calibration": Target(read_calibration_yaml, (_OPENCV, _KALIBR, _DSEC, _HOMOGRAPHY)),
    "hot pixels": Target(
        read_hot_pixels,
        (
            b'{"sensor": [8, 6], "hot_pixels": [[1, 2], [7, 5]]}',
            b'{"sensor": [8, 6], "hot_pixels": [[1.5, 2]]}',
        ),
    ),
    "csv": Target(read_csv, (_CSV, b"0.5 1 2 1\n0.6 3 4 0\n", b"\xef\xbb\xbft;x;y;p\n1;2;3;1\n")),
    "dat": Target(read_dat_header, (_DAT,)),
    "raw header": Target(read_raw_header, (_RAW, b"% evt 2.0\n% geometry 640x480\n% end\n")),
    "graph": Target(read_graph, ((find_model("demo") / "rgb.onnx").read_bytes()[:6000],)),
    "picture": Target(read_picture, tuple(_picture(e) for e in (".png", ".jpg", ".bmp", ".tif", ".webp"))),
}
