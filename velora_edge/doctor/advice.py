"""Advice from findings, the commands that mend what is missing, and the report as text, JSON or commands.

A rule is one function; it sees the facts of all probes. The text of an advice is for people; its commands are
exact, for this environment: `velora doctor --fix` prints them and nothing else, so that they can be read and
then given to a shell.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import velora_edge
from velora_edge.doctor.boards import below_next_minor, why_no_tensorrt_here
from velora_edge.errors import install_line, printable
from velora_edge.gpu.kinds import version_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from velora_edge.doctor.probes import Finding


Level = Literal["error", "warning", "hint"]


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice: one thing to do.

    Attributes:
        level: error: something cannot work; warning: it will not work well; hint: it could work better.
        text: what was found.
        command: what mends it, for people.
        fix: the same as exact commands for a shell; None: `command` is one; empty: no command mends it.
    """

    level: Level
    text: str
    command: str
    fix: tuple[str, ...] | None = None

    @property
    def commands(self) -> tuple[str, ...]:
        """What to give to a shell, in this order."""
        return (self.command,) if self.fix is None else self.fix


class Facts:
    """The probes' facts; what a failed probe did not find is None."""

    def __init__(self, findings: Mapping[str, Finding]) -> None:
        self._findings = findings

    def get(self, probe: str, key: str) -> Any:
        """One fact, or None."""
        finding = self._findings.get(probe)
        return None if finding is None else finding.facts.get(key)

    def problem(self, probe: str) -> str | None:
        """Why a probe failed, or None."""
        finding = self._findings.get(probe)
        return None if finding is None else finding.problem

    def package(self, name: str) -> str | None:
        """An installed package's version, or None."""
        version = (self.get("python", "packages") or {}).get(name)
        return None if version is None else str(version)

    @property
    def interpreter(self) -> str:
        """The Python of this environment."""
        return str(self.get("python", "executable") or "python3")

    def velora(self, *words: str) -> str:
        """A command of velora, by the program beside this environment's Python: for any shell and user."""
        return shlex.join([str(Path(self.interpreter).with_name("velora")), *words])

    def pip(self, *words: str, python: str = "") -> str:
        """A command of pip in this environment, or in the one of `python`."""
        return shlex.join([python or self.interpreter, "-m", "pip", *words])

    def install(self, extras: str, *pins: str, python: str = "") -> str:
        """The command that installs extras of velora-edge, such as "cpu,web", within the pins."""
        checkout = self.get("python", "checkout")
        if checkout:
            return self.pip("install", "-e", f"{checkout}[{extras}]", *pins, python=python)
        needed = [line for extra in extras.split(",") for line in requirements(extra)]
        return self.pip("install", *needed, *pins, python=python)


def requirements(extra: str) -> list[str]:
    """What an extra of the installed velora-edge asks for, as pip takes it."""
    pairs = [line.partition(";")[::2] for line in metadata.requires("velora-edge") or []]
    return [name.strip() for name, marker in pairs if re.search(rf"extra == ['\"]{extra}['\"]", marker)]


def advise(findings: Mapping[str, Finding]) -> list[Advice]:
    """List advice, the most urgent first."""
    facts = Facts(findings)
    found = [advice for rule in RULES for advice in rule(facts)]
    found += [
        Advice("warning", f"the {name} probe {finding.problem}", "velora doctor --time-limit 60", fix=())
        for name, finding in findings.items()
        if finding.problem is not None and "no answer" in finding.problem
    ]
    order = ("error", "warning", "hint")
    return sorted(found, key=lambda advice: order.index(advice.level))


def _no_backend(facts: Facts) -> Iterator[Advice]:
    runtimes = ("onnxruntime", "openvino")
    if not any(facts.get(name, "version") for name in runtimes) and not facts.get("tensorrt", "usable"):
        yield Advice(
            "error", "nothing here can run a model", install_line("cpu"), fix=(facts.install("cpu"),)
        )


