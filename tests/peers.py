"""The other side of a live run, as processes and sockets of their own, and the run itself as a process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.ingest.scanner import RawScanner
from velora_runtime.pipeline.pipeline import ROOM_FOR_STALLS

from velora_edge.bundle import find_model
from velora_edge.events.formats.raw.raw_header import parse_header
from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
LIVE = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
CHUNK_BYTES = 2048
PYTHON = "/usr/bin/python3"
IMPORTS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


@dataclass(frozen=True)
class Run:
    """What velora-live left behind."""

    code: int
    out: str
    err: str
    lines: list[dict[str, Any]]
    report: dict[str, Any]

    @property
    def event_camera(self) -> dict[str, Any]:
        camera: dict[str, Any] = self.report["cameras"]["event"]
        return camera


def start_live(
    folder: Path, *args: object, program: Sequence[str] = (sys.executable, "-c", LIVE), **how: Any
) -> subprocess.Popen[bytes]:
    """Start velora-live; it writes p.jsonl and s.json to the folder."""
    files = ["--out", folder / "p.jsonl", "--summary", folder / "s.json", "--quiet", "--threads", 1]
    return subprocess.Popen(
        [*program, *map(str, (*args, *files))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **how,
    )


def end_live(process: subprocess.Popen[bytes], folder: Path, timeout_s: float = 200) -> Run:
    """Wait for it to end, and read what it wrote."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    out_file, summary = folder / "p.jsonl", folder / "s.json"
    lines = [json.loads(line) for line in out_file.read_text().splitlines()] if out_file.exists() else []
    report = json.loads(summary.read_text()) if summary.exists() else {}
    return Run(process.returncode, out.decode(), err.decode(), lines, report)


def assert_accounted(run: Run, clip_length: int) -> None:
    """Every event that came, every picture and every pair is told where it went."""
    report = run.report
    assert report["predictions"] == max(0, report["pairs"] - report["dropped"]["pairs"] - clip_length + 1)
    assert report["predictions"] == len(run.lines)
    if "event" in report["cameras"]:
        events = run.event_camera["events"]
        told = report["events"]["in_windows"] + report["events"]["skipped"] + events["early"]
        assert events["received"] == told + sum(events["dropped"].values()) + events["unread"]
    if "rgb" in report["cameras"]:
        camera, frames = report["cameras"]["rgb"]["frames"], report["frames"]
        unseen = camera["early"] + camera["overrun"] + camera["unread"]
        assert camera["received"] == frames["read"] + unseen, (camera, frames)
        # On their way when the run was ended; on a busy machine some wait.
        assert 0 <= frames["unused"] <= 2 + ROOM_FOR_STALLS


def count_exact_windows(run: Run, path: Path, late_us: Sequence[float] = ()) -> tuple[int, int]:
    """Windows that hold just the events that the recording has there, and all that can be compared.

    On a busy machine data may come too late for its window; such events count as skipped.

    Args:
        run: what the run printed.
        path: the recording.
        late_us: times in it whose data left late: their windows cannot be compared.
    """
    late = np.sort(np.asarray(late_us, np.float64))
    with open_events(path) as reader:
        t_us = np.sort(reader.read().t_us)
    exact = compared = 0
    for before, line in pairwise(run.lines):
        if line["seq"] == before["seq"] + 1:
            window = [before["t_us"], line["t_us"]]
            first, last = np.searchsorted(t_us, window)
            assert line["events"] <= last - first, line
            if np.ptp(np.searchsorted(late, window)):
                continue
            exact += line["events"] == last - first
            compared += 1
    return exact, compared


@dataclass(frozen=True)
class PacedBytes:
    """A raw file in pieces, each with the time after its beginning at which a camera would have given it."""

    header: bytes
    pieces: list[tuple[float, bytes]]

    def write_to(self, write: Any, *, header: bool = True) -> None:
        """Give the pieces at their times."""
        if header:
            write(self.header)
        begin_s = time.monotonic()
        for due_s, piece in self.pieces:
            time.sleep(max(0.0, begin_s + due_s - time.monotonic()))
            write(piece)


def read_paced(path: Path) -> PacedBytes:
    """A raw file's words, paced by the times in them."""
    data = path.read_bytes()
    header = parse_header(data, None, None)
    assert header.encoding is not None
    assert header.sensor is not None
    scanner = RawScanner(header.encoding, header.sensor)
    pieces: list[tuple[float, bytes]] = []
    begin_us = None
    for start in range(header.payload_at, len(data), CHUNK_BYTES):
        piece = data[start : start + CHUNK_BYTES]
        scan = scanner.scan(piece)
        reached_us = scan.t_reached_us
        begin_us = reached_us if begin_us is None else begin_us
        due_s = 0.0 if reached_us is None or begin_us is None else (reached_us - begin_us) / 1e6
        pieces.append((due_s, piece))
    return PacedBytes(data[: header.payload_at], pieces)


@contextlib.contextmanager
def serve_tcp(*connections: Any) -> Iterator[int]:
    """A server that gives each connection in turn to a function that gets `send`; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for connection in connections:
                try:
                    client, _ = server.accept()
                except OSError:  # the test is over
                    return
                with client, contextlib.suppress(OSError):
                    connection(client.sendall)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
    thread.join(5)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextlib.contextmanager
def peer(command: Sequence[object], ready: bytes | None = None, timeout_s: float = 240) -> Iterator[Any]:
    """A program that runs beside a test; waits until it says `ready` on its output."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    watch = threading.Timer(timeout_s, process.kill)
    watch.start()
    try:
        if ready is not None:
            line = process.stdout.readline().strip()
            assert line == ready, line
        yield process
    finally:
        watch.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def find_ffmpeg() -> str:
    """An ffmpeg program; the test is skipped where there is none."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            import imageio_ffmpeg
        except ImportError:
            pytest.skip("needs an ffmpeg: install one, or pip install imageio-ffmpeg")
        found = imageio_ffmpeg.get_ffmpeg_exe()
    return str(found)


def serve_video(port: int, kind: str) -> list[object]:
    """The command of an ffmpeg that gives the demo's video, again and again, to whoever asks first."""
    codec = ["-c:v", "copy"] if kind == "mpegts" else ["-c:v", "mjpeg", "-q:v", "4"]
    source = ["-stream_loop", "-1", "-i", find_model("demo").parent / "demo.mp4"]
    address = f"http://127.0.0.1:{port}/live"
    return [find_ffmpeg(), "-loglevel", "error", "-re", *source, *codec, "-f", kind, "-listen", 1, address]


def wait_until_served(port: int) -> None:
    """Return once a program listens; it is not connected to, for it serves the first who comes."""
    wanted = f":{port:04X} 00000000:0000 0A"
    for _ in range(500):
        if wanted in Path("/proc/net/tcp").read_text():
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on {port}")


def wait_for_lines(folder: Path, count: int) -> None:
    """Return once velora-live has written so many predictions."""
    for _ in range(3000):
        if (folder / "p.jsonl").exists() and (folder / "p.jsonl").read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise TimeoutError(f"no {count} predictions came")


def rtsp_server(port: int, *secret: str) -> list[object]:
    """The command of an RTSP server; the test is skipped where there is none."""
    if (
        not Path(PYTHON).exists()
        or subprocess.run([PYTHON, "-c", IMPORTS], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs Debian's GStreamer RTSP server: .ci/install-peers")
    return [PYTHON, "tests/peer_rtsp.py", port, *secret]
