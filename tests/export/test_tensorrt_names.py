"""Every name of TensorRT's and CUDA's that we use exists in their real Python packages, old and new.

The packages of TensorRT's bindings are small and import on a machine without a GPU once three empty libraries
stand in for TensorRT's own. What we use is collected from our sources, and what our fake offers is compared
too: code that runs against the fake can call nothing that the real packages lack.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes_cuda import FakeGPU
from fakes_tensorrt import FakeTensorRT

from velora_edge.gpu.cuda import has_gpu
from velora_edge.gpu.engine import DTYPES
from velora_edge.gpu.kinds import RTX

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TENSORRT = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "11": "tensorrt-cu13-bindings>=11,<12",
}
BINDINGS_OF_RTX = "tensorrt-rtx-cu13-bindings>=1.7"
CUDA = {
    "12.3": "cuda-python==12.3.0",
    "12.6": "cuda-python>=12.6,<12.7",
    "12.9": "cuda-bindings==12.9.0",
    "13.0": "cuda-bindings>=13.0,<13.1",
    "13": "cuda-bindings>=13,<14",
}

# Where our sources keep TensorRT's objects: in variables and attributes of these names, in these files, or in
# the definitions that follow the file's path.
RECEIVERS = {
    "export/velora_export/tensorrt/tensorrt_builder.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "tensor": "ITensor",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
        "parser": "OnnxParser",
        "error": "ParserError",
    },
    "velora_edge/gpu/engine.py EngineLoader LoadedEngine": {
        "runtime": "Runtime",
        "_runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
        "_context": "IExecutionContext",
        "inspector": "EngineInspector",
    },
    "velora_edge/gpu/kinds.py": {},
    "velora_edge/gpu/matching.py load_tensorrt this_machine find_machine": {},
}
ONLY_RTX = {
    "velora_edge/gpu/engine.py KernelCache": {
        "engine": "ICudaEngine",
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
        "_cache": "IRuntimeCache",
        "context": "IExecutionContext",
    },
    "velora_edge/gpu/matching.py read_validity": {"runtime": "Runtime"},
}
"""Files that use what TensorRT for RTX alone has."""
RTX_NAMES = {
    *(("IBuilderConfig", "num_compute_capabilities"), ("IBuilderConfig", "set_compute_capability")),
    ("ComputeCapability",),
}
"""The same in files that serve both."""
SINCE_11 = {("OnnxParserFlag", "ADJUST_FOR_DLA")}
"""What `velora build --dla` uses, which asks for TensorRT 11.4.1 first."""

STUB = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry", "getInferLibVersion", "getInferLibMajorVersion"),
        *("initLibNvInferPlugins", "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
        "getNvOnnxParserVersion",
    )
)

# Prints the attributes of every class, and each method's parameters as its docstring gives them: their names,
# and whether they have defaults; a list for every overload.
LIST_NAMES = """
import importlib, importlib.util, json, re, sys
found = [name for name in ("tensorrt_bindings", "tensorrt_rtx_bindings") if importlib.util.find_spec(name)]
trt = importlib.import_module(found[0])
def overloads(member):
    text = (getattr(member, "__doc__", None) or "")
    found = re.findall(r"^(?:\\d+\\. )?\\w+\\(self: [\\w.]+(.*?)\\) -> ", text, re.M)
    pieces = [re.split(r", (?=\\w+: )", one)[1:] for one in found]
    return [[[piece.partition(":")[0], " = " in piece] for piece in one] for one in pieces]
