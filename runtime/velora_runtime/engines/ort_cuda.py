"""ONNX Runtime on an NVIDIA GPU: tokens stay on the device, where the head reads them.

The provider is tried before a bundle is opened on it, and looked at again after every session was made: ONNX
Runtime goes on with the CPU where a library is missing, and says so on standard error alone. No node may run
on the CPU.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import MODALITIES
from velora_edge.doctor.inference import provider as try_provider
from velora_edge.errors import EngineError, install_line
from velora_edge.events.accumulate.active_patches import PATCHES
from velora_edge.gpu.cuda import has_gpu
from velora_edge.ort import CUDA, Provider, first_line, load_runtime
from velora_runtime.engines.ort import HOST_INPUTS, INPUTS, TYPES, Graph, GraphEngine, PatchLists, token_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from velora_edge.bundle import Bundle, Manifest
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.engines.ring import Presence


DEVICE = "cuda"
_NO_CPU = ("session.disable_cpu_ep_fallback", "1")
_GRAPH, _NO_GRAPH = "gpu_graph_id", "-1"
"""Run option: which recorded graph a run is. Each target needs its own, for a graph holds addresses."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Memory on the GPU where an output goes.

    Attributes:
        value: ONNX Runtime's value.
        dtype: float32 or float16.
        index: which of its equal parts along the second axis; None: all of it.
    """

    value: Any
    dtype: np.dtype[Any]
    index: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is written there."""
        whole: tuple[int, ...] = tuple(self.value.shape())
        return whole if self.index is None else (whole[0], *whole[2:])

    @property
    def address(self) -> int:
        """In the GPU's memory."""
        step = int(np.prod(self.value.shape()[2:])) * self.dtype.itemsize
        return int(self.value.data_ptr()) + (self.index or 0) * step

    def read(self) -> NDArray[Any]:
        """A copy of what is there."""
        whole: NDArray[Any] = self.value.numpy()
        return whole if self.index is None else whole[:, self.index]

    def fill(self, number: float) -> None:
        """Overwrite what is there."""
        whole = self.value.numpy()
        whole[:, slice(None) if self.index is None else self.index] = number
        self.value.update_inplace(whole)


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A run of a graph: all addresses bound.

    Attributes:
        binding: ONNX Runtime's.
        place: where the output goes.
        options: that record and replay the run, where CUDA graphs are on.
    """

    binding: Any
    place: Place
    options: Any


class DeviceGraph:
    """A graph with its fed inputs in memory of their own on the GPU.

    Single-threaded: the inference thread only.

    Args:
        graph: rgb, event, diff or head; several may share one, each with lists of patches of another length.
        fed: inputs that come from the host.
        numbers: gives each target a number that no other target of the graph has.
        length: of the list of patches, where the graph takes one.
    """

    def __init__(
        self, graph: Graph, fed: Sequence[str], numbers: Iterator[int], length: int | None = None
    ) -> None:
        self._runtime = load_runtime("inference on a GPU", "gpu")
        self.graph, self._numbers = graph, numbers
        shapes = {entry.name: (1, *entry.shape[1:]) for entry in graph.session.get_inputs()}
        types = {entry.name: _dtype(entry.type) for entry in graph.session.get_inputs()}
        self._fed = {key: allocate(shapes[key], types[key]) for key in fed}
        if length is not None:
            self._fed[PATCHES] = allocate((1, length), np.int64)

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Copy an input, without its batch axis, to the GPU for the next run."""
        value = self._fed[name]
        if tuple(value.shape()) != (1, *array.shape):
            raise EngineError(f"{self.graph.name}.onnx expects {name} {value.shape()[1:]}, got {array.shape}")
        value.update_inplace(np.ascontiguousarray(array[None]))

    def bind(self, place: Place, inputs: Mapping[str, Any]) -> Target:
        """A run that writes to `place` and reads `inputs`, values on the GPU, besides what is fed."""
        binding = self.graph.session.io_binding()
        for name, value in {**self._fed, **inputs}.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(self.graph.output, DEVICE, 0, place.dtype.type, place.shape, place.address)
        return Target(binding, place, self._options(str(next(self._numbers))))

    def run(self, target: Target) -> None:
        """Run, or replay; the output is there when this returns.

        Raises:
            EngineError: if ONNX Runtime fails.
        """
        self.graph.run(target.binding, target.options)

    def check(self, target: Target) -> NDArray[Any]:
        """The output of a run that nothing is recorded of.

        Raises:
            EngineError: if the run fails, or gives values that are no numbers.
        """
        self.graph.run(target.binding, self._options(_NO_GRAPH))
        output = target.place.read()
        if not np.isfinite(output).all():
            raise EngineError(f"{self.graph.name}.onnx gives values that are no numbers")
        return output

    def record(self, target: Target) -> None:
        """Record a run, and make sure that replaying it computes: over an output that was spoilt.

        Raises:
            EngineError: if it fails, or does not compute what the graph does.
        """
        expected = self.check(target)
        self.run(target)
        target.place.fill(np.nan)
        self.run(target)
        replayed = target.place.read()
        if not np.allclose(replayed, expected, rtol=1e-2, atol=1e-2 * float(np.abs(expected).max())):
            raise EngineError(f"the CUDA graph of {self.graph.name}.onnx does not compute what it records")

    def _options(self, graph: str) -> Any:
        options = self._runtime.RunOptions()
        options.add_run_config_entry(_GRAPH, graph)
        return options


