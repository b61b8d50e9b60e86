"""Messages of ROS 1 and ROS 2, decoded without a library: `event_camera_msgs`, `dvs_msgs`, `sensor_msgs`.

Layouts: the .msg files of ros-event-camera/event_camera_msgs, uzh-rpg/rpg_dvs_ros, ros2/common_interfaces;
wiki.ros.org/msg for ROS 1, where fields are packed; OMG's CDR for ROS 2, where numbers are aligned to their
size from byte 4 on.

One of the encodings is `libcaer_cmp`, the compressed packets of the ROS drivers for iniVation's cameras.
Layout (facts from ros-event-camera/event_camera_codecs, Apache-2.0): little-endian u16 words, the type in the
top 4 bits: 0 upper 12 bits of the time and 1 lower 12, in us since the packet's time base; 2 x; 3 y in 11
bits and polarity in bit 11, which makes an event; 4 base of y and polarity for vectors; 5 a vector of 8 rows,
after which the base moves on by 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.raw.raw_walker import RawDecoder

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding


MOST_PER_WORD = 8


@njit(nogil=True, cache=True)
def decode_libcaer_cmp(words: Any, base_us: Any, x: Any, t_us: Any, xs: Any, ys: Any, ps: Any) -> Any:
    """Decode one packet.

    Args:
        words: uint16[W].
        base_us: the packet's time base.
        x: the column that the packet before ended with.
        t_us: int64[N] out; N >= 8 W.
        xs: uint16[N] out.
        ys: uint16[N] out.
        ps: uint8[N] out.

    Returns:
        Number of events, the last column, and the number of words of no known type.
    """
    n, unknown = 0, 0
    high, low = np.int64(0), np.int64(0)
    base_y, base_p = np.int64(0), np.int64(0)
    for i in range(len(words)):
        word = np.int64(words[i])
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            high = value << 12
        elif kind == 1:
            low = value
        elif kind == 2:
            x = value & 0x7FF
        elif kind == 3:
            t_us[n], xs[n], ys[n], ps[n] = base_us + (high | low), x, value & 0x7FF, value >> 11
            n += 1
        elif kind == 4:
            base_y, base_p = value & 0x7FF, value >> 11
        elif kind == 5:
            for bit in range(8):
                if value & (1 << bit):
                    t_us[n], xs[n], ys[n], ps[n] = base_us + (high | low), x, base_y + bit, base_p
                    n += 1
            base_y += 8
        else:
            unknown += 1
    return n, x, unknown


IMAGE_TYPE, COMPRESSED_TYPE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PACKET_TYPES = ("event_camera_msgs/msg/EventPacket", "event_array_msgs/msg/EventArray")
ARRAY_TYPES = ("dvs_msgs/msg/EventArray", "prophesee_event_msgs/msg/EventArray")

_ROS1_EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
# ROS 2 aligns the time to four bytes: from the second event on there are 16 bytes from one x to the next.
_ROS2_EVENT = np.dtype(
    {"names": ["x", "y", "s", "ns", "p"], "formats": ["<u2", "<u2", "<u4", "<u4", "u1"],
     "offsets": [0, 2, 6, 10, 14], "itemsize": 16}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventPacket:
    """A message of `event_camera_msgs`.

    Attributes:
        width: of the sensor, pixels.
        height: of the sensor, pixels.
        seq: the packet's number.
        time_base_ns: what the encoding's times are added to, where it has such.
        encoding: evt3, libcaer_cmp, libcaer, mono or trigger.
        payload: the events in that encoding.
    """

    width: int
    height: int
    seq: int
    time_base_ns: int
    encoding: str
    payload: bytes


class _Fields:
    """A message's fields, one after the other."""

    def __init__(self, data: bytes, is_cdr: bool) -> None:
        if is_cdr and (len(data) < 4 or data[1] not in (0, 1)):
            raise RecordingError(f"expected a CDR message, got {data[:4].hex(' ') or 'nothing'}")
        self._order = ">" if is_cdr and data[1] == 0 else "<"
        self.data, self._at, self._is_cdr = data, 4 if is_cdr else 0, is_cdr

    @property
    def is_little_endian(self) -> bool:
        return self._order == "<"

    def number(self, code: str) -> int:
        size = struct.calcsize("<" + code)
        if self._is_cdr:
            self._at += -(self._at - 4) % size
        value: int = struct.unpack(self._order + code, self.take(size))[0]
        return value

    def take(self, n: int) -> bytes:
        if self._at + n > len(self.data):
            raise RecordingError(f"a message of {len(self.data)} bytes ends inside of a field")
        self._at += n
        return self.data[self._at - n : self._at]

    def text(self) -> str:
        return self.take(self.number("I")).rstrip(b"\0").decode("utf-8", "replace")

    def header_us(self) -> int:
        """The stamp of a std_msgs/Header, behind a sequence number in ROS 1, before the frame's name."""
        if not self._is_cdr:
            self.number("I")
        s, ns = self.number("I"), self.number("I")
        self.text()
        return s * 1_000_000 + ns // 1000


