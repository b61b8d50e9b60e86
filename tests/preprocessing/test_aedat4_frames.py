"""A DAVIS camera's file as an RGB source, alone and together with its events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.events import aedat4_writer as writer
from tests.fakes import write_tiny_bundle
from velora_cli.live.live import command
from velora_cli.main import velora
from velora_edge.console import run
from velora_edge.errors import RecordingError
from velora_edge.preprocessing.pictures import Aedat4Frames
from velora_edge.preprocessing.registry import open_rgb_source

if TYPE_CHECKING:
    from pathlib import Path

START_US = 1_700_000_000_000_000
FRAMES_US = [START_US + 10_000 * k for k in range(1, 12)]
EVENTS_US = range(START_US, START_US + 120_000, 100)


def write(path: Path, **options: object) -> Path:
    path.write_bytes(writer.davis(EVENTS_US, FRAMES_US, **options))  # type: ignore[arg-type]
    return path


def test_frames_come_with_their_times_on_the_event_clock(tmp_path: Path) -> None:
    source = open_rgb_source(str(write(tmp_path / "a.bin")))  # by content
    assert isinstance(source, Aedat4Frames)
    assert (source.width, source.height, source.is_on_event_clock) == (16, 8, True)
    frames = list(source)
    assert [(frame.t_us, frame.seq, int(frame.image[3, 5, 1])) for frame in frames] == [
        (t_us, k, 10 * k) for k, t_us in enumerate(FRAMES_US)
    ]
    assert source.times_us().tolist() == FRAMES_US
    assert source.warnings == []


@pytest.mark.parametrize(("part", "value"), [("", 0), ("#left", 0), ("#right", 100), ("#2", 100)])
def test_one_of_several_cameras_is_named_after_the_file(tmp_path: Path, part: str, value: int) -> None:
    write(tmp_path / "two.aedat4", cameras=("left", "right"))
    source = open_rgb_source(f"{tmp_path / 'two.aedat4'}{part}")
    assert source is not None
    assert int(next(iter(source)).image[0, 0, 0]) == value


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "two.aedat4", cameras=("left", "right"))
    with pytest.raises(RecordingError, match=r"holds no frames of a camera 'top'; choose from left, right"):
        open_rgb_source(f"{path}#top")


def test_a_file_of_events_alone_is_no_rgb_source(tmp_path: Path) -> None:
    path = tmp_path / "e.aedat4"
    path.write_bytes(writer.recording([writer.stream(0, "EVTS")], [(0, writer.events([(1, 0, 0, 1)]))]))
    with pytest.raises(RecordingError, match="holds no frames; give a video, or use --rgb none"):
        open_rgb_source(str(path))


def test_a_file_of_frames_alone_is_an_rgb_source(tmp_path: Path) -> None:
    path = tmp_path / "f.aedat4"
    frame = writer.frame({0: 7, 5: 0, 6: 2, 7: 2}, bytes(4))
    path.write_bytes(writer.recording([writer.stream(0, "FRME")], [(0, frame)]))
    source = open_rgb_source(str(path))
    assert source is not None
    assert source.times_us().tolist() == [7]


def test_frames_that_go_back_or_are_damaged_are_left_out_and_told(tmp_path: Path) -> None:
    path = tmp_path / "f.aedat4"
    good = {5: 0, 6: 2, 7: 2}
    packets = [
        (0, writer.frame({0: t, **good}, bytes(4 if t != 30 else 3))) for t in (10, 30, 40, 20, 40, 50)
    ]
    path.write_bytes(writer.recording([writer.stream(0, "FRME")], packets, table_at=10**6))
    source = open_rgb_source(str(path))
    assert source is not None
    size = path.stat().st_size
    for _ in range(2):
        assert [(frame.t_us, frame.seq) for frame in source] == [(10, 0), (40, 2), (50, 5)]
    assert source.warnings == [
        f"the file is cut off: it has {size:,} bytes, its table of contents is at 1,000,000",
        "frame 1 was left out (expected 2x2 pixels of 1 channels, got 3 values)",
        "2 frames that are not later than the one before were left out",
    ]


def test_both_cameras_of_a_davis_are_replayed_in_step(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny.velora", clip_length=3)
    event = bundle.manifest.event.model_copy(update={"window_us": 10_000})
    model = write_tiny_bundle(tmp_path / "tiny.velora", 3, event=event).path
    path, out, summary = write(tmp_path / "x.aedat4"), tmp_path / "p.jsonl", tmp_path / "s.json"
    options = ["--pace", "max", "--quiet", "--out", str(out), "--summary", str(summary)]
    assert run(command, [str(model), "--events", str(path), "--rgb", str(path), *options], name="x") == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["t_us"] for line in lines] == FRAMES_US[2:]
    assert {(line["events"], line["skew_us"]) for line in lines} == {(100, 0)}
    said = json.loads(summary.read_text())
    assert (said["pairs"], said["frames"]["paired"], said["absent"]) == (11, 11, {"rgb": 0, "event": 0})
    assert said["warnings"] == []


def test_info_counts_the_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.aedat4")
    assert run(velora, ["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["events"], facts["frames"]) == ("AEDAT4", 1200, 11)
    assert run(velora, ["info", str(path), "--start", "0.1"]) == 0
    assert "frames    2, on the events' clock" in capsys.readouterr().out


def test_a_set_of_davis_files_is_checked_and_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("rest", "wave"):
        (tmp_path / "set" / label).mkdir(parents=True)
        write(tmp_path / "set" / label / "a.aedat4")
    assert run(velora, ["dataset", "check", str(tmp_path / "set"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["cameras"], report["problems"]) == (["rgb", "event"], [])
    assert report["pairs"] == {"min": 11, "median": 11, "max": 11}
    out = tmp_path / "set.h5"
    assert run(velora, ["dataset", "build", str(tmp_path / "set"), str(out), "--image-size", "16"]) == 0
    assert "2 recordings, 22 pairs" in capsys.readouterr().out
