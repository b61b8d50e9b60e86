"""Memory does not grow with the recording; `benchmarks/memory.py` measures it over 2 GB."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.recordings import write_events

TURN_US = 1 << 24
TIMES = 50
REPLAY = """
import sys
import numpy as np
from velora_edge import open_events
from velora_edge.bundle import EventInput
from velora_edge.events.filters.event_preprocessing import FilteredStream
from velora_edge.events.filters.filters import FilterChain, RateCap
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.accumulate.representations import make_accumulator

path, task = sys.argv[1:]
reader, events = open_events(path), 0
if task == "arrays":
    events = sum(len(batch) for batch in reader)
elif task == "resumed":
    events = sum(len(batch) for batch in reader.between(reader.first_us() + 1_000_000))
else:
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((480, 640), (224, 224)))
    image, stream = np.empty((224, 224, 3), np.uint8), reader.stream()
    if task == "filtered":
        stream = FilteredStream(stream, FilterChain([RateCap(10**9)]))
    with stream:
        t_us = stream.t_next_us
        while stream.t_next_us is not None:
            frame.begin(t_us, t_us + 33_333)
            events += stream.accumulate_until(t_us + 33_333, frame)
            frame.render_into(image)
            t_us += 33_333
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(events, int(peak.split()[1]) // 1024)
"""


def replay(path, task) -> tuple[int, int]:
    """Events that a process of its own saw, and its peak memory, MB; getrusage would add the parent's."""
    said = subprocess.run(
        [sys.executable, "-c", REPLAY, str(path), task], check=True, capture_output=True, text=True
    ).stdout
    events, peak_mb = map(int, said.split())
    return events, peak_mb


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("task", ["arrays", "frames", "filtered", "resumed"])
def test_fifty_times_as_long_a_recording_takes_no_more_memory(tmp_path, monkeypatch, task):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    count = 1_000_000
    write_events(tmp_path / "short.raw", start_us=0, duration_us=TURN_US, count=count, sensor=(640, 480))
    head, end, payload = (tmp_path / "short.raw").read_bytes().partition(b"% end\n")
    with (tmp_path / "long.raw").open("wb") as file:
        file.write(head + end)
        for _ in range(TIMES):  # EVT3's clock turns after as long as this payload lasts: time goes on
            file.write(payload)
    replay(tmp_path / "short.raw", task)  # compiles what is needed
    events, peak_mb = replay(tmp_path / "short.raw", task)
    many_events, larger_peak_mb = replay(tmp_path / "long.raw", task)
    assert many_events - events == (TIMES - 1) * count
    assert larger_peak_mb < peak_mb + 25
    assert larger_peak_mb < 300
