"""Reader of Prophesee `.raw` recordings: EVT2, EVT2.1 and EVT3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.base import EventReader
from velora_edge.events.chunk_stream import ChunkStream
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_header import LONGEST_HEADER, parse_header
from velora_edge.events.formats.raw.raw_index import START, Checkpoint, RawIndex, count_at_most, resume
from velora_edge.events.formats.raw.raw_walker import (
    BATCH_EVENTS,
    NEVER,
    RawWalker,
    WordCursor,
    new_arrays,
    take_batch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.datatypes import TriggerBatch
    from velora_edge.events.base import Encoding, EventTap

_WORDS_TO_JUDGE = 1 << 16


class RawReader(EventReader):
    """One `.raw` file; each pass reads it from the start, a chunk at a time.

    Args:
        path: the file.
        encoding: of its words.
        sensor: width and height, pixels.
        payload_at: byte at which the words begin.
        is_legacy: EVT2.1's order of halves.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        sensor: tuple[int, int],
        payload_at: int = 0,
        is_legacy: bool = True,
    ) -> None:
        self.path, self.encoding = path, encoding
        self.format: str = encoding
        self.width, self.height = sensor
        self.warnings: list[str] = []
        self._triggers: TriggerBatch | None = None
        self.payload_at, self.is_legacy = payload_at, is_legacy

    def stream(self) -> RawStream:
        """A new stream over the whole recording."""
        return RawStream(self)

    def stream_from(self, t_us: int) -> RawStream:
        """A new stream that begins at the first event at `t_us` or later, found through the index."""
        with RawIndex(self) as index:
            index.load()
            stream = RawStream(self, index.find(t_us))
            index.save()
        stream.skip_until(t_us)
        stream.take_triggers()
        return stream

    def read(self) -> EventBatch:
        """All events in one batch; the file is looked through first, to make arrays of the right size."""
        with self.stream() as stream:
            batch = stream.read_batch(count_at_most(self) + 3 * s.BLOCK)
            while len(more := stream.read_batch(BATCH_EVENTS)):  # the file has grown meanwhile
                batch = EventBatch.concatenate([batch, more])
            self._triggers = stream.take_triggers()
        return batch

    def note(self, sentences: list[str]) -> None:
        """Keep warnings, each once."""
        self.warnings.extend(sentence for sentence in sentences if sentence not in self.warnings)

    def new_walker(self) -> RawWalker:
        """A walker for the file's words, before the first."""
        return RawWalker(self.encoding, (self.width, self.height), self.is_legacy)

    def __iter__(self) -> Iterator[EventBatch]:
        with self.stream() as stream:
            while len(batch := stream.read_batch(BATCH_EVENTS)):
                yield batch
            self._triggers = stream.take_triggers()

    def triggers(self) -> TriggerBatch:
        """All external trigger edges, in file order; reads the whole file if nobody did before."""
        if self._triggers is None:
            with self.stream() as stream:
                stream.skip_until(NEVER)
                self._triggers = stream.take_triggers()
        return self._triggers


