"""The limit that `velora bench --only saturation` finds beside a search by hand and a profiler.

    pip install py-spy
    python benchmarks/saturation_check.py           # ten minutes, on a machine that does nothing else
    python benchmarks/saturation_check.py --of events --step 0.1

By hand: `velora-live` itself at rates around the limit that was found, each for 12 s; a rate is kept
where its own summary tells of no drop. The profiler (py-spy, from outside) counts at the lowest failing
rate which of the runtime's threads had a core. Exit code 1 where the two limits are more than 10 % apart,
or the stages differ.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from velora_runtime.bench.live import THREADS, Cameras, LiveSettings
from velora_runtime.bench.saturation import find_highest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS, SETTLED_S, PROFILED_S = 12, 6.0, 5
APART = 0.10
LIVE = "import sys; sys.argv[0] = 'velora-live'; from velora_cli.main import live; live()"
SUMMARY = ("rgb", "events", "pairs")


def run_by_hand(model: str, settings: LiveSettings, profile: Path | None = None) -> int:
    """What velora-live says that it dropped at a rate."""
    with Cameras(settings) as cameras, tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        command = [sys.executable, "-c", LIVE, model, "--events", cameras.events, "--rgb", cameras.rgb]
        command += ["--sync", "host", "--quiet", "--duration", str(SECONDS), "--summary", str(summary)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            if profile is not None:
                next((line for line in process.stderr if "synchronised" in line), None)
                time.sleep(SETTLED_S)
                record(process.pid, profile)
            _, error = process.communicate()
        if process.returncode:
            raise SystemExit(f"velora-live failed: {error.strip()}")
        dropped = json.loads(summary.read_text())["dropped"]
    return sum(dropped[kind] for kind in SUMMARY)


def record(pid: int, out: Path) -> None:
    """Samples of a process's threads by py-spy, for some seconds."""
    command = [
        "py-spy",
        "record",
        "-p",
        str(pid),
        "-d",
        str(PROFILED_S),
        "-r",
        "100",
        "--threads",
        "-f",
        "raw",
    ]
    subprocess.run([*command, "-o", str(out)], check=True, capture_output=True)


def busiest(profile: Path) -> tuple[str, Counter[str]]:
    """The stage whose thread was seen at work most often, and the samples of each stage."""
    counts: Counter[str] = Counter()
    for line in profile.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        found = re.match(r"thread \(\d+\): ([^;]+)", stack)
        name = "" if found is None else found[1]
        stages = [
            title
            for prefix, title in {**THREADS, "inference": "inference"}.items()
            if name.startswith(prefix)
        ]
        counts.update({stage: int(samples) for stage in stages})
    return (counts.most_common(1)[0][0] if counts else "nothing"), counts


def rates(around: float, step: float) -> Iterator[float]:
    """From well below a rate to well above it."""
    rate = around * 0.7
    while rate < around * 1.4:
        yield rate
        rate *= 1 + step


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--of", choices=("fps", "events"), default="fps")
    parser.add_argument("--event-rate", type=float, default=2e6)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--step", type=float, default=0.05, help="from one rate to the next, by hand")
    given = parser.parse_args()
    settings = LiveSettings(event_rate_hz=given.event_rate, fps=given.fps, seconds=8.0, warm_up_s=3.0, runs=1)
    limit = find_highest(given.of, given.model, settings, print)
    if limit.highest is None or limit.lowest_failing is None:
        raise SystemExit(f"no limit was found: {limit}")

    def at(rate: float) -> LiveSettings:
        return replace(settings, fps=rate) if given.of == "fps" else replace(settings, event_rate_hz=rate)

    by_hand = 0.0
    for rate in rates(limit.highest, given.step):
        dropped = run_by_hand(given.model, at(rate))
        print(f"  by hand {rate:.5g}: {dropped} dropped")
        if dropped:
            break
        by_hand = rate
    apart = abs(limit.highest / by_hand - 1) if by_hand else 1.0
    print(f"| | {given.of} |\n|---|---|\n| by search | {limit.highest:.5g} |\n| by hand | {by_hand:.5g} |")
    print(f"\n{100 * apart:.1f} % apart; the search names: {limit.stage} ({limit.because})")
    agrees = True
    if shutil.which("py-spy"):
        with tempfile.TemporaryDirectory() as folder:
            profile = Path(folder) / "profile.txt"
            run_by_hand(given.model, at(1.1 * limit.lowest_failing), profile)
            stage, counts = busiest(profile)
        agrees = str(limit.stage).startswith(stage)
        print(f"the profiler names: {stage} ({dict(counts.most_common())})")
    else:
        print("py-spy is not installed: no profiler was asked")
    return 0 if apart <= APART and agrees else 1


if __name__ == "__main__":
    sys.exit(main())
