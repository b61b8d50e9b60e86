"""`velora-live` as `soak.py` runs it: itself, with an engine that tells how much of the time is its own.

As an engine module it is a backend like any other (`velora_runtime.engines.base`): it opens the best
engine of the machine and takes the times of its calls.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_runtime.engines.registry import BACKENDS
from velora_runtime.engines.registry import open_engine as open_best

if TYPE_CHECKING:
    from velora_runtime.engines.base import Engine, EngineOptions

    from velora_edge.bundle import Bundle

RESULT = "VELORA_SOAK_RESULT"
WARM_UP_CLIPS = 100


class TimedEngine:
    """Another engine, whose calls are timed. Single-threaded: the inference thread.

    What the thread computes outside of them is the host's: preparing, deciding, telling the sinks. CPU time
    of the thread is taken, so that waiting for the next pair counts for nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self._engine = engine
        self._clips = self._inside_ns = self._began_ns = self._ended_ns = 0
        self._inside_wall_ns = 0

    def encode(self, *given: Any) -> None:
        """Tokens into a slot."""
        self._time(self._engine.encode, *given)

    def decide(self, *given: Any) -> Any:
        """The logits; the end of a pair."""
        logits = self._time(self._engine.decide, *given)
        self._clips += 1
        self._ended_ns = time.thread_time_ns()
        if self._clips == WARM_UP_CLIPS:
            self._inside_ns = self._inside_wall_ns = 0
            self._began_ns = self._ended_ns
        return logits

    def warm_up(self) -> None:
        """As it is; in the main thread."""
        self._engine.warm_up()

    def close(self) -> None:
        """Write the result and close."""
        self._engine.close()
        clips = max(self._clips - WARM_UP_CLIPS, 0)
        outside_ns = self._ended_ns - self._began_ns - self._inside_ns if clips else 0
        said = {"engine": self.name, "clips": clips, "outside_ms": outside_ns / max(clips, 1) / 1e6}
        said["engine_ms"] = self._inside_wall_ns / max(clips, 1) / 1e6
        Path(os.environ[RESULT]).write_text(json.dumps(said))

    def _time(self, call: Any, *given: Any) -> Any:
        cpu_ns, wall_ns = time.thread_time_ns(), time.perf_counter_ns()
        try:
            return call(*given)
        finally:
            self._inside_ns += time.thread_time_ns() - cpu_ns
            self._inside_wall_ns += time.perf_counter_ns() - wall_ns


def why_not(bundle: Bundle, options: EngineOptions) -> str | None:
    """Nothing speaks against it."""
    return None


def open_engine(bundle: Bundle, options: EngineOptions) -> TimedEngine:
    """The best engine that the machine has, timed."""
    return TimedEngine(open_best(bundle, "auto", options).engine)


if __name__ == "__main__":
    from velora_cli.main import live
    from velora_edge.extensions import Extension

    BACKENDS.add(Extension("timed", "soak_run", "timed"))
    sys.argv[0] = "velora-live"
    live()
