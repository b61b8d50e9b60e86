"""The machine that figures hold for: what it is, and its clocks, temperatures and throttling at a moment."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from velora_edge.bundle import MANIFEST
from velora_edge.doctor.host import python, read_text, system
from velora_edge.doctor.jetson import cpu_clocks, gpu_clocks, jetson
from velora_runtime.bench.result import Clock, Conditions, Machine, Model

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle
    from velora_runtime.bench.nvml import Nvml

ROOT = Path("/")
STREAMING = ("rgb", "event", "diff", "head")
FASTEST_GOVERNOR = "performance"


def describe(root: Path = ROOT, nvml: Nvml | None = None) -> Machine:
    """What the machine is."""
    host, facts, software = system(root), jetson(root), python()
    is_jetson = bool(facts["is_jetson"])
    gpu = None if nvml is None else nvml.name
    board = str(facts["model"] or "Jetson") if is_jetson else str(host["model"] or host["cpu"] or "unknown")
    return Machine(
        board=board,
        jetpack=facts.get("jetpack"),
        l4t=facts.get("l4t"),
        power_mode=facts.get("power_mode"),
        gpu="integrated" if is_jetson and gpu is None else gpu,
        cpu=host["cpu"],
        cores=int(host["cores"] or 1),
        memory_gb=host["memory_gb"],
        os=str(host["os"]),
        kernel=str(host["kernel"]),
        is_container=bool(host["container"]),
        versions={"python": software["python"], "velora": software["velora"], **software["packages"]},
    )


def describe_model(bundle: Bundle, path: str) -> Model:
    """What the bundle is."""
    manifest = bundle.manifest
    names = {name for name in manifest.files if not name.startswith(("clip.onnx", "engines/"))}
    return Model(
        name=manifest.name,
        path=path,
        precision=manifest.precision,
        architecture=manifest.weights.architecture,
        trained=manifest.weights.trained,
        megabytes=round(sum((bundle.path / name).stat().st_size for name in names) / 1e6, 2),
        clip_length=manifest.clip_length,
        stride=manifest.stride,
        image_size=manifest.image_size,
        sha256=hashlib.sha256((bundle.path / MANIFEST).read_bytes()).hexdigest(),
    )


def look(root: Path = ROOT, nvml: Nvml | None = None) -> Conditions:
    """The machine now."""
    clocks = read_clocks(root, nvml)
    return Conditions(
        clocks=clocks,
        clocks_locked=_locked(root, clocks),
        temperatures_c=temperatures(root, nvml),
        throttled=throttling(root, nvml),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def read_clocks(root: Path = ROOT, nvml: Nvml | None = None) -> list[Clock]:
    """Clocks of processor, GPU and memory, as far as they can be seen."""
    found = [Clock(**clock) for clock in (*cpu_clocks(root), *gpu_clocks(root))]
    memory = _memory_clock(root)
    return [*found, *([] if memory is None else [memory]), *([] if nvml is None else nvml.clocks())]


def _memory_clock(root: Path) -> Clock | None:
    """The memory controller's: `bwmgr` on Thor, for root in debugfs on Orin."""
    node = root / "sys/class/devfreq/bwmgr"
    if node.is_dir():
        values = {key: read_text(node / name) for key, name in _DEVFREQ.items()}
        return Clock(name="bwmgr", **{key: _mhz(text) for key, text in values.items()})
    text = read_text(root / "sys/kernel/debug/bpmp/debug/clk/emc/rate")
    return Clock(name="emc", min_mhz=None, now_mhz=_mhz(text), max_mhz=None) if text.isdigit() else None


_DEVFREQ = {"min_mhz": "min_freq", "now_mhz": "cur_freq", "max_mhz": "max_freq"}


def _mhz(text: str) -> int | None:
    return int(text) // 1_000_000 if text.isdigit() else None


def _locked(root: Path, clocks: list[Clock]) -> bool | None:
    """On a Jetson lowest and highest are one; on a PC the governor keeps the processor at its highest."""
    if jetson(root)["is_jetson"]:
        ranges = [(c.min_mhz, c.max_mhz) for c in clocks if c.min_mhz and c.max_mhz]
        return all(low == high for low, high in ranges) if ranges else None
    policies = (root / "sys/devices/system/cpu/cpufreq").glob("policy*/scaling_governor")
    governors = {read_text(path) for path in policies} - {""}
    return governors == {FASTEST_GOVERNOR} if governors else None


def temperatures(root: Path = ROOT, nvml: Nvml | None = None) -> dict[str, float]:
    """Degrees Celsius by zone; zones that are off, and say so by a number that cannot be, are left out."""
    found: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = read_text(zone / "temp")
        if text.lstrip("-").isdigit() and -40_000 < int(text) < 150_000 and int(text) != 0:
            found[read_text(zone / "type") or zone.name] = int(text) / 1000
    return {**found, **({} if nvml is None else nvml.temperatures())}


def throttling(root: Path = ROOT, nvml: Nvml | None = None) -> dict[str, int]:
    """Counters and states by name; those whose names begin with `cooling` or `nvml` are 0 where nothing slows.

    A Jetson's over-current events and cooling devices that slow something, a PC's counts, a card's reasons.
    """
    found: dict[str, int] = {}
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        found[f"over-current {path.name.partition('_')[0]}"] = _number(path)
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind = read_text(device / "type")
        if re.search(r"throttle|devfreq|cpufreq|gpu", kind, re.IGNORECASE):
            found[f"cooling {kind}"] = max(_number(device / "cur_state"), found.get(f"cooling {kind}", 0))
    counts = [_number(path) for path in (root / "sys/devices/system/cpu").glob(_THROTTLE_COUNTS)]
    if counts:
        found["processor throttle events"] = sum(counts)
    return {**found, **({} if nvml is None else nvml.throttling())}


_THROTTLE_COUNTS = "cpu[0-9]*/thermal_throttle/core_throttle_count"


def _number(path: Path) -> int:
    text = read_text(path)
    return int(text) if text.isdigit() else 0
