"""ONNX Runtime on the CPU: graphs write their tokens straight into the rings' memory."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import BundleError, EngineError, MissingExtraError
from velora_runtime.ring import Presence, Slot, TokenMemory

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import EngineOptions

PROVIDER = "CPUExecutionProvider"
INPUTS = {
    "rgb": ("image",),
    "event": ("image",),
    "diff": ("rgb", "rgb_before", "event", "event_before"),
    "head": ("rgb", "event", "diff", "rgb_present", "event_present", "diff_present"),
}
"""The graphs' inputs by name; the bundle's exporter keeps to the same."""


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'velora-edge[cpu]')"
    if options.device == "cuda":
        return "this backend computes on the CPU only (--device cpu)"
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
        self.memory = TokenMemory(manifest.stride, manifest.clip_length, manifest.tokens, manifest.token_size)
        self._image_hw = manifest.image_size
        self._presence = Presence.none(manifest.clip_length)
        self._logits = np.zeros((1, len(manifest.labels)), np.float32)
        self._graphs = {name: _Graph(bundle, name, options.threads) for name in INPUTS}
        self._heads = [self._bind_head(phase) for phase in range(manifest.stride)]

    def encode_rgb(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an RGB picture into the slot."""
        self._graphs["rgb"].run_images((image,), self.memory.rgb[slot.phase, slot.pair])

    def encode_event(self, image: NDArray[np.uint8], slot: Slot) -> None:
        """Put the tokens of an event frame into the slot."""
        self._graphs["event"].run_images((image,), self.memory.event[slot.phase, slot.pair])

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
        self._graphs["diff"].run_images(images, self.memory.diff[slot.phase, slot.diff])

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
        self._graphs.clear()

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


class _Graph:
    """One ONNX graph in a session, with a binding to whatever memory a call names."""

    def __init__(self, bundle: Bundle, name: str, threads: int) -> None:
        self.name = name
        self.session = _open_session(bundle, name, threads)
        found = tuple(entry.name for entry in self.session.get_inputs())
        if sorted(found) != sorted(INPUTS[name]):
            raise BundleError(
                f"expected a graph with the inputs {', '.join(INPUTS[name])}, got {', '.join(found)}",
                path=bundle.path,
                place=f"{name}.onnx",
                remedy="export the model again",
            )
        self.output = self.session.get_outputs()[0].name
        self._binding = self.session.io_binding()

    def run_images(self, images: tuple[NDArray[np.uint8], ...], tokens: NDArray[np.float32]) -> None:
        """Run on images uint8[H, W, 3]; write float32[N, P] into `tokens`."""
        for name, image in zip(INPUTS[self.name], images, strict=True):
            _bind(self._binding.bind_input, name, image[None])
        _bind(self._binding.bind_output, self.output, tokens[None])
        self.run(self._binding)

    def run(self, binding: Any) -> None:
        """Run on what is bound.

        Raises:
            EngineError: if ONNX Runtime fails.
        """
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises types of its own, all of them straight from Exception
            raise EngineError(f"onnxruntime failed in {self.name}.onnx: {_first_line(error)}") from error


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    """Bind an array's memory, without a copy; the caller keeps the array alive until the run is over."""
    if not array.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array for {name}, got strides {array.strides}")
    kind: DTypeLike = array.dtype.type
    bind(name, "cpu", 0, kind, array.shape, array.ctypes.data)


def _open_session(bundle: Bundle, name: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "inference on the CPU") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # The graphs run one after the other: a pool that spins between them would take the cores from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(bundle.graph(name)), options, providers=[PROVIDER])
    except Exception as error:  # as above
        raise BundleError(
            f"onnxruntime cannot load the graph: {_first_line(error)}",
            path=bundle.path,
            place=f"{name}.onnx",
            remedy="export the model again, or pip install -U onnxruntime",
        ) from error
    if session.get_providers()[:1] != [PROVIDER]:
        raise EngineError(f"expected onnxruntime on {PROVIDER}, got {session.get_providers()}")
    return session


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