def _two_runtimes(facts: Facts) -> Iterator[Advice]:
    kinds = [
        name for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino") if facts.package(name)
    ]
    if len(kinds) > 1:
        text = f"{' and '.join(kinds)} are both installed and overwrite each other's files"
        again = (
            "pip uninstall -y onnxruntime onnxruntime-gpu onnxruntime-openvino; pip install the one you want"
        )
        kept = "gpu" if "onnxruntime-gpu" in kinds and facts.get("gpu", "has_gpu") else "cpu"
        yield Advice("warning", text, again, fix=(facts.pip("uninstall", "-y", *kinds), facts.install(kept)))


def _cuda_python(facts: Facts) -> Iterator[Advice]:
    if not facts.get("gpu", "has_gpu") or facts.get("cuda", "usable"):
        return
    if _is_another_python(facts):
        return  # the environment that TensorRT needs will have it
    fix = (_install_cuda(facts),)
    if facts.package("cuda-bindings") is None and facts.package("cuda-python") is None:
        yield Advice("hint", "the GPU needs cuda-python", install_line(_cuda_extra(facts)), fix=fix)
        return
    driver, runtime = facts.get("cuda", "driver_cuda"), facts.get("cuda", "runtime_cuda")
    if driver and runtime and _major(driver) < _major(runtime):
        text = f"cuda-python is made for CUDA {runtime}, the driver knows CUDA {driver}"
        libraries = "" if facts.get("jetson", "is_jetson") else f"tensorrt-cu{_major(driver)} "
        older = f"pip install {libraries}'cuda-python<{_major(driver) + 1}'"
        yield Advice("error", text, f"{older}, or a newer driver", fix=fix)
    else:
        yield Advice("error", f"the GPU cannot be used: {facts.get('cuda', 'reason')}", "nvidia-smi", fix=())


def _install_cuda(facts: Facts) -> str:
    """The command that installs cuda-python for the driver, with TensorRT where pip brings it."""
    driver = str(facts.get("cuda", "driver_cuda") or facts.get("board", "cuda") or "")
    pins = (f"cuda-python{below_next_minor(driver)}",) if driver else ()
    if facts.get("jetson", "is_jetson") or not driver or _major(driver) >= 13:
        return facts.install(_cuda_extra(facts), *pins)
    return facts.pip("install", f"tensorrt-cu{_major(driver)}", *pins, "onnx-ir", "cryptography")


def _cuda_extra(facts: Facts) -> str:
    jetpack = facts.get("jetson", "jetpack")
    return f"jetpack{jetpack}" if jetpack in ("6", "7") else "tensorrt"


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _cuda_minor(facts: Facts) -> Iterator[Advice]:
    """A Jetson with cuda-python of a later minor version than its driver's."""
    driver, runtime = facts.get("cuda", "driver_cuda"), facts.get("cuda", "runtime_cuda")
    if not facts.get("jetson", "is_jetson") or not driver or not runtime:
        return
    if _major(driver) == _major(runtime) and version_numbers(driver) < version_numbers(runtime):
        text = (
            f"cuda-python is made for CUDA {runtime}, the driver knows CUDA {driver}: not all of it will work"
        )
        pin = f"cuda-python{below_next_minor(driver)}"
        yield Advice("warning", text, f"pip install '{pin}'", fix=(facts.pip("install", pin),))


def _tensorrt(facts: Facts) -> Iterator[Advice]:
    if not facts.get("gpu", "has_gpu") or facts.get("tensorrt", "usable"):
        return
    if facts.get("tensorrt", "version") is not None:
        return  # it waits for CUDA, of which the rule above speaks
    if facts.get("jetson", "is_jetson"):
        text = "TensorRT comes with JetPack, and an ordinary virtual environment does not see it"
        again = "sudo apt install python3-libnvinfer; python3 -m venv --system-site-packages .venv"
        yield Advice("hint", text, again, fix=tuple(_jetson_tensorrt(facts)))
    else:
        fix = (_install_cuda(facts),)
        yield Advice("hint", "the GPU is fastest with TensorRT", install_line("tensorrt"), fix=fix)


