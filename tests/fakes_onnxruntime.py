"""ONNX Runtime on a GPU that is not there: real graphs on the CPU, behind the device's addresses and rules.

A CUDA graph replays the addresses that it was recorded with, whatever is bound later. An output goes where
the address says, which must be inside a value that is still alive.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime

_RealSession = onnxruntime.InferenceSession
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


_FOLDER = "session.model_external_initializers_file_folder_path"


class _Options(onnxruntime.SessionOptions):
    """The real ones, which remember the weights, or the folder of weights, that they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: tuple[Any, ...] | None = None
        self.folder: str | None = None

    if hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):

        def add_external_initializers_from_files_in_memory(self, *weights: Any) -> None:
            super().add_external_initializers_from_files_in_memory(*weights)
            self.weights = weights

    def add_session_config_entry(self, key: str, value: str) -> None:
        super().add_session_config_entry(key, value)
        if key == _FOLDER:
            self.folder = value


@dataclass
class FakeRuntime:
    """What `import onnxruntime` gives on a machine with a GPU.

    Attributes:
        providers: that it was built with.
        starts: those of them that work; a session falls back to the CPU for the others.
        replays: a replayed graph computes; False: it does nothing, without a word.
        room: values that fit the GPU's memory.
        sessions: made so far.
        values: alive on the GPU, by address.
    """

    providers: list[str] = field(default_factory=lambda: [CUDA, CPU])
    starts: list[str] = field(default_factory=lambda: [CUDA, CPU])
    replays: bool = True
    room: int = 1000
    sessions: list[FakeSession] = field(default_factory=list)
    values: weakref.WeakValueDictionary[int, FakeValue] = field(default_factory=weakref.WeakValueDictionary)

    __version__ = onnxruntime.__version__
    SessionOptions = _Options
    RunOptions = onnxruntime.RunOptions

    def get_available_providers(self) -> list[str]:
        return self.providers

    def InferenceSession(
        self, model: Any, sess_options: Any = None, providers: Any = None, disabled_optimizers: Any = None
    ) -> FakeSession:
        session = FakeSession(self, model, sess_options, providers)
        self.sessions.append(session)
        return session

    @property
    def OrtValue(self) -> Any:
        runtime = self

        class Values:
            @staticmethod
            def ortvalue_from_shape_and_type(
                shape: list[int], element_type: Any, device_type: str = "cpu", device_id: int = 0
            ) -> FakeValue:
                assert (device_type, device_id) == ("cuda", 0)
                if len(runtime.values) >= runtime.room:
                    raise RuntimeError("CUDA out of memory\nat some line")
                return FakeValue(runtime, shape, element_type)

        return Values

    def memory(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address."""
        for start, value in self.values.items():
            if start <= address and address + size <= start + value.array.nbytes:
                flat = value.array.reshape(-1).view(np.uint8)
                return flat[address - start : address - start + size]
        raise AssertionError(f"nothing of {size} bytes is alive at {address}")


class FakeValue:
    """An OrtValue on the GPU; what it held before is no number."""

    def __init__(self, runtime: FakeRuntime, shape: list[int], element_type: Any) -> None:
        self.array = np.full(
            shape, np.nan if np.issubdtype(element_type, np.floating) else 0x7F, element_type
        )
        runtime.values[self.data_ptr()] = self

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def numpy(self) -> np.ndarray:
        return self.array.copy()

    def update_inplace(self, data: np.ndarray, /) -> None:
        assert data.flags.c_contiguous
        assert (data.shape, data.dtype) == (self.array.shape, self.array.dtype)
        self.array[...] = data


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, FakeValue] = {}
        self.outputs: dict[str, tuple[Any, tuple[int, ...], int]] = {}

    def bind_ortvalue_input(self, name: str, ortvalue: FakeValue) -> None:
        self.inputs[name] = ortvalue

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Any = None,
        buffer_ptr: int | None = None,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        assert buffer_ptr is not None
        self.outputs[name] = (element_type, tuple(shape), buffer_ptr)


class FakeSession:
    def __init__(self, runtime: FakeRuntime, model: Any, options: Any, providers: Any) -> None:
        self._runtime = runtime
        self.options = options
        first = providers[0]
        self.provider, self.provider_options = (first, {}) if isinstance(first, str) else first
        plain = onnxruntime.SessionOptions()
        plain.intra_op_num_threads = 1
        plain.add_free_dimension_override_by_name("batch", 1)
        if options is not None and options.weights is not None:
            plain.add_external_initializers_from_files_in_memory(*options.weights)
        if options is not None and options.folder is not None:
            plain.add_session_config_entry(_FOLDER, options.folder)
        self._session = _RealSession(model, plain, providers=[CPU])
        self._recorded: dict[str, FakeBinding] = {}
        self.replayed = 0

    def get_providers(self) -> list[str]:
        return [self.provider, CPU] if self.provider in self._runtime.starts else [CPU]

    def get_inputs(self) -> list[Any]:
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        return list(self._session.get_outputs())

    def run(self, output_names: Any, input_feed: dict[str, Any]) -> list[Any]:
        return list(self._session.run(output_names, input_feed))

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, iobinding: FakeBinding, run_options: Any = None) -> None:
        records = "1" in (
            self.provider_options.get(k) for k in ("enable_cuda_graph", "trt_cuda_graph_enable")
        )
        graph = run_options.get_run_config_entry("gpu_graph_id")
        if not records or graph == "-1":
            self._compute(iobinding)
        elif graph in self._recorded:
            self.replayed += 1
            if self._runtime.replays:
                self._compute(self._recorded[graph])
        else:
            self._recorded[graph] = iobinding
            self._compute(iobinding)

    def _compute(self, binding: FakeBinding) -> None:
        inputs = {name: value.array for name, value in binding.inputs.items()}
        ((name, (dtype, shape, address)),) = binding.outputs.items()
        (output,) = self._session.run([name], inputs)
        assert (output.dtype, output.shape) == (np.dtype(dtype), shape)
        self._runtime.memory(address, output.nbytes)[...] = output.reshape(-1).view(np.uint8)
