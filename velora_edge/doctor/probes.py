"""Probes by name, run each in a process of its own with a time limit.

A driver that hangs, a library that kills the process, a package that prints: none of them may take the report
with it. So a probe is a function that returns facts as JSON knows them, called in a process of its own:
`python -m velora_edge.doctor.probes MODULE FUNCTION ARGS...`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MARK = "velora-doctor-facts:"

# name: (module, function, its arguments but for the model)
PROBES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "system": ("velora_edge.doctor.host", "system", ()),
    "board": ("velora_edge.doctor.boards", "board", ()),
    "python": ("velora_edge.doctor.host", "python", ()),
    "gpu": ("velora_edge.doctor.inference", "gpu", ()),
    "cuda": ("velora_edge.doctor.inference", "cuda", ()),
    "tensorrt": ("velora_edge.doctor.inference", "tensorrt", ()),
    "tensorrt_rtx": ("velora_edge.doctor.inference", "tensorrt", ("tensorrt-rtx",)),
    "onnxruntime": ("velora_edge.doctor.inference", "versions", ()),
    "provider_cpu": ("velora_edge.doctor.inference", "provider", ("CPUExecutionProvider",)),
    "provider_cuda": ("velora_edge.doctor.inference", "provider", ("CUDAExecutionProvider",)),
    "provider_tensorrt": ("velora_edge.doctor.inference", "provider", ("TensorrtExecutionProvider",)),
    "provider_openvino": ("velora_edge.doctor.inference", "provider", ("OpenVINOExecutionProvider",)),
    "openvino": ("velora_edge.doctor.inference", "openvino", ()),
    "cameras": ("velora_edge.doctor.host", "cameras", ()),
    "neuromorphic": ("velora_edge.doctor.host", "neuromorphic", ()),
    "prophesee": ("velora_edge.doctor.host", "prophesee", ()),
    "inivation": ("velora_edge.doctor.host", "inivation", ()),
    "video": ("velora_edge.doctor.host", "video", ()),
    "jetson": ("velora_edge.doctor.host", "jetson", ()),
    "engines": ("velora_edge.doctor.inference", "engines", ()),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one probe.

    Attributes:
        facts: what it found; empty where it failed.
        problem: why it failed, or None.
        seconds: that it took.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "facts": dict(self.facts), "seconds": round(self.seconds, 2)}


def run_probes(names: Sequence[str], model: str, limit_s: float) -> dict[str, Finding]:
    """Every probe's finding, in the order of `names`; they run side by side.

    Args:
        names: of `PROBES`.
        model: the bundle whose engines are looked at; may be empty.
        limit_s: for each probe.
    """
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        found = pool.map(lambda name: run_probe(name, model, limit_s), names)
        return dict(zip(names, found, strict=True))


def run_probe(name: str, model: str, limit_s: float) -> Finding:
    """One probe's finding; never raises for what the probe does."""
    module, function, args = PROBES[name]
    args = (*args, model) if name == "engines" else args
    command = [sys.executable, "-m", "velora_edge.doctor.probes", module, function, *args]
    start = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Finding(problem=f"gave no answer within {limit_s:g} s", seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    answers = [line[len(MARK) :] for line in out.splitlines() if line.startswith(MARK)]
    if answers:
        return Finding(**json.loads(answers[-1]), seconds=seconds)
    ended = f"was killed by signal {-process.returncode}" if process.returncode < 0 else "gave no answer"
    said = err.strip().splitlines()
    return Finding(problem=f"{ended}{f': {said[-1]}' if said else ''}", seconds=seconds)


def call_probe(module: str, function: str, args: Sequence[str]) -> dict[str, Any]:
    """A probe's facts or problem, in this process."""
    try:
        return {"facts": getattr(importlib.import_module(module), function)(*args)}
    except Exception as error:  # whatever a library raises is a finding
        return {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}


if __name__ == "__main__":
    print(f"\n{MARK}{json.dumps(call_probe(sys.argv[1], sys.argv[2], sys.argv[3:]))}", flush=True)
