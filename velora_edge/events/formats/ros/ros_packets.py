"""The payloads of `event_camera_msgs`, in each of their encodings, to events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.raw.raw_decoder import RawDecoder
from velora_edge.events.formats.ros import _libcaer_kernels as kernels

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding
    from velora_edge.events.formats.ros.ros_messages import EventPacket

_RAW: dict[str, Encoding] = {"evt2": "EVT2", "evt2.1": "EVT2.1", "evt21": "EVT2.1", "evt3": "EVT3"}
ENCODINGS = (*_RAW, "libcaer_cmp", "libcaer", "mono", "trigger")
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
        """What was lost or odd so far, one sentence each."""
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
        events = EventBatch.empty(kernels.MOST_PER_WORD * len(words))
        n, self._column, unknown = kernels.decode_libcaer_cmp(
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
