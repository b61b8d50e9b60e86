"""Meters that sample in a thread: power (a Jetson's INA3221, NVML, RAPL), clocks, heat, and load."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from velora_edge.doctor.host import read_text
from velora_runtime.bench.figures import Power, Rail
from velora_runtime.bench.machine import ROOT, read_clocks, temperatures, throttling
from velora_runtime.bench.result import During

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from velora_runtime.bench.machine import Nvml

POWER_EVERY_S, LOAD_EVERY_S = 0.1, 0.2
TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that hold all others, newest boards first; a board without one is the sum of its rails."""
SUM_CHANNEL = 7
"""What the driver of the INA3221 calls the sum of its shunts: no rail."""

_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 1, 2, 3, 6, 7, 8
"""Fields of the first line of /proc/stat (proc(5))."""


class Sensor(Protocol):
    """Something that tells power.

    Attributes:
        name: of the rail, card or package.
        source: ina3221, nvml or rapl.
        is_total: energy is told by it.
    """

    name: str
    source: str
    is_total: bool

    def joules(self, now_s: float) -> float | None:
        """Energy since some moment, at `now_s` of a steady clock; None where it does not tell now."""


class RailSensor:
    """One channel of an INA3221: millivolts times milliamperes, added up between reads."""

    source = "ina3221"

    def __init__(self, folder: Path, channel: str, name: str) -> None:
        self.name, self.is_total = name, False
        self._voltage = folder / f"in{channel}_input"
        self._current = folder / f"curr{channel}_input"
        self._total = _Integral(self._watts)

    def joules(self, now_s: float) -> float | None:
        """See `Sensor.joules`."""
        return self._total.at(now_s)

    def _watts(self) -> float | None:
        millivolts, milliamperes = read_text(self._voltage), read_text(self._current)
        if not (millivolts.isdigit() and milliamperes.lstrip("-").isdigit()):
            return None
        return int(millivolts) * int(milliamperes) / 1e6


class NvmlSensor:
    """An NVIDIA card: its own counter of energy, or its power added up."""

    source, is_total = "nvml", True

    def __init__(self, nvml: Nvml) -> None:
        self.name = nvml.name
        self._nvml = nvml
        self._has_counter = nvml.joules() is not None
        self._total = _Integral(nvml.watts)

    def joules(self, now_s: float) -> float | None:
        """See `Sensor.joules`."""
        return self._nvml.joules() if self._has_counter else self._total.at(now_s)


class RaplSensor:
    """A package of an x86 processor: a counter in microjoules that begins again."""

    source, is_total = "rapl", True

    def __init__(self, folder: Path) -> None:
        self.name = read_text(folder / "name")
        self._counter = folder / "energy_uj"
        self._range = int(read_text(folder / "max_energy_range_uj") or 0)
        self._last: int | None = None
        self._joules = 0.0

    def joules(self, now_s: float) -> float | None:
        """See `Sensor.joules`."""
        text = read_text(self._counter)
        if not text.isdigit():
            return None
        now, last = int(text), self._last
        self._last = now
        if last is not None:
            self._joules += ((now - last) % self._range if self._range else max(now - last, 0)) / 1e6
        return self._joules


class _Integral:
    """Power added up by the trapezoidal rule."""

    def __init__(self, watts: Callable[[], float | None]) -> None:
        self._watts = watts
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    def at(self, now_s: float) -> float | None:
        watts = self._watts()
        if watts is None:
            return None
        if self._last is not None:
            self._joules += (watts + self._last[1]) / 2 * (now_s - self._last[0])
        self._last = (now_s, watts)
        return self._joules