def _jetson_tensorrt(facts: Facts) -> Iterator[str]:
    """The commands that make JetPack's TensorRT visible here, without those whose result is there."""
    if facts.get("board", "tensorrt") is None:
        yield "sudo apt-get update"
        yield "sudo apt-get install -y nvidia-jetpack"
    if not facts.get("board", "tensorrt_python"):
        yield "sudo apt-get install -y python3-libnvinfer"
    if _is_another_python(facts):
        needed, folder = facts.get("board", "python"), "velora-env"
        yield f"sudo apt-get install -y python{needed}-venv"
        yield f"python{needed} -m venv --system-site-packages {folder}"
        yield facts.install(",".join(facts.get("board", "extras") or ["cpu"]), python=f"{folder}/bin/python")
    elif facts.get("python", "is_venv") and not facts.get("python", "sees_system"):
        settings = shlex.quote(f"{facts.get('python', 'prefix')}/pyvenv.cfg")
        yield f"sed -i 's/^include-system-site-packages.*/include-system-site-packages = true/' {settings}"


def _is_another_python(facts: Facts) -> bool:
    """Whether this Python is not the one that JetPack's TensorRT has bindings for."""
    needed, running = facts.get("board", "python"), facts.get("python", "python")
    return bool(needed and running) and version_numbers(running)[:2] != version_numbers(needed)


def _release(facts: Facts) -> Iterator[Advice]:
    """A Jetson's release that is too old, or a TensorRT that is not for it."""
    if facts.get("board", "kind") != "jetson":
        return
    jetpack, name = str(facts.get("board", "jetpack")), str(facts.get("board", "board"))
    if not facts.get("board", "fits"):
        text = f"JetPack {jetpack} has Python {facts.get('board', 'python')}, or a TensorRT before 10.3"
        yield Advice("error", text, "flash JetPack 6.1 or later", fix=())
        return
    for version in dict.fromkeys((facts.get("tensorrt", "version"), facts.get("board", "tensorrt"))):
        reason = why_no_tensorrt_here(jetpack, name, str(version)) if version else None
        if reason is not None:
            packages = [it for it in ("tensorrt", "tensorrt-cu13", "tensorrt-cu12") if facts.package(it)]
            fix = (facts.pip("uninstall", "-y", *packages),) if packages else ()
            yield Advice("error", reason, "use JetPack's own TensorRT", fix=(*fix, *_jetson_tensorrt(facts)))
            return


def _driver(facts: Facts) -> Iterator[Advice]:
    """A PC whose GPU has no driver, or one before CUDA 12."""
    if facts.get("board", "kind") != "pc" or "NVIDIA" not in (facts.get("board", "graphics") or []):
        return
    driver = facts.get("board", "driver")
    if facts.get("board", "cuda") is not None or (driver is None and facts.get("gpu", "has_gpu")):
        return
    text = "the GPU has no driver" if driver is None else f"the driver {driver} is older than CUDA 12"
    fix = {"ubuntu": ("sudo ubuntu-drivers install",), "debian": ("sudo apt-get install -y nvidia-driver",)}
    commands = fix.get(str(facts.get("board", "system")), ())
    yield Advice("error", text, "; ".join(commands) or "install NVIDIA's driver, 525 or newer", fix=commands)


def _numpy(facts: Facts) -> Iterator[Advice]:
    """The Metavision SDK's modules beside NumPy 2."""
    found = facts.get("prophesee", "usable") or "umpy" in (facts.problem("prophesee") or "")
    numpy = facts.package("numpy")
    if found and numpy and _major(numpy) >= 2:
        text = f"the Metavision SDK is built with pybind11 up to 2.11, which NumPy {numpy} may break"
        level: Level = "hint" if facts.get("prophesee", "usable") else "error"
        fix = (facts.install("metavision"),)
        yield Advice(level, text, install_line("metavision"), fix=fix)


