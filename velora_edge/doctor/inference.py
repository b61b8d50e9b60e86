"""Probes of inference libraries: NVIDIA's driver, CUDA and TensorRT, ONNX Runtime's providers, OpenVINO."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.bundle import find_model, read_manifest
from velora_edge.errors import EngineError, MissingExtraError
from velora_edge.gpu.cuda import Cuda, cuda_versions, has_gpu, why_no_cuda
from velora_edge.gpu.engine import EngineLoader
from velora_edge.gpu.kinds import KINDS, RTX, TENSORRT, why_not_rtx
from velora_edge.gpu.matching import find_machine, load_tensorrt, read_validity, why_no_tensorrt, why_not_here
from velora_edge.gpu.signing import why_not_trusted

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.gpu.matching import Machine
    from velora_edge.manifest import EngineFile, Manifest


QUERY = {
    "name": "name",
    "driver": "driver_version",
    "compute_capability": "compute_cap",
    "memory_mb": "memory.total",
    "memory_used_mb": "memory.used",
    "temperature_c": "temperature.gpu",
    "clock_mhz": "clocks.sm",
    "clock_max_mhz": "clocks.max.sm",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
}


def gpu() -> dict[str, Any]:
    """List GPUs by nvidia-smi; a Jetson's reports little."""
    facts: dict[str, Any] = {"has_gpu": has_gpu(), "gpus": []}
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return {**facts, "nvidia_smi": "not installed"}
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return {**facts, "nvidia_smi": said[0] if said else f"exit code {done.returncode}"}
    return {
        **facts,
        "nvidia_smi": "ok",
        "gpus": [parse_gpu(line) for line in done.stdout.splitlines() if line],
    }


def parse_gpu(line: str) -> dict[str, str]:
    """One line of nvidia-smi's answer, without what it does not know."""
    values = zip(QUERY, (value.strip() for value in line.split(",")), strict=False)
    return {
        key: value for key, value in values if value and "N/A" not in value and "Not Supported" not in value
    }


def cuda() -> dict[str, Any]:
    """Whether cuda-python reaches a GPU, which one, and both versions of CUDA."""
    reason = why_no_cuda()
    if reason is not None:
        return {"usable": False, "reason": reason, **_versions()}
    device = Cuda()
    said = device.describe()
    return {
        "usable": True,
        "name": said.name,
        "compute_capability": said.compute_capability,
        "memory_gb": round(said.memory_bytes / (1 << 30), 1),
        "free_gb": round(device.free_bytes() / (1 << 30), 1),
        "is_integrated": said.is_integrated,
        **_versions(),
    }


def _versions() -> dict[str, str]:
    """Both versions of CUDA; a driver that is not there has none."""
    try:
        driver, runtime = cuda_versions()
    except (MissingExtraError, RuntimeError):
        return {}
    return {**({} if driver == "0.0" else {"driver_cuda": driver}), "runtime_cuda": runtime}


def tensorrt(name: str = TENSORRT.name) -> dict[str, Any]:
    """Whether TensorRT, or TensorRT for RTX, is installed and its runtime starts; CUDA is looked at first."""
    kind = KINDS[name]
    try:
        version: str | None = str(load_tensorrt(kind).__version__)
    except (MissingExtraError, EngineError) as error:
        return {"usable": False, "version": None, "reason": str(error)}
    reason = why_no_tensorrt(kind=kind)
    cuda = None if reason is not None else Cuda()
    if cuda is not None and kind is RTX:
        reason = why_not_rtx(cuda.describe().compute_capability)
    if cuda is not None and reason is None:
        try:
            EngineLoader(cuda, kind=kind)
        except EngineError as error:
            reason = str(error)
    return {"usable": reason is None, "version": version, **({} if reason is None else {"reason": reason})}


def engines(model: str) -> dict[str, Any]:
    """List which of a bundle's engines fit this machine, and why the others do not."""
    if not model:
        return {"model": None, "engines": []}
    path = find_model(model)
    manifest = read_manifest(path)
    machines = {name: _machine(name) for name in {entry.kind for entry in manifest.engines}}
    listed = [_engine(entry, manifest, path, machines[entry.kind]) for entry in manifest.engines]
    return {"model": str(path), "name": manifest.name, "precision": manifest.precision, "engines": listed}


def _machine(kind: str) -> Machine | str:
    """What this machine is to engines of a kind, or why they cannot run here."""
    try:
        return find_machine(kind=KINDS[kind])
    except (EngineError, MissingExtraError) as error:
        return f"cannot run here: {error}"


def _engine(entry: EngineFile, manifest: Manifest, path: Path, machine: Machine | str) -> dict[str, Any]:
    """Whether one engine fits; of TensorRT for RTX also what the library says of the file."""
    reason = machine if isinstance(machine, str) else _why_not(entry, manifest, path, machine)
    facts = {"graph": entry.graph, "kind": entry.kind, "file": entry.file, "fits": reason is None}
    if entry.kind == RTX.name and reason is None:
        facts["validity"] = read_validity((path / entry.file).read_bytes())
    return {**facts, "reason": reason}


def _why_not(entry: EngineFile, manifest: Manifest, path: Path, machine: Machine) -> str | None:
    missing = None if (path / entry.file).is_file() else "the file is missing"
    return why_not_here(entry, manifest, machine) or why_not_trusted(entry) or missing


def openvino() -> dict[str, Any]:
    """Version and devices; a device that does not answer tells why."""
    import openvino as ov

    core = ov.Core()
    return {"version": ov.__version__, "devices": [_device(core, name) for name in core.available_devices]}


def _device(core: Any, name: str) -> dict[str, Any]:
    try:
        return {
            "device": name,
            "name": core.get_property(name, "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property(name, "OPTIMIZATION_CAPABILITIES")),
        }
    except RuntimeError as error:
        return {"device": name, "reason": str(error).strip().splitlines()[0]}


# ModelProto of y = x + x, float32[1], opset 13, IR 8 (onnx.proto): small enough to be kept here as it is.
DOUBLE = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def versions() -> dict[str, Any]:
    """ONNX Runtime's version and the providers that it was built with."""
    import onnxruntime

    return {
        "version": onnxruntime.__version__,
        "device": onnxruntime.get_device(),
        "built_with": onnxruntime.get_available_providers(),
    }


def provider(name: str) -> dict[str, Any]:
    """Whether a session really runs on a provider, and computes there."""
    import onnxruntime

    if name not in onnxruntime.get_available_providers():
        return {"provider": name, "usable": False, "reason": "not in this build of onnxruntime"}
    session = onnxruntime.InferenceSession(DOUBLE, providers=[name])
    first = session.get_providers()[0]
    if first != name:
        return {"provider": name, "usable": False, "reason": f"onnxruntime fell back to {first}"}
    (doubled,) = session.run(None, {"x": np.array([21], np.float32)})
    is_right = doubled.tolist() == [42.0]
    return {
        "provider": name,
        "usable": is_right,
        **({} if is_right else {"reason": f"21 + 21 gave {doubled[0]}"}),
    }