def find_sensors(root: Path = ROOT, nvml: Nvml | None = None) -> tuple[list[Sensor], str | None]:
    """The machine's sensors, and why there are none.

    A Jetson's rails hold its GPU too: where there are any, NVML's figure is not added to them.
    """
    rails = _rails(root)
    if rails:
        return list(rails), None
    found: list[Sensor] = [] if nvml is None or nvml.watts() is None else [NvmlSensor(nvml)]
    packages = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [folder for folder in packages if folder.name.count(":") == 1]
    readable = [folder for folder in packages if read_text(folder / "energy_uj").isdigit()]
    found += [RaplSensor(folder) for folder in readable]
    if found:
        return found, None
    if packages:
        return [], "RAPL is for root alone: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    return [], "no sensor of power: no INA3221, no NVML, no RAPL (a virtual machine has none)"


def _rails(root: Path) -> list[RailSensor]:
    found: list[RailSensor] = []
    for name in sorted((root / "sys/bus/i2c/devices").glob("*/name")):
        if "ina3221" not in read_text(name):
            continue
        for label in sorted(name.parent.glob("hwmon/hwmon*/in*_label")):
            channel = re.sub(r"\D", "", label.name)
            text = read_text(label)
            if text and text != "NC" and int(channel) != SUM_CHANNEL and "sum" not in text.lower():
                found.append(RailSensor(label.parent, channel, text))
    totals = [rail for rail in found if rail.name in TOTALS]
    for rail in totals[:1] or found:
        rail.is_total = True
    return found


@dataclass(frozen=True, slots=True)
class _Sample:
    s: float
    joules: tuple[float | None, ...]


class PowerMeter:
    """Samples power, clocks and temperatures between `with` and its end.

    Args:
        sensors: of power.
        root: of the file system.
        nvml: the card, or None.
        every_s: from sample to sample.
    """

    def __init__(
        self,
        sensors: Sequence[Sensor],
        root: Path = ROOT,
        nvml: Nvml | None = None,
        every_s: float = POWER_EVERY_S,
    ) -> None:
        self._sensors, self._root, self._nvml, self._every_s = sensors, root, nvml, every_s
        self._samples: list[_Sample] = []
        self._clocks: dict[str, tuple[int, int]] = {}
        self._throttled: dict[str, int] = {}
        self._hottest_c: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="power", daemon=True)

    def __enter__(self) -> PowerMeter:
        self.sample(time.monotonic())
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.sample(time.monotonic())

    def sample(self, now_s: float) -> None:
        """Take a sample."""
        self._samples.append(_Sample(now_s, tuple(sensor.joules(now_s) for sensor in self._sensors)))
        for clock in read_clocks(self._root, self._nvml):
            if clock.now_mhz is not None:
                low, high = self._clocks.get(clock.name, (clock.now_mhz, clock.now_mhz))
                self._clocks[clock.name] = min(low, clock.now_mhz), max(high, clock.now_mhz)
        for name, count in throttling(self._root, self._nvml).items():
            self._throttled[name] = max(count, self._throttled.get(name, 0))
        degrees = temperatures(self._root, self._nvml).values()
        before_c = () if self._hottest_c is None else (self._hottest_c,)
        self._hottest_c = max((*degrees, *before_c), default=None)

    def watts(self, stretches: Sequence[tuple[float, float]] | None = None) -> list[float]:
        """Mean power by sensor; 0 where it never told.

        Args:
            stretches: from when to when it counts, seconds of CLOCK_MONOTONIC; None: all the time.
        """
        counted = stretches or [(0.0, float("inf"))]
        return [self._mean(place, counted) for place in range(len(self._sensors))]

    @property
    def during(self) -> During:
        """What was seen of clocks and temperatures."""
        return During(
            samples=len(self._samples),
            hottest_c=self._hottest_c,
            clocks_mhz=dict(self._clocks),
            throttled=dict(self._throttled),
        )

    def _mean(self, place: int, stretches: Sequence[tuple[float, float]]) -> float:
        joules = seconds = 0.0
        for first_s, last_s in stretches:
            told = [
                (one.s, value)
                for one in self._samples
                if first_s <= one.s <= last_s and (value := one.joules[place]) is not None
            ]
            if len(told) > 1:
                joules += told[-1][1] - told[0][1]
                seconds += told[-1][0] - told[0][0]
        return joules / seconds if seconds else 0.0

    def _work(self) -> None:
        while not self._stop.wait(self._every_s):
            self.sample(time.monotonic())