class RawStream(ChunkStream):
    """One pass over a `.raw` file, straight from words to frames.

    Single-threaded: whoever packs frames from it.

    Args:
        reader: of the file.
        checkpoint: where to begin.
        notes: tell the reader at the end what is wrong with the file; whoever walks over parts of it sums up.
    """

    def __init__(self, reader: RawReader, checkpoint: Checkpoint = START, *, notes: bool = True) -> None:
        self.width, self.height = reader.width, reader.height
        self._notes, self._is_at_end = notes, False
        self._reader = reader
        self._walker = reader.new_walker()
        super().__init__(WordCursor(self._walker))
        with reader.path.open("rb") as file:
            self._walker.header = file.read(reader.payload_at)
        self._file = resume(self._walker, reader, checkpoint)

    def go_to(self, checkpoint: Checkpoint) -> None:
        """Go on from the checkpoint, as a new stream that begins there."""
        self._file.close()
        self._is_at_end = False
        self._file = resume(self._walker, self._reader, checkpoint)

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have the words that were not walked over yet."""
        super().listen(tap)
        self._walker.listen(tap)

    @property
    def t_next_us(self) -> int | None:
        """Time of the next event, or None at the end of the stream."""
        while (t_us := self._walker.find_next_us()) is None:
            if not self._fill():
                self._tell_edges()
                return None
        return t_us

    def read_batch(self, most: int, t1_us: int = NEVER) -> EventBatch:
        """The next events before `t1_us`: about `most` of them, fewer only where there are no more."""
        arrays, state = new_arrays(most), self._walker.state
        state[s.PLACED] = 0
        while self._load() and not self._walker.walk(t1_us, arrays):
            pass
        self._tell_edges()
        return take_batch(arrays, int(state[s.PLACED]))

    def _load(self) -> bool:
        while self._walker.is_used_up:
            if not self._fill():
                return False
        return True

    def _take_edges(self) -> TriggerBatch:
        return self._walker.take_triggers()

    def _fill(self) -> bool:
        if self._file.is_closed:
            return False
        try:
            more = self._walker.fill(self._file.read_into)
        except OSError as error:
            raise RecordingError(
                f"cannot be read: {error.strerror}",
                path=self._reader.path,
                place=f"byte {self._file.position}",
                remedy="copy the file again",
            ) from error
        size = self._file.size
        self._reader.done = self._file.position / size if size else None
        if not more:
            self._file.close()
            self._is_at_end = True
            if self._notes:
                self._reader.note(self._walker.warnings())
        return more

    def losses(self) -> NDArray[np.int64]:
        """Counts of each kind of damage so far; see `RawWalker.losses`."""
        return self._walker.losses()

    @property
    def cut_bytes(self) -> int | None:
        """Bytes of a last word that was cut off; None while the file's end was not reached."""
        return self._walker.cut_bytes if self._is_at_end else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_raw(
    path: Path, *, sensor: tuple[int, int] | None = None, encoding: Encoding | None = None
) -> RawReader:
    """A reader of a `.raw` file by what its header says.

    Args:
        path: the file.
        sensor: width and height; comes before what the header says.
        encoding: of the words; comes before what the header says.

    Raises:
        RecordingError: if neither header nor arguments tell the encoding or the sensor's size.
    """
    try:
        with path.open("rb") as file:
            head = file.read(LONGEST_HEADER)
    except OSError as error:
        raise RecordingError(
            f"cannot be read: {error.strerror}", path=path, remedy="check the path"
        ) from error
    header = parse_header(head, path, sensor)
    encoding = encoding or header.encoding
    if encoding is None:
        raise RecordingError(
            "the header does not tell the encoding",
            path=path,
            place="header",
            remedy="pass --format EVT2, EVT2.1 or EVT3",
        )
    if header.sensor is None:
        raise RecordingError(
            "the header does not tell the sensor's size",
            path=path,
            place="header",
            remedy="pass --sensor WxH",
        )
    is_legacy = header.is_legacy
    if encoding == "EVT2.1" and is_legacy is None:
        is_legacy = _looks_legacy(path, header.payload_at, header.sensor)
    return RawReader(path, encoding, header.sensor, header.payload_at, bool(is_legacy))


def open_evt2(path: Path, *, sensor: tuple[int, int] | None = None) -> RawReader:
    """A reader of EVT2 words, whatever the header says."""
    return open_raw(path, sensor=sensor, encoding="EVT2")


def open_evt21(path: Path, *, sensor: tuple[int, int] | None = None) -> RawReader:
    """A reader of EVT2.1 words, whatever the header says."""
    return open_raw(path, sensor=sensor, encoding="EVT2.1")


def open_evt3(path: Path, *, sensor: tuple[int, int] | None = None) -> RawReader:
    """A reader of EVT3 words, whatever the header says."""
    return open_raw(path, sensor=sensor, encoding="EVT3")


def _looks_legacy(path: Path, payload_at: int, sensor: tuple[int, int]) -> bool:
    """Whether EVT2.1's typed half comes first: the half that holds more plausible words is the typed one."""
    with path.open("rb") as file:
        file.seek(payload_at)
        data = file.read(8 * _WORDS_TO_JUDGE)
    halves = np.frombuffer(data[: len(data) // 8 * 8], "<u4").reshape(-1, 2)
    kind, x, y = halves >> 28, (halves >> 11) & 0x7FF, halves & 0x7FF
    is_event = (kind < 2) & (halves != 0) & (x % 32 == 0) & (x < sensor[0]) & (y < sensor[1])
    first, second = (is_event | np.isin(kind, (8, 10, 14, 15))).sum(axis=0)
    return bool(first > second)
