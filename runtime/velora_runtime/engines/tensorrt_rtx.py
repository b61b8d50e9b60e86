"""TensorRT for RTX, for GeForce and RTX cards: the engines of `velora build --for rtx`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.gpu.kinds import RTX
from velora_runtime.engines.tensorrt import TensorRTEngine, why_not_on

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import EngineOptions


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why the bundle cannot run on TensorRT for RTX here as asked, or None. Loads no engine."""
    return why_not_on(RTX, bundle, options)


def open_engine(bundle: Bundle, options: EngineOptions) -> TensorRTEngine:
    """The bundle's engines for this machine's GPU, loaded; their kernels are compiled when they first run.

    Raises:
        EngineError: if there is no GPU, no TensorRT for RTX, or no engine for this GPU; or if one is not what
            the manifest says.
        BundleError: if a file is no engine.
    """
    return TensorRTEngine(bundle, options, RTX)
