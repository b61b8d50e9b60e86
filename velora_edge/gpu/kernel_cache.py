"""Kernels that TensorRT for RTX compiles when an engine first runs, kept on disk for the next start."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from velora_edge.cache import cache_home, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.gpu.matching import Machine

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
        """Let go of the cache and the configuration, after the context."""
        self._cache = self._config = None


def kernel_cache_path(machine: Machine, engine_sha256: str) -> Path:
    """The cache's file for an engine on a machine: under `$XDG_CACHE_HOME/velora/tensorrt-rtx`."""
    gpu = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-")
    return cache_home() / "velora" / "tensorrt-rtx" / f"{machine.tensorrt}-{gpu}-{engine_sha256[:16]}.cache"
