"""TensorRT behind ONNX Runtime: engines are built when the model is opened, and kept in the user's cache.

It is taken when it is asked for by name alone: building takes minutes, and an engine of `velora build` is
checked against the graphs, which one of ONNX Runtime's is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.files import cache_home
from velora_edge.ort import CUDA, TENSORRT
from velora_runtime.engines.ort_cuda import OrtDeviceEngine, cuda_providers, why_no_kernels, why_no_provider

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle, Manifest
    from velora_edge.ort import Provider
    from velora_runtime.engines.base import EngineOptions

FLAGS = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}
"""What ONNX Runtime tells TensorRT that it may use; the types are the graph's own."""


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Why it cannot run here as asked, or None."""
    return why_no_kernels(bundle) or why_no_provider(CUDA, options) or why_no_provider(TENSORRT, options)


def open_engine(bundle: Bundle, options: EngineOptions) -> OrtDeviceEngine:
    """The bundle's graphs on TensorRT; takes minutes where its engines are not in the cache.

    Raises:
        EngineError: if ONNX Runtime does not start there with every node of the graphs.
        BundleError: if a graph has other inputs than a bundle's graphs have.
    """
    return OrtDeviceEngine(bundle, options, "TensorRT", tensorrt_providers)


def tensorrt_providers(manifest: Manifest, *, cuda_graph: bool) -> list[Provider]:
    """TensorRT, with CUDA for nodes that it does not take."""
    cache = cache_folder()
    options = {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_cuda_graph_enable": str(int(cuda_graph)),
    }
    if manifest.precision in FLAGS:
        options[FLAGS[manifest.precision]] = "1"
    return [(TENSORRT, options), *cuda_providers(manifest, cuda_graph=False)]


def cache_folder() -> Path:
    """Where ONNX Runtime keeps the engines that it built, made where it is not there."""
    folder = cache_home() / "velora" / "onnxruntime"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
