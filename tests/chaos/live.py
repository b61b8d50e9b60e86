"""velora-live whose host's clock can be stepped: for this process alone, by a number of seconds in a file.

    python -m tests.chaos.live OFFSET_FILE MODEL ...

Setting the machine's own clock would disturb whatever else runs there. What Python tells of the time of day
is stepped: `time.time`, `time.time_ns`, and `datetime.now` as our modules see it. The monotonic clock is not:
no host steps that.
"""

from __future__ import annotations

import datetime
import importlib
import sys
import time
from pathlib import Path
from typing import Any

STEPPED = ("velora_runtime.recording.recorder_worker", "velora_runtime.recording.writer")
"""Modules that look at the time of day."""


def step_clock(offset_file: Path) -> None:
    """Let the time of day be off by what the file says, whenever it is asked for."""
    now, now_ns = time.time, time.time_ns

    def offset_s() -> float:
        try:
            return float(offset_file.read_text() or 0)
        except (OSError, ValueError):
            return 0.0

    class Stepped(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=offset_s())

    time.time = lambda: now() + offset_s()
    time.time_ns = lambda: now_ns() + round(offset_s() * 1e9)
    for name in STEPPED:
        module: Any = importlib.import_module(name)
        assert issubclass(Stepped, module.datetime), name
        module.datetime = Stepped


if __name__ == "__main__":
    from velora_cli.main import live

    step_clock(Path(sys.argv[1]))
    sys.argv[:2] = ["velora-live"]
    live()
