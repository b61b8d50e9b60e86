"""Hours in minutes: does velora-live stay as it is? Memory, threads, drops and its own time, at 10 Mev/s.

Run it on a machine that does nothing else:
    python benchmarks/soak.py --minutes 20 --json soak.json
    python benchmarks/soak.py --minutes 2 --record          # while it records, too

Two cameras in a process of their own (`velora_runtime.bench.cameras`) send raw EVT3 over TCP and pictures
over HTTP in real time; `velora-live` recognises them as it would any, with the page served and its metrics
read once a second. Memory and threads are what /proc says. Host time is what a pair costs outside the
engine: packing, from the metrics, and what the inference thread computes beside the engine's calls
(`soak_run.py`).

A virtual machine's host takes cores away for others, which no program makes up for; so what depends on
speed is told for all of the run and for the minutes in which it took less than 2 % of them.

The exit code is 1 where memory grows by 1 MB a minute or more after the warm-up, a thread is left over,
anything was dropped, host time reaches 2 ms a pair, or the cameras were held up.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.doctor.host import system

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).parent
ASSETS = HERE.parent / "velora_edge" / "assets"
MOST_GROWTH_MB_MIN = 1.0
MOST_HOST_MS = 2.0
MOST_LATE_S = 1.0
MOST_TAKEN = 0.02


@dataclass(frozen=True)
class Sample:
    """The process at one moment.

    Attributes:
        s: since the first sample.
        rss_mb: resident memory.
        anon_mb: of it, memory that no file stands behind.
        threads: that it has.
        taken_s: CPU time that a virtual machine's host has taken away so far.
        dropped: frames and pairs so far.
        pairs: so far.
        pack_ms: that packing took them, in all.
    """

    s: float
    rss_mb: float
    anon_mb: float
    threads: int
    taken_s: float = 0.0
    dropped: float = 0.0
    pairs: float = 0.0
    pack_ms: float = 0.0


@dataclass(frozen=True)
class Minutes:
    """What some minutes of a run add up to.

    Attributes:
        n: how many they are.
        of: how many the run had after the warm-up.
        pairs: in them.
        dropped: frames and pairs.
        pack_ms: a pair.
    """

    n: int
    of: int
    pairs: int
    dropped: int
    pack_ms: float


@dataclass(frozen=True)
class Verdict:
    """What the samples and the summary say.

    Attributes:
        growth_mb_min: slope of resident memory after the warm-up, MB a minute.
        rss_mb: at the end.
        threads_after_warm_up: the most that there were in the first quarter after it.
        threads_at_end: the fewest that there were in the last quarter.
        dropped: frames, pairs, events and outputs, by kind.
        host_ms: outside the engine, a pair.
        late_s: by how much the cameras were held up.
    """

    growth_mb_min: float
    rss_mb: float
    threads_after_warm_up: int
    threads_at_end: int
    dropped: dict[str, int]
    host_ms: float
    late_s: float

    def failures(self) -> list[str]:
        """What is not as it should be, one sentence each."""
        found = []
        if self.growth_mb_min >= MOST_GROWTH_MB_MIN:
            found.append(f"memory grows by {self.growth_mb_min:.2f} MB a minute")
        if self.threads_at_end > self.threads_after_warm_up:
            found.append(f"{self.threads_at_end - self.threads_after_warm_up} threads are left over")
        found += [f"{n:,} dropped: {kind}" for kind, n in self.dropped.items() if n]
        if self.host_ms >= MOST_HOST_MS:
            found.append(f"a pair takes {self.host_ms:.2f} ms outside the engine")
        if self.late_s >= MOST_LATE_S:
            found.append(f"the cameras were held up by {self.late_s:.1f} s")
        return found


def growth(samples: Sequence[Sample]) -> float:
    """Slope of resident memory, MB a minute: between the medians of the first and the last quarter.

    Medians, because a picture that is being compressed at the moment of a sample is no growth.
    """
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    rise_mb = np.median([x.rss_mb for x in last]) - np.median([x.rss_mb for x in first])
    minutes = (np.median([x.s for x in last]) - np.median([x.s for x in first])) / 60
    return float(rise_mb / minutes) if minutes else 0.0


def own_minutes(samples: Sequence[Sample], cores: int) -> Minutes:
    """The minutes in which a virtual machine's host took less than 2 % of its cores; elsewhere, all."""
    edges = list(samples[:1])
    for sample in samples:
        if sample.s >= edges[-1].s + 60:
            edges.append(sample)
    spans = list(itertools.pairwise(edges))
    own = [(a, b) for a, b in spans if b.taken_s - a.taken_s < MOST_TAKEN * cores * (b.s - a.s)]
    pairs = sum(b.pairs - a.pairs for a, b in own)
    dropped = sum(b.dropped - a.dropped for a, b in own)
    pack_ms = sum(b.pack_ms - a.pack_ms for a, b in own) / max(pairs, 1)
    return Minutes(len(own), len(spans), round(pairs), round(dropped), pack_ms)


