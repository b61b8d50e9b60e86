"""What a device is to the runtime: opened, it gives one thing after another, and may be gone at any time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from velora_edge.errors import CameraError, SourceError

T_co = TypeVar("T_co", covariant=True)

READ_WAIT_S = 0.1
"""`Feed.read` comes back after about this long, with or without something."""
OPEN_WAIT_S = 5.0
"""`Feed.open` gives up after about this long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nothing may come.

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
        """What comes next; None if nothing came within `READ_WAIT_S`.

        Raises:
            CameraError: if it is gone.
            FeedEndError: if it has ended.
        """

    def close(self) -> None:
        """Let go of it. May be called at any time, also twice."""


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
