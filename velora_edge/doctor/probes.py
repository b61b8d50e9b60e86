"""Probes by name, run each in a process of its own with a time limit, and what to do about their findings.

A driver that hangs, a library that kills the process, a package that prints: none of them may take the report
with it. So a probe is a function that returns facts as JSON knows them, called in a process of its own:
`python -m velora_edge.doctor.probes MODULE FUNCTION ARGS...`. A rule of advice is one function.
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
from typing import TYPE_CHECKING, Any, Literal

import velora_edge
from velora_edge.errors import install_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


MARK = "velora-doctor-facts:"

# name: (module, function, its arguments but for the model)
PROBES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "system": ("velora_edge.doctor.host", "system", ()),
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


Level = Literal["error", "warning", "hint"]


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice: one thing to do.

    Attributes:
        level: error: something cannot work; warning: it will not work well; hint: it could work better.
        text: what was found.
        command: what mends it.
    """

    level: Level
    text: str
    command: str


class Facts:
    """The probes' facts; what a failed probe did not find is None."""

    def __init__(self, findings: Mapping[str, Finding]) -> None:
        self._findings = findings

    def get(self, probe: str, key: str) -> Any:
        """One fact, or None."""
        finding = self._findings.get(probe)
        return None if finding is None else finding.facts.get(key)

    def package(self, name: str) -> str | None:
        """An installed package's version, or None."""
        version = (self.get("python", "packages") or {}).get(name)
        return None if version is None else str(version)


def advise(findings: Mapping[str, Finding]) -> list[Advice]:
    """List advice, the most urgent first."""
    facts = Facts(findings)
    found = [advice for rule in RULES for advice in rule(facts)]
    found += [
        Advice("warning", f"the {name} probe {finding.problem}", "velora doctor --time-limit 60")
        for name, finding in findings.items()
        if finding.problem is not None and "no answer" in finding.problem
    ]
    order = ("error", "warning", "hint")
    return sorted(found, key=lambda advice: order.index(advice.level))


def _no_backend(facts: Facts) -> Iterator[Advice]:
    runtimes = ("onnxruntime", "openvino")
    if not any(facts.get(name, "version") for name in runtimes) and not facts.get("tensorrt", "usable"):
        yield Advice("error", "nothing here can run a model", install_line("cpu"))


def _two_runtimes(facts: Facts) -> Iterator[Advice]:
    kinds = [
        name for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino") if facts.package(name)
    ]
    if len(kinds) > 1:
        text = f"{' and '.join(kinds)} are both installed and overwrite each other's files"
        again = (
            "pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino; pip install the one you want"
        )
        yield Advice("warning", text, again)


def _cuda_python(facts: Facts) -> Iterator[Advice]:
    if not facts.get("gpu", "has_gpu") or facts.get("cuda", "usable"):
        return
    if facts.package("cuda-bindings") is None and facts.package("cuda-python") is None:
        yield Advice("hint", "the GPU needs cuda-python", install_line(_cuda_extra(facts)))
        return
    driver, runtime = facts.get("cuda", "driver_cuda"), facts.get("cuda", "runtime_cuda")
    if driver and runtime and _major(driver) < _major(runtime):
        text = f"cuda-python is made for CUDA {runtime}, the driver knows CUDA {driver}"
        libraries = "" if facts.get("jetson", "is_jetson") else f"tensorrt-cu{_major(driver)} "
        older = f"pip install {libraries}'cuda-python<{_major(driver) + 1}'"
        yield Advice("error", text, f"{older}, or a newer driver")
    else:
        yield Advice("error", f"the GPU cannot be used: {facts.get('cuda', 'reason')}", "nvidia-smi")


def _cuda_extra(facts: Facts) -> str:
    jetpack = facts.get("jetson", "jetpack")
    return f"jetpack{jetpack}" if jetpack in ("6", "7") else "tensorrt"


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _tensorrt(facts: Facts) -> Iterator[Advice]:
    if not facts.get("gpu", "has_gpu") or facts.get("tensorrt", "usable"):
        return
    if facts.get("tensorrt", "version") is not None:
        return  # it waits for CUDA, of which the rule above speaks
    if facts.get("jetson", "is_jetson"):
        text = "TensorRT comes with JetPack, and an ordinary virtual environment does not see it"
        again = "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages .venv"
        yield Advice("hint", text, again)
    else:
        yield Advice("hint", "the GPU is fastest with TensorRT", install_line("tensorrt"))