classes = {name: value for name, value in vars(trt).items() if isinstance(value, type)}
print(json.dumps({
    "version": trt.__version__,
    "names": [name for name in dir(trt)],
    "classes": {
        name: {attribute: overloads(getattr(value, attribute)) for attribute in dir(value)}
        for name, value in classes.items()
    },
}))
"""

# Our classes that derive from TensorRT's, made and called with the real ones.
DERIVE = """
import sys
import tensorrt_bindings as trt
from velora_edge.gpu.kinds import Messages, create_logger
from velora_export.tensorrt.tensorrt_builder import BuildProgress, create_monitor
messages = Messages()
logger = create_logger(trt, messages)
logger.log(trt.ILogger.Severity.ERROR, "as it is said")
assert isinstance(logger, trt.ILogger), type(logger).__mro__
assert messages.explain() == ": as it is said"
progress = BuildProgress()
monitor = create_monitor(trt, progress)
assert isinstance(monitor, trt.IProgressMonitor)
monitor.phase_start("Building", None, 3)
assert monitor.step_complete("Building", 0) is True
progress.is_cancelled = True
assert monitor.step_complete("Building", 1) is False
monitor.phase_finish("Building")
flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
assert (int(trt.__version__.split(".")[0]), flags) in ((10, 2), (11, 1))
print("fine")
"""

LIST_CUDA = """
import importlib, json
for name in ("cuda.bindings.runtime", "cuda.cudart"):
    try:
        module = importlib.import_module(name)
        break
    except ImportError:
        pass
kinds = ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaError_t")
members = [member for kind in kinds for member in dir(getattr(module, kind))]
print(json.dumps({"module": name, "names": dir(module) + members}))
"""


# Calls the real functions as our wrapper does, with handles that are numbers: where there is no driver each
# must answer with an error of CUDA's, and none with one about its arguments.
CALL_CUDA = """
import contextlib, numpy
from velora_edge.errors import EngineError
from velora_edge.gpu.cuda import Cuda, load_cuda
cuda = Cuda.__new__(Cuda)
cuda.device, cuda._cuda, cuda._taken = 0, load_cuda(), contextlib.ExitStack()
host = numpy.zeros(16, numpy.uint8)
calls = [
    cuda.use, cuda.describe, cuda.free_bytes, lambda: cuda.allocate(16), lambda: cuda.allocate_host(16),
    lambda: cuda._allocate_host(16, cuda._cuda.cudaHostAllocMapped),
    lambda: cuda._call("cudaHostGetDevicePointer", 4096, 0),
    cuda.create_stream, cuda.create_event, lambda: cuda.copy_in(4096, host, 64),
    lambda: cuda.copy_out(host, 4096, 64), lambda: cuda.copy_within(4096, 8192, 16, 64),
    lambda: cuda.fill(4096, 255, 16, 64), lambda: cuda.record(64, 64), lambda: cuda.wait(64, 64),
    lambda: cuda.synchronize(64), lambda: cuda.synchronize_event(64),
    lambda: cuda.capture(64, lambda: None), lambda: cuda.launch(64, 64),
    lambda: cuda._call("cudaStreamEndCapture", 64), lambda: cuda._call("cudaMemset", 4096, 0, 16),
    lambda: cuda._call("cudaGraphGetNodes", cuda._cuda.cudaGraph_t(64), 0),
    lambda: cuda._call("cudaGraphInstantiate", cuda._cuda.cudaGraph_t(64), 0),
    lambda: cuda._call("cudaFree", 4096), lambda: cuda._call("cudaFreeHost", 4096),
    lambda: cuda._call("cudaStreamDestroy", cuda._cuda.cudaStream_t(64)),
    lambda: cuda._call("cudaEventDestroy", cuda._cuda.cudaEvent_t(64)),
    lambda: cuda._call("cudaGraphDestroy", cuda._cuda.cudaGraph_t(64)),
    lambda: cuda._call("cudaGraphExecDestroy", cuda._cuda.cudaGraphExec_t(64)),
]
answered = 0
for call in calls:
    try:
        call()
    except (EngineError, RuntimeError):
        answered += 1
