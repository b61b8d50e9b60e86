"""A stand-in for Prophesee's metavision_hal, with the signatures of OpenEB's bindings from 4.0.0 to 5.1.1.

As there, facilities that a camera lacks are None, refusals are False or a RuntimeError, arguments of the
wrong type are a TypeError, a buffer is valid until the next one, and arrays of edges are the SDK's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EVENT_CD = np.dtype(
    {"names": ["x", "y", "p", "t"], "formats": ["<u2", "<u2", "<i2", "<i8"], "offsets": [0, 2, 4, 8]},
    align=True,
)
EVENT_EXT_TRIGGER = np.dtype(
    {"names": ["p", "t", "id"], "formats": ["<i2", "<i8", "<i2"], "offsets": [0, 8, 16]}, align=True
)
OPAQUE_FROM = (4, 5)
"""The version from which on a buffer is a RawBuffer, which Python cannot look into."""


class Packet(NamedTuple):
    """What comes over the link at once: raw words, and what the SDK's decoder makes of them."""

    words: bytes
    events: tuple[tuple[int, int, int, int], ...] = ()  # t, x, y, p
    edges: tuple[tuple[int, int, int], ...] = ()  # t, id, p
    reached_us: int = 0


@dataclass
class FakeCamera:
    """What is plugged in, what it gives, and what was set on it.

    `packets` may hold errors, which are raised, and None: nothing has come. `is_due` may hold packets back.
    """

    serial: str = "00051234"
    sensor: tuple[int, int] = (8, 8)
    encoding: str = "EVT3"
    packets: list[Packet | Exception | None] = field(default_factory=list)
    biases: dict[str, int] = field(default_factory=lambda: {"bias_diff_on": 0, "bias_fo": 0})
    lacks: frozenset[str] = frozenset()
    is_there: bool = True
    is_due: Callable[[Packet], bool] = lambda packet: True
    done: list[tuple[Any, ...]] = field(default_factory=list)


def hal_error(number: int, text: str) -> RuntimeError:
    """As pybind11 hands on a HalException."""
    rule = "-" * 48
    return RuntimeError(f"\n{rule}\nMetavision HAL exception\n\nError {number}: {text}\n\n{rule}\n")


class RawBuffer:
    """Opaque: its size is all that Python learns of it."""

    def __init__(self, packet: Packet) -> None:
        self._packet = packet

    def size(self) -> int:
        return len(self._packet.words)


def make_hal(version: tuple[int, int, int], *cameras: FakeCamera) -> ModuleType:
    """The module metavision_hal of one version, with these cameras attached."""
    hal: Any = ModuleType("metavision_hal")
    hal.I_ROI = SimpleNamespace(Window=_Window, Mode=_Mode)
    channels = enum.Enum("Channel", ["MAIN", "AUX", "LOOPBACK"])
    hal.I_TriggerIn = SimpleNamespace()
    if version == (4, 0, 0):
        hal.Channel = channels
    else:
        hal.I_TriggerIn.Channel = channels
    hal.RawBuffer = RawBuffer

    class DeviceDiscovery:
        @staticmethod
        def list() -> list[str]:
            return [
                f"Prophesee:hal_plugin_prophesee:{camera.serial}" for camera in cameras if camera.is_there
            ]

        @staticmethod
        def open(serial: str) -> _Device | None:
            _expect(serial, str)
            for camera in cameras:
                if camera.is_there and serial in ("", camera.serial):
                    camera.done.append(("open",))
                    return _Device(camera, version, channels)
            return None

    hal.DeviceDiscovery = DeviceDiscovery
    return hal


def _expect(value: object, kind: type) -> None:
    """pybind11 takes a value of this type, and no other."""
    if type(value) is not kind:
        raise TypeError(f"incompatible function arguments: {value!r}")


@dataclass(frozen=True)
class _Window:
    x: int
    y: int
    width: int
    height: int


class _Mode(enum.Enum):
    ROI = 0
    RONI = 1


class _Device:
    def __init__(self, camera: FakeCamera, version: tuple[int, int, int], channels: type[enum.Enum]) -> None:
        stream = _Stream(camera, is_opaque=version[:2] >= OPAQUE_FROM)
        decoder = _Decoder(stream)
        width, height = camera.sensor
        self._facilities: dict[str, Any] = {
            "geometry": SimpleNamespace(get_width=lambda: width, get_height=lambda: height),
            "hw_identification": SimpleNamespace(get_current_data_encoding_format=lambda: camera.encoding),
            "events_stream": stream,
            "events_stream_decoder": decoder,
            "event_cd_decoder": decoder.of_events,
            "event_ext_trigger_decoder": decoder.of_edges,
            "ll_biases": _Biases(camera),
            "roi": _Roi(camera),
            "erc_module": _Erc(camera),
            "trigger_in": _TriggerIn(camera, channels),
        }
        for name in camera.lacks:
            self._facilities[name] = None

    def __getattr__(self, name: str) -> Callable[[], Any]:
        facility = name.removeprefix("get_i_")
        if name == facility or facility not in self._facilities:
            raise AttributeError(name)
        return lambda: self._facilities[facility]


