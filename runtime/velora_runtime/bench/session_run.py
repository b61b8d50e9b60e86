"""One run of the runtime as a benchmark looks at it: itself, with a timed engine and a sink that takes times.

    python -m velora_runtime.bench.session_run JOB.json

The session, its engines and its packer are those of `velora-live`. A process of its own keeps what the
benchmark computes and holds in memory out of its figures. The job's `result` is written as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from velora_edge.errors import VeloraError
from velora_edge.extensions import Extension
from velora_edge.preprocessing.sync import SyncOptions
from velora_runtime.app.session import RunOptions, run_session
from velora_runtime.bench.cameras import read_number
from velora_runtime.engines.base import EngineOptions
from velora_runtime.engines.registry import BACKENDS
from velora_runtime.engines.registry import open_engine as open_best
from velora_runtime.sinks.base import SINKS, Result, Sink

if TYPE_CHECKING:
    from velora_edge.bundle import Bundle
    from velora_runtime.engines.base import Engine
    from velora_runtime.sinks.base import SinkContext

HERE = "velora_runtime.bench.session_run"
SAMPLE_S = 0.25


class TimedEngine:
    """Another engine, whose calls are timed. Single-threaded: the inference thread.

    Attributes:
        calls: by modality and `head`, how often, wall time and the thread's CPU time in nanoseconds.
    """

    opened: ClassVar[list[TimedEngine]] = []
    backend: ClassVar[str] = "auto"

    def __init__(self, engine: Engine, passed_over: tuple[str, ...]) -> None:
        self.name, self.passed_over = engine.name, passed_over
        self.calls: dict[str, list[int]] = {}
        self._engine = engine
        TimedEngine.opened.append(self)

    def encode(self, modality: str, *given: Any) -> None:
        """As the engine does it."""
        self._time(modality, self._engine.encode, (modality, *given))

    def decide(self, *given: Any) -> Any:
        """As the engine does it."""
        return self._time("head", self._engine.decide, given)

    def warm_up(self) -> None:
        """As the engine does it; not timed."""
        self._engine.warm_up()

    def close(self) -> None:
        """As the engine does it."""
        self._engine.close()

    def _time(self, name: str, call: Any, given: tuple[Any, ...]) -> Any:
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        try:
            return call(*given)
        finally:
            counts = self.calls.setdefault(name, [0, 0, 0])
            counts[0] += 1
            counts[1] += time.perf_counter_ns() - wall_ns
            counts[2] += time.thread_time_ns() - cpu_ns


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Nothing speaks against timing."""
    return None


def open_engine(bundle: Bundle, options: EngineOptions) -> TimedEngine:
    """The engine that the job asks for, timed."""
    choice = open_best(bundle, TimedEngine.backend, options)
    return TimedEngine(choice.engine, choice.passed_over)


class StampSink(Sink):
    """Takes the time at which each decision leaves, CLOCK_MONOTONIC, in the sink's own thread.

    Attributes:
        rows: of each decision: when it left (ns), the pair's time (us, event clock), the number in the
            picture's corner or -1, whether events were there, the stages' milliseconds, and how many pictures
            and events had been dropped by then.
    """

    name = "bench"
    room = 4096
    opened: ClassVar[list[StampSink]] = []

    def __init__(self, target: str, context: SinkContext) -> None:
        self.rows: list[tuple[Any, ...]] = []
        StampSink.opened.append(self)

    def take(self, result: Result) -> Any:
        """The pair's facts; None while the first clip is not full."""
        if result.prediction is None:
            return None
        rgb = result.pair.rgb
        number = -1 if rgb is None else read_number(rgb.image)
        said = result.prediction
        return result.pair.t_us, number, result.pair.event is not None, said.latency_ms, said.dropped

    def write(self, item: Any) -> None:
        """Take the time."""
        self.rows.append((time.monotonic_ns(), *item))


class ThreadSampler:
    """CPU time of the process and of its named threads, four times a second, in a thread of its own.

    Attributes:
        samples: of each: monotonic ns, the process's CPU seconds, resident bytes, CPU seconds by thread.
    """

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> ThreadSampler:
        if Path("/proc/self/task").is_dir():
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.samples.append(self._sample())

    def _sample(self) -> dict[str, Any]:
        by_thread: dict[str, float] = {}
        for thread in threading.enumerate():
            used_s = self._cpu_s(Path(f"/proc/self/task/{thread.native_id}/stat"))
            if used_s is not None:
                by_thread[thread.name] = by_thread.get(thread.name, 0.0) + used_s
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * self._page
        whole_s = self._cpu_s(Path("/proc/self/stat")) or 0.0
        return {"ns": time.monotonic_ns(), "cpu_s": whole_s, "bytes": resident, "threads": by_thread}

    def _cpu_s(self, path: Path) -> float | None:
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            return None  # the thread has just ended
        return (int(fields[11]) + int(fields[12])) * self._tick_s


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run a session and tell what it did.

    Args:
        job: model, events, rgb, seconds, backend, device, threads, rate_hz (or None) and jsonl (or None).

    Raises:
        VeloraError: as `run_session` does.
    """
    BACKENDS.add(Extension("timed", HERE, "the engine that the job asks for, timed"))
    SINKS.add(Extension("bench", f"{HERE}:StampSink", "times of decisions"))
    TimedEngine.backend = job["backend"]
    both = job["events"] != "none" and job["rgb"] != "none"
    outputs = [("bench", ""), *([("jsonl", job["jsonl"])] if job["jsonl"] else [])]
    notes: list[str] = []
    options = RunOptions(
        model=job["model"],
        events=job["events"],
        rgb=job["rgb"],
        sync=SyncOptions("host" if both else "auto"),
        backend="timed",
        engine=EngineOptions(job["device"], job["threads"]),
        outputs=tuple(outputs),
        duration_s=job["seconds"],
        rate_hz=None if job["rate_hz"] is None else Fraction(str(job["rate_hz"])),
    )
    with ThreadSampler() as sampler:
        report = run_session(options, notes.append)
    engine, sink = TimedEngine.opened[-1], StampSink.opened[-1]
    return {
        "engine": engine.name,
        "passed_over": list(engine.passed_over),
        "calls": engine.calls,
        "decisions": sink.rows,
        "report": report.as_dict(),
        "samples": sampler.samples,
        "notes": notes,
    }


def main() -> int:
    """Read the job, run it, write its result."""
    # As a module that was named, so that the engine and the sink are the ones that are filled here.
    from velora_runtime.bench import session_run

    job = json.loads(Path(sys.argv[1]).read_text())
    try:
        result = session_run.run_job(job)
    except VeloraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    Path(job["result"]).write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
