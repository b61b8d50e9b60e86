"""What live event cameras have in common, and what a user may say of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from velora_runtime.cameras.camera_settings import CameraSettings
from velora_runtime.cameras.feed import Feed, Patience
from velora_runtime.ingest.packets import Decoded

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from velora_edge.clock import Clock
    from velora_edge.events.base import Encoding


@dataclass(frozen=True, slots=True)
class WordLayout:
    """How raw words are to be read.

    Attributes:
        encoding: of the words.
        is_legacy: EVT2.1's order of halves.
        header: what stood before them.
    """

    encoding: Encoding
    is_legacy: bool = True
    header: bytes = b""


class EventFeed(Feed[bytes | Decoded], Protocol):
    """A live event camera; see `velora_runtime.cameras.feed.Feed`.

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
    """What a live camera is opened with.

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
