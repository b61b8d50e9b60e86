"""Interfaces of event readers, streams, filters and listeners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from velora_edge.datatypes import EventBatch, TriggerBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self


Encoding = Literal["EVT2", "EVT2.1", "EVT3"]
"""Of raw words."""
BATCH_EVENTS = 1 << 17
FAR_AHEAD_US = 1 << 62
"""Later than any event."""
LATEST_EVENT_US = 10_000_000
"""An event may come so much later in a file than one with its time."""
LONGEST_GAP_US = 60_000_000
"""A camera is never silent for so long: its clock jumped, or the file is damaged."""


class FrameAccumulator(Protocol):
    """The state of one event frame under construction, in one representation, at model resolution.

    Made by `velora_edge.events.accumulate.representations.make_accumulator`. Single-threaded: whoever packs
    frames.
    """

    shape: tuple[int, int]
    """Height and width of the frame, pixels."""
    source_hw: tuple[int, int]
    """Height and width of the sensor that its registration map is for, pixels."""
    events: int
    """Events that have fallen on the frame since the last `begin`."""
    table: Any
    """What kernels take of the registration map; see `velora_edge.events.accumulate.representations`."""
    state: Any
    """What kernels take of the representation: a named tuple of arrays."""

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the frame for the window [t0, t1)."""

    def render_into(self, image: NDArray[np.uint8]) -> None:
        """Write the frame, uint8[H, W, 3], to the caller's array."""


class WordsContext(Protocol):
    """Context of raw words: their encoding, and the decoder's state before them."""

    header: bytes
    """What stood before the words where they come from, empty where nothing did."""

    @property
    def encoding(self) -> Encoding:
        """Encoding of the words."""

    @property
    def sensor(self) -> tuple[int, int]:
        """Width and height, pixels."""

    @property
    def is_legacy(self) -> bool:
        """EVT2.1's order of halves."""

    @property
    def state(self) -> NDArray[np.int64]:
        """The decoder's memory; see `velora_edge.events.formats.raw._raw_state`."""


class EventTap(Protocol):
    """Listener to a stream's chunks as they are taken in; called by the thread that reads the stream."""

    def begin(self, shift_us: int) -> None:
        """Begin anew: what comes need not continue what came before; `shift_us` applies to times in words."""

    def take_words(self, words: NDArray[Any], context: WordsContext) -> None:
        """Take raw words as they came, whole ones.

        Args:
            words: of the sensor's encoding, valid until the call returns.
            context: of the first of them; valid until the call returns.
        """

    def take_batch(self, batch: EventBatch) -> None:
        """Take events of a source that has no raw words."""

    def take_edges(self, edges: TriggerBatch) -> None:
        """Take trigger edges that were passed; at least one."""