def parse_packet(data: bytes, is_cdr: bool) -> EventPacket:
    """The packet in a serialised message of one of `PACKET_TYPES`.

    Raises:
        RecordingError: if it ends too early, or its payload is big endian.
    """
    fields = _Fields(data, is_cdr)
    fields.header_us()
    height, width = fields.number("I"), fields.number("I")
    seq, time_base_ns = fields.number("Q"), fields.number("Q")
    encoding = fields.text()
    if fields.number("B"):
        raise RecordingError("a packet of a big-endian machine, which is not read")
    return EventPacket(width, height, seq, time_base_ns, encoding, fields.take(fields.number("I")))


def parse_array(data: bytes, is_cdr: bool) -> tuple[int, int, EventBatch]:
    """Width, height and events of a serialised message of one of `ARRAY_TYPES`.

    Raises:
        RecordingError: if it ends too early, or it is big endian.
    """
    fields = _Fields(data, is_cdr)
    if not fields.is_little_endian:
        raise RecordingError("a message of a big-endian machine, which is not read")
    fields.header_us()
    height, width, n = fields.number("I"), fields.number("I"), fields.number("I")
    if is_cdr:
        # The first event lacks the two bytes that align the times of the others: put them in.
        body = fields.take(16 * n - 3) if n else b""
        events = np.frombuffer(body[:4] + b"\0\0" + body[4:] + b"\0" if n else b"", _ROS2_EVENT)
    else:
        events = np.frombuffer(fields.take(_ROS1_EVENT.itemsize * n), _ROS1_EVENT)
    t_us = events["s"].astype(np.int64) * 1_000_000 + events["ns"] // 1000
    return (
        width,
        height,
        EventBatch(
            t_us,
            events["x"].astype(np.uint16),
            events["y"].astype(np.uint16),
            (events["p"] != 0).astype(np.uint8),
        ),
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """A message of `sensor_msgs`: a picture, compressed or not.

    Attributes:
        t_us: of its header, on its node's clock; 0 where the node set none.
        encoding: such as rgb8; of a compressed picture what it is compressed as, in its node's words.
        payload: the pixels, row by row; or a file of JPEG, PNG and so on.
        width: pixels; 0 where it is compressed, as the next two.
        height: pixels.
        step: bytes from one row to the next.
        is_big_endian: pixels of two bytes have the upper one first.
    """

    t_us: int
    encoding: str
    payload: bytes
    width: int = 0
    height: int = 0
    step: int = 0
    is_big_endian: bool = False


def parse_image(data: bytes, is_cdr: bool) -> Picture:
    """The picture in a serialised message of `IMAGE_TYPE`.

    Raises:
        RecordingError: if it ends too early, or has fewer rows than it tells.
    """
    fields = _Fields(data, is_cdr)
    t_us, height, width = fields.header_us(), fields.number("I"), fields.number("I")
    encoding, is_big_endian, step = fields.text(), bool(fields.number("B")), fields.number("I")
    payload = fields.take(fields.number("I"))
    if step * height > len(payload):
        raise RecordingError(f"a picture of {height} rows of {step} bytes in {len(payload)} bytes")
    return Picture(t_us, encoding, payload, width, height, step, is_big_endian)


def parse_compressed(data: bytes, is_cdr: bool) -> Picture:
    """The picture in a serialised message of `COMPRESSED_TYPE`.

    Raises:
        RecordingError: if it ends too early.
    """
    fields = _Fields(data, is_cdr)
    return Picture(fields.header_us(), fields.text(), fields.take(fields.number("I")))


_RAW: dict[str, Encoding] = {"evt2": "EVT2", "evt2.1": "EVT2.1", "evt21": "EVT2.1", "evt3": "EVT3"}
ENCODINGS = (*_RAW, "libcaer_cmp", "libcaer", "mono", "trigger")
WORD_ENCODINGS = MappingProxyType(_RAW)
"""Encodings of event_camera_msgs whose payload is a camera's raw words, in our names."""
_LIBCAER_WRAP_US = 1 << 31
_LARGEST_TIME_NS = 1 << 62


class PacketDecoder:
    """Decodes the packets of one topic, in their order.

    Layouts of `mono`, `trigger` and `libcaer`: the README of ros-event-camera/event_camera_msgs, libcaer's
    polarity.h. The times of `evt3` are the sensor's, those of the others are since 1970.

    Single-threaded: one for each pass over a recording.

    Args:
        sensor: width and height, pixels.
    """

    def __init__(self, sensor: tuple[int, int]) -> None:
        self._sensor = sensor
        self._raw: dict[str, RawDecoder] = {}
        self._triggers: list[TriggerBatch] = []
        self._column = 0
        self._unknown_words = 0

    def decode(self, packet: EventPacket) -> EventBatch:
        """The events of the next packet.

        Raises:
            RecordingError: if its encoding is not known, or its time base cannot be one.
        """
        encoding = packet.encoding.lower()
        if encoding in _RAW:
            return self._decode_raw(encoding, packet.payload)
        if packet.time_base_ns > _LARGEST_TIME_NS:
            raise RecordingError(f"a packet with a time base of {packet.time_base_ns} ns")
        if encoding == "libcaer_cmp":
            return self._decode_libcaer_cmp(packet)
        if encoding == "libcaer":
            return _decode_libcaer(packet)
        if encoding == "mono":
            return _decode_mono(packet)
        if encoding == "trigger":
            self._triggers.append(_decode_trigger(packet))
            return EventBatch.empty()
        raise RecordingError(
            f"expected events encoded as one of {', '.join(ENCODINGS)}, got {packet.encoding!r}"
        )

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges decoded since the last call."""
        edges = [*self._triggers, *(decoder.take_triggers() for decoder in self._raw.values())]
        self._triggers = []
        return TriggerBatch.concatenate(edges)

    def warnings(self) -> list[str]:
        """Warnings so far, one sentence each."""
        sentences = [sentence for decoder in self._raw.values() for sentence in decoder.warnings()]
        if self._unknown_words:
            sentences.append(f"{self._unknown_words:,} words of libcaer_cmp are of no known type")
        return sentences

    def _decode_raw(self, encoding: str, payload: bytes) -> EventBatch:
        if encoding not in self._raw:
            self._raw[encoding] = RawDecoder(_RAW[encoding], self._sensor)
        return self._raw[encoding].feed(payload)

    def _decode_libcaer_cmp(self, packet: EventPacket) -> EventBatch:
        words = np.frombuffer(packet.payload, "<u2", count=len(packet.payload) // 2)
        events = EventBatch.empty(MOST_PER_WORD * len(words))
        n, self._column, unknown = decode_libcaer_cmp(
            words, packet.time_base_ns // 1000, self._column, events.t_us, events.x, events.y, events.p
        )
        self._unknown_words += unknown
        found = events[:n]
        return EventBatch(found.t_us.copy(), found.x.copy(), found.y.copy(), found.p.copy())


def _decode_libcaer(packet: EventPacket) -> EventBatch:
    """u32 with x 15 bits from bit 17, y 15 from bit 2, p in bit 1; i32 time in us since the base."""
    pairs = np.frombuffer(packet.payload, "<u4", count=len(packet.payload) // 8 * 2).reshape(-1, 2)
    since_us = pairs[:, 1].astype(np.int32).astype(np.int64)
    since_us += np.cumsum(np.diff(since_us, prepend=since_us[:1]) < 0) * _LIBCAER_WRAP_US
    return EventBatch(
        (packet.time_base_ns + since_us * 1000) // 1000,
        (pairs[:, 0] >> 17 & 0x7FFF).astype(np.uint16),
        (pairs[:, 0] >> 2 & 0x7FFF).astype(np.uint16),
        (pairs[:, 0] >> 1 & 1).astype(np.uint8),
    )


def _decode_mono(packet: EventPacket) -> EventBatch:
    """u32 time in ns since the base, u16 x, u16 with y in 15 bits and p in the top one."""
    fields = np.dtype([("dt", "<u4"), ("x", "<u2"), ("yp", "<u2")])
    events = np.frombuffer(packet.payload, fields, count=len(packet.payload) // 8)
    return EventBatch(
        (packet.time_base_ns + events["dt"].astype(np.int64)) // 1000,
        events["x"].astype(np.uint16),
        (events["yp"] & 0x7FFF).astype(np.uint16),
        (events["yp"] >> 15).astype(np.uint8),
    )


def _decode_trigger(packet: EventPacket) -> TriggerBatch:
    """u32 time in ns since the base, 31 bits unused, p in the top bit."""
    words = np.frombuffer(packet.payload, "<u4", count=len(packet.payload) // 8 * 2).reshape(-1, 2)
    t_us = (packet.time_base_ns + words[:, 0].astype(np.int64)) // 1000
    return TriggerBatch(t_us, np.zeros(len(words), np.uint8), (words[:, 1] >> 31).astype(np.uint8))
