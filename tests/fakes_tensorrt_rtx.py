"""What TensorRT for RTX has beside TensorRT: contexts by a configuration, and a cache of compiled kernels."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any

from fakes_tensorrt_types import DynamicShapesKernelSpecializationStrategy, IBuilderConfig

if TYPE_CHECKING:
    from fakes_tensorrt import FakeTensorRT


class ComputeCapability(Enum):
    SM86 = 86
    SM89 = 89
    SM120 = 120


class RtxBuilderConfig(IBuilderConfig):
    __slots__ = ("_capabilities", "num_compute_capabilities")

    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities, self._capabilities = 0, dict[int, ComputeCapability]()

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        self._capabilities[index] = compute_capability
        return True

    def _targets(self) -> dict[str, Any]:
        assert len(self._capabilities) == self.num_compute_capabilities
        return {"targets": [self._capabilities[index].name for index in sorted(self._capabilities)]}


def add_runtime_cache(fake: FakeTensorRT, engine_class: Any, context_class: Any) -> tuple[type, ...]:
    """The classes for it; `engine_class` and `context_class` get the methods that belong to it."""

    class IRuntimeCache:
        def __init__(self) -> None:
            self._known: list[str] = []

        def deserialize(self, blob: bytes) -> bool:
            try:
                found = json.loads(blob)
            except ValueError:
                return False
            if found["version"] != fake.version:
                return False
            self._known = found["engines"]
            return True

        def serialize(self) -> bytes:
            return json.dumps({"version": fake.version, "engines": self._known}).encode()

    class IRuntimeConfig:
        __slots__ = ("_cache", "dynamic_shapes_kernel_specialization_strategy")

        def create_runtime_cache(self) -> IRuntimeCache:
            return IRuntimeCache()

        def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
            self._cache = cache
            return True

    def create_runtime_config(self: Any) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self: Any, runtime_config: IRuntimeConfig | None = None) -> Any:
        if runtime_config is None:
            return context_class(self)
        strategy = DynamicShapesKernelSpecializationStrategy
        assert runtime_config.dynamic_shapes_kernel_specialization_strategy is strategy.EAGER
        if self._title not in runtime_config._cache._known:
            fake.compiled.append(self._title)
            runtime_config._cache._known.append(self._title)
        return context_class(self)

    def is_stream_capturable(self: Any, stream: int) -> bool:
        return not fake.refuse_recording

    engine_class.create_runtime_config = create_runtime_config
    engine_class.create_execution_context = create_execution_context
    context_class.is_stream_capturable = is_stream_capturable
    return IRuntimeCache, IRuntimeConfig
