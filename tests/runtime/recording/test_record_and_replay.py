"""From `--record` and `velora record` to a folder, and from the folder back to the same predictions."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import write_tiny_bundle
from tests.recordings import write_events
from tests.videos import write_video
from velora_cli.live.live import command
from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.folder import read_recording
from velora_edge.preprocessing.video_file import RecordedVideo

if TYPE_CHECKING:
    from pathlib import Path

START_US = 7_000_000
PERIOD_US = 10_000
TRIGGERS_US = [START_US + PERIOD_US * (k + 1) for k in range(39)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three pairs, windows of 10 ms."""
    folder = tmp_path_factory.mktemp("models") / "tiny.velora"
    event = write_tiny_bundle(folder).manifest.event.model_copy(update={"window_us": PERIOD_US})
    return write_tiny_bundle(folder, 3, event=event).path


@pytest.fixture
def cameras(tmp_path: Path) -> tuple[str, ...]:
    """0.4 s of events with a trigger each 10 ms, and a frame for each."""
    write_events(tmp_path / "e.raw", start_us=START_US, triggers_us=TRIGGERS_US)
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(39)])
    return "--events", str(tmp_path / "e.raw"), "--rgb", str(tmp_path / "v.mp4")


def live(*args: object) -> int:
    return run(command, [str(arg) for arg in args], name="velora-live")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def what_was_said(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Without latencies, skews (a recording has the triggers' times) and scores (the codec changes those)."""
    return [(line["seq"], line["t_us"], line["label"], line["events"], line["dropped"]) for line in lines]


@pytest.mark.parametrize("form", ["recording", "events", "model"])
def test_a_recorded_run_replays_with_the_same_predictions(
    model: Path, cameras: tuple[str, ...], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velora_cli.live.live.agree", lambda question: True)
    folder, out, summary = tmp_path / "r", tmp_path / "p.jsonl", tmp_path / "s.json"
    args = (*cameras, "--pace", "max", "--quiet", "--record", folder, "--summary", summary)
    assert live(model, *args) == 0
    assert (folder / "events.raw").read_bytes() == (tmp_path / "e.raw").read_bytes()
    assert (folder / "timestamps.txt").read_text() == "".join(f"{t_us}\n" for t_us in TRIGGERS_US)
    assert read_recording(folder).triggers().t_us.tolist() == TRIGGERS_US
    (told,) = json.loads(summary.read_text())["recordings"]
    assert (told["folder"], told["whole"], told["counts"]["predictions"]) == (str(folder), True, 37)
    replay: dict[str, tuple[object, ...]] = {
        "recording": (model, folder),
        "events": (model, "--events", folder),
        "model": (folder,),
    }
    assert live(*replay[form], "--pace", "max", "--quiet", "--out", out) == 0
    recorded = read_lines(folder / "predictions.jsonl")
    assert len(recorded) == 37
    assert what_was_said(read_lines(out)) == what_was_said(recorded)
    scores = [(a["score"], b["score"]) for a, b in zip(read_lines(out), recorded, strict=True)]
    assert max(abs(a - b) for a, b in scores) < 0.02


def test_the_model_that_a_recording_names_is_not_run_where_nobody_can_be_asked(
    model: Path, cameras: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    assert live(model, *cameras, "--pace", "max", "--quiet", "--record", folder) == 0
    assert live(folder, "--pace", "max", "--quiet") == 2
    assert f"if you trust it, give it: velora-live {model} {folder}" in capsys.readouterr().err


def test_velora_record_needs_no_model(
    model: Path, cameras: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "r", tmp_path / "p.jsonl"
    args = ["record", str(folder), *cameras, "--pace", "max"]
    assert run(velora, args, name="velora") == 0
    assert f"velora: recorded {folder}: 0.38 s, " in capsys.readouterr().err
    recording = read_recording(folder)
    assert recording.facts.counts == {
        "event_bytes": recording.facts.counts["event_bytes"],
        "frames": 39,
        "edges": 39,
        "predictions": 0,
    }
    assert live(model, folder, "--pace", "max", "--quiet", "--out", out) == 0
    assert [line["t_us"] for line in read_lines(out)] == TRIGGERS_US[2:]
    assert live(folder) == 2
    assert "was recorded without a model; give one: velora-live MODEL" in capsys.readouterr().err


def test_one_camera_of_a_recording_can_be_replayed_alone(
    model: Path, cameras: tuple[str, ...], tmp_path: Path
) -> None:
    folder, out, summary = tmp_path / "r", tmp_path / "p.jsonl", tmp_path / "s.json"
    live(model, *cameras, "--pace", "max", "--quiet", "--record", folder)
    outputs = ("--pace", "max", "--quiet", "--out", out, "--summary", summary)
    for args, absent in (
        (("--events", folder, "--rgb", "none"), {"rgb": 39, "event": 0}),
        (("--rgb", folder), {"rgb": 0, "event": 39}),
    ):
        assert live(model, *args, *outputs) == 0
        assert json.loads(summary.read_text())["absent"] == absent
        assert len(read_lines(out)) == 37


def test_a_recording_of_one_camera_is_found_to_be_one(model: Path, tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw")
    write_video(tmp_path / "v.mp4", [PERIOD_US * k for k in range(20)])
    out = tmp_path / "p.jsonl"
    for name, args, pairs in (
        ("e", ("--events", tmp_path / "e.raw"), 39),
        ("v", ("--rgb", tmp_path / "v.mp4"), 20),
    ):
        assert live(model, *args, "--pace", "max", "--quiet", "--record", tmp_path / name) == 0
        assert live(model, tmp_path / name, "--pace", "max", "--quiet", "--out", out) == 0
        assert len(read_lines(out)) == pairs - 2


def test_what_cannot_be_recorded_or_replayed_is_one_line_and_exit_code_2(
    model: Path, cameras: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    cases: list[tuple[tuple[object, ...], str]] = [
        (
            (model, *cameras, "--record", tmp_path / "full"),
            f"error: {tmp_path / 'full'}: is not empty; record to",
        ),
        ((model, *cameras, "--record", "/proc/r"), "error: /proc/r: cannot be recorded to: "),
        ((model, tmp_path / "full"), f"error: {tmp_path / 'full'}: expected a folder that --record wrote"),
        ((model, *cameras, "--serve", "here"), "error: expected --serve HOST:PORT, got 'here'"),
        ((model, *cameras, "--serve", "203.0.113.1:80"), "error: cannot serve on 203.0.113.1:80: "),
        ((model, *cameras, "--publish", "broker"), "error: expected a broker and a topic, got 'broker'"),
    ]
    for args, start in cases:
        assert live(*args, "--pace", "max", "--quiet") == 2
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("velora: ")]
        assert len(told) == 1, told
        assert told[0].startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.raw", "full", "v.mp4"]


def start_live(*args: object) -> subprocess.Popen[str]:
    code = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )


def wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} has not {lines} lines after 60 s")


def test_a_run_that_is_killed_leaves_a_recording_that_replays(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "e.raw", start_us=START_US, duration_us=30_000_000, count=3_000_000)
    write_video(tmp_path / "v.mp4", [2 * PERIOD_US * k for k in range(1499)])
    folder, out = tmp_path / "r", tmp_path / "p.jsonl"
    args = ("--events", tmp_path / "e.raw", "--rgb", tmp_path / "v.mp4", "--record", folder, "--quiet")
    process = start_live(model, *args)
    wait_for_lines(folder / "predictions.jsonl", 100)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    times = read_recording(folder).times_us()
    frames = [frame.t_us for frame in RecordedVideo(str(folder))]
    assert frames == times[: len(frames)].tolist()
    assert (
        times[-1] - frames[-1] <= 600_000
    )  # the fragment that was being written, and a frame in the encoder
    with open_events(folder / "events.raw") as reader:
        assert reader.read().t_us[-1] >= times[-1]
    assert live(model, folder, "--pace", "max", "--quiet", "--out", out) == 0
    assert "the recording was not ended properly; it is read as far as it goes" in capsys.readouterr().err
    assert [line["t_us"] for line in read_lines(out)] == frames[2:]


def test_keys_begin_and_end_a_recording_and_save_the_last_seconds(model: Path, tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw", start_us=START_US, duration_us=60_000_000, count=600_000)
    ours, theirs = pty.openpty()
    args = ("--events", tmp_path / "e.raw", "--quiet", "--keep", "5", "--recordings", tmp_path / "rs")
    code = "import sys; from velora_cli.main import live; sys.argv[0] = 'velora-live'; live()"
    # A session's first terminal is its own: then the run is in the foreground there.
    shell = f'exec "$0" "$@" <{os.ttyname(theirs)}'
    with subprocess.Popen(
        ["sh", "-c", shell, sys.executable, "-c", code, *map(str, (model, *args))],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    ) as process:
        assert process.stderr is not None
        for key, answer in (
            ("", "keys: r begins"),
            ("s", "saving a clip to"),
            ("r", "recording to"),
            ("r", "asked for"),
        ):
            os.write(ours, key.encode())
            lines = iter(process.stderr.readline, "")
            assert any(answer in line for line in lines), answer
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    whys = [read_recording(folder).facts.why_ended for folder in sorted((tmp_path / "rs").iterdir())]
    assert sorted(map(str, whys)) == ["asked for", "clip"]


def test_a_full_disk_stops_the_recording_and_not_the_recognition(
    model: Path, cameras: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk, out, summary = tmp_path / "disk", tmp_path / "p.jsonl", tmp_path / "s.json"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        args = ("--record", disk / "r", "--out", out, "--summary", summary, "--pace", "max", "--quiet")
        assert live(model, *cameras, *args) == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert len(read_lines(out)) == 37
    said = json.loads(summary.read_text())
    assert [r["why_ended"] for r in said["recordings"]] == ["stopped: the disk is full"]
    assert f"the recording in {disk / 'r'} was stopped: the disk is full" in said["warnings"]
    assert f"velora: the recording in {disk / 'r'} was stopped: the disk is full" in capsys.readouterr().err
