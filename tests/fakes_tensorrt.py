"""TensorRT's Python API as far as we use it, computing through ONNX Runtime on a `FakeGPU`.

It refuses what the real one refuses: addresses that are not aligned, an engine of another version, recording
a run that never ran. What would kill the process, or be undefined, is an AssertionError here. Every class and
method is compared with the real packages by test_tensorrt_names.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fakes_cuda import FakeGPU, cudaError_t
from fakes_tensorrt_rtx import ComputeCapability, RtxBuilderConfig, add_runtime_cache
from fakes_tensorrt_types import (
    BuilderFlag,
    DataType,
    DeviceType,
    DynamicShapesKernelSpecializationStrategy,
    HardwareCompatibilityLevel,
    IBuilderConfig,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParserFlag,
    ParserError,
    ProfilingVerbosity,
    TensorIOMode,
    make_plan,
    session,
)

from velora_edge.gpu.kinds import RTX, TENSORRT

if TYPE_CHECKING:
    import pytest

    from velora_edge.gpu.kinds import Kind


PLAIN = (
    *(NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType, ProfilingVerbosity, TensorIOMode, DataType),
    *(HardwareCompatibilityLevel, ILogger, IProgressMonitor, ITensor, ParserError, ITimingCache),
    *(IOptimizationProfile, INetworkDefinition, IBuilderConfig, LayerInformationFormat, DeviceType),
)
"""What the module holds besides the classes that know their `FakeTensorRT`."""


def _keep(network: str) -> str:
    """A copy of the network and its weights that stays: a real engine holds all of it."""
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / str(len(list(folder.iterdir())))
    shutil.copytree(Path(network).parent, kept)
    return str(kept / Path(network).name)


class FakeTensorRT:
    """The module, as `module`, and what it was asked.

    Attributes:
        builds: the configuration of each build: name, pools, flags, level, timed layers, threads.
        fail_build: what the builder says instead of building.
        refuse_runs: `execute_async_v3` returns False from now on.
        refuse_recording: the same while a graph is recorded.
        loads_also: versions whose engines it loads when host code is allowed.
        spoil: added to every output, to play an engine that is not its graph.
        on_step: called at every step of a build.
        layers: what the inspector says of every engine, JSON.
        dla_cores: how many accelerators the board has.
        compiled: engines whose kernels were compiled, not found in a cache, by TensorRT for RTX.
    """

    def __init__(self, gpu: FakeGPU, version: str = "10.3.0", kind: Kind = TENSORRT) -> None:
        self.gpu, self.version, self.kind = gpu, version, kind
        self.layers, self.dla_cores = '{"Layers": []}', 0
        self.compiled: list[str] = []
        self.builds: list[dict[str, Any]] = []
        self.fail_build = ""
        self.refuse_runs = self.refuse_recording = False
        self.loads_also: set[str] = set()
        self.spoil = 0.0
        self.on_step: Any = lambda: None
        self.module = types.ModuleType(kind.modules[0])
        self.module.__version__ = version
        made = (_make_builder(self), _make_parser(self), *_make_runtime(self))
        for kind in (*made, *PLAIN):
            setattr(self.module, kind.__name__, kind)
        if version.startswith("11."):
            self.module.OnnxParserFlag = OnnxParserFlag
        if self.kind is RTX:
            strategy = DynamicShapesKernelSpecializationStrategy
            for added in (strategy, ComputeCapability, RtxBuilderConfig):
                setattr(self.module, added.__name__.replace("RtxB", "IB"), added)

    @classmethod
    def install(
        cls, monkeypatch: pytest.MonkeyPatch, home: Path, version: str = "10.3.0", kind: Kind = TENSORRT
    ) -> FakeTensorRT:
        """A GPU with TensorRT or TensorRT for RTX in place of this machine's; key and caches go to `home`."""
        fake = cls(FakeGPU(), version, kind)
        monkeypatch.setitem(sys.modules, kind.modules[0], fake.module)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake.gpu.module)
        monkeypatch.setattr("velora_edge.gpu.cuda.GPU_FILES", (str(home),))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        monkeypatch.delenv("VELORA_TRUST_ENGINES", raising=False)
        return fake

    def make_plan(self, content: dict[str, Any], version: str = "") -> bytes:
        """An engine file of this library."""
        return make_plan(version or self.version, content, self.kind.magic)

    def check_gpu(self, logger: ILogger) -> None:
        assert self.gpu.devices, "the real one kills the process where there is no GPU"
        assert getattr(logger, "is_ready", False), "ILogger.__init__ was not called"


