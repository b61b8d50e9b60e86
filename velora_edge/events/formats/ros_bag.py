"""Reader of events in ROS 1 bags, and in ROS 2 bags of SQLite and MCAP files, by the package rosbags."""

from __future__ import annotations

import bz2
import contextlib
import importlib
import sqlite3
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import MissingExtraError, RecordingError
from velora_edge.events.formats.arrays import ArrayReader, measure_sensor
from velora_edge.events.formats.ros_messages import (
    ARRAY_TYPES,
    PACKET_TYPES,
    PacketDecoder,
    parse_array,
    parse_packet,
)
from velora_edge.limits import STREAMED_RATIO, Budget, check_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SQLITE = b"SQLite format 3\0"
_MOST_TABLES = 100
_IN_CHUNKS, _MOST_RECORDS = (3, 4, 5), 1 << 20
_PIECE_BYTES = 1 << 20
_BUDGET: ContextVar[Budget] = ContextVar("budget")
"""Of the bag that rosbags reads for this thread."""


class RosBagReader(ArrayReader):
    """One topic of events in a bag.

    Args:
        path: a .bag, .mcap or .db3 file, or the folder of a ROS 2 bag.
        sensor: width and height, before what the messages tell.
        part: the topic; the first by name without it.

    Raises:
        RecordingError: if the bag is damaged, or has no such topic of events.
        MissingExtraError: if rosbags is not installed.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None, part: str | None = None) -> None:
        self.path, self.warnings = path, []
        self._topic, self._is_packets = self._choose(part)
        self._triggers: TriggerBatch | None = None
        warnings = self.warnings
        super().__init__(path, _format_name(path), sensor or self._first_size() or (0, 0))
        self.warnings = warnings
        if not self.width:
            measure_sensor(self)

    def batches(self) -> Iterator[EventBatch]:
        """The events message by message."""
        decoder = PacketDecoder((self.width or 65536, self.height or 65536))
        edges: list[TriggerBatch] = []
        damaged, reason, lost, last_seq = 0, "", 0, None
        for data, is_cdr in self._messages():
            try:
                if self._is_packets:
                    packet = parse_packet(data, is_cdr)
                    lost += _missing_between(last_seq, packet.seq)
                    last_seq = packet.seq
                    batch = decoder.decode(packet)
                    edges.append(decoder.take_triggers())
                else:
                    _, _, batch = parse_array(data, is_cdr)
            except RecordingError as error:
                damaged, reason = damaged + 1, reason or error.problem
                continue
            yield batch
        self._triggers = TriggerBatch.concatenate(edges)
        for sentence in decoder.warnings():
            self.warn(sentence)
        if lost:
            self.warn(f"{lost:,} packets are missing: they were lost before they came to the bag")
        if damaged:
            self.warn(f"{damaged:,} messages are damaged and were left out (first: {reason})")

    def triggers(self) -> TriggerBatch:
        """All edges in the topic's packets."""
        if self._triggers is None:
            for _ in self.batches():
                pass
        return TriggerBatch.empty() if self._triggers is None else self._triggers

    def _choose(self, part: str | None) -> tuple[str, bool]:
        """The topic, and whether it holds packets rather than arrays of events."""
        with _OpenBag(self.path) as bag:
            topics = sorted({(c.topic, c.msgtype) for c in bag.connections})
        found = [(topic, kind) for topic, kind in topics if kind in PACKET_TYPES + ARRAY_TYPES]
        if not found:
            kinds = ", ".join(sorted({kind for _, kind in topics})[:8]) or "nothing"
            raise RecordingError(
                f"expected messages of event_camera_msgs or dvs_msgs, the bag holds {kinds}",
                path=self.path,
                remedy="record the camera's events topic",
            )
        names = ", ".join(topic for topic, _ in found)
        if part is None and len(found) > 1:
            self.warn(f"the bag has {len(found)} topics of events, {names}; the first is taken")
        for topic, kind in found:
            if part is None or part.strip("/") == topic.strip("/"):
                return topic, kind in PACKET_TYPES
        raise RecordingError(
            f"there is no topic of events {part!r} in the bag", path=self.path, remedy=f"choose from {names}"
        )

    def _first_size(self) -> tuple[int, int] | None:
        """The sensor's width and height as the first good message tells."""
        for data, is_cdr in self._messages():
            try:
                if self._is_packets:
                    packet = parse_packet(data, is_cdr)
                    width, height = packet.width, packet.height
                else:
                    width, height, _ = parse_array(data, is_cdr)
            except RecordingError:
                continue
            return (width, height) if 0 < width <= 65536 and 0 < height <= 65536 else None
        return None

    def _messages(self) -> Iterator[tuple[bytes, bool]]:
        """The topic's serialised messages, and whether they are CDR, in the order of the bag."""
        with _OpenBag(self.path) as bag:
            wanted = [connection for connection in bag.connections if connection.topic == self._topic]
            messages = bag.reader.messages(wanted)
            while True:
                try:
                    with bag.bounded():
                        message = next(messages, None)
                except Exception as error:  # rosbags raises what struct, lz4 and SQLite do
                    self.warn(f"the bag is damaged; what comes before that is used ({_first_line(error)})")
                    return
                if message is None:
                    return
                self.done = bag.share_before(message[1])
                yield bytes(message[2]), bag.is_ros2


