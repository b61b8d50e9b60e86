"""Spoilt files of every format, read for as long as you like.

    python -m tests.fuzz                    # all formats, a minute
    python -m tests.fuzz evt3 hdf5 --seconds 600 --seed 7
    python -m tests.fuzz --again fuzz-failures/evt3-0-1234.bin
    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.fuzz    # kernels check every index

Each file is read by a worker process. An error that is not ours, a crash, one that takes longer than 30 s or
more than 4 GB, or a write beside an array is a failure: the file is kept, with what happened.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import resource
import select
import subprocess
import sys
import time
import traceback
import zlib
from pathlib import Path

from tests.fuzz.check import check_file, warm_up
from tests.fuzz.samples import MADE, samples
from tests.fuzz.spoil import spoil

PATIENCE_S = 30.0
START_S = 600.0
"""Until the first file: kernels may have to be compiled."""
MOST_MEMORY = 4 << 30
HEADERS = {"hdf5": 0, "ecf": 0, "npy": 128, "aedat4": 0}
RAW_HEADER = 200


def make_case(name: str, seed: int, number: int) -> bytes:
    """The file of that number, always the same."""
    rng = random.Random(zlib.crc32(f"{name} {seed} {number}".encode()))
    data = rng.choice(samples(name))
    end = data.find(b"% end\n")
    return spoil(data, rng, end + 6 if 0 <= end < RAW_HEADER else HEADERS.get(name, 0))


def work(name: str, seed: int, first: int, folder: Path) -> None:
    """Read file after file, and say so on standard output; never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = folder / f"{name}-{seed}.current"
    for data in samples(name):
        path.write_bytes(data)
        warm_up(path, random.Random(0))
    for number in range(first, 1 << 60):
        data = make_case(name, seed, number)
        path.write_bytes(data)
        print("case", number, flush=True)
        try:
            print(check_file(path, random.Random(number)), flush=True)
        except BaseException:
            keep(folder, name, seed, number, data, traceback.format_exc())
            print("failed", flush=True)


def keep(folder: Path, name: str, seed: int, number: int, data: bytes, what: str) -> None:
    """Keep a file that went wrong."""
    (folder / f"{name}-{seed}-{number}.bin").write_bytes(data)
    (folder / f"{name}-{seed}-{number}.txt").write_text(what)


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
        keep(self.folder, self.name, self.seed, self.number, data, what)
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


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> collections.Counter[str]:
    """Read spoilt files of one format for some time; how many came to which end."""
    ends: collections.Counter[str] = collections.Counter()
    worker = Worker(name, seed, folder)
    with contextlib.suppress(KeyboardInterrupt):
        ends[worker.next()] += 1  # after everything is compiled
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ends[worker.next()] += 1
    worker.close()
    return ends


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        name, seed, first, folder = sys.argv[2:6]
        work(name, int(seed), int(first), Path(folder))
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help=f"of {', '.join(MADE)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other files")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for files that fail")
    parser.add_argument("--again", type=Path, help="read one file and say what happens")
    options = parser.parse_args()
    if options.again is not None:
        print(check_file(options.again, random.Random(int(options.again.stem.rpartition("-")[2]))))
        return 0
    names = options.formats or list(MADE)
    if unknown := set(names) - set(MADE):
        parser.error(f"no format {', '.join(sorted(unknown))}; there are {', '.join(MADE)}")
    options.keep.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in names:
        ends = fuzz(name, options.seconds / len(names), options.seed, options.keep)
        failed += ends["failed"]
        print(f"{name:8} {ends.total():8,} files: {ends['events']:,} read, {ends['refused']:,} refused, "
              f"{ends['failed']:,} failed", flush=True)  # fmt: skip
    if not failed and not any(options.keep.iterdir()):
        options.keep.rmdir()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
