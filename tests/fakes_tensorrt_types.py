"""The classes of TensorRT's Python API that only hold what they are given, as far as we use them."""
# ruff: noqa: A002

from __future__ import annotations

import functools
import json
import struct
from enum import Enum, IntEnum
from typing import Any

import onnxruntime


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(Enum):
    TF32 = 0
    VERSION_COMPATIBLE = 1
    GPU_FALLBACK = 2


class DeviceType(Enum):
    GPU = 0
    DLA = 1


class OnnxParserFlag(Enum):
    """Of TensorRT from 10.16 on."""

    ADJUST_FOR_DLA = 4


class MemoryPoolType(Enum):
    WORKSPACE = 0
    TACTIC_DRAM = 1


class ProfilingVerbosity(Enum):
    DETAILED = 2


class LayerInformationFormat(Enum):
    JSON = 1


class DynamicShapesKernelSpecializationStrategy(Enum):
    EAGER = 1


class HardwareCompatibilityLevel(Enum):
    NONE = 0
    AMPERE_PLUS = 1


class TensorIOMode(Enum):
    INPUT = 0
    OUTPUT = 1


class DataType(Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    UINT8 = "tensor(uint8)"
    INT64 = "tensor(int64)"


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    def __init__(self) -> None:
        self.is_ready = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_ready = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


@functools.lru_cache(maxsize=64)
def session(path: str, stamp: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class ITensor:
    __slots__ = ("_mode", "dtype", "name", "shape")

    def __init__(self, argument: Any, mode: TensorIOMode) -> None:
        self.name, self._mode, self.dtype = argument.name, mode, DataType(argument.type)
        self.shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape)


class ParserError:
    def __init__(self, words: str) -> None:
        self._words = words

    def desc(self) -> str:
        return self._words

    def node_operator(self) -> str:
        return "Fake"


class ITimingCache:
    def __init__(self, timed: list[str]) -> None:
        self._timed = timed

    def serialize(self) -> bytes:
        return json.dumps(self._timed).encode()


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert min == opt == max
        self._shapes[input] = tuple(min)


class INetworkDefinition:
    __slots__ = ("__weakref__", "_is_adjusted", "_parser", "_path", "_tensors", "name")

    def __init__(self) -> None:
        self.name, self._path, self._tensors = "", "", []
        self._is_adjusted = False
        self._parser: Any = lambda: None

    @property
    def num_inputs(self) -> int:
        return sum(tensor._mode is TensorIOMode.INPUT for tensor in self._tensors)

    def get_input(self, index: int) -> ITensor:
        return [tensor for tensor in self._tensors if tensor._mode is TensorIOMode.INPUT][index]


class IBuilderConfig:
    __slots__ = (
        *("DLA_core", "_cache", "_flags", "_pools", "_profiles", "builder_optimization_level"),
        *("default_device_type", "hardware_compatibility_level", "profiling_verbosity", "progress_monitor"),
    )

    def __init__(self) -> None:
        self._flags, self._pools = {BuilderFlag.TF32}, {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self.progress_monitor: IProgressMonitor | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert isinstance(pool_size, int)
        assert pool_size > 0
        self._pools[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        try:
            return ITimingCache(json.loads(serialized_timing_cache or b"[]"))
        except ValueError:
            return None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self._cache = cache
        return True

    def _targets(self) -> dict[str, Any]:
        """What it was told to build for; TensorRT builds for the GPU that is there, or a DLA beside it."""
        return {"dla": self.DLA_core} if self.default_device_type is DeviceType.DLA else {}

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


def make_plan(version: str, content: dict[str, Any], magic: int = 0x74727466) -> bytes:
    """An engine file with a true header, whose program is the name of an ONNX file."""
    numbers = [*(int(part) for part in version.split(".")), 26][:4]
    return struct.pack("<II16x4B", magic, 0, *numbers) + json.dumps(content).encode()
