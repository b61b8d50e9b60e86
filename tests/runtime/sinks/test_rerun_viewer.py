"""What Rerun gets: ten moments a second, in a file that Rerun reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.sinks import rerun_viewer
from velora_runtime.sinks.base import Result, SinkContext
from velora_runtime.sinks.rerun_viewer import RerunSink

from tests.fakes import tiny_manifest
from velora_edge.datatypes import EventFrame, FramePair, Prediction, RGBFrame
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

rerun = pytest.importorskip("rerun", reason="needs the rerun extra: pip install -e '.[rerun]'")


def seen(k: int, label: str = "wave") -> Result:
    rgb = RGBFrame(np.full((720, 1280, 3), k, np.uint8), 1000 * k, k)
    event = EventFrame(np.full((28, 28, 3), k, np.uint8), 0, 1000 * k, 5)
    top = ((label, 0.75), ("still here", 0.25))
    said = Prediction(k, 100_000 * k, label, 0.75, top, 5, 0, {"pack": 0.5, "total": 4.0})
    return Result(FramePair(k, 100_000 * k, rgb, event, 0), said)


def test_a_run_becomes_a_file_that_rerun_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(rerun_viewer.time, "monotonic", lambda: now_s[0])
    sink = RerunSink(str(tmp_path / "run.rrd"), SinkContext(tiny_manifest()))
    taken = 0
    for k in range(30):
        now_s[0] = 0.034 * k
        item = sink.take(seen(k, "wave" if k < 20 else "nod"))
        if item is not None:
            taken += 1
            sink.write(item)
    sink.close()
    assert taken == 10
    assert read_entities(tmp_path / "run.rrd") == {
        "/events",
        "/label",
        "/latency_ms/pack",
        "/latency_ms/total",
        "/rgb",
        "/scores/nod",
        "/scores/still here",
        "/scores/wave",
    }


def read_entities(path: Path) -> set[str]:
    chunk = pytest.importorskip("rerun.chunk", reason="needs a rerun-sdk that reads files: 0.40 or newer")
    chunks: Any = chunk.RrdReader(path).stream().to_chunks()
    found = {str(part.entity_path).replace("\\", "") for part in chunks}
    return {name for name in found if not name.startswith("/__")}


def test_a_copy_of_the_event_frame_is_taken(tmp_path: Path) -> None:
    sink = RerunSink(str(tmp_path / "run.rrd"), SinkContext(tiny_manifest()))
    given = seen(7)
    item = sink.take(given)
    assert item is not None
    assert item.event is not None
    assert given.pair.event is not None
    given.pair.event.image[:] = 99
    assert int(item.event.max()) == 7
    sink.close()


def test_a_target_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected --rerun spawn, rerun\+http://HOST:9876/proxy or FILE"):
        RerunSink("here", SinkContext(tiny_manifest()))
