"""ONNX Runtime on the CPU: graphs write their tokens straight into the rings' memory."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_runtime.buffers.ring import Presence, Slot, TokenMemory
from velora_runtime.engines.ort_graphs import INPUTS, Graph, token_type

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import EngineOptions


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'velora-edge[cpu]')"
    if options.device not in ("auto", "cpu"):
        return "this backend computes on the CPU only (--device cpu)"
    if (precision := bundle.manifest.precision) in ("bf16", "fp8"):
        return f"no CPU kernels compute {precision}; export the model in fp32 or int8"
    return None


def open_engine(bundle: Bundle, options: EngineOptions) -> OnnxRuntimeEngine:
    """The bundle's graphs in ONNX Runtime sessions.

    Raises:
        EngineError: if ONNX Runtime does not start on the CPU.
        BundleError: if a graph cannot be loaded or has other inputs than a bundle's graphs have.
    """
    return OnnxRuntimeEngine(bundle, options)


class OnnxRuntimeEngine:
    """The streaming graphs on the CPU; see `velora_runtime.engines.base.Engine`.

    Single-threaded: the inference thread only.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest = bundle.manifest
        self.name = "onnxruntime on the CPU"
        self._graphs = {name: Graph(bundle, name, threads=options.threads) for name in INPUTS}
        sizes = (manifest.stride, manifest.clip_length, manifest.tokens, manifest.token_size)
        self.memory = TokenMemory(*sizes, token_type(self._graphs, bundle))
        self._image_hw = manifest.image_size
        self._presence = Presence.none(manifest.clip_length)
        self._logits = np.zeros((1, len(manifest.labels)), np.float32)
        self._bindings = {name: graph.session.io_binding() for name, graph in self._graphs.items()}
        self._heads = [self._bind_head(phase) for phase in range(manifest.stride)]

    def encode_rgb(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an RGB picture into the slot."""
        self._encode("rgb", (image,), self.memory.rgb[slot.phase, slot.pair])

    def encode_event(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an event frame into the slot."""
        self._encode("event", (image,), self.memory.event[slot.phase, slot.pair])

    def encode_diff(
        self,
        rgb: NDArray[np.uint8],
        rgb_before: NDArray[np.uint8],
        event: NDArray[np.uint8],
        event_before: NDArray[np.uint8],
        slot: Slot,
    ) -> None:
        """Put the tokens of the difference to the pair before into the slot."""
        images = (rgb, rgb_before, event, event_before)
        self._encode("diff", images, self.memory.diff[slot.phase, slot.diff])

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip, float32[K]; valid until the next call."""
        self._presence.rgb[:], self._presence.event[:] = presence.rgb, presence.event
        self._presence.diff[:] = presence.diff
        self._graphs["head"].run(self._heads[phase])
        return self._logits[0]

    def warm_up(self) -> None:
        """Run every graph once and leave the rings empty."""
        blank = np.zeros((*self._image_hw, 3), np.uint8)
        for phase in range(len(self._heads)):
            slot = Slot(phase, 0, 0)
            self.encode_rgb(blank, slot)
            self.encode_event(blank, slot)
            self.encode_diff(blank, blank, blank, blank, slot)
            self.decide(phase, self._presence)
        self.memory.clear()

    def close(self) -> None:
        """Let go of the sessions."""
        self._heads.clear()
        self._bindings.clear()
        self._graphs.clear()

    def _encode(self, name: str, images: tuple[NDArray[np.uint8], ...], tokens: NDArray[Any]) -> None:
        """Run a tower on images uint8[H, W, 3]; write [N, P] into `tokens`."""
        graph, binding = self._graphs[name], self._bindings[name]
        for key, image in zip(INPUTS[name], images, strict=True):
            _bind(binding.bind_input, key, image[None])
        _bind(binding.bind_output, graph.output, tokens[None])
        graph.run(binding)

    def _bind_head(self, phase: int) -> Any:
        """The head's inputs and output, bound once: they lie in the same memory for ever."""
        present = self._presence
        arrays = (
            *(tokens[phase] for tokens in (self.memory.rgb, self.memory.event, self.memory.diff)),
            *(present.rgb, present.event, present.diff),
        )
        graph = self._graphs["head"]
        binding = graph.session.io_binding()
        for name, array in zip(INPUTS["head"], arrays, strict=True):
            _bind(binding.bind_input, name, array[None])
        _bind(binding.bind_output, graph.output, self._logits)
        return binding


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    """Bind an array's memory, without a copy; the caller keeps the array alive until the run is over."""
    if not array.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array for {name}, got strides {array.strides}")
    kind: DTypeLike = array.dtype.type
    bind(name, "cpu", 0, kind, array.shape, array.ctypes.data)