print(answered, len(calls))
"""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with empty libraries under TensorRT's names."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc) for the libraries that stand in for TensorRT's")
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text(STUB)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        for major in (10, 11):
            name = f"lib{library}.so.{major}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, "stub.c"]
            subprocess.run(command, cwd=folder, check=True)
    return folder


def install(requirement: str, folder: Path) -> Path:
    """The folder into which pip installed a requirement; skips where it cannot."""
    if not folder.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-compile",
        ]
        command += ["--only-binary=:all:", f"--target={folder}", requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        said = done.stderr.strip().splitlines()
        if done.returncode != 0:
            pytest.skip(
                f"needs {requirement} for this Python from a package index: {said[-1] if said else ''}"
            )
    return folder


def run_with(script: str, package: Path, libraries: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "LD_LIBRARY_PATH": str(libraries or "")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session", params=TENSORRT)
def bindings(request: pytest.FixtureRequest, packages: Path) -> Path:
    return install(TENSORRT[request.param], packages / f"tensorrt-{request.param}")


@pytest.fixture(scope="session")
def real(bindings: Path, stubs: Path) -> dict[str, Any]:
    names: dict[str, Any] = json.loads(run_with(LIST_NAMES, bindings, stubs))
    return names


def used_names(files: dict[str, dict[str, str]] = RECEIVERS) -> set[tuple[str, ...]]:
    """What our sources use: (name,) in the module, (class, attribute), (class, method that we override)."""
    used: set[tuple[str, ...]] = set()
    for where, receivers in files.items():
        for node in nodes_of(where):
            if isinstance(node, ast.Attribute):
                used.update(used_by(node, receivers))
            if isinstance(node, ast.ClassDef):
                bases = [base.attr for base in node.bases if isinstance(base, ast.Attribute)]
                methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
                used.update((base, method) for base in bases for method in methods)
    return used


def nodes_of(where: str) -> Iterator[ast.AST]:
    """The syntax of a file, or of the definitions that are named after its path."""
    file, *names = where.split()
    for node in ast.parse((ROOT / file).read_text()).body:
        name = getattr(node, "name", None)
        if not names or name in names:
            yield from ast.walk(node)


def used_by(node: ast.Attribute, receivers: dict[str, str]) -> set[tuple[str, ...]]:
    path, inner = [node.attr], node.value
    while isinstance(inner, ast.Attribute):
        path.insert(0, inner.attr)
        inner = inner.value
    path = [*([inner.id] if isinstance(inner, ast.Name) and inner.id != "self" else []), *path]
    for module in ("trt", "_trt"):
        if module in path[:-1]:
            return {tuple(path[path.index(module) + 1 :][:2])}
    if len(path) > 1 and path[-2] in receivers:
        return {(receivers[path[-2]], path[-1])}
    return set()


def test_names_are_collected_from_the_sources() -> None:
    used = used_names()
    assert {
        ("Builder",),
        ("BuilderFlag", "VERSION_COMPATIBLE"),
        ("HardwareCompatibilityLevel", "AMPERE_PLUS"),
        ("IBuilderConfig", "set_timing_cache"),
        ("INetworkDefinition", "name"),
        ("OnnxParser", "parse_from_file"),
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_tensor_dtype"),
        ("Runtime", "engine_host_code_allowed"),
        ("ILogger", "log"),
        ("IProgressMonitor", "step_complete"),
        ("__version__",),
    } <= used
    assert len(used) > 55


def test_every_name_that_we_use_is_in_the_real_package(real: dict[str, Any]) -> None:
    flags = {("DataType", name) for name in DTYPES}
    missing = []
    newer = SINCE_11 if real["version"].startswith("10.") else set()
    assert {("DeviceType", "DLA"), ("Builder", "num_DLA_cores"), *SINCE_11} <= used_names()
    for path in sorted((used_names() | flags) - RTX_NAMES - newer):
        owner = real["names"] if len(path) == 1 else real["classes"].get(path[0], {})
        if path[-1] not in owner:
            missing.append(".".join(path))
    assert missing == [], f"tensorrt {real['version']} lacks them"


@pytest.fixture(scope="session")
def real_rtx(packages: Path) -> dict[str, Any]:
    """The names of TensorRT for RTX, whose libraries are found where they are installed."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT for RTX (x86-64 Linux)")
    names: dict[str, Any] = json.loads(run_with(LIST_NAMES, packages))
    return names


