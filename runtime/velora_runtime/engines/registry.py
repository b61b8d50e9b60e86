"""Every backend by name, best first, and the choice among them.

A backend is one module with `why_not` and `open_engine` (see `Backend`) and one line in `BACKENDS`. It is
imported when it is considered, so it may need an optional library. A name may stand for several, best first.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from velora_edge.errors import EngineError

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import Backend, Engine, EngineOptions

BACKENDS = {
    "tensorrt": {"tensorrt": "velora_runtime.engines.tensorrt"},
    "tensorrt-rtx": {"tensorrt-rtx": "velora_runtime.engines.tensorrt_rtx"},
    "onnxruntime": {
        "onnxruntime with CUDA": "velora_runtime.engines.ort_cuda",
        "onnxruntime": "velora_runtime.engines.ort",
    },
    "openvino": {"openvino": "velora_runtime.engines.openvino"},
    "onnxruntime-tensorrt": {"onnxruntime with TensorRT": "velora_runtime.engines.ort_tensorrt"},
}
"""Modules by what they are for people, by the name that the user gives."""
AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime", "openvino")
"""The names that auto stands for; on a CPU openvino comes first where it was measured to be faster."""


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
        backend: a name in `BACKENDS`, or auto.
        options: what it is to run on. A device that was asked for is never replaced by another.

    Raises:
        EngineError: if none can be had; tells why of each.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise EngineError(f"no backend is called {backend!r}; there are {', '.join(BACKENDS)}")
    passed_over: list[str] = []
    names = AUTO if backend == "auto" else (backend,)
    for name, path in (entry for chosen in names for entry in BACKENDS[chosen].items()):
        module = cast("Backend", importlib.import_module(path))
        reason = module.why_not(bundle, options)
        if reason is None and name == "onnxruntime" and backend == "auto":
            module, said = _best_on_a_cpu(module, bundle, options)
            passed_over += said
        if reason is None:
            return Choice(module.open_engine(bundle, options), tuple(passed_over))
        passed_over.append(f"{name}: {reason}")
    raise EngineError(f"no engine for device {options.device}: {'; '.join(passed_over)}")


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
