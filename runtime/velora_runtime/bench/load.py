"""How busy the machine was, and by whom: processes of ours, others, a virtual machine's host."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE_S = 0.2
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 1, 2, 3, 6, 7, 8
"""Fields of the first line of /proc/stat (proc(5))."""


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
class _Sample:
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
        self._samples: list[_Sample] = []
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
        self._samples.append(_Sample(now_ns, busy * self._tick_s, int(stat[_STEAL]) * self._tick_s, ours))

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
        while not self._stop.wait(SAMPLE_S):
            self.sample()

    def _cpu_s(self, pid: int, before_s: float) -> float:
        """CPU time of a process so far; what it was where it has ended."""
        try:
            fields = (self._proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return before_s
        return (int(fields[11]) + int(fields[12])) * self._tick_s