def _make_builder(fake: FakeTensorRT) -> type:
    class Builder:
        __slots__ = ("_logger", "max_threads")

        def __init__(self, logger: ILogger) -> None:
            fake.check_gpu(logger)
            self._logger, self.max_threads = logger, 0

        @property
        def num_DLA_cores(self) -> int:
            return fake.dla_cores

        def create_network(self, flags: int) -> INetworkDefinition:
            assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return INetworkDefinition()

        def create_builder_config(self) -> IBuilderConfig:
            made: IBuilderConfig = fake.module.IBuilderConfig()
            return made

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> bytes | None:
            assert network._parser() is not None, "the parser owns the weights and is gone"
            assert len(network.name) <= 128
            inputs = [tensor for tensor in network._tensors if tensor._mode is TensorIOMode.INPUT]
            for profile in config._profiles:
                for tensor in inputs:
                    shape = profile._shapes[tensor.name]
                    fixed = zip(shape[1:], tensor.shape[1:], strict=True)
                    assert shape[0] == 1
                    assert all(size in (-1, of_profile) for of_profile, size in fixed)
            if fake.fail_build:
                self._logger.log(ILogger.Severity.ERROR, fake.fail_build)
                return None
            if not self._report(config.progress_monitor):
                return None
            timed = config._cache._timed if config._cache is not None else []
            is_known = Path(network._path).name in timed
            fake.builds.append(
                {
                    "name": network.name,
                    "pools": {pool.name: size for pool, size in config._pools.items()},
                    "flags": {flag.name for flag in config._flags},
                    "level": config.builder_optimization_level,
                    "compatibility": config.hardware_compatibility_level.name,
                    "was_timed": is_known,
                    "threads": self.max_threads,
                    **config._targets(),
                }
            )
            timed.extend([] if is_known else [Path(network._path).name])
            on_dla = {"dla": config.DLA_core} if config.default_device_type is DeviceType.DLA else {}
            assert network._is_adjusted == bool(on_dla), "the parser was not told what it reads for"
            profiles = [profile._shapes for profile in config._profiles]
            kept = {"name": network.name, "onnx": _keep(network._path), "profiles": profiles}
            return fake.make_plan({**kept, **on_dla})

        def _report(self, monitor: IProgressMonitor | None) -> bool:
            assert monitor is not None
            assert getattr(monitor, "is_ready", False), "IProgressMonitor.__init__ was not called"
            monitor.phase_start("Building", None, 1)
            monitor.phase_start("Timing", "Building", 3)
            for step in range(3):
                fake.on_step()
                if not monitor.step_complete("Timing", step):
                    return False
            monitor.phase_finish("Timing")
            monitor.phase_finish("Building")
            return True

    return Builder


def _make_parser(fake: FakeTensorRT) -> type:
    class OnnxParser:
        __slots__ = ("__weakref__", "_errors", "_flags", "_network")

        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            fake.check_gpu(logger)
            self._network, self._errors = network, []
            self._flags: list[OnnxParserFlag] = []

        def set_flag(self, flag: OnnxParserFlag) -> None:
            self._flags.append(flag)

        def parse_from_file(self, model: str) -> bool:
            try:
                loaded = session(model, Path(model).stat().st_mtime_ns)
            except Exception as error:
                self._errors.append(ParserError(str(error).splitlines()[0]))
                return False
            tensors = [ITensor(argument, TensorIOMode.INPUT) for argument in loaded.get_inputs()]
            tensors += [ITensor(argument, TensorIOMode.OUTPUT) for argument in loaded.get_outputs()]
            self._network._tensors, self._network._path = tensors, model
            self._network._is_adjusted = OnnxParserFlag.ADJUST_FOR_DLA in self._flags
            self._network._parser = weakref.ref(self)
            return True

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

    return OnnxParser


