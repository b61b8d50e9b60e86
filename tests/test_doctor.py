"""velora doctor: probes on machines that a test lays out as files, and what is advised."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from fakes_tensorrt import FakeTensorRT
from toy_bundle import write_toy_bundle
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress
from velora_export.tensorrt.tensorrt_engines import BundleBuilder, this_gpu
from velora_export.tensorrt.tensorrt_parity import noise_clips

from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.doctor import host
from velora_edge.doctor import host as cameras
from velora_edge.doctor import host as jetson
from velora_edge.doctor import inference as nvidia
from velora_edge.doctor import inference as providers
from velora_edge.doctor.probes import PROBES, run_probe

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program on the path."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1113600\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/154c0000.nvenc/min_freq": "1\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/temp": "51125\n",
}
LOCKED = {
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n",
}


def test_a_jetson_tells_its_release_mode_clocks_and_temperature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "nvpmodel", "echo 'NV Power Mode: 15W'; echo 0", monkeypatch)
    assert jetson.jetson(write(tmp_path / "root", ORIN)) == {
        "is_jetson": True,
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "l4t": "36.4.3",
        "jetpack": "6",
        "power_mode": "15W",
        "clocks_locked": False,
        "cpu_clocks": [{"name": "policy0", "min_mhz": 729, "now_mhz": 1113, "max_mhz": 1728}],
        "gpu_clocks": [{"name": "17000000.gpu", "min_mhz": 306, "now_mhz": 306, "max_mhz": 1020}],
        "hottest_c": 51.125,
    }


def test_clocks_are_locked_when_lowest_and_highest_are_one(tmp_path: Path) -> None:
    assert jetson.jetson(write(tmp_path, {**ORIN, **LOCKED}))["clocks_locked"] is True


def test_a_jetson_whose_clocks_cannot_be_read_is_not_called_unlocked(tmp_path: Path) -> None:
    facts = jetson.jetson(write(tmp_path, {"etc/nv_tegra_release": ORIN["etc/nv_tegra_release"]}))
    assert (facts["clocks_locked"], facts["hottest_c"], facts["model"]) == (None, None, None)


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert jetson.jetson(tmp_path) == {"is_jetson": False}


def test_nvidia_smis_answer_becomes_facts_without_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "NVIDIA RTX 4090, 560.35.03, 8.9, 24564, 512, 41, 210, 3105, 25.10, [N/A]"
    program(tmp_path, "nvidia-smi", f"echo '{line}'", monkeypatch)
    facts = nvidia.gpu()
    assert (facts["nvidia_smi"], facts["gpus"]) == (
        "ok",
        [
            {
                "name": "NVIDIA RTX 4090",
                "driver": "560.35.03",
                "compute_capability": "8.9",
                "memory_mb": "24564",
                "memory_used_mb": "512",
                "temperature_c": "41",
                "clock_mhz": "210",
                "clock_max_mhz": "3105",
                "power_w": "25.10",
            }
        ],
    )


def test_nvidia_smi_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(
        tmp_path,
        "nvidia-smi",
        "echo 'Failed to initialize NVML: Driver/library mismatch'; exit 18",
        monkeypatch,
    )
    assert nvidia.gpu()["nvidia_smi"] == "Failed to initialize NVML: Driver/library mismatch"


CAMERAS = {
    "sys/class/video4linux/video0/name": "HD Webcam\n",
    "dev/video0": "",
    "sys/class/video4linux/video1/name": "HD Webcam metadata\n",
    "sys/bus/usb/devices/2-1/idVendor": "04b4\n",
    "sys/bus/usb/devices/2-1/idProduct": "00f5\n",
    "sys/bus/usb/devices/2-1/product": "EVK4\n",
    "sys/bus/usb/devices/2-1/serial": "00051234\n",
    "sys/bus/usb/devices/2-1/speed": "5000\n",
    "sys/bus/usb/devices/2-1/busnum": "2\n",
    "sys/bus/usb/devices/2-1/devnum": "7\n",
    "dev/bus/usb/002/007": "",
    "sys/bus/usb/devices/1-4/idVendor": "152a\n",
    "sys/bus/usb/devices/1-4/idProduct": "841d\n",
    "sys/bus/usb/devices/1-5/idVendor": "046d\n",
    "sys/bus/usb/devices/1-5/idProduct": "0825\n",
}


def test_cameras_are_found_by_what_the_kernel_shows(tmp_path: Path) -> None:
    assert cameras.cameras(write(tmp_path, CAMERAS)) == {
        "video": [
            {"device": "/dev/video0", "name": "HD Webcam", "allowed": True, "captures": None},
            {"device": "/dev/video1", "name": "HD Webcam metadata", "allowed": False, "captures": None},
        ],
        "event": [
            {
                "maker": "iniVation",
                "name": "DAVIS or DVXplorer",
                "usb": "152a:841d",
                "serial": None,
                "speed_mbit": None,
                "allowed": False,
            },
            {
                "maker": "Prophesee",
                "name": "EVK4",
                "usb": "04b4:00f5",
                "serial": "00051234",
                "speed_mbit": "5000",
                "allowed": True,
            },
        ],
        "argus": False,
    }


def test_the_machine_tells_processor_memory_and_model(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n",
        "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4194304 kB\n",
        ".dockerenv": "",
    }
    facts = host.system(write(tmp_path, files))
    asked = {key: facts[key] for key in ("cpu", "memory_gb", "memory_free_gb", "model", "container")}
    assert asked == {
        "cpu": "Some CPU @ 3 GHz",
        "memory_gb": 7.6,
        "memory_free_gb": 4.0,
        "model": None,
        "container": True,
    }


def test_the_model_that_tries_providers_adds_its_input_to_itself() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(providers.DOUBLE)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [("Add", ["x", "x"])]


def test_a_provider_is_usable_only_when_a_session_computes_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    assert providers.provider("CPUExecutionProvider") == {"provider": "CPUExecutionProvider", "usable": True}
    asked = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [asked, "CPUExecutionProvider"])
    plain = onnxruntime.InferenceSession(providers.DOUBLE, providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda model, providers: plain)
    assert providers.provider(asked) == {
        "provider": asked,
        "usable": False,
        "reason": "onnxruntime fell back to CPUExecutionProvider",
    }


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    return FakeTensorRT.install(monkeypatch, tmp_path)


def test_cuda_and_tensorrt_are_usable_where_they_start(fake: FakeTensorRT) -> None:
    assert nvidia.cuda() == {
        "usable": True,
        "name": "NVIDIA Fake GPU",
        "compute_capability": "8.7",
        "memory_gb": 8.0,
        "free_gb": 4.0,
        "is_integrated": True,
        "driver_cuda": "12.6",
        "runtime_cuda": "12.6",
    }
    assert nvidia.tensorrt() == {"usable": True, "version": "10.3.0"}


def test_tensorrts_runtime_is_not_touched_without_a_gpu(fake: FakeTensorRT) -> None:
    fake.gpu.devices = 0
    reason = "CUDA finds no GPU: fake cudaErrorNoDevice (cudaErrorNoDevice)"
    assert nvidia.tensorrt() == {"usable": False, "version": "10.3.0", "reason": reason}
    assert nvidia.cuda()["reason"] == reason


def test_engines_are_told_apart_by_whether_they_fit(fake: FakeTensorRT, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy.velora")
    with BundleBuilder(bundle, BuildOptions(), noise_clips(bundle.manifest), this_gpu()) as builder:
        list(builder.build(("rgb", "event"), BuildProgress(), force=False))
    rgb, event = nvidia.engines(str(bundle.path))["engines"]
    assert (rgb["fits"], rgb["reason"]) == (True, None)
    (bundle.path / event["file"]).unlink()
    fits = [(one["graph"], one["reason"]) for one in nvidia.engines(str(bundle.path))["engines"]]
    assert fits == [("rgb", None), ("event", "the file is missing")]
    fake.gpu.properties.name = b"NVIDIA Other GPU"
    reason = nvidia.engines(str(bundle.path))["engines"][0]["reason"]
    assert reason == (
        "built for TensorRT 10.3.0.26 on NVIDIA Fake GPU (compute capability 8.7); this machine has "
        "TensorRT 10.3.0 on NVIDIA Other GPU (compute capability 8.7)"
    )


BROKEN = """
import os, signal, subprocess, sys, time
def fine(word):
    print("some library talks")
    return {"word": word}
