"""Interface of camera drivers: a feed is opened, read, and may be lost at any time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from velora_edge.errors import CameraError, SourceError
from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.ingest.packets import Decoded

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.clock import Clock
    from velora_edge.events.base import Encoding


T_co = TypeVar("T_co", covariant=True)

READ_WAIT_S = 0.1
"""`Feed.read` comes back after about this long, with or without something."""
OPEN_WAIT_S = 5.0
"""`Feed.open` gives up after about this long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits of silence and reconnection.

    Attributes:
        stalled_us: after this, the camera is called stalled, and counts as absent.
        lost_us: after this, the connection is given up and made again.
        retry_us: a camera that is lost for so long has ended; None: it is tried for ever.
    """

    stalled_us: int = 1_000_000
    lost_us: int = 5_000_000
    retry_us: int | None = None


class FeedEndError(Exception):
    """The feed has come to its regular end: nothing more will come. Never reaches a user."""


class Feed(Protocol[T_co]):
    """One device, or one connection. Single-threaded: one thread at a time.

    Attributes:
        name: what the user called it.
        may_be_silent: that nothing comes does not mean that it is gone.
        comes_back: it can be opened again after it was lost.
    """

    name: str
    may_be_silent: bool
    comes_back: bool

    def open(self) -> None:
        """Connect, from the beginning; blocks for `OPEN_WAIT_S` at most.

        Raises:
            CameraError: if it is not there.
            InputError: if it is there, and can never be used as it was asked for.
        """

    def read(self) -> T_co | None:
        """Read the next item; None if nothing came within `READ_WAIT_S`.

        Raises:
            CameraError: if it is gone.
            FeedEndError: if it has ended.
        """

    def close(self) -> None:
        """Close the device. May be called at any time, also twice."""


def open_first(feed: Any) -> None:
    """Open a feed at the beginning of a run, where a camera that is not there is the user's to mend.

    Raises:
        SourceError: if it is not there.
    """
    try:
        feed.open()
    except CameraError as error:
        raise SourceError(
            str(error), path=feed.name, remedy="check that it is there; velora cameras lists what is"
        ) from error


@dataclass(frozen=True, slots=True)
class WordLayout:
    """Layout of raw words: encoding, order of halves, header.

    Attributes:
        encoding: of the words.
        is_legacy: EVT2.1's order of halves.
        header: what stood before them.
    """

    encoding: Encoding
    is_legacy: bool = True
    header: bytes = b""


class EventFeed(Feed[bytes | Decoded], Protocol):
    """A live event camera; see `velora_runtime.cameras.feeds.Feed`.

    Attributes:
        sensor: width and height, pixels; known once it was opened.
        layout: of its raw words, likewise; None where it gives decoded events.
        can_wait: the other side waits where nobody reads.
    """

    can_wait: bool
    sensor: tuple[int, int]
    layout: WordLayout | None


@dataclass(frozen=True, slots=True)
class LiveSetup:
    """Arguments that every live camera is opened with.

    Attributes:
        clock: the host's.
        stop: set when the run is to end.
        note: gets lines for people, from any thread.
        sensor: width and height in pixels, for raw words without a header.
        encoding: of such words.
        settings: of the cameras.
        cap: events a second that are let through; None: all.
        patience: with silence.
        waits: nothing is dropped: the other side waits.
    """

    clock: Clock
    stop: threading.Event
    note: Callable[[str], None]
    sensor: tuple[int, int] | None = None
    encoding: Encoding | None = None
    settings: CameraSettings = field(default_factory=CameraSettings)
    cap: float | None = None
    patience: Patience = field(default_factory=Patience)
    waits: bool = False


ClockOf = Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture as it came; it is brought to RGB only where somebody wants it.

    Attributes:
        render: gives uint8[H, W, 3], RGB.
        t_us: when it was taken, on the clock that `clock` names; None where nobody knows.
        clock: device: the camera's own; host: this machine's monotonic clock.
    """

    render: Callable[[], NDArray[np.uint8]]
    t_us: int | None
    clock: ClockOf = "device"


class RGBFeed(Feed[Shot], Protocol):
    """A live RGB camera; see `velora_runtime.cameras.feeds.Feed`.

    Attributes:
        size: width and height of the pictures, pixels; known once it was opened.
    """

    size: tuple[int, int]
