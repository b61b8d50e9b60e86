"""An engine with buffers of its own: arrays in, arrays out; for comparing, not for the live path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError
from velora_edge.gpu.values import from_raw, to_raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.engine import LoadedEngine


class EngineRunner:
    """Runs an engine on host arrays, one call after the other.

    Single-threaded. The buffers go back with the `cuda` that they were taken from.
    """

    def __init__(self, cuda: Cuda, engine: LoadedEngine) -> None:
        self._cuda, self._engine = cuda, engine
        self._stream = cuda.create_stream()
        tensors = {**engine.inputs, **engine.outputs}
        self._host = {name: cuda.allocate_host(tensor.size_bytes) for name, tensor in tensors.items()}
        self._device = {name: cuda.allocate(tensor.size_bytes) for name, tensor in tensors.items()}
        for name, address in self._device.items():
            engine.bind(name, address)

    def dtype(self, name: str) -> str:
        """The type of an input: NumPy's name, or bfloat16; empty where there is no such input."""
        return self._engine.inputs[name].dtype if name in self._engine.inputs else ""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The outputs by name, as float32.

        Raises:
            EngineError: if the inputs are not the engine's, or if it fails.
        """
        for name, tensor in self._engine.inputs.items():
            if name not in inputs or inputs[name].shape != tensor.shape:
                given = {key: value.shape for key, value in inputs.items()}
                raise EngineError(f"{self._engine.name!r} expects {name} {tensor.shape}, got {given}")
            self._host[name][:] = to_raw(inputs[name], tensor.dtype)
            self._cuda.copy_in(self._device[name], self._host[name], self._stream)
        self._engine.enqueue(self._stream)
        for name in self._engine.outputs:
            self._cuda.copy_out(self._host[name], self._device[name], self._stream)
        self._cuda.synchronize(self._stream)
        return {
            name: from_raw(self._host[name], tensor.dtype, tensor.shape).copy()
            for name, tensor in self._engine.outputs.items()
        }
