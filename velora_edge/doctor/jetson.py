"""A probe of a Jetson: its release, power mode, clocks and temperatures."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from velora_edge.doctor.host import read_text

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
    cpu, gpu = _cpu_clocks(root), _gpu_clocks(root)
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


def _cpu_clocks(root: Path) -> list[dict[str, Any]]:
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    names = {"min_mhz": "scaling_min_freq", "now_mhz": "scaling_cur_freq", "max_mhz": "scaling_max_freq"}
    return [
        {"name": policy.name, **{key: _mhz(policy / file, 1_000) for key, file in names.items()}}
        for policy in policies
    ]


def _gpu_clocks(root: Path) -> list[dict[str, Any]]:
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
