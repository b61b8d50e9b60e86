"""AEDAT4's container: a header that names the streams, then compressed packets in FlatBuffers.

Layout of the file (gitlab.com/inivation/dv/dv-processing): a line of text; an IOHeader, a FlatBuffer with its
size before it: 0 compression, 1 position of the table of contents or -1, 2 XML; then packets: i32 stream, i32
size, and that many bytes, which decompress to a FlatBuffer with its size before it; at the end the table of
contents, which is not needed to read on from the start.

FlatBuffers are read without generated code: as much as AEDAT4 needs, every position checked. Layout
(flatbuffers.dev/internals): a table begins with an i32, the distance back to its vtable; a vtable is u16
words: its size in bytes, the table's, then each field's place in the table, 0 where it has the default.
Strings, vectors and tables are u32 distances forward; vectors begin with a u32 count.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.limits import allowance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray


_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8}
_TYPES = {"b": "i1", "H": "<u2", "i": "<i4", "I": "<u4", "q": "<i8"}


class Table:
    """One table in a buffer.

    Args:
        data: the buffer, from after its size prefix.
        at: the table's position in it.

    Raises:
        RecordingError: here and in every method, if something lies outside the buffer.
    """

    __slots__ = ("_at", "_data", "_vtable", "_vtable_size")

    def __init__(self, data: bytes | memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _unpack(data, "i", at)
        self._vtable_size = _unpack(data, "H", self._vtable)

    @classmethod
    def of_prefixed(cls, data: bytes | memoryview, identifier: bytes) -> Table:
        """The root table of a buffer that begins with its size, which must be of this kind."""
        size = _unpack(data, "I", 0)
        if size + 4 > len(data):
            raise RecordingError(f"expected a FlatBuffer of {size} bytes, got {len(data) - 4}")
        body = memoryview(data)[4 : 4 + size]
        if bytes(body[4:8]) != identifier:
            raise RecordingError(f"expected a FlatBuffer of kind {identifier!r}, got {bytes(body[4:8])!r}")
        return cls(body, _unpack(body, "I", 0))

    def number(self, field: int, code: str, default: int = 0) -> int:
        """An integer field, by its number in the schema and its `struct` code."""
        at = self._find(field)
        return _unpack(self._data, code, at) if at else default

    def text(self, field: int) -> str:
        """A string field, empty where there is none."""
        at = self._find(field)
        start, n = self._vector(at, 1) if at else (0, 0)
        return bytes(self._data[start : start + n]).decode("utf-8", "replace")

    def array(self, field: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A vector of numbers or structs; a view of the buffer."""
        at = self._find(field)
        if not at:
            return np.empty(0, dtype)
        start, n = self._vector(at, dtype.itemsize)
        return np.frombuffer(self._data, dtype, count=n, offset=start)

    def columns(self, field: int, wanted: dict[int, str]) -> Iterator[list[NDArray[np.int64]]]:
        """Of a vector of tables, integer fields by their numbers and `struct` codes, some tables at a time.

        A vector may name one table many times, so that it holds far more tables than bytes.
        """
        at = self._find(field)
        start, n = self._vector(at, 4) if at else (0, 0)
        for first in range(0, n, _TABLES):
            places = start + 4 * np.arange(first, min(first + _TABLES, n))
            tables = places + self._gather(places, "I")
            vtables = tables - self._gather(tables, "i")
            sizes = self._gather(vtables, "H")
            yield [self._number_of_each(tables, vtables, sizes, *one) for one in wanted.items()]

    def _number_of_each(
        self,
        tables: NDArray[np.int64],
        vtables: NDArray[np.int64],
        sizes: NDArray[np.int64],
        field: int,
        code: str,
    ) -> NDArray[np.int64]:
        values, entry = np.zeros(len(tables), np.int64), 4 + 2 * field
        known = np.flatnonzero(entry + 2 <= sizes)
        offsets = self._gather(vtables[known] + entry, "H")
        known, offsets = known[offsets > 0], offsets[offsets > 0]
        values[known] = self._gather(tables[known] + offsets, code)
        return values

    def _gather(self, places: NDArray[np.int64], code: str) -> NDArray[np.int64]:
        """The numbers at these positions."""
        data, size = np.frombuffer(self._data, np.uint8), _SIZES[code]
        if len(places) and (places.min() < 0 or places.max() + size > len(data)):
            raise RecordingError(f"a FlatBuffer position outside of its {len(data)} bytes")
        rows = data[places[:, None] + np.arange(size)]
        return rows.view(_TYPES[code])[:, 0].astype(np.int64)

    def _find(self, field: int) -> int:
        """Position of a field, 0 where it has its default."""
        entry = 4 + 2 * field
        if entry + 2 > self._vtable_size:
            return 0
        offset = _unpack(self._data, "H", self._vtable + entry)
        return self._at + offset if offset else 0

    def _vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        """Position of a vector's first item, and how many there are."""
        start = at + _unpack(self._data, "I", at)
        n = _unpack(self._data, "I", start)
        if start + 4 + n * item_bytes > len(self._data):
            raise RecordingError(f"a FlatBuffer vector of {n} items reaches past the buffer's end")
        return start + 4, n