class EventStream(ABC):
    """Stream of one sensor's events into frames, in one pass.

    Single-threaded: whoever packs frames from it.
    """

    width: int
    height: int
    is_live: bool = False
    """Events are still on their way: `await_window` tells when those of a window are there."""
    shift_us: int = 0
    """What to add to the camera's times to get the stream's. Not 0 for a camera whose clock began anew."""
    _tap: EventTap | None = None

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Wait until all events of [t0, t1) are there, or will not come; whether the camera was there.

        Args:
            t0_us: the window's start.
            t1_us: its end.
            meanwhile: is called before each wait.
        """
        return True

    @property
    def reached_us(self) -> int | None:
        """All events before this time are here, of a live stream that can go back to a mark; else None."""
        return None

    def checkpoint(self) -> None:  # noqa: B027  (for streams that have `reached_us`)
        """Set a checkpoint here: what is read from here on is kept."""

    def rollback(self) -> None:  # noqa: B027
        """Return to the checkpoint and forget it."""

    def commit(self) -> None:  # noqa: B027
        """Forget the checkpoint."""

    def warm_up(self, frame: FrameAccumulator) -> None:  # noqa: B027  (recordings compile as they go)
        """Load the kernels of a live stream, so that its first window is not slower; adds nothing."""

    def listen(self, tap: EventTap) -> None:
        """Let `tap` listen to all that was not read yet, and to what is taken in from now on."""
        self._tap = tap

    @property
    @abstractmethod
    def t_next_us(self) -> int | None:
        """Time of the next event, or None at the end of the stream."""

    @abstractmethod
    def skip_until(self, t_us: int) -> int:
        """Skip the events before `t_us`; return how many they were."""

    @abstractmethod
    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` to the frame; return how many were walked over.

        Raises:
            ValueError: if the frame's registration map is for a sensor of another size.
        """

    def read_batch(self, most: int, t1_us: int) -> EventBatch:
        """The next events before `t1_us`: about `most` of them, none only where there are no more before it.

        Raises:
            TypeError: if this kind of stream gives its events to frames only.
        """
        raise TypeError(f"{type(self).__name__} gives its events to frames only")

    def _check_sensor(self, frame: FrameAccumulator) -> None:
        """Kernels look addresses up in the map unchecked, so it must be this sensor's."""
        if frame.source_hw != (self.height, self.width):
            height, width = frame.source_hw
            raise ValueError(
                f"expected a registration map for the sensor of {self.width}x{self.height}, "
                f"got one for {width}x{height}"
            )

    @abstractmethod
    def take_triggers(self) -> TriggerBatch:
        """Return the trigger edges passed since the last call."""

    def close(self) -> None:  # noqa: B027  (most streams hold nothing)
        """Close files and devices."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class EventFilter(ABC):
    """Filter over one stream of events.

    Single-threaded: whoever passes events through it.

    Attributes:
        name: as users call it.
        dropped: events that were not passed on so far.
    """

    name: ClassVar[str]
    dropped: int = 0

    @abstractmethod
    def apply(self, batch: EventBatch) -> EventBatch:
        """The events that pass, of those that were held back and of these.

        Args:
            batch: the next events, inside the sensor; not modified.
        """

    def flush(self, t_us: int) -> EventBatch:
        """The events that pass of those that were held back; what comes from now on is at `t_us` or later."""
        return EventBatch.empty()


class EventReader(ABC):
    """Reader of one recording of events.

    Each iteration starts at the beginning and needs a bounded amount of memory, whatever the file's size.

    Attributes:
        path: the file.
        format: name of its format, such as "EVT3".
        width: of the sensor, pixels.
        height: of the sensor, pixels.
        warnings: what was wrong with the file, one sentence each; complete once it was read to its end.
        done: how much of the file the latest pass has been through, 0 to 1; None where that cannot be told.
    """

    done: float | None = None
    path: Path
    format: str
    width: int
    height: int
    warnings: list[str]

    @abstractmethod
    def __iter__(self) -> Iterator[EventBatch]:
        """Batches of events in file order; none is empty."""

    @abstractmethod
    def stream(self) -> EventStream:
        """A new stream over the whole recording."""

    def stream_from(self, t_us: int) -> EventStream:
        """A new stream that begins at the first event at `t_us` or later.

        It gives what `stream` gives after `skip_until(t_us)`, and the trigger edges from there on. Where the
        format allows it, what comes before is not read.
        """
        stream = self.stream()
        stream.skip_until(t_us)
        stream.take_triggers()
        return stream

    def first_us(self) -> int | None:
        """Time of the first event, or None where there is none."""
        first = next(iter(self), None)
        return None if first is None else int(first.t_us[0])

    def between(self, t0_us: int, t1_us: int | None = None) -> Iterator[EventBatch]:
        """The events of [t0, t1), or from t0 on, in file order; none of the batches is empty.

        Times may be in disorder: events are looked for until all are later than t1 by `LATEST_EVENT_US`.
        """
        with self.stream_from(t0_us) as stream:
            while len(batch := stream.read_batch(BATCH_EVENTS, FAR_AHEAD_US)):
                if t1_us is not None and int(batch.t_us.min()) >= t1_us + LATEST_EVENT_US:
                    return
                inside = batch.t_us >= t0_us
                if t1_us is not None:
                    inside &= batch.t_us < t1_us
                if inside.any():
                    yield batch if inside.all() else batch[inside]

    @abstractmethod
    def triggers(self) -> TriggerBatch:
        """All external trigger edges of the recording; reads the file where it must."""

    def read(self) -> EventBatch:
        """All events in one batch."""
        return EventBatch.concatenate(list(self))

    def close(self) -> None:  # noqa: B027  (most readers hold nothing between iterations)
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
