"""What TensorRT for RTX says of an engine file before it loads it: valid, suboptimal or invalid here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velora_edge.errors import EngineError
from velora_edge.gpu.cuda import why_no_cuda
from velora_edge.gpu.kinds import RTX
from velora_edge.gpu.log import Messages, create_logger
from velora_edge.gpu.matching import load_tensorrt

if TYPE_CHECKING:
    from typing import Any


def read_validity(plan: bytes, device: int = 0) -> str:
    """The library's judgement of an engine on this machine: valid, suboptimal or invalid, with the reasons.

    Only the engine's header is looked at (`IRuntime::getEngineValidity`).

    Raises:
        MissingExtraError: if TensorRT for RTX is not installed.
        EngineError: if there is no GPU to judge by: without one every engine is called invalid.
    """
    trt = load_tensorrt(RTX)
    reason = why_no_cuda(device)
    if reason is not None:
        raise EngineError(reason)
    runtime = trt.Runtime(create_logger(trt, Messages()))
    validity, diagnostics = runtime.get_engine_validity(plan)
    reasons = _names(trt.EngineInvalidityDiagnostics, int(diagnostics))
    return validity.name.lower() + (f": {', '.join(reasons)}" if reasons else "")


def _names(flags: Any, bits: int) -> list[str]:
    """Names of the flags that are set, in words."""
    members = flags.__members__.items()
    return [name.lower().replace("_", " ") for name, member in members if bits & int(member)]
