"""Engine of TensorRT or TensorRT for RTX in memory: loading, kernel cache, runs on arrays."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import EngineError
from velora_edge.files import cache_home, replace_file
from velora_edge.gpu.kinds import TENSORRT, Messages, create_logger
from velora_edge.gpu.matching import load_tensorrt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.kinds import Kind
    from velora_edge.gpu.matching import Machine


def to_raw(array: NDArray[Any], dtype: str) -> NDArray[np.uint8]:
    """The bytes of `array` as the type `dtype`, uint8[size]; bfloat16 is rounded to nearest, ties to even."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        converted: NDArray[Any] = (rounded >> 16).astype(np.uint16)
    else:
        converted = np.ascontiguousarray(array, np.dtype(dtype))
    return converted.reshape(-1).view(np.uint8)


def from_raw(raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bytes of the type `dtype` as float32 of that shape; a view where they are float32, else a copy."""
    if dtype == "bfloat16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view(np.dtype(dtype)).astype(np.float32, copy=False).reshape(shape)


LOG = logging.getLogger("velora.tensorrt")


class KernelCache:
    """One engine's runtime cache and its file.

    The library checks what it is given against GPU, driver and version, and begins anew where they differ. A
    file that cannot be read or written costs time at the next start, nothing else.

    Single-threaded.

    Args:
        path: the file; see `kernel_cache_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache: Any = None
        self._config: Any = None

    def create_context(self, trt: Any, engine: Any) -> Any:
        """An execution context of the engine that compiles into this cache; None where there is no memory.

        Kernels are specialised at once, not in the background while slower ones run: what was warmed up stays
        as fast as it is.
        """
        if self._config is not None:  # another context of the engine: kernels of both go to one cache
            return engine.create_execution_context(runtime_config=self._config)
        self._config = config = engine.create_runtime_config()
        strategy = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        self._cache = cache = config.create_runtime_cache()
        try:
            if not cache.deserialize(self.path.read_bytes()):
                LOG.info("%s is of another GPU or version: kernels are compiled anew", self.path)
        except FileNotFoundError:
            pass  # the first start
        except OSError as error:
            LOG.warning("kernels are compiled anew: %s", error)
        config.set_runtime_cache(cache)
        return engine.create_execution_context(runtime_config=config)

    def is_recordable(self, context: Any, stream: int) -> bool:
        """Whether a run of the context can be recorded as a CUDA graph."""
        return bool(context.is_stream_capturable(stream))

    def save(self) -> None:
        """Write what was compiled so far, whole or not at all."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, bytes(self._cache.serialize()))
        except OSError as error:
            LOG.warning("compiled kernels are not kept, so that the next start takes longer: %s", error)

    def close(self) -> None:
        """Free the cache and the configuration, after the context."""
        self._cache = self._config = None


def kernel_cache_path(machine: Machine, engine_sha256: str) -> Path:
    """The cache's file for an engine on a machine: under `$XDG_CACHE_HOME/velora/tensorrt-rtx`."""
    gpu = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-")
    return cache_home() / "velora" / "tensorrt-rtx" / f"{machine.tensorrt}-{gpu}-{engine_sha256[:16]}.cache"


# names of tensorrt.DataType: the same type's name here, and its size
DTYPES = {
    "FLOAT": ("float32", 4),
    "HALF": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "INT8": ("int8", 1),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "BOOL": ("bool", 1),
    "UINT8": ("uint8", 1),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One of an engine's inputs or outputs, at batch 1.

    Attributes:
        name: as in the graph.
        shape: with the batch axis.
        dtype: NumPy's name, or bfloat16.
        size_bytes: of the whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int


class EngineLoader:
    """Makes engines out of plans: TensorRT's runtime and what must outlive the engines.

    TensorRT binds engines to the thread's current device, so it is made current first.

    Args:
        cuda: the device; its being there is what makes touching TensorRT's runtime safe.
        messages: where TensorRT's messages go; None: to `logging`.
        kind: TensorRT, or TensorRT for RTX.
    """

    def __init__(self, cuda: Cuda, messages: Messages | None = None, kind: Kind = TENSORRT) -> None:
        cuda.use()
        self.messages = messages or Messages()
        self._cuda, self._kind = cuda, kind
        self._trt = load_tensorrt(kind)
        self._logger = create_logger(self._trt, self.messages)
        self._runtime = self._trt.Runtime(self._logger)
        if self._runtime is None:
            raise EngineError(f"the runtime of {kind.title} cannot be created{self.messages.explain()}")

    def load(
        self,
        plan: bytes,
        name: str,
        *,
        host_code: bool = False,
        cache: KernelCache | None = None,
        dla_core: int | None = None,
    ) -> LoadedEngine:
        """The engine in `plan`.

        Args:
            plan: its bytes, which the caller trusts: they hold programs.
            name: what the engine must be called; one of TensorRT for RTX cannot be asked for its name.
            host_code: let it run code on the CPU, which a version-compatible engine brings along.
            cache: keeps the kernels that TensorRT for RTX compiles when the engine first runs.
            dla_core: the Deep Learning Accelerator that it was built for.

        Raises:
            EngineError: if TensorRT refuses it, if it is another engine, or if the accelerator is not there.
        """
        self._cuda.use()
        runtime, trt, title = self._runtime, self._trt, self._kind.title
        runtime.engine_host_code_allowed = host_code
        if dla_core is not None:
            if dla_core >= runtime.num_DLA_cores:
                raise EngineError(
                    f"{name!r} was built for DLA {dla_core}, and this board has {runtime.num_DLA_cores} for "
                    f"{title} {trt.__version__}; build the engine again without --dla"
                )
            runtime.DLA_core = dla_core
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{title} {trt.__version__} cannot load {name!r}{self.messages.explain()}")
        if self._kind is TENSORRT and engine.name != name:
            raise EngineError(f"expected the engine {name!r}, got {engine.name!r}")
        return LoadedEngine(trt, engine, name, self.messages, cache)


class LoadedEngine:
    """An engine with its execution context, every shape fixed: at batch 1, and as one of its profiles says.

    Single-threaded: an execution context is not to be shared.

    Attributes:
        name: the network's.
        inputs: by name, in the engine's order.
        outputs: by name.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        name: str,
        messages: Messages,
        cache: KernelCache | None = None,
        cuda: Cuda | None = None,
        profile: int = 0,
    ) -> None:
        self.name = name
        self._trt, self._messages, self._engine, self._cache = trt, messages, engine, cache
        self._profile = profile
        context = engine.create_execution_context() if cache is None else cache.create_context(trt, engine)
        if context is None:
            raise EngineError(f"no memory for the engine {self.name!r}{messages.explain()}")
        self._context = context
        if profile:
            self._choose(cuda, profile)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        for name in filter(is_input.__getitem__, names):
            shape = engine.get_tensor_profile_shape(name, profile)[1]
            if not context.set_input_shape(name, shape):
                raise EngineError(f"{self.name!r} does not take {shape} in {name}{messages.explain()}")
        unset = context.infer_shapes()
        if unset:
            raise EngineError(f"{self.name!r} leaves shapes open: {', '.join(unset)}")
        tensors = {name: self._describe(name) for name in names}
        self.inputs = {name: tensor for name, tensor in tensors.items() if is_input[name]}
        self.outputs = {name: tensor for name, tensor in tensors.items() if not is_input[name]}

    @property
    def profiles(self) -> int:
        """How many sets of shapes it was built for."""
        return int(self._engine.num_optimization_profiles)

    def with_profile(self, cuda: Cuda, profile: int) -> LoadedEngine:
        """The same engine with a context of its own, at the shapes of another profile; closed by itself.

        Raises:
            EngineError: if it has no such profile, or there is no memory.
        """
        return LoadedEngine(self._trt, self._engine, self.name, self._messages, self._cache, cuda, profile)

    def _choose(self, cuda: Cuda | None, profile: int) -> None:
        assert cuda is not None
        stream = cuda.create_stream()
        if profile >= self.profiles or not self._context.set_optimization_profile_async(profile, stream):
            raise EngineError(
                f"{self.name!r} has no shapes of number {profile}{self._messages.explain()}; build it again"
            )
        cuda.synchronize(stream)

    def bind(self, name: str, address: int) -> None:
        """Let an input or output lie at `address` from the next `enqueue` on.

        Raises:
            EngineError: if TensorRT refuses.
        """
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"{self.name!r} has no place for {name}{self._messages.explain()}")

    def enqueue(self, stream: int) -> None:
        """Queue one run on what is bound.

        Raises:
            EngineError: if TensorRT refuses: the outputs then still hold what they held.
        """
        if not self._context.execute_async_v3(stream):
            raise EngineError(f"TensorRT refused to run {self.name!r}{self._messages.explain()}")

    def describe_layers(self) -> str:
        """The engine's layers as its inspector gives them, JSON: what each one computes, in which types."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def is_recordable(self, stream: int) -> bool:
        """Whether a run can be recorded as a CUDA graph; TensorRT itself finds out by trying."""
        return self._cache is None or self._cache.is_recordable(self._context, stream)

    def keep_kernels(self) -> None:
        """Keep the kernels that were compiled so far for the next start, where there is a cache."""
        if self._cache is not None:
            self._cache.save()

    def close(self) -> None:
        """Free the context, then the cache and the engine; after those that were made by `with_profile`."""
        self._context = None
        if self._cache is not None and not self._profile:
            self._cache.close()
        self._engine = None

    def _describe(self, name: str) -> Tensor:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise EngineError(f"{self.name!r}: {name} is of the type {kind}, which velora-edge does not use")
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if min(shape, default=0) < 1:
            raise EngineError(f"{self.name!r}: {name} has the shape {shape}, expected every size to be known")
        dtype, item_bytes = DTYPES[kind]
        return Tensor(name, shape, dtype, item_bytes * math.prod(shape))


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