def allocate(shape: Sequence[int], dtype: DTypeLike) -> Any:
    """Zeros on the GPU, as a value of ONNX Runtime.

    Raises:
        EngineError: if there is no memory left.
    """
    runtime = load_runtime("inference on a GPU", "gpu")
    try:
        value = runtime.OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype).type, DEVICE, 0)
    except Exception as error:  # onnxruntime's own types
        raise EngineError(f"onnxruntime has no memory on the GPU: {first_line(error)}") from error
    value.update_inplace(np.zeros(shape, dtype))
    return value


def _dtype(kind: str) -> np.dtype[Any]:
    """An input's type: images, lists of patches, tokens or flags."""
    others: dict[str, np.dtype[Any]] = {
        "tensor(uint8)": np.dtype(np.uint8),
        "tensor(int64)": np.dtype(np.int64),
    }
    return others[kind] if kind in others else TYPES[kind]


LOG = logging.getLogger("velora.onnxruntime")

Providers = Callable[..., list[Provider]]
"""Gives ONNX Runtime's providers for a manifest, with CUDA graphs or without (`cuda_graph`)."""


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None. Starts the provider on a graph of one node."""
    return why_no_kernels(bundle) or why_no_provider(CUDA, options)


def why_no_kernels(bundle: Bundle) -> str | None:
    """Why ONNX Runtime does not compute a bundle's precision on a GPU; None where it does.

    Its CUDA provider has kernels that round to fp8 and back, and none that multiplies what was rounded: it
    would compute what fp16 does, more slowly. Its TensorRT provider has no option that allows fp8. Neither
    rounds bf16 to int8.
    """
    manifest = bundle.manifest
    if manifest.precision == "fp8":
        return f"it does not multiply fp8; run velora build {bundle.path}, or export the model in fp16"
    if (manifest.precision, manifest.floats) == ("int8", "bf16"):
        return "it does not round bf16 to int8; export the model with --floats fp16"
    return None


def why_no_provider(name: str, options: EngineOptions) -> str | None:
    """Why one of ONNX Runtime's providers for a GPU cannot be used, or None."""
    if options.device not in ("auto", "cuda"):
        return "this backend computes on an NVIDIA GPU only (--device cuda)"
    if importlib.util.find_spec("onnxruntime") is None:
        return f"onnxruntime is not installed ({install_line('gpu')})"
    if name not in load_runtime("inference", "gpu").get_available_providers():
        return f"this onnxruntime was built without {name} ({install_line('gpu')})"
    if not has_gpu():
        return "there is no NVIDIA GPU"
    try:
        found = try_provider(name)
    except Exception as error:  # whatever a library that does not fit raises
        return f"{name} does not start: {error}".splitlines()[0]
    return None if found["usable"] else f"{name} does not start: {found['reason']}; velora doctor tells more"


def open_engine(bundle: Bundle, options: EngineOptions) -> OrtDeviceEngine:
    """The bundle's graphs on the GPU.

    Raises:
        EngineError: if ONNX Runtime does not start there with every node of the graphs.
        BundleError: if a graph has other inputs than a bundle's graphs have.
    """
    return OrtDeviceEngine(bundle, options, "CUDA", cuda_providers)


