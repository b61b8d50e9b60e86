"""Registry of backends, best first, and the choice among them.

A backend is one module with `why_not` and `open_engine` (see `Backend`) and one line in `BACKENDS`, or a
plugin (`velora.engines`). It is imported when it is considered, so it may need an optional library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from velora_edge.errors import EngineError
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import Backend, Engine, EngineOptions

_E = "velora_runtime.engines."
BACKENDS = Registry(
    "velora.engines",
    [
        Extension("tensorrt", f"{_E}tensorrt", "tensorrt"),
        Extension("tensorrt-rtx", f"{_E}tensorrt:RTX_BACKEND", "tensorrt-rtx"),
        Extension("onnxruntime-cuda", f"{_E}ort_cuda", "onnxruntime with CUDA"),
        Extension("onnxruntime", f"{_E}ort", "onnxruntime"),
        Extension("openvino", f"{_E}openvino", "openvino"),
        Extension("onnxruntime-tensorrt", f"{_E}ort_tensorrt", "onnxruntime with TensorRT"),
    ],
)
"""Modules; the help is what messages call them."""
AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime", "openvino")
"""The names that auto stands for; on a CPU openvino comes first where it was measured to be faster."""
ONNXRUNTIME = ("onnxruntime-cuda", "onnxruntime")
"""Those that onnxruntime stands for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it is this one.

    Attributes:
        engine: ready for `warm_up`.
        passed_over: the better backends that this machine cannot run, each with the reason.
    """

    engine: Engine
    passed_over: tuple[str, ...]


def open_engine(bundle: Bundle, backend: str, options: EngineOptions) -> Choice:
    """The best engine that this machine runs the bundle on.

    Args:
        bundle: the model.
        backend: a name in `BACKENDS` or of a plugin, or auto.
        options: what it is to run on. A device that was asked for is never replaced by another.

    Raises:
        EngineError: if none can be had; tells why of each.
    """
    passed_over: list[str] = []
    for one in named_backends(backend):
        module = cast("Backend", one.load())
        reason = module.why_not(bundle, options)
        if reason is None and one.name == "onnxruntime" and backend == "auto":
            module, said = _best_on_a_cpu(module, bundle, options)
            passed_over += said
        if reason is None:
            return Choice(module.open_engine(bundle, options), tuple(passed_over))
        passed_over.append(f"{one.help}: {reason}")
    raise EngineError(f"no engine for device {options.device}: {'; '.join(passed_over)}")


def named_backends(backend: str) -> list[Extension]:
    """The backends that a name stands for, best first.

    Raises:
        EngineError: if there is none of that name.
    """
    several = {"auto": AUTO, "onnxruntime": ONNXRUNTIME}
    found = [BACKENDS.find(name) for name in several.get(backend, (backend,))]
    if None in found:
        raise EngineError(f"no backend is called {backend!r}; there are {BACKENDS.names()}")
    return [one for one in found if one is not None]


def _best_on_a_cpu(
    onnxruntime: Backend, bundle: Bundle, options: EngineOptions
) -> tuple[Backend, tuple[str, ...]]:
    """ONNX Runtime, or OpenVINO where it was measured to be faster, and why not the other one."""
    from velora_runtime.engines import openvino
    from velora_runtime.engines.cpu_timing import read_timing

    reason = openvino.why_not(bundle, options)
    if reason is not None:
        return onnxruntime, (f"openvino: {reason}",)
    timing = read_timing(bundle, options)
    if timing is None:
        return onnxruntime, (f"openvino: not measured here; velora build {bundle.path} --for cpu does it",)
    if timing.is_openvino_faster:
        return openvino, (f"onnxruntime: {timing.describe()}",)
    return onnxruntime, (f"openvino: {timing.describe()}",)
