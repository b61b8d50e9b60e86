"""Event messages of ROS 1 and ROS 2, taken apart without a library: `event_camera_msgs` and `dvs_msgs`.

Layouts: the .msg files of ros-event-camera/event_camera_msgs and uzh-rpg/rpg_dvs_ros; wiki.ros.org/msg for
ROS 1, where fields are packed; OMG's CDR for ROS 2, where numbers are aligned to their size from byte 4 on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError

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

    def skip_header(self) -> None:
        """A std_msgs/Header: in ROS 1 with a sequence number; the stamp; the frame's name."""
        for _ in range(2 if self._is_cdr else 3):
            self.number("I")
        self.text()


def parse_packet(data: bytes, is_cdr: bool) -> EventPacket:
    """The packet in a serialised message of one of `PACKET_TYPES`.

    Raises:
        RecordingError: if it ends too early, or its payload is big endian.
    """
    fields = _Fields(data, is_cdr)
    fields.skip_header()
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
    fields.skip_header()
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
