"""AEDAT4 files for tests, with a writer of FlatBuffers of its own."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAGIC = b"#!AER-DAT4.0\r\n"


@dataclass
class Blob:
    """Bytes that a field refers to, and where in them the reference points."""

    data: bytes
    entry: int = 0


Field = "tuple[str, int] | Blob"


def table(fields: dict[int, tuple[str, int] | Blob]) -> Blob:
    """A table of integers (code, value) and references."""
    n = max(fields, default=-1) + 1
    vtable_bytes = 4 + 2 * n
    places = {field: 4 + 8 * i for i, field in enumerate(fields)}
    body_bytes = 4 + 8 * len(fields)
    body, tail = bytearray(body_bytes), b""
    struct.pack_into("<i", body, 0, vtable_bytes)
    for field, value in fields.items():
        at = places[field]
        if isinstance(value, Blob):
            struct.pack_into("<I", body, at, body_bytes + len(tail) + value.entry - at)
            tail += value.data
        else:
            struct.pack_into("<" + value[0], body, at, value[1])
    vtable = struct.pack(
        f"<{2 + n}H", vtable_bytes, body_bytes, *(places.get(field, 0) for field in range(n))
    )
    return Blob(vtable + bytes(body) + tail, vtable_bytes)


def vector(data: bytes, count: int) -> Blob:
    return Blob(struct.pack("<I", count) + data)


def tables(items: Sequence[Blob]) -> Blob:
    head, tail = struct.pack("<I", len(items)), b""
    for i, item in enumerate(items):
        at = 4 + 4 * i
        head += struct.pack("<I", 4 + 4 * len(items) + len(tail) + item.entry - at)
        tail += item.data
    return Blob(head + tail)


def prefixed(root: Blob, identifier: bytes) -> bytes:
    body = struct.pack("<I", 8 + root.entry) + identifier + root.data
    return struct.pack("<I", len(body)) + body


def events(rows: Sequence[tuple[int, int, int, int]]) -> bytes:
    data = b"".join(struct.pack("<qhhB3x", *row) for row in rows)
    return prefixed(table({0: vector(data, len(rows))}), b"EVTS")


def triggers(rows: Sequence[tuple[int, int]]) -> bytes:
    return prefixed(table({0: tables([table({0: ("q", t), 1: ("b", kind)}) for t, kind in rows])}), b"TRIG")


def frame(fields: dict[int, int], pixels: bytes) -> bytes:
    codes = dict.fromkeys((0, 1, 2, 3, 4, 11), "q") | {5: "b", 6: "h", 7: "h", 8: "h", 9: "h", 12: "b"}
    found: dict[int, tuple[str, int] | Blob] = {
        field: (codes[field], value) for field, value in fields.items()
    }
    return prefixed(table({**found, 10: vector(pixels, len(pixels))}), b"FRME")


def stream(
    number: int, kind: str, *, source: str = "DAVIS346_1", size: tuple[int, int] | None = (4, 2)
) -> str:
    sides = "" if size is None else f'<attr key="sizeX" type="int">{size[0]}</attr>'
    sides += "" if size is None else f'<attr key="sizeY" type="int">{size[1]}</attr>'
    return (
        f'<node name="{number}" path="/mainloop/Recorder/outInfo/{number}/">'
        f'<attr key="originalOutputName" type="string">{kind.lower()}</attr>'
        f'<attr key="typeIdentifier" type="string">{kind}</attr>'
        f'<node name="info" path="/">{sides}<attr key="source" type="string">{source}</attr></node></node>'
    )


def recording(
    streams: Sequence[str],
    packets: Sequence[tuple[int, bytes]],
    *,
    compression: int = 0,
    compress: Callable[[bytes], bytes] = bytes,
    table_at: int = -1,
) -> bytes:
    xml = f'<dv version="2.0"><node name="outInfo" path="/">{"".join(streams)}</node></dv>'.encode()
    header = table({0: ("i", compression), 1: ("q", table_at), 2: vector(xml + b"\0", len(xml))})
    data = MAGIC + prefixed(header, b"IOHE")
    for number, packet in packets:
        payload = compress(packet)
        data += struct.pack("<ii", number, len(payload)) + payload
    return data


def with_contents(
    streams: Sequence[str], packets: Sequence[tuple[int, bytes]], times: Sequence[tuple[int, int]]
) -> bytes:
    """A recording with its table of contents, which says these first and last times of the packets."""
    end = len(recording(streams, packets, table_at=0))
    at, entries = end - sum(8 + len(packet) for _, packet in packets), []
    for (number, packet), (first, last) in zip(packets, times, strict=True):
        struct_of_two = number | len(packet) << 32
        entries.append(
            table({0: ("q", at + 8), 1: ("q", struct_of_two), 2: ("q", 1), 3: ("q", first), 4: ("q", last)})
        )
        at += 8 + len(packet)
    return recording(streams, packets, table_at=end) + prefixed(table({0: tables(entries)}), b"FTAB")


def davis(
    event_times_us: Sequence[int],
    frame_times_us: Sequence[int],
    *,
    size: tuple[int, int] = (16, 8),
    cameras: Sequence[str] = ("DAVIS346_1",),
) -> bytes:
    """Both cameras of a DAVIS: events one after the other over the sensor, grey frames of 10 k.

    Frame k was exposed for 2 ms around its time. A further camera has the same frames, 100 brighter.
    """
    width, height = size
    rows = [(t, k % width, k % height, k % 2) for k, t in enumerate(event_times_us)]
    streams = [stream(0, "EVTS", source=cameras[0], size=size)]
    packets = [(0, events(rows[i : i + 100])) for i in range(0, len(rows), 100)]
    for number, camera in enumerate(cameras, 1):
        streams.append(stream(number, "FRME", source=camera, size=size))
        for k, t in enumerate(frame_times_us):
            fields = {0: t, 3: t - 1000, 4: t + 1000, 5: 0, 6: width, 7: height}
            pixels = bytes([(10 * k + 100 * (number - 1)) % 256]) * (width * height)
            packets.append((number, frame(fields, pixels)))
    return recording(streams, packets)
