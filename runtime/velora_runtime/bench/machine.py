"""The machine that figures hold for: what it is, and its clocks, temperatures and throttling at a moment.

NVIDIA's management library is asked by ctypes: functions and constants are those of nvml.h, and what a card
does not support is left out (Orin with JetPack 7 has the library, and answers little).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.bundle import MANIFEST
from velora_edge.doctor.host import cpu_clocks, gpu_clocks, jetson, python, read_text, system
from velora_runtime.bench.result import Clock, Conditions, Machine, Model

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle

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
    """Counters and states by name; those that begin with `cooling` or `nvml` are 0 where nothing slows.

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


LIBRARY = "libnvidia-ml.so.1"
CLOCKS = {"nvml sm": 1, "nvml memory": 2}
"""NVML_CLOCK_SM and NVML_CLOCK_MEM."""
SLOWED = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of the reasons for a clock below its highest that are no choice of the user's."""


class Nvml:
    """The first card. Callable from any thread, one at a time.

    Args:
        library: as ctypes loads it.

    Attributes:
        name: of the card.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._card = ctypes.c_void_p()
        self._check(library.nvmlInit_v2())
        self._check(library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(self._card)))
        text = ctypes.create_string_buffer(96)
        self._check(library.nvmlDeviceGetName(self._card, text, ctypes.c_uint(len(text))))
        self.name = text.value.decode(errors="replace")

    def watts(self) -> float | None:
        """Power of the card now; None where it does not tell."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if milliwatts is None else milliwatts / 1e3

    def joules(self) -> float | None:
        """Energy since the driver was loaded; None where it does not tell."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if millijoules is None else millijoules / 1e3

    def clocks(self) -> list[Clock]:
        """Present and highest clock of the processors and of the memory."""
        found = []
        for name, kind in CLOCKS.items():
            now = self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))
            highest = self._ask("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), ctypes.c_uint(kind))
            if now is not None:
                found.append(Clock(name=name, min_mhz=None, now_mhz=now, max_mhz=highest))
        return found

    def temperatures(self) -> dict[str, float]:
        """Of the chip."""
        degrees = self._ask("nvmlDeviceGetTemperature", ctypes.c_uint(), ctypes.c_uint(0))
        return {} if degrees is None else {"nvml gpu": float(degrees)}

    def throttling(self) -> dict[str, int]:
        """1 for each reason that slows the card now."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return (
            {f"nvml {name}": int(bool(bits & bit)) for bit, name in SLOWED.items()}
            if bits is not None
            else {}
        )

    def close(self) -> None:
        """Let go of the library."""
        self._library.nvmlShutdown()

    def _ask(self, function: str, answer: Any, *given: Any) -> int | None:
        call = getattr(self._library, function, None)
        if call is None or call(self._card, *given, ctypes.byref(answer)) != 0:
            return None
        return int(answer.value)

    def _check(self, code: int) -> None:
        if code != 0:
            raise OSError(f"NVML answered {code}")


def open_nvml(library: str = LIBRARY) -> Nvml | None:
    """The first card, or None where there is no NVIDIA driver or no card."""
    with contextlib.suppress(OSError):
        return Nvml(ctypes.CDLL(library))
    return None
