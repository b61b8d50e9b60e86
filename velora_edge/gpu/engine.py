"""An engine of TensorRT or TensorRT for RTX in memory, ready to run on addresses that the caller gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError
from velora_edge.gpu.kinds import TENSORRT
from velora_edge.gpu.log import Messages, create_logger
from velora_edge.gpu.matching import load_tensorrt

if TYPE_CHECKING:
    from velora_edge.gpu.cuda import Cuda
    from velora_edge.gpu.kernel_cache import KernelCache
    from velora_edge.gpu.kinds import Kind

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
        self, plan: bytes, name: str, *, host_code: bool = False, cache: KernelCache | None = None
    ) -> LoadedEngine:
        """The engine in `plan`.

        Args:
            plan: its bytes, which the caller trusts: they hold programs.
            name: what the engine must be called; one of TensorRT for RTX cannot be asked for its name.
            host_code: let it run code on the CPU, which a version-compatible engine brings along.
            cache: keeps the kernels that TensorRT for RTX compiles when the engine first runs.

        Raises:
            EngineError: if TensorRT refuses it, or if it is another engine.
        """
        self._cuda.use()
        runtime, trt, title = self._runtime, self._trt, self._kind.title
        runtime.engine_host_code_allowed = host_code
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{title} {trt.__version__} cannot load {name!r}{self.messages.explain()}")
        if self._kind is TENSORRT and engine.name != name:
            raise EngineError(f"expected the engine {name!r}, got {engine.name!r}")
        return LoadedEngine(trt, engine, name, self.messages, cache)


class LoadedEngine:
    """An engine with its execution context, every shape fixed at batch 1.

    Single-threaded: an execution context is not to be shared.

    Attributes:
        name: the network's.
        inputs: by name, in the engine's order.
        outputs: by name.
    """

    def __init__(
        self, trt: Any, engine: Any, name: str, messages: Messages, cache: KernelCache | None = None
    ) -> None:
        self.name = name
        self._trt, self._messages, self._engine, self._cache = trt, messages, engine, cache
        context = engine.create_execution_context() if cache is None else cache.create_context(trt, engine)
        if context is None:
            raise EngineError(f"no memory for the engine {self.name!r}{messages.explain()}")
        self._context = context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        for name in filter(is_input.__getitem__, names):
            shape = tuple(engine.get_tensor_shape(name))
            if not context.set_input_shape(name, (1, *shape[1:])):
                raise EngineError(f"{self.name!r} does not take batch 1 in {name}{messages.explain()}")
        unset = context.infer_shapes()
        if unset:
            raise EngineError(f"{self.name!r} leaves shapes open: {', '.join(unset)}")
        tensors = {name: self._describe(name) for name in names}
        self.inputs = {name: tensor for name, tensor in tensors.items() if is_input[name]}
        self.outputs = {name: tensor for name, tensor in tensors.items() if not is_input[name]}

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
        """Let go of the context, then of the cache and the engine."""
        self._context = None
        if self._cache is not None:
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
