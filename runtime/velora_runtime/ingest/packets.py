"""Packets of events between the camera's thread and the packing thread, and their counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, TriggerBatch


class CameraState(str, Enum):
    """State of a camera."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    LOST = "lost"
    ENDED = "ended"


class Delivering(Protocol):
    """Camera as its consumer sees it; see `velora_runtime.cameras.camera.Camera`."""

    error: BaseException | None
    """What ended its thread; whoever waits for the camera raises it."""

    @property
    def state(self) -> CameraState:
        """State of the camera."""

    @property
    def is_delivering(self) -> bool:
        """Whether it is connected and delivers."""

    def close(self) -> None:
        """End the thread and let go of the device."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Events that a camera's own library decoded.

    Attributes:
        batch: in time order, the camera's times; inside the sensor.
        edges: of its trigger inputs, in time order.
        reached_us: the camera's time that all of it is before or at.
    """

    batch: EventBatch
    edges: TriggerBatch
    reached_us: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Data is missing within a connection: what comes next does not go on from what came before.

    Attributes:
        packets: of the camera's link that were let go of.
    """

    packets: int


@dataclass(frozen=True, slots=True)
class EventPacket:
    """Consecutive events of one connection, times on the stream's clock but for those within `words`.

    Attributes:
        number: of the packet, without gaps as the camera's thread makes them.
        t_first_us: time of its first event, or of its first time word where it has none.
        t_reached_us: no event that comes later is before this time.
        events: in it.
        edges: trigger edges in it.
        shift_us: what to add to the times of `words`; 0 where there are none.
        words: whole raw words, or None.
        before: where the decoder stands before them.
        batch: events where there are no words.
    """

    number: int
    t_first_us: int
    t_reached_us: int
    events: int
    edges: TriggerBatch
    shift_us: int = 0
    words: bytes | None = None
    before: NDArray[Any] | None = None
    batch: EventBatch | None = None

    @property
    def chunk(self) -> Any:
        """Chunk for a cursor: its words, or its batch."""
        return self.batch if self.words is None else self.words

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        n = 200 + 10 * len(self.edges)
        return n + (len(self.words) if self.words is not None else 13 * self.events)


@dataclass(slots=True)
class EventCounts:
    """Counts of a live camera's events, by what became of them; written by the camera's thread.

    Attributes:
        received: events that came, those of garbage not counted.
        triggers: trigger edges that came, likewise.
        bytes: raw bytes that came.
        dropped: events by cause: overrun (the packing thread was too slow), rate_cap, clock (the packet in
            which the camera's clock was set).
        garbage_bytes: raw bytes that were no events.
        resyncs: times that words were found again at another byte.
        gaps: times that the camera's library let go of data.
        lost_packets: of the camera's link that it let go of; nobody knows their events.
        clock_sets: times that the camera's clock was set while it was connected.
    """

    received: int = 0
    triggers: int = 0
    bytes: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"overrun": 0, "rate_cap": 0, "clock": 0})
    garbage_bytes: int = 0
    resyncs: int = 0
    gaps: int = 0
    lost_packets: int = 0
    clock_sets: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "received": self.received,
            "triggers": self.triggers,
            "bytes": self.bytes,
            "dropped": dict(self.dropped),
            "garbage_bytes": self.garbage_bytes,
            "resyncs": self.resyncs,
            "gaps": self.gaps,
            "lost_packets": self.lost_packets,
            "clock_sets": self.clock_sets,
        }