class _OpenBag:
    """A bag, open while it is used in `with`."""

    def __init__(self, path: Path) -> None:
        try:
            from rosbags import rosbag1, rosbag2
        except ImportError as error:
            raise MissingExtraError("rosbags", "ros", f"reading {path}") from error
        kind = _format_name(path)
        self._path, self.is_ros2 = path, kind != "ROS 1 bag"
        self.reader: Any
        _bound_rosbags()
        try:
            self._budget = Budget(path, STREAMED_RATIO, size=_check_files(path))
            if self.is_ros2:
                plugins = rosbag2.Reader.STORAGE_PLUGINS
                self.reader = plugins["dir" if path.is_dir() else ".mcap" if "MCAP" in kind else ".db3"](path)
            else:
                self.reader = rosbag1.Reader(path)
        except Exception as error:  # whatever a damaged bag leads to
            raise self._damaged(error) from error

    @property
    def connections(self) -> list[Any]:
        """Topics with their types; those of a damaged bag that have none are left out."""
        found: list[Any] = self.reader.connections
        return [c for c in found if isinstance(c.topic, str) and isinstance(c.msgtype, str)]

    def share_before(self, time_ns: int) -> float | None:
        """How much of the bag lies before a time, 0 to 1; None where the bag does not tell."""
        try:
            share = (time_ns - self.reader.start_time) / self.reader.duration
        except Exception:  # whatever a damaged bag leads to
            return None
        return min(max(share, 0.0), 1.0)

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """What rosbags unpacks within is spent from this bag's budget."""
        token = _BUDGET.set(self._budget)
        try:
            yield
        finally:
            _BUDGET.reset(token)

    def __enter__(self) -> _OpenBag:
        try:
            with self.bounded():
                self.reader.open()
        except Exception as error:  # whatever a damaged bag leads to
            raise self._damaged(error) from error
        return self

    def __exit__(self, *exc: object) -> None:
        self.reader.close()

    def _damaged(self, error: Exception) -> RecordingError:
        remedy = "copy it again" if self.is_ros2 else "copy it again, or repair it with `rosbag reindex`"
        return RecordingError(
            f"the bag cannot be opened ({_first_line(error)})", path=self._path, remedy=remedy
        )


def _check_files(path: Path) -> int:
    """Bytes of the bag, whose files lie in its folder and hold tables alone.

    Raises:
        RecordingError: if one leads out of the folder, or is a database with views, which may never end.
    """
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            check_inside(file, path)
        with file.open("rb") as opened:
            is_database = opened.read(len(_SQLITE)) == _SQLITE
        if is_database:
            _check_tables(file)
    return sum(file.stat().st_size for file in files)