def raises():
    raise OSError("no such bus\\nsecond line")
def crashes():
    print("native code says farewell", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
def hangs():
    child = subprocess.Popen(["sleep", "60"])
    open(os.environ["PID_FILE"], "w").write(str(child.pid))
    time.sleep(60)
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken_probes.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    for name in ("raises", "crashes", "hangs"):
        monkeypatch.setitem(PROBES, name, ("broken_probes", name, ()))
    monkeypatch.setitem(PROBES, "fine", ("broken_probes", "fine", ("hello",)))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "facts", "problem"),
    [
        ("fine", {"word": "hello"}, None),
        ("raises", {}, "OSError: no such bus"),
        ("crashes", {}, "was killed by signal 11: native code says farewell"),
    ],
)
def test_a_probe_that_fails_is_a_finding(
    broken: Path, name: str, facts: dict[str, Any], problem: str | None
) -> None:
    finding = run_probe(name, "", limit_s=30)
    assert (dict(finding.facts), finding.problem) == (facts, problem)


def test_a_probe_that_hangs_is_ended_with_its_children(broken: Path) -> None:
    finding = run_probe("hangs", "", limit_s=3)
    assert (dict(finding.facts), finding.problem) == ({}, "gave no answer within 3 s")
    child = int((broken / "pid").read_text())
    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_command_gives_json_for_every_probe_and_never_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(velora, ["doctor", str(tmp_path / "absent.velora"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["probes"]) == list(PROBES)
    assert said["probes"]["python"]["facts"]["executable"] == sys.executable
    assert said["probes"]["provider_cpu"]["facts"]["usable"] is True
    assert said["probes"]["engines"]["problem"].startswith(
        f"BundleError: {tmp_path}/absent.velora: no such model"
    )
    failed = [name for name, probe in said["probes"].items() if probe["problem"] is not None]
    assert failed == ["engines"]


def test_openvino_tells_its_devices_and_what_they_compute_in() -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    facts = run_probe("openvino", "", 60).facts
    cpu = next(device for device in facts["devices"] if device["device"] == "CPU")
    assert facts["version"].startswith("20")
    assert {"FP32", "INT8"} <= set(cpu["capabilities"])
