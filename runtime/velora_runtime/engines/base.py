"""What every inference backend offers: tokens into ring slots, and logits out of a ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.bundle import Bundle
    from velora_runtime.buffers.ring import Presence, Slot

Device = Literal["auto", "cpu", "cuda", "gpu", "npu"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the user asked of the engine.

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

    def encode_rgb(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an RGB picture into the slot."""

    def encode_event(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an event frame into the slot."""

    def encode_diff(
        self,
        rgb: NDArray[np.uint8],
        rgb_before: NDArray[np.uint8],
        event: NDArray[np.uint8],
        event_before: NDArray[np.uint8],
        slot: Slot,
    ) -> None:
        """Put the tokens of the difference to the pair before into the slot.

        For a modality that is absent now or was before, the same array is given twice: no difference.
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
