"""Which of a bundle's engines run on which machine: by their origin, their GPU and their version."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError, MissingExtraError
from velora_edge.gpu.cuda import Cuda, Device, why_no_cuda
from velora_edge.gpu.kinds import (
    FP8_FROM,
    KINDS,
    RTX,
    TENSORRT,
    Messages,
    create_logger,
    is_same_version,
    plan_header,
    runs_version,
    version_of,
    why_not_rtx,
)
from velora_edge.gpu.signing import why_not_trusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from velora_edge.bundle import Bundle, EngineFile, Manifest
    from velora_edge.gpu.kinds import Kind


STREAMING = ("rgb", "event", "diff", "head")
"""The graphs that a live stream needs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine must have been built for.

    Attributes:
        tensorrt: version of the TensorRT that is installed.
        gpu: the GPU's name.
        compute_capability: the GPU's.
        kind: TensorRT, or TensorRT for RTX.
    """

    tensorrt: str
    gpu: str
    compute_capability: str
    kind: Kind = TENSORRT

    def __str__(self) -> str:
        return (
            f"{self.kind.title} {self.tensorrt} on {self.gpu} (compute capability {self.compute_capability})"
        )


def load_tensorrt(kind: Kind = TENSORRT) -> Any:
    """The library's module. Importing it needs no GPU; `tensorrt.Runtime` does, or the process dies.

    Raises:
        MissingExtraError: if the library's Python package is not installed.
        EngineError: if it is, and its libraries are not.
    """
    found = [name for name in kind.modules if name in sys.modules or importlib.util.find_spec(name)]
    if not found:
        raise MissingExtraError(kind.modules[-1], kind.extra, f"a {kind.title} engine")
    try:
        return importlib.import_module(found[0])
    except (ImportError, OSError) as error:
        raise EngineError(f"{found[0]} cannot be loaded: {error}; velora doctor tells more") from error


def why_no_tensorrt(device: int = 0, kind: Kind = TENSORRT) -> str | None:
    """Why the library cannot run here, for people; None if it can. CUDA is looked at first."""
    reason = why_no_cuda(device)
    if reason is not None:
        return reason
    try:
        load_tensorrt(kind)
    except (MissingExtraError, EngineError) as error:
        return str(error)
    return None


def this_machine(device: Device, kind: Kind = TENSORRT) -> Machine:
    """What this machine is to an engine."""
    return Machine(str(load_tensorrt(kind).__version__), device.name, device.compute_capability, kind)


def find_machine(device: int = 0, kind: Kind = TENSORRT) -> Machine:
    """The same of a CUDA device by its number.

    Raises:
        EngineError: if there is no such device, or no TensorRT.
    """
    cuda = Cuda(device)
    try:
        return this_machine(cuda.describe(), kind)
    finally:
        cuda.close()


def model_digest(manifest: Manifest, graph: str) -> str:
    """Digest of what an engine is built from: the graph, and whatever is no graph, such as the weights."""
    name = f"{graph}.onnx"
    used = sorted(
        (file, digest)
        for file, digest in manifest.files.items()
        if file == name or not file.endswith(".onnx")
    )
    return hashlib.sha256(repr(used).encode()).hexdigest()


def network_name(graph: str, precision: str, model: str) -> str:
    """What a network is called when it is built, and its engine when it is loaded; at most 128 characters."""
    return f"velora {graph} {precision} {model}"


def why_not_here(entry: EngineFile, manifest: Manifest, machine: Machine) -> str | None:
    """Why the engine is not one for this machine and this model, for people; None if it is."""
    if entry.model != model_digest(manifest, entry.graph) or entry.precision != manifest.precision:
        return "it was built from another export of the model"
    if entry.kind != machine.kind.name:
        return f"none was built for {machine.kind.title}"
    if machine.kind is RTX:
        is_served = machine.compute_capability in entry.targets
        return (
            None
            if is_served and is_same_version(entry.tensorrt, machine.tensorrt)
            else _mismatch(entry, machine)
        )
    same = is_same_version(entry.tensorrt, machine.tensorrt)
    if not same and not (entry.version_compatible and runs_version(entry.tensorrt, machine.tensorrt)):
        return _mismatch(entry, machine)
    same = (entry.gpu, entry.compute_capability) == (machine.gpu, machine.compute_capability)
    if not same and not (entry.hardware_compatible and _is_ampere(machine.compute_capability)):
        return _mismatch(entry, machine)
    return None


def why_no_fp8(precision: str, gpus: Mapping[str, str], *, hardware_compatible: bool = False) -> str | None:
    """Why an engine of this precision cannot be built for these GPUs, for people; None if it can.

    Args:
        precision: of the graphs.
        gpus: compute capabilities by name of the GPU.
        hardware_compatible: it is to run on other GPUs from Ampere on too.
    """
    instead = "export the model with --precision fp16, or int8 --floats fp16"
    if precision != "fp8":
        return None
    for name, capability in gpus.items():
        if version_of(capability) < FP8_FROM:
            since = ".".join(map(str, FP8_FROM))
            return (
                f"fp8 needs a GPU of compute capability {since} or more (Ada, Hopper, Blackwell), "
                f"and {name} has {capability}; {instead}"
            )
    if hardware_compatible:
        problem = "fp8 engines cannot run on all GPUs from Ampere on"
        return f"{problem}; leave out --hardware-compatible, or {instead}"
    return None


def _mismatch(entry: EngineFile, machine: Machine) -> str:
    return f"built for {describe_target(entry)}; this machine has {machine}"


def describe_target(entry: EngineFile) -> str:
    """What an engine was built for, for people."""
    if entry.kind == RTX.name:
        return f"{RTX.title} {entry.tensorrt} on GPUs of compute capability {', '.join(entry.targets)}"
    return str(Machine(entry.tensorrt, entry.gpu, entry.compute_capability))


def _is_ampere(compute_capability: str) -> bool:
    return version_of(compute_capability) >= (8, 0)


def choose_engines(
    bundle: Bundle, machine: Machine, graphs: Sequence[str] = STREAMING
) -> dict[str, EngineFile]:
    """The bundle's engines for this machine, one a graph, the newest entry first.

    Raises:
        EngineError: naming both sides and the command that builds what is missing.
    """
    kind = machine.kind
    refusal = why_not_rtx(machine.compute_capability) if kind is RTX else None
    if refusal is not None:
        raise EngineError(refusal)
    chosen: dict[str, EngineFile] = {}
    reasons: dict[str, None] = {}
    for entry in reversed(bundle.manifest.engines):
        reason = why_not_here(entry, bundle.manifest, machine) or why_not_trusted(entry)
        if reason is None:
            chosen.setdefault(entry.graph, entry)
        elif entry.graph in graphs:
            reasons.setdefault(reason)
    missing = [graph for graph in graphs if graph not in chosen]
    if missing:
        why = "; ".join(reasons) or f"none was built for {machine}"
        command = f"velora build {bundle.path}{kind.build}"
        raise EngineError(f"no {kind.title} engine for {', '.join(missing)}: {why}; run {command}")
    return {graph: chosen[graph] for graph in graphs}


def read_engine(bundle_path: Path, entry: EngineFile) -> bytes:
    """The engine's bytes, after its hash and the version in its header were compared with the manifest.

    Raises:
        EngineError: if they differ, or if the file is missing.
        BundleError: if the file is not a TensorRT engine.
    """
    path = bundle_path / entry.file
    title = KINDS[entry.kind].title
    rebuild = f"run velora build {bundle_path}{KINDS[entry.kind].build}"
    if not path.is_file():
        raise EngineError(f"{path}: the engine is missing; {rebuild}")
    plan = path.read_bytes()
    found = hashlib.sha256(plan).hexdigest()
    if found != entry.sha256:
        raise EngineError(
            f"{path}: expected SHA-256 {entry.sha256[:16]}..., got {found[:16]}...: "
            f"the engine was changed or damaged; {rebuild}"
        )
    kind, version = plan_header(plan, path)
    if kind.name != entry.kind or not is_same_version(version, entry.tensorrt):
        raise EngineError(
            f"{path}: its header says {kind.title} {version}, "
            f"the manifest {title} {entry.tensorrt}; {rebuild}"
        )
    return plan


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
