"""What an installer meets: binary wheels for a Jetson, no torch on the device, a quick front door."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]

# Runs a command with every training library made impossible to import, then tells what was imported.
WITHOUT_TORCH = """
import sys
banned = {"torch", "torchvision", "timm", "peft", "accelerate", "onnx", "sklearn"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in banned:
            raise ModuleNotFoundError(f"{name} is not on a device", name=name)
sys.meta_path.insert(0, Refuse())
from velora_cli.main import velora
from velora_edge.console import run
code = run(velora, sys.argv[1:], name="velora")
assert not banned & set(sys.modules), banned & set(sys.modules)
sys.exit(code)
"""


def run_without_torch(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *args], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_base_installs_on_a_jetson_from_binary_wheels_alone(python: str, tmp_path: Path) -> None:
    wanted = [*base_requirements(), "onnxruntime>=1.18"]
    wanted += ["starlette>=0.40", "uvicorn>=0.30", "paho-mqtt>=2.0"]  # the extras web and mqtt
    wanted += ["neuromorphic-drivers>=0.18"]  # the extra cameras
    files = resolve(python, wanted, tmp_path)
    assert len(files) >= len(base_requirements())
    assert [name for name in files if not name.endswith(".whl")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "extras", "expected"),
    [
        ("3.10", "cpu,jetpack6,web,mqtt,cameras,ros", "cuda_python-12.6."),
        ("3.12", "cpu,jetpack7,web,mqtt,cameras,ros", "cuda_python-13.0."),
    ],
)
def test_the_constraints_hold_on_a_jetson_with_the_extras_of_its_jetpack(
    python: str, extras: str, expected: str, tmp_path: Path
) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(constraints_for(python)))
    files = resolve(python, project_requirements(extras), tmp_path, "-c", str(constraints))
    assert [name for name in files if not name.endswith(".whl")] == []
    assert [name for name in files if name.startswith(expected)] != []


@pytest.mark.slow
@pytest.mark.parametrize(("python", "jetpack"), [("3.10", "jetpack6"), ("3.12", "jetpack7")])
def test_beside_the_metavision_sdk_a_jetson_gets_numpy_1_26(
    python: str, jetpack: str, tmp_path: Path
) -> None:
    files = resolve(python, project_requirements(f"cpu,{jetpack},metavision"), tmp_path)
    assert [name for name in files if not name.endswith(".whl")] == []
    assert [name.partition("-cp")[0] for name in files if name.startswith("numpy-")] == ["numpy-1.26.4"]


def resolve(python: str, wanted: list[str], folder: Path, *options: str) -> list[str]:
    """The files that pip would install on a Jetson: none is built, all are of the index."""
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34, 35)]
    report = folder / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={platform}" for platform in (*platforms, "manylinux2014_aarch64")]
    command += [f"--target={folder}", f"--report={report}", *options, *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    if "NewConnectionError" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    return [Path(item["download_info"]["url"]).name for item in json.loads(report.read_text())["install"]]


def project_requirements(extras: str) -> list[str]:
    """What the project file asks for with some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras.split(",") for line in optional[extra])]


def constraints_for(python: str) -> list[str]:
    """The constraints of a Python: pip judges their conditions by the Python that runs it."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    applies = {"python_version": python, "python_full_version": f"{python}.0"}
    return [
        f"{one.name}{one.specifier}" for one in found if one.marker is None or one.marker.evaluate(applies)
    ]


def base_requirements() -> list[str]:
    from importlib.metadata import requires

    return [line for line in requires("velora-edge") or [] if "extra ==" not in line]


def test_info_and_live_run_where_no_training_library_can_be_imported(tmp_path: Path) -> None:
    assets = ROOT / "velora_edge" / "assets"
    info = run_without_torch("info", "--json", str(assets / "demo.raw"))
    assert (info.returncode, json.loads(info.stdout)["format"]) == (0, "EVT3"), info.stderr
    out = tmp_path / "predictions.jsonl"
    live = run_without_torch(
        *("live", "demo", "--events", str(assets / "demo.raw"), "--rgb", str(assets / "demo.mp4")),
        *("--pace", "max", "--duration", "1", "--out", str(out)),
    )
    assert live.returncode == 0, live.stderr
    assert [json.loads(line)["v"] for line in out.read_text().splitlines()] != []


def test_help_is_there_within_half_a_second_of_work() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "velora_cli.main", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time, which other tests on the same machine do not lengthen as they do the wait.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_demo_gives_its_first_prediction_within_five_seconds_of_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "velora_cli.main", "demo", "--out-dir", str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True, timeout=240)  # compiles and caches the kernels
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        first, seconds = (tmp_path / "predictions.jsonl").stat().st_mtime_ns, 0.0
        while process.poll() is None:
            # As above, the processor's time: all threads', so that it is no less than an idle machine's wait.
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            partial = [p for p in tmp_path.iterdir() if "predictions" in p.name]
            if any(p.stat().st_mtime_ns > first and p.stat().st_size for p in partial):
                break
            time.sleep(0.02)
        process.wait(timeout=240)
    assert process.returncode == 0
    assert 0 < seconds < 5
