"""GStreamer pipelines in this process, whose pictures are read where they lie, by GStreamer's C library.

It is called by ctypes. So neither GStreamer's Python is needed nor an OpenCV with GStreamer: the index's has
none, and takes the place of JetPack's.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.errors import CameraError, SourceError, redact
from velora_runtime.cameras.feeds import OPEN_WAIT_S, READ_WAIT_S, Shot

if TYPE_CHECKING:
    from numpy.typing import NDArray

TO_APPSINK = (
    "queue leaky=downstream max-size-buffers=2 ! videoconvert "
    "! appsink name=velora sync=false max-buffers=2 drop=true "
    "caps=video/x-raw,format=(string){I420,RGB}"
)
NO_TIME = 2**64 - 1
_PTS_AT = 72
"""Bytes from a GstBuffer's beginning to its pts on 64 bits: gstbuffer.h, gstminiobject.h."""
_NULL, _PLAYING, _FAILED, _READ, _ERROR = 1, 4, 0, 1, 1 << 1


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("memory", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("maxsize", ctypes.c_size_t),
        ("reserved", ctypes.c_void_p * 8),
    )


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


_P, _S, _I, _N = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "gst_init_check": (_I, (_P, _P, _P)),
    "gst_parse_launch": (_P, (_S, _P)),
    "gst_bin_get_by_name": (_P, (_P, _S)),
    "gst_element_set_state": (_I, (_P, _I)),
    "gst_element_get_bus": (_P, (_P,)),
    "gst_bus_pop_filtered": (_P, (_P, _I)),
    "gst_message_parse_error": (None, (_P, _P, _P)),
    "g_error_free": (None, (_P,)),
    "g_free": (None, (_P,)),
    "gst_mini_object_unref": (None, (_P,)),
    "gst_object_unref": (None, (_P,)),
    "gst_util_set_object_arg": (None, (_P, _S, _S)),
    "gst_sample_get_buffer": (_P, (_P,)),
    "gst_sample_get_caps": (_P, (_P,)),
    "gst_caps_get_structure": (_P, (_P, _I)),
    "gst_structure_get_int": (_I, (_P, _S, _P)),
    "gst_structure_get_string": (_S, (_P, _S)),
    "gst_buffer_map": (_I, (_P, _P, _I)),
    "gst_buffer_unmap": (None, (_P, _P)),
    "gst_element_factory_find": (_P, (_S,)),
    "gst_plugin_feature_set_rank": (None, (_P, ctypes.c_uint)),
    "gst_app_sink_try_pull_sample": (_P, (_P, _N)),
    "gst_app_sink_is_eos": (_I, (_P,)),
}


@functools.cache
def load_gstreamer() -> Any:
    """GStreamer's functions by name, as attributes; None where the library is not there."""
    try:
        core, app = (ctypes.CDLL(f"lib{name}-1.0.so.0") for name in ("gstreamer", "gstapp"))
    except OSError:
        return None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(app if name.startswith("gst_app_") else core, name)
        function.restype, function.argtypes = result, arguments
        setattr(core, name, function)
    return core if core.gst_init_check(None, None, None) else None


RANK = 512
"""Above all that GStreamer's plugins come with: decodebin takes these first."""


def find_elements(names: tuple[str, ...]) -> list[str]:
    """Those of the elements that GStreamer has here, which decodebin prefers from now on."""
    gst, found = load_gstreamer(), []
    for name in names if gst is not None else ():
        factory = gst.gst_element_factory_find(name.encode())
        if factory is not None:
            gst.gst_plugin_feature_set_rank(factory, RANK)
            gst.gst_object_unref(factory)
            found.append(name)
    return found


