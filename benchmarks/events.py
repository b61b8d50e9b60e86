"""Event reading beside other people's readers: all events as arrays, and 33 ms two-channel count frames.

    pip install -r benchmarks/requirements-peers.txt
    python benchmarks/events.py                     # about 5 minutes
    python benchmarks/events.py --quick --json events.json

Three recordings are made by repeating real payloads with continued time: `dense` (EVT3 1280x720, vectors),
`sparse` (EVT3 640x480, single events, triggers), `evt2`. Every reader's events are compared with ours
before anything is timed, readers take turns within a round, and the table shows each one's median. Files
are in the page cache. Frames are at the sensor's size, uint16[2, H, W], for all. Our threads find
their windows through an index that the first pass keeps beside the file; `first pass` is without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from event_files import CASES, Case, build
from event_peers import ARRAYS, FRAMES, SLOW, WINDOW_US, installed
from rich.console import Console
from rich.table import Table

import velora_edge
from velora_edge.bundle import EventInput
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.seek_index import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = Path(os.environ.get("VELORA_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "events"


@dataclass(frozen=True)
class Row:
    """One line of the table; `mev_s` is the median of the rounds."""

    reader: str
    file: str
    task: str
    threads: int
    mev_s: float


@dataclass
class Runner:
    """Something to time: `run` goes through the whole file once."""

    reader: str
    task: str
    threads: int
    path: Path
    events: int
    run: Callable[[], object]


def velora_batches(path: Path, case: str = "") -> Iterator[tuple[Any, Any, Any, Any]]:
    for batch in velora_edge.open_events(path):
        yield batch.t_us, batch.x, batch.y, batch.p


def velora_read(path: Path, case: str = "") -> Iterator[tuple[Any, Any, Any, Any]]:
    batch = velora_edge.open_events(path).read()
    yield batch.t_us, batch.x, batch.y, batch.p


def velora_frames(path: Path, threads: int) -> int:
    with velora_edge.open_events(path) as reader:
        return sum(1 for _ in velora_edge.frames(reader, WINDOW_US, "histogram", threads=threads, copy=False))


def velora_first_frames(path: Path, threads: int) -> int:
    """Frames of a recording that was never read before: no index is kept of it."""
    path.with_name(path.name + ENDING).unlink(missing_ok=True)
    return velora_frames(path, threads)


def velora_frames_at_model_size(path: Path) -> int:
    """As the runtime packs them: 224x224, one thread, polarity image rendered."""
    event_input = EventInput()
    with velora_edge.open_events(path) as reader, reader.stream() as stream:
        registration = RegistrationMap.from_fit((reader.height, reader.width), (224, 224), "crop")
        frame = make_accumulator(event_input, registration)
        image = np.empty((224, 224, 3), np.uint8)
        frames, t0 = 0, stream.t_next_us
        while t0 is not None and stream.t_next_us is not None:
            frame.begin(t0, t0 + WINDOW_US)
            stream.accumulate_until(t0 + WINDOW_US, frame)
            frame.render_into(image)
            frames, t0 = frames + 1, t0 + WINDOW_US
    return frames


def digest(arrays: Iterator[tuple[Any, Any, Any, Any]]) -> tuple[str, ...]:
    """SHA-256 of t, x, y and p as int64, uint16, uint16 and uint8, whatever the reader's own types."""
    parts = [hashlib.sha256() for _ in range(4)]
    for batch in arrays:
        for part, values, kind in zip(parts, batch, ("<i8", "<u2", "<u2", "u1"), strict=True):
            part.update(np.ascontiguousarray(values).astype(kind).tobytes())
    return tuple(part.hexdigest() for part in parts)


def consume(arrays: Iterator[tuple[Any, Any, Any, Any]]) -> int:
    return sum(len(t) for t, _, _, _ in arrays)


def usable_peers(path: Path, case: Case, console: Console) -> list[str]:
    """Names of the array readers that find our pixels and polarities; says whose times differ, who fails."""
    ours = digest(velora_batches(path))
    usable = []
    for name, (module, arrays) in ARRAYS.items():
        if not installed(module):
            console.print(f"{name}: not installed")
            continue
        try:
            theirs = digest(arrays(path, case.name))
        except Exception as error:
            console.print(f"{case.name}: {name} fails: {type(error).__name__}: {error}")
            continue
        if theirs[1:] != ours[1:]:
            console.print(f"{case.name}: {name} finds other events; not timed")
            continue
        if theirs != ours:
            console.print(f"{case.name}: {name} finds the same pixels and polarities at other times")
        usable.append(name)
    return usable


