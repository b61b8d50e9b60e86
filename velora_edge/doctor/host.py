"""Probes of the machine: processor, Python, and a Jetson's release, power mode, clocks, temperatures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("numpy", "numba", "h5py", "hdf5plugin", "av", "opencv-python-headless", "opencv-python"),
    *("opencv-contrib-python", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "openvino"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13-libs", "cuda-python", "cuda-bindings"),
    *("torch", "torchvision", "timm", "peft", "onnx", "dv-processing", "rerun-sdk"),
)


def system(root: Path = Path("/")) -> dict[str, Any]:
    """Operating system, processor, memory, and whether this is a container."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return {
        "os": name,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "model": read_text(root / "proc/device-tree/model") or None,
        "cpu": _cpu(root),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(root, "MemTotal"),
        "memory_free_gb": _memory_gb(root, "MemAvailable"),
        "container": any((root / mark).exists() for mark in (".dockerenv", "run/.containerenv")),
    }


def python() -> dict[str, Any]:
    """Python, where it is, and the versions of the packages that matter here."""
    import velora_edge

    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "is_venv": sys.prefix != sys.base_prefix,
        "velora": velora_edge.__version__,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def read_text(path: Path) -> str:
    """A small file's text without the NULs of a device tree; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu(root: Path) -> str | None:
    for line in read_text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return None


def _memory_gb(root: Path, key: str) -> float | None:
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return round(int(value.split()[0]) / (1 << 20), 1)
    return None


JETPACKS = {"35": "5", "36": "6", "38": "7", "39": "7"}
"""JetPack by the major release of Jetson Linux (L4T)."""
GPU_CLOCKS = ("gpu", "ga10b", "gv11b", "gp10b")
"""What a GPU's node under /sys/class/devfreq has in its name: 17000000.gpu, 17000000.ga10b, gpu-gpc-0, ..."""


def jetson(root: Path = Path("/")) -> dict[str, Any]:
    """Facts of a Jetson; elsewhere that it is none."""
    release = parse_release(read_text(root / "etc/nv_tegra_release"))
    model = read_text(root / "proc/device-tree/model")
    if release is None and "Jetson" not in model:
        return {"is_jetson": False}
    cpu, gpu = cpu_clocks(root), gpu_clocks(root)
    known = [clock for clock in (*cpu, *gpu) if clock["min_mhz"] and clock["max_mhz"]]
    return {
        "is_jetson": True,
        "model": model or None,
        "l4t": release,
        "jetpack": JETPACKS.get((release or "").partition(".")[0]),
        "power_mode": _power_mode(),
        "clocks_locked": all(clock["min_mhz"] == clock["max_mhz"] for clock in known) if known else None,
        "cpu_clocks": cpu,
        "gpu_clocks": gpu,
        "hottest_c": _hottest_c(root),
    }


def parse_release(text: str) -> str | None:
    """`36.4.3` of `# R36 (release), REVISION: 4.3, ...`."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else None


def parse_power_mode(text: str) -> str | None:
    """`MAXN` of nvpmodel's answer."""
    found = re.search(r"NV Power Mode:\s*(.+)", text)
    return found[1].strip() if found else None


def _power_mode() -> str | None:
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, check=False)
    except (FileNotFoundError, PermissionError):
        return None
    return parse_power_mode(done.stdout)


def cpu_clocks(root: Path) -> list[dict[str, Any]]:
    """Lowest, present and highest MHz of each group of cores."""
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    names = {"min_mhz": "scaling_min_freq", "now_mhz": "scaling_cur_freq", "max_mhz": "scaling_max_freq"}
    return [
        {"name": policy.name, **{key: _mhz(policy / file, 1_000) for key, file in names.items()}}
        for policy in policies
    ]


def gpu_clocks(root: Path) -> list[dict[str, Any]]:
    """Lowest, present and highest MHz of an integrated GPU, where there is one."""
    folder = root / "sys/class/devfreq"
    nodes = sorted(folder.iterdir()) if folder.is_dir() else []
    names = {"min_mhz": "min_freq", "now_mhz": "cur_freq", "max_mhz": "max_freq"}
    return [
        {"name": node.name, **{key: _mhz(node / file, 1_000_000) for key, file in names.items()}}
        for node in nodes
        if any(part in node.name for part in GPU_CLOCKS)
    ]


def _mhz(path: Path, unit: int) -> int | None:
    text = read_text(path)
    return int(text) // unit if text.isdigit() else None


def _hottest_c(root: Path) -> float | None:
    texts = [read_text(zone / "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*")]
    temperatures = [int(text) / 1000 for text in texts if text.lstrip("-").isdigit()]
    return max(temperatures, default=None)
