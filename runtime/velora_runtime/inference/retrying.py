"""An engine that may fail once: a driver's hiccup must not end a run of days."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.buffers.ring import Presence, Slot
    from velora_runtime.engines.base import Engine

T = TypeVar("T")
P = ParamSpec("P")


class RetryingEngine:
    """Another engine, each call of which is made again where it failed; a second failure is the caller's.

    All calls write whole slots, or read them, so they can be made again.

    Single-threaded: the inference thread only.

    Args:
        engine: the other one; closed with this one.
        note: gets a line at each failure that was got over.

    Attributes:
        retries: calls that were made again.
    """

    def __init__(self, engine: Engine, note: Callable[[str], None]) -> None:
        self.name = engine.name
        self.retries = 0
        self._engine, self._note = engine, note

    def encode_rgb(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an RGB picture into the slot."""
        self._twice(self._engine.encode_rgb, image, slot)

    def encode_event(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an event frame into the slot."""
        self._twice(self._engine.encode_event, image, slot)

    def encode_diff(
        self,
        rgb: NDArray[np.uint8],
        rgb_before: NDArray[np.uint8],
        event: NDArray[np.uint8],
        event_before: NDArray[np.uint8],
        slot: Slot,
    ) -> None:
        """Put the tokens of the difference to the pair before into the slot."""
        self._twice(self._engine.encode_diff, rgb, rgb_before, event, event_before, slot)

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip."""
        return self._twice(self._engine.decide, phase, presence)

    def warm_up(self) -> None:
        """Run every graph once; a failure here is no hiccup."""
        self._engine.warm_up()

    def close(self) -> None:
        """Let go of the backend's memory."""
        self._engine.close()

    def _twice(self, call: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        try:
            return call(*given, **named)
        except EngineError as error:
            self.retries += 1
            self._note(f"{self.name} failed and is tried again: {error}")
            return call(*given, **named)
