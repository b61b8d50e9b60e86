"""Memory and speed while a recording of 2 GB is replayed: peak resident memory of a process of its own.

    python benchmarks/memory.py                     # makes the file once, in $TMPDIR/velora-bench
    python benchmarks/memory.py --size-mb 500 --json memory.json

The recording is made by repeating a real payload with continued time. `nothing` is a process that has
loaded the library and read 1 MB of events: what a task takes beyond that is the recording's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from event_files import CASES, build

DATA = Path(os.environ.get("VELORA_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "events"
LIMIT_MB = 300
WINDOW_US = 33_333
TASKS = ("nothing", "arrays", "frames", "filtered", "last second")


def run_task(task: str, path: Path) -> int:
    """Go through the recording in one way; the number of events that were seen."""
    import numpy as np

    from velora_edge import open_events
    from velora_edge.bundle import EventInput
    from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
    from velora_edge.events.filters.event_preprocessing import FilteredStream
    from velora_edge.events.filters.filters import FilterChain, RateCap, make_filter
    from velora_edge.events.formats.raw.raw_index import RawIndex

    reader = open_events(path)
    sensor = (reader.width, reader.height)
    if task == "nothing":
        return len(next(iter(reader)))
    if task == "arrays":
        return sum(len(batch) for batch in reader)
    if task == "last second":
        with RawIndex(reader) as index:
            index.load()
            index.find(1 << 61)
            index.save()
        return sum(len(batch) for batch in reader.between(index.latest_us - 1_000_000))
    registration = RegistrationMap.from_fit((reader.height, reader.width), (224, 224))
    frame, image = make_accumulator(EventInput(), registration), np.empty((224, 224, 3), np.uint8)
    stream = reader.stream()
    if task == "filtered":
        stream = FilteredStream(stream, FilterChain([make_filter("background", sensor), RateCap(10_000_000)]))
    events, t_us = 0, stream.t_next_us
    with stream:
        while t_us is not None and stream.t_next_us is not None:
            frame.begin(t_us, t_us + WINDOW_US)
            events += stream.accumulate_until(t_us + WINDOW_US, frame)
            frame.render_into(image)
            t_us += WINDOW_US
    return events


def measure(task: str, path: Path) -> dict[str, float]:
    """Run a task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--path", str(path)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"task": task, **said}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mb", type=float, default=2000)
    parser.add_argument("--case", default="dense", choices=[case.name for case in CASES])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real recordings")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "velora-bench")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task is not None:
        start = time.perf_counter()
        events = run_task(options.task, options.path)
        seconds = time.perf_counter() - start
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"peak_mb": round(peak_mb), "seconds": round(seconds, 2), "events": events}))
        return 0
    if not options.data.is_dir():
        parser.exit(2, f"no real recordings in {options.data}; pass --data\n")
    case = next(case for case in CASES if case.name == options.case)
    path = build(case, options.data / case.source, options.work, options.size_mb)
    size_mb = path.stat().st_size / 1e6
    measure("filtered", build(case, options.data / case.source, options.work, 2))  # compiles what is needed
    rows = [measure(task, path) for task in TASKS]
    print(f"{path.name}, {size_mb:,.0f} MB")
    for row in rows:
        took = f"{row['task']:12} peak {row['peak_mb']:4.0f} MB  {row['seconds']:6.2f} s"
        is_all = row["task"] not in ("nothing", "last second")
        print(
            f"{took} {row['events']:13,} events"
            + (f" {size_mb / row['seconds']:7.0f} MB/s" if is_all else "")
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["peak_mb"] >= LIMIT_MB for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
