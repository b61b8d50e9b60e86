"""Probes of the machine: processor, Python, a Jetson's state, cameras and the libraries that open them."""

from __future__ import annotations

import importlib
import os
import platform
import re
import struct
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
        "prefix": sys.prefix,
        "is_venv": sys.prefix != sys.base_prefix,
        "sees_system": sees_system(Path(sys.prefix)),
        "checkout": find_checkout(Path(velora_edge.__file__)),
        "velora": velora_edge.__version__,
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def sees_system(prefix: Path) -> bool:
    """Whether the environment at `prefix` sees the system's packages, among them a Jetson's TensorRT."""
    settings = read_text(prefix / "pyvenv.cfg").lower().splitlines()
    pairs = dict(line.replace(" ", "").partition("=")[::2] for line in settings)
    return not settings or pairs.get("include-system-site-packages") == "true"


def find_checkout(module: Path) -> str | None:
    """The checkout of velora-edge that a module of its lies in; None where it was installed."""
    folder = module.parents[1]
    return str(folder) if (folder / "pyproject.toml").is_file() else None


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


# USB vendor and product of event cameras: the makers' udev rules.
EVENT_CAMERAS = (
    (r"04b4:00f[345]", "Prophesee", "EVK"),
    (r"31f7:.*", "Prophesee", "CenturyArks SilkyEvCam"),
    (r"1409:8e00", "Prophesee", "IDS uEye EVS"),
    (r"152a:84.*", "iniVation", "DAVIS or DVXplorer"),
)
VIDIOC_QUERYCAP = 0x80685600
"""linux/videodev2.h: _IOR('V', 0, struct v4l2_capability), 104 bytes."""
CAPTURE, DEVICE_CAPS = 0x1 | 0x1000, 0x80000000
"""V4L2_CAP_VIDEO_CAPTURE with V4L2_CAP_VIDEO_CAPTURE_MPLANE; V4L2_CAP_DEVICE_CAPS."""


def cameras(root: Path = Path("/")) -> dict[str, Any]:
    """Video devices that the kernel shows, event cameras on USB, and CSI cameras' daemon."""
    return {
        "video": [_video(node, root) for node in sorted((root / "sys/class/video4linux").glob("video*"))],
        "event": [
            found
            for node in sorted((root / "sys/bus/usb/devices").glob("*"))
            if (found := _event(node, root))
        ],
        "argus": (root / "tmp/argus_socket").exists(),
    }


def _video(node: Path, root: Path) -> dict[str, Any]:
    device = root / "dev" / node.name
    allowed = os.access(device, os.R_OK | os.W_OK)
    return {
        "device": f"/dev/{node.name}",
        "name": read_text(node / "name"),
        "allowed": allowed,
        "captures": _captures(device) if allowed else None,
    }


def _captures(device: Path) -> bool | None:
    """Whether the node gives pictures; a camera has other nodes too, for its metadata."""
    import fcntl

    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(descriptor, VIDIOC_QUERYCAP, bytes(104))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    whole, of_node = struct.unpack_from("<II", answer, 84)
    return bool((of_node if whole & DEVICE_CAPS else whole) & CAPTURE)


def _event(node: Path, root: Path) -> dict[str, Any] | None:
    identity = f"{read_text(node / 'idVendor')}:{read_text(node / 'idProduct')}"
    for pattern, maker, model in EVENT_CAMERAS:
        if re.fullmatch(pattern, identity):
            place = (read_text(node / "busnum"), read_text(node / "devnum"))
            device = root / "dev/bus/usb" / "/".join(number.zfill(3) for number in place)
            return {
                "maker": maker,
                "name": read_text(node / "product") or model,
                "usb": identity,
                "serial": read_text(node / "serial") or None,
                "speed_mbit": read_text(node / "speed") or None,
                "allowed": os.access(device, os.R_OK | os.W_OK),
            }
    return None


def neuromorphic() -> dict[str, Any]:
    """Whether neuromorphic-drivers can be imported."""
    return _library("neuromorphic_drivers")


def prophesee() -> dict[str, Any]:
    """Whether Metavision's Python modules can be imported."""
    return _library("metavision_hal", "metavision_core")


def inivation() -> dict[str, Any]:
    """Whether dv-processing can be imported."""
    return _library("dv_processing")


def _library(*names: str) -> dict[str, Any]:
    versions = {}
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            return {"usable": False, "reason": f"{error.name} is not installed"}
        versions[name] = str(getattr(module, "__version__", "unknown"))
    return {"usable": True, "versions": versions}


def video() -> dict[str, Any]:
    """PyAV, OpenCV, and whether that OpenCV knows GStreamer: the ones from the index do not."""
    import av
    import cv2

    found = re.search(r"GStreamer:\s*(\S+)", cv2.getBuildInformation())
    return {
        "av": av.__version__,
        "opencv": cv2.__version__,
        "opencv_file": cv2.__file__,
        "gstreamer": bool(found and found[1] == "YES"),
    }