def after(samples: Sequence[Sample], warm_up_s: float) -> list[Sample]:
    """Those after the warm-up; the last one at least."""
    return [sample for sample in samples if sample.s >= warm_up_s] or list(samples[-1:])


def judge(
    samples: Sequence[Sample], warm_up_s: float, summary: dict[str, Any], host_ms: float, late_s: float
) -> Verdict:
    """The verdict on a run.

    Args:
        samples: of the whole run, in order.
        warm_up_s: what comes before is left out.
        summary: as `--summary` has it.
        host_ms: outside the engine, a pair.
        late_s: by how much the cameras were held up.
    """
    steady = after(samples, warm_up_s)
    quarter = max(1, len(steady) // 4)
    dropped = summary["dropped"]
    recorded = [n for one in summary.get("recordings", ()) for n in one["dropped"].values()]
    return Verdict(
        growth_mb_min=growth(steady),
        rss_mb=steady[-1].rss_mb,
        threads_after_warm_up=max(sample.threads for sample in steady[:quarter]),
        threads_at_end=min(sample.threads for sample in steady[-quarter:]),
        dropped={
            "frames": dropped["rgb"] + summary["frames"]["late"],
            "pairs": dropped["pairs"],
            "events": dropped["events"] + sum(_lost_events(summary).values()),
            "outputs": sum(dropped["sinks"].values()),
            "recorded": sum(recorded),
        },
        host_ms=host_ms,
        late_s=late_s,
    )


def _lost_events(summary: dict[str, Any]) -> dict[str, int]:
    events = summary["cameras"].get("event", {}).get("events", {})
    return dict(events.get("dropped", {}))


def look_at(pid: int, began_s: float, metrics: str) -> Sample:
    """What /proc and its metrics say of a process now."""
    text = Path(f"/proc/{pid}/status").read_text()
    said = {key: int(value) for key, value in re.findall(r"(VmRSS|RssAnon|Threads):\s+(\d+)", text)}
    now_s = round(time.monotonic() - began_s, 2)
    memory_mb = said["VmRSS"] / 1024, said["RssAnon"] / 1024
    ms, pairs = pack_ms(metrics)
    return Sample(now_s, *memory_mb, said["Threads"], taken_s(), dropped_so_far(metrics), pairs, ms)


@contextlib.contextmanager
def cameras(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The two cameras in their process; gives ports and rate."""
    command = [sys.executable, "-m", "velora_runtime.bench.cameras", "--events", str(options.events)]
    command += ["--video", str(options.video), "--rate", str(options.rate * 1e6), "--size", options.size]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit("error: the cameras did not start")
        try:
            yield json.loads(line)
        finally:
            process.terminate()


def ask(port: int, path: str) -> str:
    """What a server on this machine answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def taken_s() -> float:
    """CPU time that a virtual machine's host has given to others since it was started, seconds."""
    cpu = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(cpu[8]) / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, seconds."""
    said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(said[11]) + int(said[12])) / os.sysconf("SC_CLK_TCK")


def pack_ms(metrics: str) -> tuple[float, float]:
    """Milliseconds that packing took in all, and pairs, by the text of /metrics."""
    found = dict(re.findall(r'velora_stage_latency_seconds_(sum|count)\{stage="pack"\} (\S+)', metrics))
    return 1000 * float(found.get("sum", 0)), float(found.get("count", 0))


def dropped_so_far(metrics: str) -> float:
    """Frames and pairs that were dropped, by the text of /metrics."""
    return sum(map(float, re.findall(r'velora_dropped_total{kind="(?:frame|pair)".*} (\S+)', metrics)))


class Run:
    """One run of velora-live, from its start to its summary.

    Args:
        options: of the command line.
        ports: of the cameras.
        folder: for what it writes.
    """

    def __init__(self, options: argparse.Namespace, ports: dict[str, Any], folder: Path) -> None:
        self._options, self._ports, self._folder = options, ports, folder
        self.samples: list[Sample] = []
        self._late_s = self.cores = 0.0
        self.notes: list[str] = []

    def follow(self) -> Verdict:
        """Run to the end and judge."""
        result, summary = self._folder / "engine.json", self._folder / "summary.json"
        environment = {**os.environ, "VELORA_SOAK_RESULT": str(result)}
        command = [sys.executable, str(HERE / "soak_run.py"), *self._arguments(summary)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            for line in process.stderr:
                self.notes.append(line.rstrip())
                if found := re.search(r"watch at http://127.0.0.1:(\d+)", line):
                    threading.Thread(target=self._watch, args=(process, int(found[1]))).start()
        if process.returncode:
            sys.exit("\n".join(["error: velora-live failed", *self.notes]))
        said, self.engine = json.loads(summary.read_text()), json.loads(result.read_text())
        self.summary = said
        host_ms = self.pack_ms + self.engine["outside_ms"]
        return judge(self.samples, self._options.warm_up, said, host_ms, self._late_s)

    @property
    def steady(self) -> list[Sample]:
        """After the warm-up."""
        return after(self.samples, self._options.warm_up)

    @property
    def pack_ms(self) -> float:
        """What packing took a pair, after the warm-up."""
        first, last = self.steady[0], self.steady[-1]
        return (last.pack_ms - first.pack_ms) / max(last.pairs - first.pairs, 1)

    @property
    def taken(self) -> float:
        """Cores that a virtual machine's host took away, after the warm-up."""
        first, last = self.steady[0], self.steady[-1]
        return (last.taken_s - first.taken_s) / max(last.s - first.s, 1.0)

    def _arguments(self, summary: Path) -> list[str]:
        seconds = 60 * self._options.minutes
        host = "127.0.0.1"
        given = ["--events", f"tcp://{host}:{self._ports['events']}"]
        given += ["--rgb", f"http://{host}:{self._ports['pictures']}/", "--sync", "host"]
        given += ["--serve", f"{host}:0", "--recordings", str(self._folder), "--quiet"]
        given += ["--backend", "timed", "--threads", str(self._options.threads)]
        given += ["--out", str(self._folder / "out.jsonl"), "--decide", "default"]
        given += ["--duration", str(seconds), "--summary", str(summary)]
        if self._options.record:
            given += ["--record", str(self._folder / "recording")]
        if self._options.keep is not None:
            given += ["--keep", str(self._options.keep)]
        return [self._options.model, *given]

    def _watch(self, process: subprocess.Popen[str], port: int) -> None:
        began_s = time.monotonic()
        while process.poll() is None:
            with contextlib.suppress(OSError, KeyError):  # it is just ending
                sample = look_at(process.pid, began_s, ask(port, "/metrics"))
                state = json.loads(ask(self._ports["pictures"], "/state"))
                self.samples.append(sample)
                self.cores = cpu_s(process.pid) / max(sample.s, 1.0)
                if sample.s >= self._options.warm_up:
                    newest = [(own + held) / 1e3 for _, own, held in state["lateness"][-2:]]
                    self._late_s = max(self._late_s, *newest)
            time.sleep(self._options.every)


def lines(run: Run, verdict: Verdict, rate_hz: float) -> Iterator[str]:
    """The table, for people."""
    latency, engine = run.summary["latency_ms"], run.engine
    threads = verdict.threads_after_warm_up, verdict.threads_at_end
    host = f"packing {run.pack_ms:.2f}, beside the engine {engine['outside_ms']:.2f}"
    yield f"{rate_hz / 1e6:.1f} Mev/s, {run.summary['pairs']:,} pairs, {engine['engine']}"
    yield "| | |\n|---|---|"
    yield f"| memory at the end | {verdict.rss_mb:.0f} MB |"
    yield f"| growth after the warm-up | {verdict.growth_mb_min:+.2f} MB a minute |"
    yield f"| threads after the warm-up, at the end | {threads[0]}, {threads[1]} |"
    yield f"| dropped | {', '.join(f'{n:,} {kind}' for kind, n in verdict.dropped.items())} |"
    yield f"| host time a pair | {verdict.host_ms:.2f} ms: {host} |"
    yield f"| engine a pair | {engine['engine_ms']:.2f} ms |"
    yield f"| packing p50, p99 | {latency['pack']['p50']:.2f}, {latency['pack']['p99']:.2f} ms |"
    yield f"| total p50, p99 | {latency['total']['p50']:.2f}, {latency['total']['p99']:.2f} ms |"
    yield f"| cores in use, and taken by the virtual machine's host | {run.cores:.2f}, {run.taken:.2f} |"
    yield f"| cameras held up by | {verdict.late_s * 1000:.0f} ms |"
    own = own_minutes(run.steady, os.cpu_count() or 1)
    host_ms = own.pack_ms + engine["outside_ms"]
    told = f"{own.pairs:,} pairs, {own.dropped} dropped, host time {host_ms:.2f} ms"
    yield f"| minutes with less than 2 % of the cores taken | {own.n} of {own.of}: {told} |"


def read_options(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the user asked for."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, metavar="S", help="default: a fifth, 10 to 120 s")
    parser.add_argument("--rate", type=float, default=10.0, help="million events a second")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--events", type=Path, default=ASSETS / "demo.raw", help="what is repeated")
    parser.add_argument("--video", type=Path, default=ASSETS / "demo.mp4")
    parser.add_argument("--size", default="640x480", help="of the pictures")
    parser.add_argument("--threads", type=int, default=2, help="of the model; the rest is the cameras'")
    parser.add_argument("--record", action="store_true", help="record all the while")
    parser.add_argument("--keep", type=float, metavar="S", help="as velora-live has it")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="from sample to sample")
    parser.add_argument("--json", type=Path, help="write verdict and samples to this file")
    options = parser.parse_args(given)
    if options.warm_up is None:
        options.warm_up = min(max(12 * options.minutes, 10.0), 120.0)
    return options


def main() -> int:
    options = read_options()
    with cameras(options) as ports, tempfile.TemporaryDirectory() as folder:
        run = Run(options, ports, Path(folder))
        verdict = run.follow()
    print("\n".join(lines(run, verdict, ports["rate_hz"])))
    failures = verdict.failures()
    if not run.engine["clips"]:
        failures.append("too few predictions to judge by")
    for failure in failures:
        print(f"failed: {failure}")
    if options.json:
        said = {"machine": system(), "rate_hz": ports["rate_hz"], "verdict": asdict(verdict)}
        said |= {"failures": failures, "engine": run.engine, "summary": run.summary, "notes": run.notes}
        said |= {"cores": run.cores, "taken_cores": run.taken}
        said["samples"] = [asdict(sample) for sample in run.samples]
        options.json.write_text(json.dumps(said, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
