"""ONNX Runtime on the CPU: a bundle's streaming graphs write their tokens straight into the ring."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.errors import BundleError, EngineError, install_line
from velora_edge.events.accumulate.active_patches import PATCHES, fill_list, list_lengths
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
    expected = graph_inputs(bundle.manifest, name)
    if sorted(found) != sorted(expected):
        raise BundleError(
            f"expected a graph with the inputs {', '.join(expected)}, got {', '.join(found)}",
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


def graph_inputs(manifest: Manifest, name: str) -> tuple[str, ...]:
    """The inputs of a bundle's graph by name, the list of patches last."""
    takes_list = manifest.active_patches is not None and name in ("event", "diff")
    return (*INPUTS[name], PATCHES) if takes_list else INPUTS[name]


class PatchLists:
    """Lists of patches at the lengths that an engine takes.

    Args:
        manifest: of a model, with active patches or without.
        step: a list's tokens, with the tower's class and register tokens, are a multiple of it, up to the
            last one below all patches; None: the lengths are those of `list_lengths`.

    Attributes:
        lengths: rising; none where the model computes all patches.
    """

    def __init__(self, manifest: Manifest, step: int | None = None) -> None:
        self.lengths: tuple[int, ...] = ()
        if manifest.active_patches is not None:
            patches = manifest.active_patches.count
            others = manifest.tokens - patches
            shorter = () if step is None else range(step - others % step, patches - step, step)
            self.lengths = list_lengths(patches) if step is None else (*shorter, patches)
            self._all = np.arange(patches, dtype=np.int64)

    def takes(self, modality: str) -> bool:
        """Whether a tower takes a list."""
        return bool(self.lengths) and modality in ("event", "diff")

    def keys(self, graph: str) -> dict[str, int | None]:
        """The names of a graph's runners, one for each length, and the lengths; None: it takes no list."""
        if not self.takes(graph):
            return {graph: None}
        return {self.key(graph, length): length for length in self.lengths}

    @staticmethod
    def key(graph: str, length: int) -> str:
        """The name of a graph's runner with lists of a length."""
        return f"{graph}/{length}"

    def fit(self, modality: str, patches: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """The list at the shortest length that holds it; None where the tower takes none.

        Args:
            modality: rgb, event or diff.
            patches: int64[K]; None: all.
        """
        if not self.takes(modality):
            return None
        numbers = self._all if patches is None else patches
        return fill_list(numbers, next(length for length in self.lengths if length >= len(numbers)))


CPU_STEP = 16
"""Tokens are computed on a CPU, where a graph takes lists of any length, in multiples of these: the rows that
matrix products of processors with AMX are computed in."""


class GraphEngine:
    """The calls of `velora_runtime.engines.base.Engine` that fill slots; a backend adds the others.

    A backend sets `_runners`, which feed and run a graph each, by the graph's name, `_slots`, their targets
    by modality, phase and place, and `_lists`. Both go by `_key`, where a graph has a runner for each length
    of a list of patches.
    """

    _runners: dict[str, Any]
    _slots: dict[str, list[list[Any]]]
    _lists: PatchLists

    def encode(
        self,
        modality: str,
        images: Sequence[NDArray[np.uint8]],
        slot: Slot,
        patches: NDArray[np.int64] | None = None,
    ) -> None:
        """Put a modality's tokens into the slot."""
        listed = self._lists.fit(modality, patches)
        key = modality if listed is None else self._key(modality, len(listed))
        runner = self._runners[key]
        for name, image in zip(INPUTS[modality], images, strict=True):
            runner.feed(name, image)
        if listed is not None:
            runner.feed(PATCHES, listed)
        runner.run(self._slots[key][slot.phase][slot.place(modality)])

    def _key(self, modality: str, length: int) -> str:
        """The name of the runner of a tower with lists of so many patches."""
        return self._lists.key(modality, length)

    def _feed_presence(self, presence: Presence) -> None:
        flags = (presence.rgb, presence.event, presence.diff)
        for name, array in zip(HOST_INPUTS["head"], flags, strict=True):
            self._runners["head"].feed(name, array)

    def _feed_pattern(self, manifest: Manifest) -> None:
        """Feed every graph something that is not blank, for a warm-up."""
        size, clip = manifest.image_size, manifest.clip_length
        pattern = np.arange(np.prod(size) * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)
        for modality in MODALITIES:
            for key, length in self._lists.keys(modality).items():
                for name in HOST_INPUTS[modality]:
                    self._runners[key].feed(name, pattern)
                if length is not None:
                    self._runners[key].feed(PATCHES, np.arange(length))
        self._feed_presence(Presence(*(np.ones(count, np.float32) for count in (clip, clip, clip - 1))))


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return f"onnxruntime is not installed ({install_line('cpu')})"
    if options.device not in ("auto", "cpu"):
        return "this backend computes on the CPU only (--device cpu)"
    manifest = bundle.manifest
    for computed in (manifest.precision, manifest.floats):
        if computed in ("bf16", "fp8"):
            return f"no CPU kernels compute {computed}; export the model in fp32 or int8"
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
        self._lists = PatchLists(manifest, CPU_STEP)
        self._image_hw = manifest.image_size
        self._presence = Presence.none(manifest.clip_length)
        self._logits = np.zeros((1, len(manifest.labels)), np.float32)
        self._bindings = {name: graph.session.io_binding() for name, graph in self._graphs.items()}
        self._heads = [self._bind_head(phase) for phase in range(manifest.stride)]

    def encode(
        self,
        modality: str,
        images: Sequence[NDArray[np.uint8]],
        slot: Slot,
        patches: NDArray[np.int64] | None = None,
    ) -> None:
        """Put a modality's tokens, [N, P], into the slot."""
        graph, binding = self._graphs[modality], self._bindings[modality]
        for key, image in zip(INPUTS[modality], images, strict=True):
            _bind(binding.bind_input, key, image[None])
        listed = self._lists.fit(modality, patches)
        if listed is not None:
            _bind(binding.bind_input, PATCHES, listed[None])
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