def cuda_providers(manifest: Manifest, *, cuda_graph: bool) -> list[Provider]:
    """CUDA alone. TF32 keeps ten bits of each factor: an fp32 model would be none."""
    return [(CUDA, {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": str(int(cuda_graph))})]


class OrtDeviceEngine(GraphEngine):
    """The streaming graphs on a GPU; see `velora_runtime.engines.base.Engine`.

    Single-threaded: the inference thread only.

    Args:
        bundle: the model.
        options: what the user asked for.
        what: the provider, for people.
        providers: gives ONNX Runtime's providers, with and without CUDA graphs.

    Attributes:
        name: backend and device.
        has_graphs: runs are replayed as CUDA graphs; settled by `warm_up`.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions, what: str, providers: Providers) -> None:
        self.name = f"onnxruntime, {what} on the GPU"
        self.has_graphs = options.cuda_graph
        self._bundle, self._providers = bundle, providers
        self._lists = PatchLists(bundle.manifest)
        self._open()

    def decide(self, phase: int, presence: Presence) -> NDArray[np.float32]:
        """The logits of one ring's clip, float32[K]; valid until the next call."""
        head, target = self._runners["head"], self._heads[phase]
        self._feed_presence(presence)
        head.run(target)
        logits: NDArray[np.float32] = target.place.read()[0]
        return logits

    def warm_up(self) -> None:
        """Run every graph on every slot, record what can be recorded, and leave the rings empty."""
        if self.has_graphs:
            try:
                self._run_all(record=True)
            except EngineError as error:
                LOG.warning("CUDA graphs are not used, which costs some latency: %s", error)
                self.close()
                self.has_graphs = False
                self._open()
        if not self.has_graphs:
            self._run_all(record=False)
        for modality in MODALITIES:
            for ring in self._rings[modality]:
                Place(ring, self._dtype).fill(0)

    def close(self) -> None:
        """Let go of runs, sessions and memory, in that order."""
        for held in (self._slots, self._heads, self._runners, self._rings):
            held.clear()

    def _open(self) -> None:
        manifest = self._bundle.manifest
        providers = self._providers(manifest, cuda_graph=self.has_graphs)
        graphs = {name: Graph(self._bundle, name, providers, entries=(_NO_CPU,)) for name in INPUTS}
        self._dtype = token_type(graphs, self._bundle)
        self._runners = {}
        for name, graph in graphs.items():
            numbers = itertools.count(1)
            for key, length in self._lists.keys(name).items():
                self._runners[key] = DeviceGraph(graph, HOST_INPUTS[name], numbers, length)
        size = (manifest.tokens, manifest.token_size)
        self._rings = {
            name: [allocate((1, self._places(name), *size), self._dtype) for _ in range(manifest.stride)]
            for name in MODALITIES
        }
        self._slots = {
            key: [self._bind_slots(name, key, ring) for ring in self._rings[name]]
            for name in MODALITIES
            for key in self._lists.keys(name)
        }
        self._heads = [self._bind_head(phase) for phase in range(manifest.stride)]

    def _bind_slots(self, modality: str, key: str, ring: Any) -> list[Target]:
        places = (Place(ring, self._dtype, index) for index in range(self._places(modality)))
        return [self._runners[key].bind(place, {}) for place in places]

    def _bind_head(self, phase: int) -> Target:
        logits = allocate((1, len(self._bundle.manifest.labels)), np.float32)
        return self._runners["head"].bind(
            Place(logits, np.dtype(np.float32)), {name: self._rings[name][phase] for name in MODALITIES}
        )

    def _places(self, modality: str) -> int:
        return self._bundle.manifest.clip_length - (modality == "diff")

    def _run_all(self, *, record: bool) -> None:
        """Run everything that a stream can ask for, on a pattern; record it, and check what was recorded."""
        self._feed_pattern(self._bundle.manifest)
        runs = [
            (self._runners[key], target)
            for key, rings in self._slots.items()
            for ring in rings
            for target in ring
        ]
        runs += [(self._runners["head"], target) for target in self._heads]
        for graph, target in runs:
            if record:
                graph.record(target)
            else:
                graph.check(target)
