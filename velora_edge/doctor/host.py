"""Probes of the machine and of Python."""

from __future__ import annotations

import os
import platform
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
