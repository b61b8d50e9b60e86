"""One graph of ONNX Runtime on a GPU: inputs at fixed addresses, outputs wherever a run is told to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import EngineError
from velora_edge.ort import first_line, load_runtime
from velora_runtime.engines.ort_graphs import TYPES, Graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from velora_edge.bundle import Bundle
    from velora_edge.ort import Provider

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
        bundle: whose it is.
        name: rgb, event, diff or head.
        providers: see `velora_edge.ort.open_session`.
        fed: inputs that come from the host.

    Raises:
        EngineError: if it does not start there with every node.
        BundleError: if it has other inputs than a bundle's graph.
    """

    def __init__(self, bundle: Bundle, name: str, providers: Sequence[Provider], fed: Sequence[str]) -> None:
        self._runtime = load_runtime("inference on a GPU", "gpu")
        self.graph = Graph(bundle, name, providers, entries=(_NO_CPU,))
        shapes = {entry.name: (1, *entry.shape[1:]) for entry in self.graph.session.get_inputs()}
        types = {entry.name: _dtype(entry.type) for entry in self.graph.session.get_inputs()}
        self._fed = {key: allocate(shapes[key], types[key]) for key in fed}
        self._targets = 0

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
        self._targets += 1
        return Target(binding, place, self._options(str(self._targets)))

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
    """An input's type: images, tokens or flags."""
    pixels: np.dtype[Any] = np.dtype(np.uint8)
    return pixels if kind == "tensor(uint8)" else TYPES[kind]