def _unpack(data: bytes | memoryview, code: str, at: int) -> int:
    if at < 0 or at + _SIZES[code] > len(data):
        raise RecordingError(f"a FlatBuffer position, {at}, outside of its {len(data)} bytes")
    number: int = struct.unpack_from("<" + code, data, at)[0]
    return number


MAGIC = b"#!AER-DAT4.0\r\n"
_TABLES = 1 << 14
"""Tables of a vector that are looked at together."""
MAX_PACKET_BYTES = 256 << 20
"""A packet that claims to be larger than this, decompressed, is damaged: the cameras' are of a few MB."""
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Aedat4Stream:
    """One stream, as the header describes it.

    Attributes:
        number: by which packets refer to it.
        kind: EVTS, FRME, TRIG, IMUS, ...
        name: of the output that it was recorded from.
        source: the camera.
        sensor: width and height, where they are told.
    """

    number: int
    kind: str
    name: str
    source: str
    sensor: tuple[int, int] | None


class Aedat4File:
    """An AEDAT4 file.

    Args:
        path: the file.
        warn: told what is wrong with it, one sentence at a time.

    Attributes:
        streams: by number.
        done: how much of the file the latest pass over packets has been through, 0 to 1.

    Raises:
        RecordingError: if its header is damaged.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self.done = 0.0
        self._size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(MAGIC) + 4)
            if not start.startswith(MAGIC) or len(start) < len(MAGIC) + 4:
                raise RecordingError(
                    "the AEDAT4 header is cut off", path=path, remedy="copy or record it again"
                )
            size: int = struct.unpack_from("<I", start, len(MAGIC))[0]
            header = start[len(MAGIC) :] + file.read(min(size, _MAX_HEADER_BYTES))
        try:
            root = Table.of_prefixed(header, b"IOHE")
            self._decompress = _decompressor(
                root.number(0, "i"), min(MAX_PACKET_BYTES, allowance(self._size))
            )
            table_at = root.number(1, "q", -1)
            self.streams = _read_streams(root.text(2))
        except RecordingError as error:
            raise RecordingError(
                error.problem,
                path=path,
                place="AEDAT4 header",
                remedy=error.remedy or "copy or record it again",
            ) from error
        self._start = len(MAGIC) + 4 + size
        self._stop = table_at if self._start <= table_at <= self._size else self._size
        if table_at > self._size:
            self._warn(
                f"the file is cut off: it has {self._size:,} bytes, its table of contents is at {table_at:,}"
            )

    def packets(self, number: int, kind: str, at: int | None = None) -> Iterator[Table]:
        """The packets of one stream, decompressed, in file order; damaged ones are left out and told.

        Args:
            number: of the stream.
            kind: what its packets are.
            at: byte of the packet to begin with; None for the first.
        """
        damaged, reason, first = 0, "", self._start if at is None else at
        for place, payload in self._payloads(number, first):
            packet = self._decode(payload, kind)
            if isinstance(packet, Table):
                yield packet
            else:
                damaged, reason = damaged + 1, reason or f"first at byte {place:,}: {packet}"
        if damaged:
            self._warn(f"{damaged:,} packets of stream {number} are damaged and were left out ({reason})")

    def find_packet(self, number: int, t_us: int) -> tuple[int | None, int | None]:
        """Bytes of two neighbouring packets of a stream, the second the first that reaches `t_us`.

        By the file's table of contents; None for what it does not tell, and for all if it is damaged.
        """
        before: int | None = None
        try:
            for places, streams, last_us in self._contents():
                for k in np.flatnonzero(streams & 0xFFFFFFFF == number).tolist():
                    at = int(places[k]) - 8
                    if not (before or self._start - 1) < at < self._stop:
                        return None, None
                    if last_us[k] >= t_us:
                        return before, at
                    before = at
        except RecordingError:
            return None, None
        return before, before

    def _contents(self) -> Iterator[list[NDArray[np.int64]]]:
        """Of the entries of the table of contents: position, stream and size (two i32), last time."""
        with self._path.open("rb") as file:
            file.seek(self._stop)
            data = file.read(_MAX_HEADER_BYTES)
        if data:
            root = Table.of_prefixed(self._decompress(data), b"FTAB")
            yield from root.columns(0, {0: "q", 1: "q", 4: "q"})

    def _decode(self, payload: bytes, kind: str) -> Table | str:
        """The packet, or what is wrong with it."""
        try:
            return Table.of_prefixed(self._decompress(payload), kind.encode("ascii"))
        except RecordingError as error:
            return error.problem

    def _payloads(self, wanted: int, at: int) -> Iterator[tuple[int, bytes]]:
        with self._path.open("rb") as file:
            while at < self._stop:
                file.seek(at)
                head = file.read(8)
                number, size = struct.unpack("<ii", head) if len(head) == 8 else (0, 0)
                if len(head) < 8 or at + 8 + size > self._stop:
                    self._warn(f"the file is cut off in the packet at byte {at:,}")
                    return
                if size < 0 or number not in self.streams:
                    self._warn(
                        f"the file is damaged from the packet at byte {at:,} on; what comes before it is used"
                    )
                    return
                self.done = min(1.0, (at + 8 + size) / self._stop)
                if number == wanted:
                    yield at, file.read(size)
                at += 8 + size


def _decompressor(compression: int, most: int) -> Callable[[bytes], bytes]:
    """What unpacks packets, to so many bytes at most."""
    if compression == 0:
        return _keep
    if compression in (1, 2):
        return partial(_decompress_lz4, most=most)
    if compression in (3, 4):
        return partial(_decompress_zstd, most=most)
    raise RecordingError(f"expected no compression (0), LZ4 (1, 2) or Zstandard (3, 4), got {compression}")


def _keep(payload: bytes) -> bytes:
    return payload


def _decompress_lz4(payload: bytes, most: int) -> bytes:
    import lz4.frame

    try:
        return _whole(lz4.frame.LZ4FrameDecompressor(), payload, most)
    except (RuntimeError, EOFError) as error:
        raise RecordingError(f"LZ4: {error}") from error


def _decompress_zstd(payload: bytes, most: int) -> bytes:
    try:
        from compression import zstd  # Python 3.14 on
    except ImportError:
        from backports import zstd

    try:
        return _whole(zstd.ZstdDecompressor(), payload, most)
    except (zstd.ZstdError, EOFError) as error:
        raise RecordingError(f"Zstandard: {error}") from error


def _whole(decompressor: Any, payload: bytes, most: int) -> bytes:
    """All that is packed, if it is no more than `most` bytes."""
    data: bytes = decompressor.decompress(payload, most + 1)
    if len(data) > most:
        raise RecordingError(f"it unpacks to more than {most:,} bytes, out of proportion to the file")
    return data


def _read_streams(xml: str) -> dict[int, Aedat4Stream]:
    """The streams that the header's XML lists, by number."""
    if "<!" in xml:
        raise RecordingError("the list of streams holds a document type, which AEDAT4 has none of")
    try:
        root = ElementTree.fromstring(xml.rstrip("\0"))
    except ElementTree.ParseError as error:
        raise RecordingError(f"the list of streams is no XML ({error})") from error
    streams = {}
    for node in root.iterfind("./node[@name='outInfo']/node"):
        number, attributes = node.get("name", ""), _attributes(node)
        if number.isdecimal() and len(number) < 10:
            info = node.find("./node[@name='info']")
            about = {} if info is None else _attributes(info)
            streams[int(number)] = Aedat4Stream(
                int(number),
                attributes.get("typeIdentifier", ""),
                attributes.get("originalOutputName", ""),
                about.get("source", ""),
                _size(about),
            )
    if not streams:
        raise RecordingError("its list of streams is empty")
    return streams


def _attributes(node: ElementTree.Element) -> dict[str, str]:
    return {attr.get("key", ""): (attr.text or "").strip() for attr in node.iterfind("./attr")}


def _size(about: dict[str, str]) -> tuple[int, int] | None:
    width, height = about.get("sizeX", ""), about.get("sizeY", "")
    if not (width.isdecimal() and height.isdecimal() and len(width) < 6 and len(height) < 6):
        return None
    return (int(width), int(height)) if 0 < int(width) <= 65536 and 0 < int(height) <= 65536 else None
