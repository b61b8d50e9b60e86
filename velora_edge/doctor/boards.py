"""Boards: what a Jetson or a PC is, and which CUDA, TensorRT and Python fit it.

Read from files alone, so that a board can be laid out in a folder: Jetson Linux's release, the device tree,
dpkg's state, PCI devices, and the version of NVIDIA's driver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.doctor.host import parse_release, read_text
from velora_edge.gpu.kinds import version_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class JetPack:
    """Line of JetPack releases, as NVIDIA's release notes have it.

    Attributes:
        name: the line's.
        since: the first release of Jetson Linux (L4T) that belongs to it.
        python: the Python that TensorRT's bindings are built for.
        cuda: the oldest CUDA that a driver of the line knows.
        tensorrt: what comes with it.
        extra: the extra of velora-edge for it; empty where velora-edge does not run.
        chips: what it runs on.
    """

    name: str
    since: tuple[int, ...]
    python: str
    cuda: str
    tensorrt: str
    extra: str
    chips: tuple[str, ...]


LINES = (
    JetPack("5", (35,), "3.8", "11.4", "8.5", "", ("Orin", "Xavier")),
    JetPack("6.0", (36,), "3.10", "12.2", "8.6", "", ("Orin",)),
    JetPack("6", (36, 4), "3.10", "12.6", "10.3", "jetpack6", ("Orin",)),
    JetPack("7", (38,), "3.12", "13.0", "10.13", "jetpack7", ("Thor",)),
    JetPack("7.2", (39,), "3.12", "13.2", "10.16", "jetpack7", ("Orin", "Thor")),
)
"""The newest line last."""
TENSORRT_11, SINCE_JETPACK = (11, 4, 1), (7, 2, 2)
"""TensorRT 11.4.1 supports AGX Orin and Thor from JetPack 7.2.2 on; 11.0 to 11.4.0 support no JetPack."""
DRIVERS = (
    *((525, "12.0"), (530, "12.1"), (535, "12.2"), (545, "12.3"), (550, "12.4"), (555, "12.5")),
    *((560, "12.6"), (565, "12.7"), (570, "12.8"), (575, "12.9"), (580, "13.0"), (590, "13.1")),
)
"""Branches of NVIDIA's driver for PCs, and the newest CUDA that each knows."""
VENDORS = {"0x10de": "NVIDIA", "0x8086": "Intel", "0x1002": "AMD"}


def board(root: Path = Path("/")) -> dict[str, Any]:
    """What the machine is and what fits it.

    Args:
        root: where the machine's files begin.

    Returns:
        `kind` is jetson or pc; `cuda` the driver's; `tensorrt` the system's, None where it is not installed;
        `fits` a line for each thing that does; `extras` what to install of velora-edge.
    """
    release = parse_release(read_text(root / "etc/nv_tegra_release"))
    model = read_text(root / "proc/device-tree/model")
    if release is None and "Jetson" not in model:
        return _pc(root)
    return _jetson(root, release or "", model)


def find_line(release: str) -> JetPack | None:
    """The line that a release of Jetson Linux belongs to; None where it is older than all, or not known."""
    numbers = version_numbers(release)
    return next((line for line in reversed(LINES) if numbers and numbers >= line.since), None)


def why_no_tensorrt_here(jetpack: str, board: str, tensorrt: str) -> str | None:
    """Why NVIDIA does not support a TensorRT on a Jetson, for people; None if it does.

    Args:
        jetpack: its release, as far as it is known.
        board: the board's name.
        tensorrt: the version asked about.
    """
    version = version_numbers(tensorrt)
    if version[:1] < (11,):
        return None
    if version_numbers(jetpack) < (7,):
        return f"JetPack {jetpack} stays on TensorRT 10.x"
    if version < TENSORRT_11:
        return f"TensorRT {tensorrt} supports no JetPack; 11.4.1 does, from JetPack 7.2.2 on"
    if version_numbers(jetpack) < SINCE_JETPACK:
        return f"TensorRT {tensorrt} needs JetPack 7.2.2 or later, this is {jetpack}"
    is_served = "AGX Orin" in board or "Thor" in board
    return None if is_served else f"TensorRT {tensorrt} supports AGX Orin and Thor, this is {board}"


def installed_packages(root: Path) -> dict[str, str]:
    """Versions by name of the packages that dpkg has installed."""
    found = {}
    for paragraph in read_text(root / "var/lib/dpkg/status").split("\n\n"):
        lines = (line.partition(": ") for line in paragraph.splitlines() if line[:1].isalpha())
        fields = {key: value for key, _, value in lines}
        if fields.get("Status") == "install ok installed":
            found[fields.get("Package", "")] = fields.get("Version", "")
    return found


