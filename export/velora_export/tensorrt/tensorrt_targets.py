"""What engines are built for: this machine's GPU by TensorRT, or kinds of GPUs by TensorRT for RTX."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from velora_edge.errors import EngineError
from velora_edge.gpu.cuda import Cuda, why_no_cuda
from velora_edge.gpu.kinds import RTX, TENSORRT, target_label
from velora_edge.gpu.matching import Machine, load_tensorrt, this_machine
from velora_edge.gpu.plan import rtx_target_name, target_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.gpu.kinds import Kind


@dataclass(frozen=True)
class BuildTarget:
    """What an engine will run on.

    Attributes:
        kind: the library that builds it.
        version: of that library.
        name: as a part of a file name.
        machine: this machine, where it has a GPU that runs the engine, to compare it with ONNX Runtime.
        cuda: that GPU; closed with the target.
        targets: compute capabilities, for TensorRT for RTX.
    """

    kind: Kind
    version: str
    name: str
    machine: Machine | None
    cuda: Cuda | None = field(default=None, compare=False)
    targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is TENSORRT:
            return str(self.machine)
        return f"{self.kind.title} {self.version} for {', '.join(map(target_label, self.targets))}"

    @property
    def gpus(self) -> dict[str, str]:
        """Compute capabilities by the names of the GPUs that are built for."""
        if self.kind is TENSORRT and self.machine is not None:
            return {self.machine.gpu: self.machine.compute_capability}
        return {target_label(capability): capability for capability in self.targets}

    def facts(self) -> dict[str, Any]:
        """The manifest's fields that say what an engine was built for."""
        if self.kind is TENSORRT and self.machine is not None:
            machine = self.machine
            return {"gpu": machine.gpu, "compute_capability": machine.compute_capability}
        return {"kind": self.kind.name, "targets": self.targets}

    def close(self) -> None:
        """Give the GPU's memory back."""
        if self.cuda is not None:
            self.cuda.close()


def this_gpu(device: int = 0) -> BuildTarget:
    """TensorRT on one of this machine's GPUs.

    Raises:
        EngineError: if there is no GPU or no TensorRT.
    """
    reason = why_no_cuda(device)
    if reason is not None:
        raise EngineError(
            f"TensorRT builds engines on the GPU that runs them: {reason}; velora doctor tells more. "
            "velora build --for rtx builds for GeForce and RTX cards without one"
        )
    with contextlib.ExitStack() as undo:
        cuda = Cuda(device)
        undo.callback(cuda.close)
        machine = this_machine(cuda.describe())
        name = target_name(machine.tensorrt, machine.gpu, machine.compute_capability)
        undo.pop_all()
    return BuildTarget(TENSORRT, machine.tensorrt, name, machine, cuda)


def rtx_gpus(targets: Sequence[str], device: int = 0) -> BuildTarget:
    """TensorRT for RTX, for compute capabilities such as "8.9", on any machine.

    Raises:
        MissingExtraError: if it is not installed.
        EngineError: if its libraries cannot be loaded.
    """
    version = str(load_tensorrt(RTX).__version__)
    name, targets = rtx_target_name(version, targets), tuple(targets)
    elsewhere = BuildTarget(RTX, version, name, None, None, targets)
    if why_no_cuda(device) is not None:
        return elsewhere
    with contextlib.ExitStack() as undo:
        cuda = Cuda(device)
        undo.callback(cuda.close)
        machine = this_machine(cuda.describe(), RTX)
        if machine.compute_capability not in targets:
            return elsewhere
        undo.pop_all()
    return BuildTarget(RTX, version, name, machine, cuda, targets)