def _engines(facts: Facts) -> Iterator[Advice]:
    model, listed = facts.get("engines", "model"), facts.get("engines", "engines") or []
    if model is None or not facts.get("tensorrt", "usable"):
        return
    fitting = {entry["graph"] for entry in listed if entry["fits"]}
    missing = [graph for graph in ("rgb", "event", "diff", "head") if graph not in fitting]
    if missing:
        text = f"{model} has no TensorRT engine for this machine for {', '.join(missing)}"
        yield Advice("hint", text, f"velora build {model}")


def _providers(facts: Facts) -> Iterator[Advice]:
    built_with = facts.get("onnxruntime", "built_with") or []
    for probe in ("provider_cuda", "provider_tensorrt", "provider_openvino"):
        name, reason = facts.get(probe, "provider"), facts.get(probe, "reason")
        if name in built_with and reason and facts.get("gpu", "has_gpu"):
            text = f"onnxruntime has the {name}, but {reason}"
            yield Advice(
                "warning", text, "install the CUDA and cuDNN versions that this onnxruntime was built for"
            )


def _jetson(facts: Facts) -> Iterator[Advice]:
    mode = facts.get("jetson", "power_mode")
    if mode is not None and not str(mode).startswith("MAXN"):
        yield Advice("hint", f"the power mode is {mode}, not the fastest", "sudo nvpmodel -m 0")
    if facts.get("jetson", "clocks_locked") is False:
        text = "the clocks are not locked: latencies will vary, and benchmarks cannot be compared"
        yield Advice("warning", text, "sudo jetson_clocks")


def _cameras(facts: Facts) -> Iterator[Advice]:
    for camera in facts.get("cameras", "video") or []:
        if not camera["allowed"]:
            text = f"no permission to use {camera['device']} ({camera['name']})"
            yield Advice("warning", text, "sudo usermod -aG video $USER, then log in again")
    for camera in facts.get("cameras", "event") or []:
        probes = ("neuromorphic", camera["maker"].lower())  # any of them opens it
        if not any(facts.get(probe, "usable") for probe in probes):
            text = f"{camera['name']} is attached, but {facts.get('neuromorphic', 'reason')}"
            yield Advice("warning", text, install_line("cameras"))
        if not camera["allowed"]:
            text = f"no permission to use {camera['name']} on USB"
            yield Advice("warning", text, "velora cameras --install-udev, then plug it in again")


def _opencv(facts: Facts) -> Iterator[Advice]:
    if facts.get("jetson", "is_jetson") and facts.get("video", "gstreamer") is False:
        text = "this OpenCV has no GStreamer, which csi:// cameras need; JetPack's own has it"
        yield Advice(
            "hint", text, "pip uninstall opencv-python-headless, in an environment that sees JetPack's"
        )


RULES: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    *(_no_backend, _two_runtimes, _cuda_python, _tensorrt, _engines, _providers),
    *(_jetson, _cameras, _opencv),
)


SCHEMA_VERSION = 1


def as_json(findings: Mapping[str, Finding], advice: Sequence[Advice]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "v": SCHEMA_VERSION,
        "velora": velora_edge.__version__,
        "probes": {name: finding.as_dict() for name, finding in findings.items()},
        "advice": [asdict(one) for one in advice],
    }


def as_text(findings: Mapping[str, Finding], advice: Sequence[Advice]) -> str:
    """Everything, for people: a paragraph for each probe, then what to do."""
    lines = [f"velora doctor {velora_edge.__version__}"]
    for name, finding in findings.items():
        lines.append(f"\n{name}")
        if finding.problem is not None:
            lines.append(f"  probe failed: {finding.problem}")
        lines += [f"  {line}" for line in _lines(finding.facts)]
    lines.append("\nwhat to do" if advice else "\nnothing to do")
    lines += [f"  {one.level}: {one.text}\n    {one.command}" for one in advice]
    return "\n".join(lines)


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield f"{key}: {_flat(value) or 'none'}"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield f"{key}:"
            yield from (f"  {_flat(item)}" for item in value)
        elif value is not None:
            yield f"{key}: {_say(value)}"


def _flat(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_say(item)}" for key, item in value.items() if item is not None)


def _say(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)


if __name__ == "__main__":
    print(f"\n{MARK}{json.dumps(call_probe(sys.argv[1], sys.argv[2], sys.argv[3:]))}", flush=True)
