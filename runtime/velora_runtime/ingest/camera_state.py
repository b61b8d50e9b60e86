"""What a camera is doing, as those who wait for its data see it."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class CameraState(str, Enum):
    """What a camera is doing."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALLED = "stalled"
    LOST = "lost"
    ENDED = "ended"


class Delivering(Protocol):
    """A camera, for whoever takes what it delivers; see `velora_runtime.cameras.camera.Camera`."""

    error: BaseException | None
    """What ended its thread; whoever waits for the camera raises it."""

    @property
    def state(self) -> CameraState:
        """What it is doing."""

    @property
    def is_delivering(self) -> bool:
        """What it sees can be counted on."""

    def close(self) -> None:
        """End the thread and let go of the device."""