def _make_runtime(fake: FakeTensorRT) -> tuple[type, ...]:
    class Runtime:
        __slots__ = ("DLA_core", "_logger", "engine_host_code_allowed")

        def __init__(self, logger: ILogger) -> None:
            fake.check_gpu(logger)
            self._logger, self.engine_host_code_allowed, self.DLA_core = logger, False, -1

        @property
        def num_DLA_cores(self) -> int:
            return fake.dla_cores

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            known = {fake.make_plan({}, version)[:28] for version in (fake.version, *fake.loads_also)}
            if serialized_engine[:28] not in known:
                self._logger.log(ILogger.Severity.ERROR, "Version tag does not match.")
                return None
            if serialized_engine[:28] != fake.make_plan({})[:28]:
                assert self.engine_host_code_allowed, "it brings code for the CPU along"
            content = json.loads(serialized_engine[28:])
            assert content.get("dla") in (None, self.DLA_core), "on another DLA than it was built for"
            return ICudaEngine(content, self._logger)

    class ICudaEngine:
        def __init__(self, content: dict[str, Any], logger: ILogger) -> None:
            self.name, self._logger = content["name"] if fake.kind is TENSORRT else "", logger
            self._title = content["name"]
            self._profiles = [{k: tuple(v) for k, v in shapes.items()} for shapes in content["profiles"]]
            path = Path(content["onnx"])
            self._session = session(str(path), path.stat().st_mtime_ns)
            self._tensors = [ITensor(argument, TensorIOMode.INPUT) for argument in self._session.get_inputs()]
            self._tensors += [ITensor(a, TensorIOMode.OUTPUT) for a in self._session.get_outputs()]

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return self._tensors[index].name

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return self._find(name)._mode

        def get_tensor_dtype(self, name: str) -> DataType:
            return self._find(name).dtype

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._profiles)

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [self._profiles[profile_index][name]] * 3

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector()

        def _find(self, name: str) -> ITensor:
            return next(tensor for tensor in self._tensors if tensor.name == name)

    class EngineInspector:
        def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002
            assert format is LayerInformationFormat.JSON
            return fake.layers

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine, self._logger = engine, engine._logger
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._profile = 0
            self._addresses: dict[str, int] = {}
            self._ran: set[tuple[int, ...]] = set()

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle != 0, "on the default stream"
            self._profile = profile_index
            return profile_index < len(self._engine._profiles)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shapes[name] = tuple(shape)
            return tuple(shape) == self._engine._profiles[self._profile][name]

        def infer_shapes(self) -> list[str]:
            inputs = [t.name for t in self._engine._tensors if t._mode is TensorIOMode.INPUT]
            return [name for name in inputs if name not in self._shapes]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            shape = self._engine._find(name).shape
            return self._shapes.get(name, (1, *shape[1:])) if not self.infer_shapes() else shape

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if memory % 256:
                self._logger.log(ILogger.Severity.ERROR, f"address of {name} is not aligned")
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert stream_handle != 0, "on the default stream"
            places = tuple(self._addresses[tensor.name] for tensor in self._engine._tensors)
            is_recording = fake.gpu.is_capturing(stream_handle)
            is_new = places not in self._ran
            if is_recording and (fake.refuse_recording or is_new):
                fake.gpu.last_error = cudaError_t.cudaErrorStreamCaptureUnsupported
            if fake.refuse_runs or fake.gpu.last_error:
                self._logger.log(ILogger.Severity.ERROR, "enqueue was refused")
                return False
            self._ran.add(places)
            fake.gpu.submit(stream_handle, lambda: self._compute(places))
            return True

        def _compute(self, places: tuple[int, ...]) -> None:
            inputs, output = {}, None
            for tensor, address in zip(self._engine._tensors, places, strict=True):
                shape = self.get_tensor_shape(tensor.name)
                dtype = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8}
                dtype[DataType.INT64] = np.int64
                size = int(np.prod(shape)) * np.dtype(dtype[tensor.dtype]).itemsize
                values = fake.gpu.view(address, size).view(dtype[tensor.dtype]).reshape(shape)
                if tensor._mode is TensorIOMode.INPUT:
                    inputs[tensor.name] = values.copy()
                else:
                    output = values
            (result,) = self._engine._session.run(None, inputs)
            assert output is not None
            output[:] = result + np.asarray(fake.spoil, result.dtype)

    def create_context(self: ICudaEngine) -> IExecutionContext:
        return IExecutionContext(self)

    made: tuple[type, ...] = (Runtime, ICudaEngine, IExecutionContext, EngineInspector)
    if fake.kind is RTX:
        made += add_runtime_cache(fake, ICudaEngine, IExecutionContext)
    else:
        ICudaEngine.create_execution_context = create_context  # type: ignore[attr-defined]
    return made