def _check_tables(path: Path) -> None:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = connection.execute("SELECT type, sql FROM sqlite_master").fetchmany(_MOST_TABLES)
    for kind, text in rows:
        if kind in ("view", "trigger") or "VIRTUAL" in str(text).upper().split()[:2]:
            raise RecordingError(
                f"a database with a {kind} in it, which bags have none of",
                path=path,
                remedy="record it again",
            )


def _bound_rosbags() -> None:
    """Let rosbags unpack as much as the bag's budget has, and no more.

    It unpacks a chunk whole, whatever its header says that it comes to.
    """
    import lz4.frame

    rosbag1: Any = importlib.import_module("rosbags.rosbag1.reader")
    rosbag2: Any = importlib.import_module("rosbags.rosbag2.reader")
    storage_mcap: Any = importlib.import_module("rosbags.rosbag2.storage_mcap")
    if isinstance(rosbag2.zstd, _BoundedZstd):
        return
    zstd: Any = rosbag2.zstd
    bounded = _BoundedZstd(zstd)
    rosbag1.decompressors["bz2"] = lambda data: _inflate(bz2.BZ2Decompressor, data)
    rosbag1.decompressors["lz4"] = lambda data: _inflate(lz4.frame.LZ4FrameDecompressor, data)
    storage_mcap.DECOMPRESSORS["lz4"] = lambda data, _: _inflate_records(lz4.frame.LZ4FrameDecompressor, data)
    storage_mcap.DECOMPRESSORS["zstd"] = lambda data, _: _inflate_records(zstd.ZstdDecompressor, data)
    rosbag2.zstd = bounded


class _BoundedZstd:
    """What rosbags uses of the module zstd."""

    def __init__(self, zstd: Any) -> None:
        self._zstd = zstd

    def decompress(self, data: bytes) -> bytes:
        """All that is packed."""
        return _inflate(self._zstd.ZstdDecompressor, data)

    def open(self, file: Any, mode: str) -> Any:
        """A packed file, to be read."""
        budget = _BUDGET.get()

        class Bounded(self._zstd.ZstdFile):  # type: ignore[name-defined]
            def read(self, size: int = -1) -> bytes:
                data: bytes = super().read(min(size, _PIECE_BYTES) if size >= 0 else _PIECE_BYTES)
                budget.spend(len(data), "what it unpacks to")
                return data

        return Bounded(file, mode)


def _inflate(new: Callable[[], Any], data: bytes) -> bytes:
    """All that is packed, in one frame after the other."""
    budget, parts = _BUDGET.get(), []
    while data:
        unpacker = new()
        parts.append(unpacker.decompress(data, budget.left + 1))
        budget.spend(len(parts[-1]), "what it unpacks to")
        if not unpacker.eof:
            raise EOFError("packed data that is cut off")
        data = unpacker.unused_data or b""
    return b"".join(parts)


def _inflate_records(new: Callable[[], Any], data: bytes) -> bytes:
    """A chunk of MCAP, which holds schemas, channels and messages, and not millions of them.

    Layout (mcap.dev/spec): records of a byte for the type, a u64 for the size, and the content.
    """
    chunk = _inflate(new, data)
    at = n = 0
    while at < len(chunk):
        if chunk[at] not in _IN_CHUNKS or len(chunk) - at < 9 or (n := n + 1) > _MOST_RECORDS:
            raise RecordingError("records that no chunk has, out of proportion")
        at += 9 + int.from_bytes(chunk[at + 1 : at + 9], "little")
    return chunk


def _format_name(path: Path) -> str:
    if path.is_dir():
        return "ROS 2 bag"
    with path.open("rb") as file:
        head = file.read(8)
    return (
        "ROS 1 bag"
        if head.startswith(b"#ROSBAG")
        else "MCAP"
        if head.startswith(b"\x89MCAP")
        else "ROS 2 bag"
    )


def _missing_between(last: int | None, seq: int) -> int:
    """Packets between two numbers; a number that does not grow is a camera that was started again."""
    return seq - last - 1 if last is not None and seq > last else 0


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