class _Stream:
    def __init__(self, camera: FakeCamera, *, is_opaque: bool) -> None:
        self.camera, self.is_opaque = camera, is_opaque
        self.latest: Packet | None = None
        self._memory = np.empty(0, np.uint8)
        self._is_running = False

    def start(self) -> None:
        self._is_running = True
        self.camera.done.append(("start",))

    def stop(self) -> None:
        self._is_running = False
        self.camera.done.append(("stop",))

    def poll_buffer(self) -> int:
        if not self.camera.is_there:
            return -1
        packets = self.camera.packets
        if not self._is_running or not packets:
            return 0
        packet = packets[0]
        if isinstance(packet, Packet) and not self.camera.is_due(packet):
            return 0
        packets.pop(0)
        if isinstance(packet, Exception):
            raise packet
        if packet is None:
            return 0
        self._memory[:] = 0xEE  # the SDK takes its buffer back
        self.latest = packet
        return 1

    def get_latest_raw_data(self) -> Any:
        assert self.latest is not None
        if self.is_opaque:
            return RawBuffer(self.latest)
        self._memory = np.frombuffer(self.latest.words, np.uint8).copy()
        return self._memory


class _Callbacks:
    def __init__(self) -> None:
        self.all: list[Callable[[Any], None]] = []

    def add_event_buffer_callback(self, callback: Callable[[Any], None]) -> int:
        self.all.append(callback)
        return len(self.all)

    def give(self, array: np.ndarray) -> None:
        for callback in self.all:
            callback(array)


class _Decoder:
    def __init__(self, stream: _Stream) -> None:
        self.of_events, self.of_edges = _Callbacks(), _Callbacks()
        self._stream, self._last_us = stream, 0

    def decode(self, raw: Any) -> None:
        _expect(raw, RawBuffer if self._stream.is_opaque else np.ndarray)
        packet = self._stream.latest
        assert packet is not None
        self._last_us = packet.reached_us
        if packet.events:
            events = [(x, y, p, t) for t, x, y, p in packet.events]
            self.of_events.give(np.array(events, EVENT_CD))
        if packet.edges:
            edges = np.array([(p, t, number) for t, number, p in packet.edges], EVENT_EXT_TRIGGER)
            self.of_edges.give(edges)
            edges[:] = (-1, -1, -1)  # the SDK's own memory

    def get_last_timestamp(self) -> int:
        return self._last_us


class _Biases:
    def __init__(self, camera: FakeCamera) -> None:
        self._camera = camera

    def get_all_biases(self) -> dict[str, int]:
        return dict(self._camera.biases)

    def set(self, bias_name: str, bias_value: int) -> bool:
        _expect(bias_name, str)
        _expect(bias_value, int)
        if not -85 <= bias_value <= 140:
            raise hal_error(102001, f'Invalid value {bias_value} for bias "{bias_name}".')
        self._camera.done.append(("bias", bias_name, bias_value))
        return True


class _Roi:
    def __init__(self, camera: FakeCamera) -> None:
        self._camera = camera

    def get_max_supported_windows_count(self) -> int:
        return 2

    def set_mode(self, mode: _Mode) -> bool:
        _expect(mode, _Mode)
        self._camera.done.append(("roi mode", mode.name))
        return True

    def set_windows(self, roi_list: Iterable[_Window]) -> None:
        _expect(roi_list, list)
        windows = [(w.x, w.y, w.width, w.height) for w in roi_list]
        self._camera.done.append(("roi", *windows))

    def enable(self, enable: bool) -> bool:
        _expect(enable, bool)
        self._camera.done.append(("roi on", enable))
        return True


class _Erc:
    def __init__(self, camera: FakeCamera) -> None:
        self._camera = camera

    def get_min_supported_cd_event_rate(self) -> int:
        return 1000

    def get_max_supported_cd_event_rate(self) -> int:
        return 160_000_000

    def set_cd_event_rate(self, events_per_sec: int) -> bool:
        _expect(events_per_sec, int)
        if not 1000 <= events_per_sec <= 160_000_000:
            return False
        self._camera.done.append(("erc rate", events_per_sec))
        return True

    def enable(self, b: bool) -> bool:
        _expect(b, bool)
        self._camera.done.append(("erc on", b))
        return True


class _TriggerIn:
    def __init__(self, camera: FakeCamera, channels: type[enum.Enum]) -> None:
        self._camera, self._channels = camera, channels

    def enable(self, channel: enum.Enum) -> bool:
        _expect(channel, self._channels)
        if channel.name == "LOOPBACK":
            return False
        self._camera.done.append(("trigger", channel.name))
        return True
