"""Spoilt files, texts and requests of every kind, read for as long as you like.

    make fuzz                                      # everything, 10 minutes; MINUTES=300 for hours
    python -m tests.fuzz evt3 web --seconds 600 --seed 7
    python -m tests.fuzz --again fuzz-failures/evt3-1a2b3c4d.bin
    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.fuzz    # kernels check every index

Where atheris is installed, files that reach new lines of ours are kept in `fuzz-corpus/` and changed
further (`tests.fuzz.guided`); elsewhere, or with --blind, good files are spoilt at random. Each file is read
by a worker process. An error that is not ours, a crash, one that takes longer than 30 s or more than 4 GB, or
a write beside an array is a failure: the file is kept, with what happened.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import re
import resource
import select
import subprocess
import sys
import time
import traceback
import zlib
from pathlib import Path

from tests.fuzz import guided
from tests.fuzz.registry import load_targets, names
from tests.fuzz.spoil import spoil

PATIENCE_S = 30.0
START_S = 600.0
"""Until the first file: kernels may have to be compiled."""
MOST_MEMORY = 4 << 30
MOST_FOUND = 5
"""Failures of one target, after which it is left alone: it is broken as it is."""


def make_case(name: str, seed: int, number: int) -> bytes:
    """The file of that number, always the same."""
    target = load_targets()[name]
    rng = random.Random(zlib.crc32(f"{name} {seed} {number}".encode()))
    data = rng.choice(target.samples())
    return spoil(data, rng, target.header_bytes(data))


def work(name: str, seed: int, first: int, folder: Path) -> None:
    """Read file after file, and say so on standard output; never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, target = folder / f"{name}-{seed}.current", load_targets()[name]
    for data in target.samples():
        path.write_bytes(data)
        target.warm_up(path, random.Random(0))
    for number in range(first, 1 << 60):
        data = make_case(name, seed, number)
        path.write_bytes(data)
        print("case", number, flush=True)
        try:
            print(target.run(path), flush=True)
        except BaseException:
            keep(folder, name, data, traceback.format_exc())
            print("failed", flush=True)


def keep(folder: Path, name: str, data: bytes, what: str) -> None:
    """Keep a file that went wrong."""
    kept = f"{name}-{zlib.crc32(data):08x}"
    (folder / f"{kept}.bin").write_bytes(data)
    (folder / f"{kept}.txt").write_text(what)


class Worker:
    """The process that reads, started again when it dies."""

    def __init__(self, name: str, seed: int, folder: Path) -> None:
        self.name, self.seed, self.folder = name, seed, folder
        self.number = -1
        self._start()

    def next(self) -> str:
        """What became of the next file."""
        line = self._read_line()
        if line.startswith("case"):
            self.number = int(line.split()[1])
            self._patience_s = PATIENCE_S
            line = self._read_line()
        if line:
            return line
        code = self._stop()
        data = make_case(self.name, self.seed, max(self.number, 0))
        what = f"the reading process ended with {code}, or took more than {self._patience_s:g} s"
        keep(self.folder, self.name, data, what)
        self._start()
        return "failed"

    def close(self) -> None:
        """End the process."""
        self._stop()
        (self.folder / f"{self.name}-{self.seed}.current").unlink(missing_ok=True)

    def _start(self) -> None:
        arguments = [self.name, str(self.seed), str(self.number + 1), str(self.folder)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", "--work", *arguments], stdout=subprocess.PIPE
        )
        self._patience_s, self._rest = START_S, b""

    def _stop(self) -> int:
        self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def _read_line(self) -> str:
        """The process's next line; empty if it is dead, or silent for too long."""
        assert self._process.stdout is not None
        end = time.monotonic() + self._patience_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            more = self._process.stdout.read1(1 << 16) if ready else b""
            if not more:
                return ""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


def fuzz_blindly(name: str, seconds: float, seed: int, folder: Path) -> collections.Counter[str]:
    """Read files of one kind that were spoilt at random; how many came to which end."""
    ends: collections.Counter[str] = collections.Counter()
    worker = Worker(name, seed, folder)
    with contextlib.suppress(KeyboardInterrupt):
        ends[worker.next()] += 1  # after everything is compiled
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ends[worker.next()] += 1
    worker.close()
    return ends


def fuzz_guided(name: str, seconds: float, seed: int, folder: Path, corpus: Path) -> collections.Counter[str]:
    """Let atheris look for files of one kind; how many were read, and how many failed."""
    ends: collections.Counter[str] = collections.Counter()
    end = time.monotonic() + seconds
    while (left_s := round(end - time.monotonic())) > 0 and ends["failed"] < MOST_FOUND:
        arguments = [
            "--seconds",
            left_s,
            "--corpus",
            corpus / name,
            "--keep",
            folder,
            "--seed",
            seed + ends["failed"],
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.guided", name, *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        count = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        ends["read"] += int(count[1]) if count else 0
        if done.returncode:
            ends["failed"] += 1
            if count is None:
                (folder / f"{name}-start.txt").write_text(done.stdout + done.stderr)
                break
    return ends


def again(path: Path) -> int:
    """Read one file and say what happens."""
    print(load_targets()[path.name.partition("-")[0]].run(path))
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        name, seed, first, folder = sys.argv[2:6]
        work(name, int(seed), int(first), Path(folder))
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--seconds", type=float, default=600, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other files")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that fail")
    parser.add_argument(
        "--corpus", type=Path, default=Path("fuzz-corpus"), help="folder for files of interest"
    )
    parser.add_argument(
        "--blind", action="store_true", help="spoil at random, also where atheris is installed"
    )
    parser.add_argument("--again", type=Path, help="read one file and say what happens")
    options = parser.parse_args()
    if options.again is not None:
        return again(options.again)
    chosen = options.targets or names()
    if unknown := set(chosen) - set(names()):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    options.keep.mkdir(parents=True, exist_ok=True)
    is_guided = guided.is_there() and not options.blind
    print(
        "guided by coverage" if is_guided else "blind: pip install atheris to be guided by coverage",
        flush=True,
    )
    failed = 0
    for name in chosen:
        seconds = options.seconds / len(chosen)
        if is_guided:
            ends = fuzz_guided(name, seconds, options.seed, options.keep, options.corpus)
        else:
            ends = fuzz_blindly(name, seconds, options.seed, options.keep)
        failed += ends["failed"]
        print(f"{name:11} {', '.join(f'{n:,} {end}' for end, n in sorted(ends.items()))}", flush=True)
    if not failed and not any(options.keep.iterdir()):
        options.keep.rmdir()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