def test_every_name_that_we_use_is_in_the_real_package_of_rtx(real_rtx: dict[str, Any]) -> None:
    used = used_names({**RECEIVERS, **ONLY_RTX})
    assert {("IRuntimeConfig", "create_runtime_cache"), ("Runtime", "get_engine_validity")} <= used
    owners = {path: real_rtx["names"] if len(path) == 1 else real_rtx["classes"][path[0]] for path in used}
    assert sorted(".".join(path) for path, owner in owners.items() if path[-1] not in owner) == []


def test_the_fake_of_rtx_offers_nothing_that_the_real_package_lacks(real_rtx: dict[str, Any]) -> None:
    assert differences(FakeTensorRT(FakeGPU(), "1.7.1", RTX).module, real_rtx) == []


def test_the_fake_offers_nothing_that_the_real_package_lacks(real: dict[str, Any]) -> None:
    different = differences(FakeTensorRT(FakeGPU()).module, real)
    assert different == [], f"tensorrt {real['version']} differs"


def differences(module: Any, real: dict[str, Any]) -> list[str]:
    """What a fake's classes have that the real ones lack, or take in another way."""
    different = []
    for name, kind in vars(module).items():
        if not isinstance(kind, type):
            continue
        theirs = real["classes"].get(name)
        if theirs is None:
            different.append(name)
            continue
        for member, value in vars(kind).items():
            if member.startswith("_"):
                continue
            if member not in theirs:
                different.append(f"{name}.{member}")
            elif inspect.isfunction(value) and theirs[member]:
                ours = list(inspect.signature(value).parameters)[1:]
                if not any(fits(ours, overload) for overload in theirs[member]):
                    different.append(f"{name}.{member}{ours} is {theirs[member]}")
    return different


def fits(ours: list[str], theirs: list[tuple[str, bool]]) -> bool:
    """Whether theirs takes a call with our parameters: the same names, but for trailing defaults."""
    names = [name for name, _ in theirs]
    return ours == names[: len(ours)] and all(has_default for _, has_default in theirs[len(ours) :])


def test_our_logger_and_progress_monitor_are_tensorrts(bindings: Path, stubs: Path) -> None:
    assert run_with(DERIVE, bindings, stubs) == "fine\n"


def cuda_names() -> set[str]:
    """Names of the CUDA runtime's that our sources use, as attributes or in calls looked up by name."""
    tree = ast.parse((ROOT / "velora_edge/gpu/cuda.py").read_text())
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {name for name in attributes | words if name.startswith("cuda") and name[4:5].isupper()}


@pytest.mark.parametrize("version", CUDA)
def test_every_cuda_name_that_we_use_is_in_the_real_package(packages: Path, version: str) -> None:
    used = cuda_names()
    assert {
        "cudaMalloc",
        "cudaStreamCaptureModeThreadLocal",
        "cudaGraphLaunch",
        "cudaStreamNonBlocking",
    } <= used
    real = json.loads(run_with(LIST_CUDA, install(CUDA[version], packages / f"cuda-{version}")))
    assert sorted(used - set(real["names"])) == []
    fake = {name for name in vars(FakeGPU().module) if name.startswith("cuda")}
    assert sorted(fake - set(real["names"])) == []
    assert real["module"] == ("cuda.cudart" if version == "12.3" else "cuda.bindings.runtime")


@pytest.mark.skipif(has_gpu(), reason="needs a machine without a GPU: the handles are not real")
@pytest.mark.parametrize("version", CUDA)
def test_the_real_cuda_functions_take_the_arguments_that_we_give(packages: Path, version: str) -> None:
    said = run_with(CALL_CUDA, install(CUDA[version], packages / f"cuda-{version}"))
    answered, asked = said.split()
    assert answered == asked
