"""Interface of inference engines: tokens into ring slots, and logits from them; with retries."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar

from velora_edge.console import RateLimitedNotes
from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle
    from velora_runtime.engines.ring import Presence, Slot


Device = Literal["auto", "cpu", "cuda", "gpu", "npu"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of an engine.

    Attributes:
        device: where it computes; auto: the best that the backend finds; cuda: an NVIDIA GPU; gpu and npu:
            Intel's.
        threads: for the arithmetic on the CPU; 0: the backend chooses.
        cuda_graph: let a GPU replay what was recorded at warm-up, where the backend can.
    """

    device: Device = "auto"
    threads: int = 0
    cuda_graph: bool = True


class Engine(Protocol):
    """The model's graphs, ready to run; it owns the rings' tokens.

    Single-threaded: the inference thread only, `close` included. Images are contiguous uint8[H, W, 3] at the
    model's size and are not kept after a call.

    Raises EngineError from every method if the backend fails.

    Attributes:
        name: backend and device for people, such as "onnxruntime on the CPU".
    """

    name: str

    def encode(
        self,
        modality: str,
        images: Sequence[NDArray[np.uint8]],
        slot: Slot,
        patches: NDArray[np.int64] | None = None,
    ) -> None:
        """Put a modality's tokens into the slot.

        Args:
            modality: rgb, event or diff.
            images: of rgb and event one; of diff four: the RGB picture and the one before, the event frame
                and the one before. Of a camera that is absent now or was before, the same array is given
                twice: no difference.
            slot: where they go.
            patches: numbers of the active patches, int64[K], for event and diff of a model that computes
                these alone; None: all.
        """

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip, float32[K]; valid until the next call."""

    def warm_up(self) -> None:
        """Run every graph once and leave the rings empty, so that the first real pair is not slower."""

    def close(self) -> None:
        """Let go of the backend's memory."""


class Backend(Protocol):
    """One module under `velora_runtime.engines`; its functions, as the registry calls them."""

    def why_not(self, bundle: Bundle, options: EngineOptions) -> str | None:
        """Why this machine cannot run the bundle on the backend as asked, for people; None if it can."""

    def open_engine(self, bundle: Bundle, options: EngineOptions) -> Any:
        """An engine on the bundle's files.

        Raises:
            EngineError: if it cannot be had after all.
        """


T = TypeVar("T")
P = ParamSpec("P")


class RetryingEngine:
    """Another engine, each call of which is made again where it failed; a second failure is the caller's.

    All calls write whole slots, or read them, so they can be made again.

    Single-threaded: the inference thread only.

    Args:
        engine: the other one; closed with this one.
        note: gets a line at a failure that was got over, at most once a minute; `retries` has all.

    Attributes:
        retries: calls that were made again.
    """

    def __init__(self, engine: Engine, note: Callable[[str], None]) -> None:
        self.name = engine.name
        self.retries = 0
        self._engine = engine
        self._rare = RateLimitedNotes(note, lambda: time.monotonic_ns() // 1000)

    def encode(
        self,
        modality: str,
        images: Sequence[NDArray[np.uint8]],
        slot: Slot,
        patches: NDArray[np.int64] | None = None,
    ) -> None:
        """Put a modality's tokens into the slot."""
        self._twice(self._engine.encode, modality, images, slot, patches)

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
            self._rare("retry", f"{self.name} failed and is tried again: {error}")
            return call(*given, **named)