def _jetson(root: Path, release: str, model: str) -> dict[str, Any]:
    line, packages = find_line(release), installed_packages(root)
    name = model.removeprefix("NVIDIA ").partition(" Developer Kit")[0] or "Jetson"
    chip = next((chip for chip in ("Thor", "Orin", "Xavier") if chip in name), None)
    jetpack = _upstream(packages.get("nvidia-jetpack", "")) or (line.name if line else None)
    libraries = [version for name, version in packages.items() if re.fullmatch(r"libnvinfer\d+", name)]
    facts: dict[str, Any] = {
        "kind": "jetson",
        "board": name,
        "chip": chip,
        "l4t": release or None,
        "jetpack": jetpack,
        "python": line.python if line else None,
        "cuda": line.cuda if line else None,
        "tensorrt": _upstream(max(libraries, key=version_numbers, default="")),
        "tensorrt_python": "python3-libnvinfer" in packages,
        "fastest_mode": fastest_mode(read_text(root / "etc/nvpmodel.conf")),
    }
    is_served = line is not None and bool(line.extra)
    facts["fits"] = list(_fits_jetson(line, str(jetpack), name)) if line and is_served else []
    return {**facts, "extras": ["cpu", line.extra] if line and is_served else []}


def fastest_mode(text: str) -> int | None:
    """The number of the power mode without a limit: MAXN, or MAXN_SUPER where there is one.

    Numbers differ between boards and releases; `text` is /etc/nvpmodel.conf.
    """
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(MAXN\w*)\s*>", text, re.MULTILINE)
    return max(((len(name), int(number)) for number, name in found), default=(0, None))[1]


def _fits_jetson(line: JetPack, jetpack: str, name: str) -> Iterator[str]:
    yield f"JetPack's TensorRT {line.tensorrt}"
    newer = ".".join(map(str, TENSORRT_11))
    reason = why_no_tensorrt_here(jetpack, name, newer)
    if reason is None:
        yield f"TensorRT {newer} for Arm servers (SBSA)"
    yield f"Python {line.python} that sees the system's packages"
    yield f"cuda-python {below_next_minor(line.cuda)}"
    if reason is None and "AGX Orin" in name:
        yield f"a tower on the DLA by TensorRT {newer}"


def below_next_minor(cuda: str) -> str:
    """What cuda-python has to be below, for a driver of that CUDA: `<12.7` for 12.6."""
    major, minor = version_numbers(cuda)[:2]
    return f"<{major}.{minor + 1}"


def _upstream(version: str) -> str | None:
    """A Debian version's beginning: 7.2.2 of `7.2.2-b12`; None where there is none."""
    return ".".join(map(str, version_numbers(version))) or None


def _pc(root: Path) -> dict[str, Any]:
    driver = parse_driver(read_text(root / "proc/driver/nvidia/version"))
    cuda = None if driver is None else driver_cuda(driver)
    graphics = list_graphics(root)
    facts: dict[str, Any] = {
        "kind": "pc",
        "board": read_text(root / "sys/class/dmi/id/product_name") or None,
        "system": _system(root),
        "graphics": graphics,
        "driver": driver,
        "cuda": cuda,
    }
    fits, extras = ["ONNX Runtime on the CPU"], ["cpu"]
    if "Intel" in graphics:
        fits.append("OpenVINO on Intel graphics")
        extras.append("openvino")
    if cuda is not None:
        fits = [f"TensorRT for CUDA {cuda.partition('.')[0]}", f"cuda-python {below_next_minor(cuda)}", *fits]
        extras = [*extras, "tensorrt"] if version_numbers(cuda) >= (13,) else extras
    return {**facts, "fits": fits, "extras": extras}


def parse_driver(text: str) -> str | None:
    """`580.65.06` of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...`."""
    found = re.search(r"NVRM version:.*?\s(\d{3}(?:\.\d+)+)\s", f"{text} ")
    return found[1] if found else None


def driver_cuda(driver: str) -> str | None:
    """The newest CUDA that a driver for PCs knows; None where it is older than CUDA 12."""
    branch = version_numbers(driver)[0]
    return next((cuda for first, cuda in reversed(DRIVERS) if branch >= first), None)


def list_graphics(root: Path) -> list[str]:
    """Vendors of the display controllers on PCI (class 0x03...), each once."""
    devices = sorted((root / "sys/bus/pci/devices").glob("*"))
    shown = [node for node in devices if read_text(node / "class").startswith("0x03")]
    names = [VENDORS.get(read_text(node / "vendor")) for node in shown]
    return list(dict.fromkeys(name for name in names if name))


def _system(root: Path) -> str | None:
    """The distribution's name for programs, such as ubuntu."""
    found = re.search(r'^ID="?([\w.-]+)"?$', read_text(root / "etc/os-release"), re.MULTILINE)
    return found[1] if found else None