def runners(case: Case, path: Path, short: Path, peers: list[str], threads: int) -> list[Runner]:
    """Everything to time on one recording; the slow peers on the short one."""
    counts = {p: consume(velora_batches(p)) for p in {path, short}}
    found: list[Runner] = []

    def add(reader: str, task: str, n: int, file: Path, run: Callable[[], object]) -> None:
        found.append(Runner(reader, task, n, file, counts[file], run))

    add("velora", "arrays", 1, path, lambda: consume(velora_batches(path)))
    add("velora read()", "arrays", 1, path, lambda: consume(velora_read(path)))
    for name in peers:
        file = short if name in SLOW else path
        add(name, "arrays", 1, file, lambda n=name, f=file: consume(ARRAYS[n][1](f, case.name)))
    add("velora", "frames", 1, path, lambda: velora_frames(path, 1))
    if threads > 1:
        add("velora, first pass", "frames", threads, path, lambda: velora_first_frames(path, threads))
        add("velora", "frames", threads, path, lambda: velora_frames(path, threads))
    add("velora, 224x224 polarity", "frames", 1, path, lambda: velora_frames_at_model_size(path))
    readers = {ARRAYS[name][0] for name in peers}
    for name, (module, frames) in FRAMES.items():
        if not installed(module) or (module != "tonic" and module not in readers):
            continue
        file = short if name in SLOW else path
        add(name, "frames", 1, file, lambda r=frames, f=file: r(f, case.name))
    return found


def measure(found: list[Runner], rounds: int, file: str, console: Console) -> list[Row]:
    """Medians over rounds in which every runner takes its turn; one round before them does not count."""
    seconds: dict[int, list[float]] = {i: [] for i in range(len(found))}
    for turn in range(rounds + 1):
        for i, runner in enumerate(found):
            start = time.perf_counter()
            runner.run()
            if turn:
                seconds[i].append(time.perf_counter() - start)
        print(f"{file}: round {turn} of {rounds}", file=sys.stderr, flush=True)
    return [
        Row(r.reader, file, r.task, r.threads, round(r.events / statistics.median(seconds[i]) / 1e6, 1))
        for i, r in enumerate(found)
    ]


def show(rows: list[Row], console: Console) -> None:
    """A table a task, our ratio to the best peer below it."""
    for task in ("arrays", "frames"):
        table = Table("reader", "threads", *(case.name for case in CASES), title=f"{task}, Mev/s")
        chosen = [row for row in rows if row.task == task]
        for key in dict.fromkeys((row.reader, row.threads) for row in chosen):
            speeds = {row.file: f"{row.mev_s:g}" for row in chosen if (row.reader, row.threads) == key}
            table.add_row(key[0], str(key[1]), *(speeds.get(case.name, "-") for case in CASES))
        console.print(table)
        for case in CASES:
            of_case = [row for row in chosen if row.file == case.name]
            best = max((r.mev_s for r in of_case if not r.reader.startswith("velora")), default=None)
            for row in of_case:
                if row.reader in ("velora", "velora, first pass") and best:
                    console.print(
                        f"{case.name} {task}, {row.reader}, {row.threads} thread(s): "
                        f"{row.mev_s / best:.2f} x the best peer"
                    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter files, fewer rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real recordings")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "velora-bench", help="where files are made"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    console = Console()
    if not options.data.is_dir():
        parser.exit(2, f"no real recordings in {options.data}; pass --data\n")
    console.print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, NumPy {np.__version__}"
    )
    rows: list[Row] = []
    for case in CASES:
        source = options.data / case.source
        path = build(case, source, options.work, case.size_mb / 6 if options.quick else case.size_mb)
        short = build(case, source, options.work, 8)
        peers = usable_peers(short, case, console)
        found = runners(case, path, short, peers, options.threads)
        rows += measure(found, 3 if options.quick else 7, case.name, console)
    show(rows, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
