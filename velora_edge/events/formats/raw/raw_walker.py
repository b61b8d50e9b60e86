"""Walk over raw words, chunk by chunk, for files and live streams; and a decoder of pushed bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._evt2_kernels import walk_evt2, walk_evt21
from velora_edge.events.formats.raw._evt3_kernels import walk_evt3
from velora_edge.events.kernels._sink_kernels import ArraySink, CountSink, FrameSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from velora_edge.events.base import Encoding, EventTap, FrameAccumulator


CHUNK_BYTES = 1 << 20
"""Small enough for the last cache; so large that threads seldom wait for each other between two calls."""
WORD_BYTES = {"EVT2": 4, "EVT2.1": 8, "EVT3": 2}
_ELEMENT = {"EVT2": "<u4", "EVT2.1": "<u4", "EVT3": "<u2"}
_EDGES = 1024
_SENTENCES = (
    (
        s.EARLY,
        "1 event comes before the first time word; it has no time and was dropped",
        "{n:,} events come before the first time word; they have no time and were dropped",
    ),
    (
        s.EARLY_EDGES,
        "1 trigger edge comes before the first time word and was dropped",
        "{n:,} trigger edges come before the first time word and were dropped",
    ),
    (
        s.HOMELESS,
        "1 event comes before the first address that it refers to and was dropped",
        "{n:,} events come before the first address that they refer to and were dropped",
    ),
    (
        s.OUTSIDE,
        "1 event lies outside the sensor of {sensor} and was dropped",
        "{n:,} events lie outside the sensor of {sensor} and were dropped",
    ),
    (
        s.BACKWARDS,
        "the time steps back once; the events keep the camera's times",
        "the time steps back {n:,} times; the events keep the camera's times",
    ),
    (
        s.UNKNOWN,
        "1 word is of no type that {encoding} has and was passed over",
        "{n:,} words are of no type that {encoding} has and were passed over",
    ),
    (
        s.PADDING,
        "1 padding word (0x9999) was passed over",
        "{n:,} padding words (0x9999) were passed over",
    ),
)
NEVER = 1 << 62
LONG_AGO = -NEVER


class WalkerPlace(NamedTuple):
    """Place of a walker: the position in its chunk's words, and the decoder's state."""

    position: int
    state: NDArray[np.int64]


class RawWalker:
    """Walker over raw words: the decoder's state and the present chunk.

    Single-threaded: whoever pulls events through it.

    Args:
        encoding: of the words.
        sensor: width and height, pixels.
        is_legacy: EVT2.1's order of halves.

    Attributes:
        header: what stood before the words where they come from, empty where nothing did.
        tap: gets each chunk when it is filled, before it is walked.
    """

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool = True) -> None:
        self.encoding, self.sensor, self.is_legacy = encoding, sensor, is_legacy
        self.header = b""
        self.tap: EventTap | None = None
        self.state: NDArray[np.int64] = s.new_state(*sensor)
        self._head = 0 if is_legacy else 1
        self._word_bytes = WORD_BYTES[encoding]
        self._buffer = np.empty(CHUNK_BYTES + 8, np.uint8)
        self.drop_words()
        self._edges = s.EdgeBuffer(
            np.empty(_EDGES, np.int64), np.empty(_EDGES, np.uint8), np.empty(_EDGES, np.uint8)
        )
        self._scratch = s.new_scratch()
        self._taken: list[TriggerBatch] = []

    def forget(self) -> None:
        """Reset to the state of a new walker."""
        self.state[:] = s.new_state(*self.sensor)
        self._taken.clear()
        self.drop_words()

    def drop_words(self) -> None:
        """Drop the chunk, so that the next words need not follow it."""
        self._words: NDArray[Any] = self._buffer[:0].view(_ELEMENT[self.encoding])
        self._position, self._rest = 0, slice(0, 0)

    def pass_over(self, n: int) -> None:
        """Go on `n` words further on in the chunk."""
        self._position += n

    def fill(self, read_into: Callable[[memoryview], int | None]) -> bool:
        """Take the next chunk, once this one is used up; whether there was any.

        Args:
            read_into: writes bytes to the memory that it is given and returns how many; 0 at the end.
        """
        left = self._rest.stop - self._rest.start
        self._buffer[:left] = self._buffer[self._rest]
        got = read_into(self._buffer.data[left : left + CHUNK_BYTES]) or 0
        usable = (left + got) // self._word_bytes * self._word_bytes
        self._words = self._buffer[:usable].view(_ELEMENT[self.encoding])
        self._rest = slice(usable, left + got)
        self._position = 0
        if self.tap is not None and usable:
            self.tap.take_words(self._words, self)
        return got > 0

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have what is left of the chunk, and the next ones."""
        self.tap = tap
        if self._position < len(self._words):
            tap.take_words(self._words[self._position :], self)

    @property
    def words(self) -> NDArray[Any]:
        """The chunk's words, valid until the next is taken."""
        return self._words

    def walk(self, t1_us: int, sink: ArraySink | FrameSink | CountSink) -> bool:
        """Put the chunk's events before `t1_us` into the sink; whether an event was left for later.

        `state[PLACED]` is the place in the sink, before and after. `walked` is then what was walked over.
        """
        self.walked = 0
        t1_us = max(LONG_AGO, min(t1_us, NEVER))
        while self._position < len(self._words):
            if self.encoding == "EVT3":
                end = walk_evt3(
                    self._words, self._position, t1_us, self.state, self._edges, self._scratch, sink
                )
            elif self.encoding == "EVT2":
                end = walk_evt2(
                    self._words, self._position, t1_us, self.state, self._edges, self._scratch, sink
                )
            else:
                end = walk_evt21(
                    self._words,
                    self._position,
                    t1_us,
                    self.state,
                    self._edges,
                    self._scratch,
                    sink,
                    self._head,
                )
            self._position = int(end)
            self.walked += int(self.state[s.WALKED])
            if self.state[s.EDGES] < _EDGES:
                break
            self._drain_edges()
        return self._position < len(self._words)

    def fill_with(self, data: bytes | memoryview) -> bool:
        """Take these bytes as the next chunk, at most `CHUNK_BYTES`; whether there were any."""

        def read_into(memory: memoryview) -> int:
            memory[: len(data)] = data
            return len(data)

        return self.fill(read_into)

    @property
    def is_used_up(self) -> bool:
        """Whether no word of the chunk is left."""
        return self._position >= len(self._words)

    def place(self) -> WalkerPlace:
        """Place in the chunk, for `return_to`."""
        return WalkerPlace(self._position, self.state.copy())

    def return_to(self, place: WalkerPlace) -> None:
        """Return to a place; the same chunk is filled in."""
        self._position = place.position
        self.state[:] = place.state

    def find_next_us(self) -> int | None:
        """Time of the chunk's next event, None if there is none in it."""
        if not self.walk(LONG_AGO, CountSink()):
            return None
        if self.encoding == "EVT3":
            return int(self.state[s.T_US])
        word = int(self._words[self._position + (self._head if self.encoding == "EVT2.1" else 0)])
        return int(self.state[s.T_US]) + ((word >> 22) & 63)

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges walked over since the last call."""
        self._drain_edges()
        taken = TriggerBatch.concatenate(self._taken)
        self._taken.clear()
        return taken

    def _drain_edges(self) -> None:
        n = int(self.state[s.EDGES])
        if n:
            edges = self._edges
            self._taken.append(TriggerBatch(edges.t_us[:n].copy(), edges.id[:n].copy(), edges.p[:n].copy()))
            self.state[s.EDGES] = 0

    @property
    def cut_bytes(self) -> int:
        """Bytes at the end of what was read that are no whole word."""
        return self._rest.stop - self._rest.start

    def losses(self) -> NDArray[np.int64]:
        """Counts of each kind of damage so far; sums of several walks may be described."""
        return np.array([self.state[place] for place, _, _ in _SENTENCES], np.int64)

    def describe(self, losses: NDArray[np.int64], cut_bytes: int) -> list[str]:
        """Warnings for counts of damage, one sentence each.

        Args:
            losses: see `losses`.
            cut_bytes: at the recording's end.
        """
        found = []
        for n, (_, one, many) in zip(losses.tolist(), _SENTENCES, strict=True):
            if n:
                text = one if n == 1 else many
                found.append(text.format(n=n, sensor="x".join(map(str, self.sensor)), encoding=self.encoding))
        if cut_bytes:
            found.append(
                f"the recording was cut off within a word: dropped {cut_bytes} "
                f"of the {self._word_bytes} bytes of its last one"
            )
        return found

    def warnings(self) -> list[str]:
        """Warnings so far, one sentence each."""
        return self.describe(self.losses(), self.cut_bytes)


BATCH_EVENTS = 1 << 17


def new_arrays(events: int) -> ArraySink:
    """Arrays with room for about that many events, at least for those of one block."""
    n = max(events, 3 * s.BLOCK)
    return ArraySink(
        np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.uint8)
    )


def take_batch(arrays: ArraySink, events: int) -> EventBatch:
    """The events at the front of the arrays: views, or copies where little of the arrays is used."""
    batch = EventBatch(arrays.t_us[:events], arrays.x[:events], arrays.y[:events], arrays.p[:events])
    if events * 2 >= len(arrays.t_us):
        return batch
    return EventBatch(batch.t_us.copy(), batch.x.copy(), batch.y.copy(), batch.p.copy())


HARMLESS = {"EVT2": b"\0\0\0\xe0", "EVT2.1": bytes(8), "EVT3": b"\0\xe0"}
"""Words that say nothing, to load the kernels with."""


class WordCursor:
    """A cursor over a chunk of raw words, from a file or from a packet."""

    def __init__(self, walker: RawWalker) -> None:
        self.walker = walker

    def load(self, words: bytes, tap: EventTap | None) -> None:
        """Load whole words, which the listener gets."""
        self.walker.take_triggers()  # of the words before: nobody wants them, or they would have been taken
        self.walker.tap = tap
        self.walker.fill_with(words)
        self.walker.tap = None

    @property
    def is_used_up(self) -> bool:
        """Whether no word of the chunk is left."""
        return self.walker.is_used_up

    def place(self) -> WalkerPlace:
        """Place in the chunk, for `return_to`."""
        return self.walker.place()

    def return_to(self, words: bytes | None, place: WalkerPlace) -> None:
        """Return to a place in those words, or before any."""
        self.walker.drop_words()
        if words is not None:
            self.load(words, None)
        self.walker.return_to(place)

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""
        is_left = self.walker.walk(t1_us, CountSink())
        return self.walker.walked, is_left

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""
        state = self.walker.state
        state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, FrameSink(frame.table, frame.state))
        frame.events += int(state[s.PLACED])
        return self.walker.walked, is_left

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """About `most` events before `t1_us`, and whether any are left."""
        arrays, state = new_arrays(most), self.walker.state
        state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, arrays)
        return take_batch(arrays, int(state[s.PLACED])), is_left

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels by walking a word that says nothing; the frame is left empty."""
        other = WordCursor(RawWalker(self.walker.encoding, self.walker.sensor, self.walker.is_legacy))
        for walk in (
            other.count,
            lambda t_us: other.accumulate(t_us, frame),
            lambda t_us: other.read(1, t_us),
        ):
            other.load(HARMLESS[self.walker.encoding], None)
            walk(1)


class RawDecoder:
    """Decodes a stream of words without its header, split anywhere.

    Single-threaded: whoever feeds it.

    Args:
        encoding: EVT2, EVT2.1 or EVT3.
        sensor: width and height, pixels.
        is_legacy: EVT2.1's order of halves: True with the typed half first.
    """

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool = True) -> None:
        self._walker = RawWalker(encoding, sensor, is_legacy)

    def feed(self, data: bytes | bytearray | memoryview) -> EventBatch:
        """The events that these bytes complete, in the order of the stream."""
        rest = memoryview(data).cast("B")
        batches = []
        for start in range(0, len(rest), CHUNK_BYTES):
            self._walker.fill_with(rest[start : start + CHUNK_BYTES])
            more = True
            while more:
                arrays = new_arrays(BATCH_EVENTS)
                self._walker.state[s.PLACED] = 0
                more = self._walker.walk(NEVER, arrays)
                batches.append(take_batch(arrays, int(self._walker.state[s.PLACED])))
        return EventBatch.concatenate(batches)

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges decoded since the last call."""
        return self._walker.take_triggers()

    def warnings(self) -> list[str]:
        """Warnings so far, one sentence each; at the stream's end, its cut last word too."""
        return self._walker.warnings()
