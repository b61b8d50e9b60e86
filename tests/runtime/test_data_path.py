"""The data's way: the files that run for each packet or pair are those that the architecture page lists."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from velora_runtime.app.run_sources import LiveOptions
from velora_runtime.app.session import RunOptions, run_session
from velora_runtime.cameras.drivers import raw_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from velora_runtime.pipeline.frame_source import Pace

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "velora_edge" / "assets" / "demo.raw"
PIECE_BYTES = 1024
"""Of one read: more reads than pairs."""

pytestmark = pytest.mark.slow


def listed(name: str) -> list[str]:
    """The files in the first column of paths in the table below a comment of the page, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition(f"<!-- {name} -->\n")[2].partition("\n\n")[0]
    rows = [row.split("|") for row in table.splitlines()[2:]]
    cells = [next(cell for cell in row if ".py`" in cell) for row in rows]
    return [path for cell in cells for path in re.findall(r"`([\w/]+\.py)`", cell)]


def called_for_each_pair(events: str, pace: Pace, out: Path) -> set[str]:
    """Files of the library and the runtime with a function that is called for each pair, or more often."""
    calls: Counter[tuple[str, str]] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code.co_filename, frame.f_code.co_name] += 1

    live = LiveOptions(retry_s=0)
    outputs = (("jsonl", str(out)),)
    options = RunOptions("demo", events, pace=pace, backend="onnxruntime", outputs=outputs, live=live)
    threading.setprofile(count)
    try:
        report = run_session(options, lambda _: None)
    finally:
        threading.setprofile(None)
    assert report.predictions > 200
    often = {Path(file) for (file, _), n in calls.items() if n >= report.predictions}
    homes = (ROOT, ROOT / "runtime")
    return {
        str(file.relative_to(home))
        for file in often
        for home in homes
        if file.is_relative_to(home / "velora_edge") or file.is_relative_to(home / "velora_runtime")
    }


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A camera that sends the demo's words over a connection, which are read in small pieces."""
    monkeypatch.setattr(raw_bytes, "RECEIVE_BYTES", PIECE_BYTES)
    server = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(RECORDING.read_bytes())

    sender = threading.Thread(target=send)
    sender.start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    sender.join(10)
    server.close()


def test_the_live_path_is_the_one_that_the_architecture_page_lists(camera: str, tmp_path: Path) -> None:
    path, beside = listed("files of the live path"), listed("files beside the path")
    called = called_for_each_pair(camera, "realtime", tmp_path / "live.jsonl")
    assert called - set(beside) == set(path)
    assert len(path) == 18


def test_the_recorded_path_is_the_one_that_the_architecture_page_lists(tmp_path: Path) -> None:
    path, beside = listed("files of the recorded path"), listed("files beside the path")
    called = called_for_each_pair(str(RECORDING), "max", tmp_path / "recorded.jsonl")
    assert called - set(beside) == set(path)
    assert len(path) == 11