def energy(
    sensors: Sequence[Sensor],
    baseline_w: Sequence[float],
    during_w: Sequence[float],
    decisions_hz: float,
    why_none: str | None,
) -> Power:
    """Energy a decision, with and without what the machine takes when it does nothing.

    Args:
        sensors: in the order of the next two.
        baseline_w: mean power before.
        during_w: mean power while decisions were made.
        decisions_hz: decisions a second meanwhile.
        why_none: why there are no sensors.
    """
    rails = [
        Rail(
            name=sensor.name,
            source=sensor.source,
            baseline_w=round(before, 3),
            during_w=round(during, 3),
            is_total=sensor.is_total,
        )
        for sensor, before, during in zip(sensors, baseline_w, during_w, strict=True)
    ]
    totals = [rail for rail in rails if rail.is_total]
    if not totals or not decisions_hz:
        return Power(rails=rails, mj_per_decision=None, total_mj_per_decision=None, why_none=why_none)
    whole_w = sum(rail.during_w for rail in totals)
    above_w = whole_w - sum(rail.baseline_w for rail in totals)
    return Power(
        rails=rails,
        mj_per_decision=round(above_w / decisions_hz * 1e3, 3),
        total_mj_per_decision=round(whole_w / decisions_hz * 1e3, 3),
        why_none=None,
    )


@dataclass(frozen=True, slots=True)
class Load:
    """Cores that were busy, on average.

    Attributes:
        cores: by process of ours.
        others: by all other processes; None where /proc does not tell.
        taken: by a virtual machine's host, for other machines; None likewise.
    """

    cores: Mapping[str, float] = field(default_factory=dict)
    others: float | None = None
    taken: float | None = None


@dataclass(frozen=True, slots=True)
class _LoadSample:
    ns: int
    busy_s: float
    taken_s: float
    ours_s: dict[str, float]


class LoadMeter:
    """Samples five times a second in a thread of its own, between `with` and its end.

    Args:
        processes: of ours, by name; the one that measures is added as `bench`.
        proc: where the kernel tells.
    """

    def __init__(self, processes: Mapping[str, int], proc: Path = Path("/proc")) -> None:
        self._processes, self._proc = {**processes, "bench": os.getpid()}, proc
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._samples: list[_LoadSample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)

    def __enter__(self) -> LoadMeter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        """Take a sample now; does nothing where /proc does not tell."""
        try:
            stat = (self._proc / "stat").read_text().splitlines()[0].split()
        except OSError:
            return
        busy = sum(int(stat[at]) for at in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ))
        before = self._samples[-1].ours_s if self._samples else {}
        ours = {name: self._cpu_s(pid, before.get(name, 0.0)) for name, pid in self._processes.items()}
        now_ns = time.monotonic_ns()
        self._samples.append(_LoadSample(now_ns, busy * self._tick_s, int(stat[_STEAL]) * self._tick_s, ours))

    def between(self, first_ns: int, last_ns: int) -> Load:
        """The load between two times of CLOCK_MONOTONIC, by the samples within."""
        within = [sample for sample in self._samples if first_ns <= sample.ns <= last_ns]
        if len(within) < 2:
            return Load()
        first, last = within[0], within[-1]
        seconds = (last.ns - first.ns) / 1e9
        cores = {name: (last.ours_s[name] - first.ours_s[name]) / seconds for name in self._processes}
        others = (last.busy_s - first.busy_s) / seconds - sum(cores.values())
        return Load(
            {name: round(value, 3) for name, value in cores.items()},
            round(max(others, 0.0), 3),
            round((last.taken_s - first.taken_s) / seconds, 3),
        )

    def _work(self) -> None:
        while not self._stop.wait(LOAD_EVERY_S):
            self.sample()

    def _cpu_s(self, pid: int, before_s: float) -> float:
        """CPU time of a process so far; what it was where it has ended."""
        try:
            fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return before_s
        return (int(fields[11]) + int(fields[12])) * self._tick_s