def _engines(facts: Facts) -> Iterator[Advice]:
    model, listed = facts.get("engines", "model"), facts.get("engines", "engines") or []
    if model is None or not facts.get("tensorrt", "usable"):
        return
    fitting = {entry["graph"] for entry in listed if entry["fits"]}
    missing = [graph for graph in ("rgb", "event", "diff", "head") if graph not in fitting]
    if missing:
        text = f"{model} has no TensorRT engine for this machine for {', '.join(missing)}"
        yield Advice("hint", text, f"velora build {model}", fix=(facts.velora("build", model),))


def _providers(facts: Facts) -> Iterator[Advice]:
    built_with = facts.get("onnxruntime", "built_with") or []
    for probe in ("provider_cuda", "provider_tensorrt", "provider_openvino"):
        name, reason = facts.get(probe, "provider"), facts.get(probe, "reason")
        if name in built_with and reason and facts.get("gpu", "has_gpu"):
            text = f"onnxruntime has the {name}, but {reason}"
            again = "install the CUDA and cuDNN versions that this onnxruntime was built for"
            yield Advice("warning", text, again, fix=())


def _jetson(facts: Facts) -> Iterator[Advice]:
    mode = facts.get("jetson", "power_mode")
    if mode is not None and not str(mode).startswith("MAXN"):
        fastest = facts.get("board", "fastest_mode") or 0
        yield Advice("hint", f"the power mode is {mode}, not the fastest", f"sudo nvpmodel -m {fastest}")
    if facts.get("jetson", "clocks_locked") is False:
        text = "the clocks are not locked: latencies will vary, and benchmarks cannot be compared"
        yield Advice("warning", text, "sudo jetson_clocks")


def _cameras(facts: Facts) -> Iterator[Advice]:
    for camera in facts.get("cameras", "video") or []:
        if not camera["allowed"]:
            text = f"no permission to use {camera['device']} ({camera['name']})"
            again = "sudo usermod -aG video $USER, then log in again"
            yield Advice("warning", text, again, fix=("sudo usermod -aG video $USER",))
    for camera in facts.get("cameras", "event") or []:
        probes = ("neuromorphic", camera["maker"].lower())  # any of them opens it
        if not any(facts.get(probe, "usable") for probe in probes):
            text = f"{camera['name']} is attached, but {facts.get('neuromorphic', 'reason')}"
            yield Advice("warning", text, install_line("cameras"), fix=(facts.install("cameras"),))
        if not camera["allowed"]:
            text = f"no permission to use {camera['name']} on USB"
            again = "velora cameras --install-udev, then plug it in again"
            yield Advice("warning", text, again, fix=(f"sudo {facts.velora('cameras', '--install-udev')}",))


def _opencv(facts: Facts) -> Iterator[Advice]:
    if facts.get("jetson", "is_jetson") and facts.get("video", "gstreamer") is False:
        text = "this OpenCV has no GStreamer, which csi:// cameras need; JetPack's own has it"
        again = "pip uninstall opencv-python-headless, in an environment that sees JetPack's"
        fix = (facts.pip("uninstall", "-y", "opencv-python-headless"),)
        yield Advice("hint", text, again, fix=fix if facts.get("python", "sees_system") else ())


RULES: tuple[Callable[[Facts], Iterator[Advice]], ...] = (
    *(_release, _driver, _no_backend, _two_runtimes, _cuda_python, _cuda_minor, _tensorrt, _engines),
    *(_providers, _numpy, _jetson, _cameras, _opencv),
)


SCHEMA_VERSION = 1


def as_json(findings: Mapping[str, Finding], advice: Sequence[Advice]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "v": SCHEMA_VERSION,
        "velora": velora_edge.__version__,
        "probes": {name: finding.as_dict() for name, finding in findings.items()},
        "advice": [{**asdict(one), "fix": list(one.commands)} for one in advice],
    }


def as_commands(advice: Sequence[Advice]) -> str:
    """The commands that mend what was found, each once, for a shell; all else are comments."""
    lines, given = [], set()
    for one in advice:
        lines.append(f"# {one.level}: {printable(one.text)}")
        lines += [] if one.commands else [f"# {printable(one.command)}"]
        lines += [printable(command, 10_000) for command in one.commands if command not in given]
        given |= set(one.commands)
    return "\n".join(lines) or "# nothing to do"


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
