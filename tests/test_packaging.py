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
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34, 35)]
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={platform}" for platform in (*platforms, "manylinux2014_aarch64")]
    command += [f"--target={tmp_path}", f"--report={report}", *base_requirements(), "onnxruntime>=1.18"]
    command += ["starlette>=0.40", "uvicorn>=0.30", "paho-mqtt>=2.0"]  # the extras web and mqtt
    command += ["neuromorphic-drivers>=0.18"]  # the extra cameras
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    if "NewConnectionError" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr
    wheels = [Path(item["download_info"]["url"]).name for item in json.loads(report.read_text())["install"]]
    assert len(wheels) >= len(base_requirements())
    assert [name for name in wheels if not name.endswith(".whl")] == []


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
