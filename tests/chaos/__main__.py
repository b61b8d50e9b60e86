"""A live run while all that it depends on fails: cameras, broker, disk, clock, page, and the process itself.

    make chaos                                  # 30 minutes; MINUTES=3
    python -m tests.chaos --minutes 3 --seed 1 --only disk clock

`velora-live` recognises two cameras (processes, behind gateways), with page, metrics, MQTT where mosquitto
is installed, and recordings on a disk of 64 MB where one may be mounted. One fault after the other, in an
order that the seed tells; after each, pairs must come again, and a recording that was made over it must
replay. At the end all that came must be accounted for, memory and descriptors flat, and standard error tidy.
The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.verdict import Sample, grown, unaccounted, untidy
from tests.chaos.world import PASSWORD, TOKEN, Broker, Camera, Disk, Gateway, Page, stop_for
from tests.peers import LIVE, ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

START_S, CALM_S, RECOVERY_S, END_S = 300.0, 10.0, 40.0, 90.0
GAP_S = 3.0


class Chaos:
    """One run, and what is done to it.

    Args:
        options: of the command line.
        folder: for what it writes.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._rng = random.Random(options.seed)
        self.events, self.pictures = (Camera(kind, options.rate * 1e6) for kind in ("events", "pictures"))
        self._gates = Gateway(self.events), Gateway(self.pictures)
        self.broker, self.disk = Broker(folder), Disk(folder)
        self.page = Page(free_port())
        self._offset = folder / "clock"
        self.samples: list[Sample] = []
        self.problems: list[str] = []
        self.faults: dict[str, int] = {}
        self._recordings = self.replayed = 0
        self._is_over = False

    # ---- the run ----------------------------------------------------------------------------------------

    def run(self) -> int:
        """All of it; the exit code."""
        for peer in (self.events, self.pictures, self.broker):
            peer.start()
        said = self._folder / "stderr"
        with said.open("wb") as stderr, self._live(stderr) as process:
            try:
                self._await_pairs(START_S)
                time.sleep(CALM_S)
                self._disturb(process)
                self._await_pairs(RECOVERY_S)
                self._is_over = True
                process.send_signal(signal.SIGTERM)
                process.wait(END_S)
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                self.problems.append(str(error))
            finally:
                process.kill()
        self._judge(process.returncode, said.read_text(errors="replace"))
        return 1 if self.problems else 0

    def close(self) -> None:
        """End the peers."""
        for peer in (self.events, self.pictures, self.broker):
            peer.kill()
        self.disk.close()

    @contextlib.contextmanager
    def _live(self, stderr: Any) -> Iterator[subprocess.Popen[bytes]]:
        ports = [gate.port for gate in self._gates]
        given = ["--events", f"tcp://127.0.0.1:{ports[0]}", "--rgb", f"http://127.0.0.1:{ports[1]}/"]
        given += ["--sync", "host", "--threads", "1", "--quiet", "--decide", "default", "--keep", "3"]
        given += ["--serve", f"127.0.0.1:{self.page.port}", "--recordings", str(self.disk.folder)]
        given += ["--out", str(self._folder / "out.jsonl"), "--summary", str(self._folder / "summary.json")]
        given += ["--publish", self.broker.address] if self.broker.is_there else []
        with subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.live", str(self._offset), "demo", *given],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "VELORA_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
        ) as process:
            threading.Thread(target=self._sample, args=(process,), daemon=True).start()
            yield process

    def _sample(self, process: subprocess.Popen[bytes]) -> None:
        began_s = time.monotonic()
        while process.poll() is None and not self._is_over:
            with contextlib.suppress(OSError, KeyError):
                self.samples.append(Sample.of(process.pid, time.monotonic() - began_s))
            time.sleep(1)

    def _await_pairs(self, most_s: float) -> None:
        """Both cameras deliver and pairs come."""
        deadline_s, seen = time.monotonic() + most_s, None
        state: dict[str, Any] = {}
        while time.monotonic() < deadline_s:
            status, body = self.page.ask("/api/snapshot")
            state = json.loads(body) if status == 200 else {}
            cameras = {camera: it["state"] for camera, it in state.get("cameras", {}).items()}
            if cameras == {"rgb": "live", "event": "live"}:
                if seen is not None and state["pairs"] > seen and not state["missing"]:
                    return
                seen = state["pairs"]
            time.sleep(0.3)
        raise TimeoutError(f"no whole pairs within {most_s:g} s: {json.dumps(state)[:500]}")

    # ---- what is done to it -----------------------------------------------------------------------------

    def _disturb(self, process: subprocess.Popen[bytes]) -> None:
        known: dict[str, Callable[[], None]] = {
            "event camera killed": lambda: self._kill(self.events),
            "rgb camera killed": lambda: self._kill(self.pictures),
            "broker killed": lambda: self._kill(self.broker),
            "garbage": self._spoil,
            "silent event camera": lambda: self._misbehave(0, "silent", 7),
            "silent rgb camera": lambda: self._misbehave(1, "silent", 7),
            "flapping event camera": lambda: self._misbehave(0, "cut", 6),
            "dripping header": lambda: self._misbehave(0, "drip", 8),
            "disk full": self._fill,
            "clock stepped": self._step_clock,
            "process stopped": lambda: stop_for(process.pid, self._rng.uniform(2, 6)),
            "page flooded": self._flood,
            "clip saved": lambda: self._order("/api/clip"),
        }
        known = {name: act for name, act in known.items() if self._is_wanted(name)}
        until_s, names = time.monotonic() + 60 * self._options.minutes, list[str]()
        while time.monotonic() < until_s and process.poll() is None:
            if not names:
                names = self._rng.sample(list(known), len(known))
            name = names.pop()
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            folder = self._begin_recording()
            time.sleep(1)
            known[name]()
            self.faults[name] = self.faults.get(name, 0) + 1
            try:
                self._await_pairs(RECOVERY_S)
            except TimeoutError as error:
                self.problems.append(f"after {name}: {error}")
            time.sleep(GAP_S)
            self._end_recording(name, folder)

    def _is_wanted(self, name: str) -> bool:
        only = self._options.only
        return not only or any(word in name for word in only)

    def _kill(self, peer: Any) -> None:
        peer.kill()
        time.sleep(self._rng.uniform(1, 4))
        peer.start()

    def _spoil(self) -> None:
        for _ in range(3):
            self._gates[0].spoil = self._rng.randbytes(self._rng.randrange(1, 60_000))
            time.sleep(1)

    def _misbehave(self, gate: int, mode: str, seconds: float) -> None:
        self._gates[gate].mode = mode
        if mode in ("cut", "drip"):
            self._gates[gate].drop()
        time.sleep(seconds)
        self._gates[gate].mode = "pass"
        self._gates[gate].drop()

    def _fill(self) -> None:
        self.disk.fill()
        time.sleep(4)
        said = self._order("/api/record/start")
        if self.disk.is_small and not ("folder" in said or "error" in said):
            self.problems.append(f"a full disk: {said}")
        self.disk.empty()
        time.sleep(1)

    def _step_clock(self) -> None:
        self._offset.write_text(str(self._rng.choice((-86_400, -3_600, -30, 30, 3_600, 86_400))))
        time.sleep(2)
        self._order("/api/clip")

    def _flood(self) -> None:
        self.problems += self.page.flood(4)

    # ---- recordings -------------------------------------------------------------------------------------

    def _order(self, path: str) -> dict[str, Any]:
        said = self.page.order(path)
        if "\n" in str(said.get("error", "")):
            self.problems.append(f"{path}: an answer of several lines: {said}")
        return said

    def _begin_recording(self) -> Path | None:
        said = self._order("/api/record/start")
        if "folder" not in said:
            self.problems.append(f"no recording could be begun: {said}")
            return None
        return Path(said["folder"])

    def _end_recording(self, name: str, folder: Path | None) -> None:
        """End it, look whether it is whole where it should be, and replay one in four; the disk is small."""
        said = self._order("/api/record/stop")
        time.sleep(0.5)
        if folder is not None:
            self._recordings += 1
            is_filled = name == "disk full" and self.disk.is_small
            if not is_filled and not said.get("whole"):
                self.problems.append(f"the recording over {name} is not whole: {said}")
            if self._recordings % 4 == 0 or self._options.minutes <= 5:
                self._replay(folder, name)
        for other in self.disk.folder.iterdir():
            if other.is_dir():
                shutil.rmtree(other, ignore_errors=True)

    def _replay(self, folder: Path, name: str) -> None:
        """What was recorded is read to its end by another process."""
        copy = self._folder / "replayed"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        summary = self._folder / "replay.json"
        arguments = ["demo", copy, "--pace", "max", "--quiet", "--threads", "1", "--summary", summary]
        done = subprocess.run(
            [sys.executable, "-c", LIVE, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode or not json.loads(summary.read_text())["pairs"]:
            self.problems.append(f"the recording over {name} does not replay: {done.stderr[-500:]}")
        self.replayed += 1

    # ---- the end ----------------------------------------------------------------------------------------

    def _judge(self, code: int | None, said: str) -> None:
        self.said = said
        faults = sum(self.faults.values())
        if code != 0:
            self.problems.append(f"velora-live ended with {code}: {said[-1000:]}")
        summary, out = self._folder / "summary.json", self._folder / "out.jsonl"
        if summary.exists():
            self.report = json.loads(summary.read_text())
            told = [json.loads(line) for line in out.read_text().splitlines()]
            self.problems += unaccounted(self.report, sum(line.get("type") != "action" for line in told))
        else:
            self.problems.append("there is no summary")
        self.problems += grown(
            [sample for sample in self.samples if sample.s > self._began_s()] or self.samples
        )
        self.problems += untidy(said, faults, (PASSWORD, TOKEN))

    def _began_s(self) -> float:
        """After the warm-up: a sixth of the run, 20 to 120 s."""
        return min(max(self.samples[-1].s / 6, 20.0), 120.0)

    def lines(self) -> Iterator[str]:
        """What was done and found, for people."""
        yield from (f"{n:4} x {name}" for name, n in sorted(self.faults.items()))
        first, last = self.samples[len(self.samples) // 6], self.samples[-1]
        yield (
            f"memory {first.rss_mb:.0f} -> {last.rss_mb:.0f} MB, descriptors {first.descriptors} -> "
            f"{last.descriptors}, threads {first.threads} -> {last.threads}"
        )
        lines = self.said.count("\n")
        yield f"{self._recordings} recordings, {self.replayed} replayed; {lines} lines on standard error"
        if not self.disk.is_small:
            yield "the disk was not filled: a tmpfs may be mounted by root alone"
        if not self.broker.is_there:
            yield "there was no broker: .ci/install-peers"
        if report := getattr(self, "report", None):
            cameras = report["cameras"]
            yield f"{report['pairs']:,} pairs, {report['predictions']:,} predictions, outages: " + ", ".join(
                f"{name} {camera['outages']}" for name, camera in cameras.items()
            )
            yield f"events: {json.dumps(cameras['event']['events'])}"
        yield from (f"failed: {problem}" for problem in self.problems)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=0.3, help="million events a second")
    parser.add_argument("--seed", type=int, default=0, help="another one disturbs in another order")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="faults with one of these words in their name"
    )
    parser.add_argument("--said", type=Path, help="keep the run's standard error here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="velora-chaos-") as folder:
        chaos = Chaos(options, Path(folder))
        try:
            code = chaos.run()
        finally:
            chaos.close()
    if options.said is not None:
        options.said.write_text(chaos.said)
    print("\n".join(chaos.lines()))
    return code


if __name__ == "__main__":
    sys.exit(main())