class AppSinkCamera:
    """A pipeline in this process, whose pictures are read where they lie.

    Single-threaded: the camera's thread.

    Args:
        name: what the user called it.
        pipeline: elements up to raw pictures.
        source: properties of the element called source, which are no part of the pipeline's text.

    Raises:
        SourceError: if there is no GStreamer.

    Attributes:
        size: width and height, pixels, once it was opened.
    """

    may_be_silent = False
    comes_back = True

    def __init__(self, name: str, pipeline: str, **source: str) -> None:
        self.name, self.size = name, (0, 0)
        self._gst = load_gstreamer()
        if self._gst is None:
            raise SourceError(
                "needs GStreamer's library",
                path=name,
                remedy="apt install libgstreamer-plugins-base1.0-0 gstreamer1.0-plugins-good",
            )
        self._text, self._source = f"{pipeline} ! {TO_APPSINK}", source
        self._pipeline: int | None = None
        self._sink: int | None = None
        self._bus: int | None = None
        self._first: Shot | None = None

    def open(self) -> None:
        """Start the pipeline and wait for its first picture."""
        try:
            self._start()
            for _ in range(round(OPEN_WAIT_S / READ_WAIT_S)):
                if (shot := self._pull()) is not None:
                    self._first = shot
                    height, width = shot.render().shape[:2]
                    self.size = width, height
                    return
            raise CameraError("it gives no pictures")
        except CameraError as error:
            self.close()
            raise CameraError(f"cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def read(self) -> Shot | None:
        """The next picture; None if none came in time."""
        first, self._first = self._first, None
        return self._pull() if first is None else first

    def close(self) -> None:
        """End the pipeline."""
        gst, self._first = self._gst, None
        if self._pipeline is not None:
            gst.gst_element_set_state(self._pipeline, _NULL)
        for held in (self._sink, self._bus, self._pipeline):
            if held is not None:
                gst.gst_object_unref(held)
        self._pipeline = self._sink = self._bus = None

    def _start(self) -> None:
        gst, error = self._gst, ctypes.POINTER(_GError)()
        self._pipeline = gst.gst_parse_launch(self._text.encode(), ctypes.byref(error))
        if error or self._pipeline is None:
            raise CameraError(self._message_of(error))
        self._bus = gst.gst_element_get_bus(self._pipeline)
        self._sink = gst.gst_bin_get_by_name(self._pipeline, b"velora")
        source = gst.gst_bin_get_by_name(self._pipeline, b"source") if self._source else None
        if source is not None:
            for name, value in self._source.items():
                gst.gst_util_set_object_arg(source, name.encode(), value.encode())
            gst.gst_object_unref(source)
        if gst.gst_element_set_state(self._pipeline, _PLAYING) == _FAILED:
            raise CameraError(self._complaint() or "the pipeline does not start")

    def _pull(self) -> Shot | None:
        if self._sink is None:
            raise CameraError("it is closed")
        sample = self._gst.gst_app_sink_try_pull_sample(self._sink, round(READ_WAIT_S * 1e9))
        if sample is not None:
            try:
                return self._shot(sample)
            finally:
                self._gst.gst_mini_object_unref(sample)
        complaint = self._complaint()
        if complaint or self._gst.gst_app_sink_is_eos(self._sink):
            raise CameraError(complaint or "the pipeline ended")
        return None

    def _shot(self, sample: int) -> Shot:
        """A picture of one's own: cameras and decoders have few buffers, and wait for them."""
        gst, info = self._gst, _MapInfo()
        buffer, caps = gst.gst_sample_get_buffer(sample), gst.gst_sample_get_caps(sample)
        pts_ns = ctypes.c_uint64.from_address(buffer + _PTS_AT).value
        about = gst.gst_caps_get_structure(caps, 0)
        width, height = (self._number(about, name) for name in (b"width", b"height"))
        convert = _from_i420 if gst.gst_structure_get_string(about, b"format") == b"I420" else _from_rgb
        if not gst.gst_buffer_map(buffer, ctypes.byref(info), _READ):
            raise CameraError("a picture cannot be read")
        try:
            image = convert(info, width, height)
        finally:
            gst.gst_buffer_unmap(buffer, ctypes.byref(info))
        return Shot(lambda: image, None if pts_ns == NO_TIME else pts_ns // 1000)

    def _number(self, about: int, name: bytes) -> int:
        value = ctypes.c_int()
        self._gst.gst_structure_get_int(about, name, ctypes.byref(value))
        return value.value

    def _complaint(self) -> str:
        """The first error that elements have told since the last call; empty for none."""
        if self._bus is None:
            return ""
        message = self._gst.gst_bus_pop_filtered(self._bus, _ERROR)
        if message is None:
            return ""
        error, debug = ctypes.POINTER(_GError)(), ctypes.c_void_p()
        self._gst.gst_message_parse_error(message, ctypes.byref(error), ctypes.byref(debug))
        self._gst.gst_mini_object_unref(message)
        lines = (ctypes.string_at(debug.value) if debug.value else b"").decode(errors="replace").splitlines()
        self._gst.g_free(debug)
        return self._message_of(error) + (f" ({redact(lines[-1])})" if lines else "")

    def _message_of(self, error: Any) -> str:
        """The message of a GError, which is freed."""
        if not error:
            return "no such pipeline"
        message = error.contents.message.decode(errors="replace")
        self._gst.g_error_free(error)
        return redact(message)


def _from_rgb(info: _MapInfo, width: int, height: int) -> NDArray[np.uint8]:
    """A mapped picture, uint8[H, W, 3]; rows begin at multiples of four bytes."""
    step = _up(3 * width, 4)
    rows = _look(info, step * height, width, height).reshape(height, step)
    return rows[:, : 3 * width].reshape(height, width, 3).copy()


def _from_i420(info: _MapInfo, width: int, height: int) -> NDArray[np.uint8]:
    """A mapped picture of planes as uint8[H, W, 3], RGB, by BT.601 as FFmpeg's are.

    Layout: GStreamer's "Raw Video Media Types". Rows begin at multiples of four bytes; heights are even.
    """
    w, h = _up(width, 2), _up(height, 2)
    steps = (_up(w, 4), _up(w // 2, 4), _up(w // 2, 4))
    sizes = (steps[0] * h, steps[1] * h // 2, steps[2] * h // 2)
    planes: Any = _look(info, sum(sizes), width, height)
    if steps[0] != w or steps[1] != w // 2:
        parts = np.split(planes, np.cumsum(sizes)[:-1])
        rows = [part.reshape(-1, step) for part, step in zip(parts, steps, strict=True)]
        planes = np.concatenate([rows[0][:, :w].ravel(), *(row[:, : w // 2].ravel() for row in rows[1:])])
    image: Any = cv2.cvtColor(planes.reshape(h * 3 // 2, w), cv2.COLOR_YUV2RGB_I420)
    return image if image.shape[:2] == (height, width) else image[:height, :width].copy()


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _look(info: _MapInfo, size: int, width: int, height: int) -> NDArray[np.uint8]:
    """The mapped bytes themselves; gone when they are unmapped."""
    if not width or not height or info.size < size:
        raise CameraError(f"a picture of {width}x{height} in {info.size} bytes")
    return np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(info.data)), np.uint8)
