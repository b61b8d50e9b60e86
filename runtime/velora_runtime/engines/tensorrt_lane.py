"""One TensorRT engine on a CUDA stream of its own: inputs, outputs, CUDA graphs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import EngineError
from velora_edge.gpu.engine import from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.engine import LoadedEngine, Tensor

ALIGNMENT = 256
"""Bytes: TensorRT takes no other addresses (NvInferRuntime.h, IExecutionContext::setTensorAddress)."""


@dataclass(slots=True, eq=False)
class Target:
    """What one run is bound to: where the output goes, and where inputs that are on the device lie.

    Attributes:
        output: address that the output is to be at; any.
        inputs: addresses by name of inputs that other engines wrote.
        graph: the recorded run, where there is one.
    """

    output: int
    inputs: Mapping[str, int] = field(default_factory=dict)
    graph: int | None = None


class Lane:
    """Runs one engine, asynchronously, on images or flags from the host and on tokens that lie on the device.

    Single-threaded: the inference thread only.

    Args:
        cuda: the device.
        engine: one output; it is closed with the lane.
        fed: the inputs that come from the host at every run.

    Attributes:
        stream: where it runs; what is queued here runs in order.
        done: the event that comes after the last run.
    """

    def __init__(self, cuda: Cuda, engine: LoadedEngine, fed: tuple[str, ...]) -> None:
        self._cuda, self._engine = cuda, engine
        self.stream, self.done = cuda.create_stream(), cuda.create_event()
        (self.output,) = engine.outputs.values()
        self._inputs = {name: cuda.allocate_input(engine.inputs[name].size_bytes) for name in fed}
        self._aside = cuda.allocate(self.output.size_bytes)
        self._seen = cuda.allocate_host(self.output.size_bytes)

    def feed(self, name: str, array: NDArray[Any]) -> None:
        """Take an input for the next run; waits until the last run has read what it was fed."""
        tensor = self._engine.inputs[name]
        is_ready = array.dtype.name == tensor.dtype
        raw = array.reshape(-1).view(np.uint8) if is_ready else to_raw(array, tensor.dtype)
        if raw.size != tensor.size_bytes:
            raise EngineError(f"{self._engine.name!r} expects {name} {tensor.shape}, got {array.shape}")
        self._cuda.synchronize_event(self.done)
        np.copyto(self._inputs[name].host, raw)

    def run(self, target: Target) -> None:
        """Queue one run on what was fed.

        Raises:
            EngineError: if TensorRT or CUDA refuses it: the output then holds what it held before.
        """
        if target.graph is not None:
            self._cuda.launch(target.graph, self.stream)
        else:
            self._submit(target)
        self._cuda.record(self.done, self.stream)

    def read(self, target: Target) -> NDArray[np.float32]:
        """The output of the last run on `target`, float32 of the engine's shape; blocks until it is there.

        It may lie in memory that the next call overwrites.
        """
        self._cuda.copy_out(self._seen, target.output, self.stream)
        self._cuda.synchronize(self.stream)
        return from_raw(self._seen, self.output.dtype, self.output.shape)

    def record(self, target: Target) -> None:
        """Run on what was fed, record the run as a CUDA graph, and make sure that replaying it computes.

        The run comes first: TensorRT sets things up at the first run on an address, which cannot be recorded.
        The replay is checked over an output that was spoilt, for a graph may be recorded without a word and
        do nothing.

        Raises:
            EngineError: if the engine itself fails, or if the graph does; `target` has no graph then.
        """
        expected = self.check(target).copy()
        if not self._engine.is_recordable(self.stream):
            raise EngineError(f"{self._engine.name!r} cannot be recorded as a CUDA graph")
        graph = self._cuda.capture(self.stream, lambda: self._submit(target))
        self._cuda.fill(target.output, 0xFF, self.output.size_bytes, self.stream)
        self._cuda.launch(graph, self.stream)
        replayed = self.read(target)
        if not np.allclose(replayed, expected, rtol=1e-2, atol=1e-2 * float(np.abs(expected).max())):
            raise EngineError(
                f"the CUDA graph of {self._engine.name!r} does not compute what its engine does"
            )
        target.graph = graph

    def check(self, target: Target) -> NDArray[np.float32]:
        """The output of a run without a graph.

        Raises:
            EngineError: if the engine fails, or if what it gives are no numbers.
        """
        self._submit(target)
        output = self.read(target)
        if not np.isfinite(output).all():
            raise EngineError(f"{self._engine.name!r} gives values that are no numbers")
        return output

    def keep_kernels(self) -> None:
        """Keep what was compiled while the engine ran, where its library compiles at all."""
        self._engine.keep_kernels()

    def close(self) -> None:
        """Wait for what is queued, then let go of the engine; the memory goes back with `cuda`."""
        with contextlib.suppress(EngineError):  # whatever failed has been raised where it mattered
            self._cuda.synchronize(self.stream)
        self._engine.close()

    def _submit(self, target: Target) -> None:
        """Queue copies in of what is not shared, the run, and a copy to an address that is not aligned."""
        cuda, engine, stream = self._cuda, self._engine, self.stream
        for name, buffer in self._inputs.items():
            if not buffer.is_shared:
                cuda.copy_in(buffer.address, buffer.host, stream)
            engine.bind(name, buffer.address)
        for name, address in target.inputs.items():
            engine.bind(name, address)
        is_aligned = target.output % ALIGNMENT == 0
        engine.bind(self.output.name, target.output if is_aligned else self._aside)
        engine.enqueue(stream)
        if not is_aligned:
            cuda.copy_within(target.output, self._aside, self.output.size_bytes, stream)


def expect_tensor(engine: LoadedEngine, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    """Make sure that an engine's input or output has the shape that the bundle says.

    Raises:
        EngineError: if not.
    """
    if tensor is None or tensor.shape != shape:
        found = "none" if tensor is None else f"{tensor.name} {tensor.shape}"
        raise EngineError(
            f"{engine.name!r}: expected a tensor of {shape}, got {found}; build the engines again"
        )
