"""ONNX Runtime on the CPU: a bundle's streaming graphs write their tokens straight into the ring."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import BundleError, EngineError, install_line
from velora_edge.ort import (
    CPU,
    TENSORRT,
    GraphError,
    checked_copy,
    first_line,
    load_graph,
    open_session,
    session_options,
)
from velora_runtime.engines.ring import Presence, Slot, TokenMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from velora_edge.bundle import Bundle, Manifest
    from velora_edge.ort import Provider
    from velora_runtime.engines.base import EngineOptions


INPUTS = {
    "rgb": ("image",),
    "event": ("image",),
    "diff": ("rgb", "rgb_before", "event", "event_before"),
    "head": ("rgb", "event", "diff", "rgb_present", "event_present", "diff_present"),
}
"""The graphs' inputs by name; the bundle's exporter keeps to the same."""
BATCH = "batch"
"""Name of the open axis. A stream has one pair at a time: fixed, it leaves no arithmetic on shapes."""
TYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
"""What tokens may be."""


class Graph:
    """One ONNX graph in a session, batch 1.

    Args:
        bundle: whose it is.
        name: rgb, event, diff or head.
        providers: see `velora_edge.ort.open_session`.
        threads: for the arithmetic on the CPU; 0: all cores.
        entries: more of ONNX Runtime's session options, by key.

    Raises:
        BundleError: if ONNX Runtime does not take the graph, or it has other inputs than a bundle's graph.
        EngineError: if ONNX Runtime does not start on the provider.

    Attributes:
        session: ONNX Runtime's.
        output: name of the output.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        providers: Sequence[Provider] = ((CPU, {}),),
        *,
        threads: int = 0,
        entries: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        options = session_options(threads)
        options.add_free_dimension_override_by_name(BATCH, 1)
        for key, value in entries:
            options.add_session_config_entry(key, value)
        try:
            self.session = _open(bundle, name, options, providers)
        except GraphError as error:
            raise BundleError(
                str(error),
                path=bundle.path,
                place=f"{name}.onnx",
                remedy="export the model again, or pip install -U onnxruntime",
            ) from error
        check_inputs(bundle, name, tuple(entry.name for entry in self.session.get_inputs()))
        self.output = self.session.get_outputs()[0].name

    def run(self, binding: Any, options: Any = None) -> None:
        """Run on what is bound.

        Raises:
            EngineError: if ONNX Runtime fails.
        """
        try:
            self.session.run_with_iobinding(binding, options)
        except Exception as error:  # onnxruntime raises types of its own, all of them straight from Exception
            raise EngineError(f"onnxruntime failed in {self.name}.onnx: {first_line(error)}") from error


def _open(bundle: Bundle, name: str, options: Any, providers: Sequence[Provider]) -> Any:
    """A session on the bytes that were checked."""
    if providers[0][0] == TENSORRT:  # its parser reads weights from files
        with checked_copy(bundle, name) as path:
            return open_session(path, options, providers)
    return open_session(load_graph(bundle, name), options, providers)


def check_inputs(bundle: Bundle, name: str, found: Sequence[str]) -> None:
    """Make sure that a graph has the inputs of its kind.

    Raises:
        BundleError: if it has others.
    """
    if sorted(found) != sorted(INPUTS[name]):
        raise BundleError(
            f"expected a graph with the inputs {', '.join(INPUTS[name])}, got {', '.join(found)}",
            path=bundle.path,
            place=f"{name}.onnx",
            remedy="export the model again",
        )


def token_type(graphs: dict[str, Graph], bundle: Bundle) -> np.dtype[Any]:
    """The type of tokens that the towers give and the head takes.

    Raises:
        BundleError: if they do not agree, or it is one that a ring cannot hold.
    """
    given = {graphs[name].session.get_outputs()[0].type for name in ("rgb", "event", "diff")}
    inputs = graphs["head"].session.get_inputs()
    taken = {entry.type for entry in inputs if entry.name in ("rgb", "event", "diff")}
    if len(given | taken) != 1 or not given <= TYPES.keys():
        raise BundleError(
            f"towers give tokens of {', '.join(sorted(given))}, the head takes {', '.join(sorted(taken))}",
            path=bundle.path,
            place="head.onnx",
            remedy="export the model again",
        )
    return TYPES[given.pop()]


HOST_INPUTS = {**INPUTS, "head": INPUTS["head"][3:]}
"""The inputs of each graph that come from the host; the head's others are the rings."""


class GraphEngine:
    """The calls of `velora_runtime.engines.base.Engine` that fill slots; a backend adds the others.

    A backend sets `_runners`, which feed and run a graph each, by the graph's name, and `_slots`, their
    targets by modality, phase and place.
    """

    _runners: dict[str, Any]
    _slots: dict[str, list[list[Any]]]

    def encode(self, modality: str, images: Sequence[NDArray[np.uint8]], slot: Slot) -> None:
        """Put a modality's tokens into the slot."""
        runner = self._runners[modality]
        for name, image in zip(INPUTS[modality], images, strict=True):
            runner.feed(name, image)
        runner.run(self._slots[modality][slot.phase][slot.place(modality)])

    def _feed_presence(self, presence: Presence) -> None:
        flags = (presence.rgb, presence.event, presence.diff)
        for name, array in zip(HOST_INPUTS["head"], flags, strict=True):
            self._runners["head"].feed(name, array)

    def _feed_pattern(self, manifest: Manifest) -> None:
        """Feed every graph something that is not blank, for a warm-up."""
        size, clip = manifest.image_size, manifest.clip_length
        pattern = np.arange(np.prod(size) * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)
        for modality in MODALITIES:
            for name in HOST_INPUTS[modality]:
                self._runners[modality].feed(name, pattern)
        self._feed_presence(Presence(*(np.ones(count, np.float32) for count in (clip, clip, clip - 1))))


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return f"onnxruntime is not installed ({install_line('cpu')})"
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

    def encode(self, modality: str, images: Sequence[NDArray[np.uint8]], slot: Slot) -> None:
        """Put a modality's tokens, [N, P], into the slot."""
        graph, binding = self._graphs[modality], self._bindings[modality]
        for key, image in zip(INPUTS[modality], images, strict=True):
            _bind(binding.bind_input, key, image[None])
        tokens = getattr(self.memory, modality)[slot.phase, slot.place(modality)]
        _bind(binding.bind_output, graph.output, tokens[None])
        graph.run(binding)

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
            for modality in MODALITIES:
                self.encode(modality, [blank] * len(INPUTS[modality]), slot)
            self.decide(phase, self._presence)
        self.memory.clear()

    def close(self) -> None:
        """Let go of the sessions."""
        self._heads.clear()
        self._bindings.clear()
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


def _bind(bind: Any, name: str, array: NDArray[Any]) -> None:
    """Bind an array's memory, without a copy; the caller keeps the array alive until the run is over."""
    if not array.flags.c_contiguous:
        raise ValueError(f"expected a contiguous array for {name}, got strides {array.strides}")
    kind: DTypeLike = array.dtype.type
    bind(name, "cpu", 0, kind, array.shape, array.ctypes.data)
