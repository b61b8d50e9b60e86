"""Live runs as a session, cameras and a machine would have told of them."""

from __future__ import annotations

from typing import Any

from velora_runtime.bench.live import Measured
from velora_runtime.bench.meters import Load


def make_measured(
    *,
    fps: float = 30.0,
    latencies_ms: list[float] | None = None,
    dropped: dict[str, int] | None = None,
    rgb_dropped: int = 0,
    overrun: int = 0,
    pairs_dropped: int = 0,
    events_dropped: int = 0,
    threads: dict[str, float] | None = None,
    engine_ms: float = 5.0,
    calls: dict[str, list[int]] | None = None,
    late_ms: float = 0.0,
    held_ms: float = 0.0,
    first_ns: int = 0,
    last_ns: int = 4_000_000_000,
) -> Measured:
    """A run of four seconds in which threads used so many seconds of CPU time."""
    seconds = (last_ns - first_ns) / 1e9
    n = round(seconds * fps)
    latencies_ms = [10.0] * n if latencies_ms is None else latencies_ms
    stages = {"pack": 0.2, "encode": engine_ms / 2, "head": engine_ms / 2}
    rows = [(first_ns + round(k / fps * 1e9), 0, 0, True, stages, {}) for k in range(len(latencies_ms))]
    used = threads or {}
    said: dict[str, Any] = {
        "engine": "fake on the CPU",
        "passed_over": [],
        "decisions": rows,
        "calls": calls or {"rgb": [n, 10, 10], "head": [n, 30, 30]},
        "samples": [
            {"ns": first_ns, "threads": dict.fromkeys(used, 0.0), "bytes": 1, "cpu_s": 0.0},
            {"ns": last_ns, "threads": used, "bytes": 1, "cpu_s": 0.0},
        ],
        "report": {
            "frames": {"overrun": overrun, "late": 0},
            "dropped": {"rgb": rgb_dropped, "events": 0, "pairs": pairs_dropped, "sinks": {"bench": 0}},
            "cameras": {"event": {"events": {"dropped": {"overrun": events_dropped, "rate_cap": 0}}}},
        },
    }
    state = {"lateness": [[first_ns, late_ms, held_ms]], "exposures_ns": [], "began_ns": 0}
    load = Load({"session": 1.0}, 0.1, 0.0)
    return Measured(
        said, state, load, first_ns=first_ns, last_ns=last_ns, exposure_ms=latencies_ms, dropped=dropped or {}
    )
