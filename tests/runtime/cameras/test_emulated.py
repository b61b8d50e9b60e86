"""Events that are made of the RGB camera's pictures, on their way into frames."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from velora_runtime.cameras import live_events as emulated
from velora_runtime.cameras.camera_settings import EmulatorSettings
from velora_runtime.cameras.live_events import EmulatedStream

from tests.fakes import FakeRGB, write_tiny_bundle
from tests.videos import write_video
from velora_cli.live.live import command
from velora_edge.console import run
from velora_edge.datatypes import RGBFrame
from velora_edge.preprocessing.sync import TimestampSync

if TYPE_CHECKING:
    from pathlib import Path


def picture(value: int, hw: tuple[int, int] = (4, 4)) -> np.ndarray:
    return np.full((*hw, 3), value, np.uint8)


def make(hw: tuple[int, int] = (4, 4), **settings: Any) -> EmulatedStream:
    return EmulatedStream(FakeRGB([], hw), EmulatorSettings(**settings))


def test_light_that_changes_gives_events_between_the_two_pictures() -> None:
    stream = make()
    stream.push(picture(50), 0)
    stream.push(picture(200), 10_000)  # ln 4 is 1.39: six thresholds of 0.2 and some
    batch = stream.read_batch(1000, 10_001)
    assert len(batch) > 16 * 5
    assert set(batch.p.tolist()) == {1}
    assert 0 <= int(batch.t_us.min()) <= int(batch.t_us.max()) <= 10_000
    stream.push(picture(50), 20_000)
    assert set(stream.read_batch(1000, 20_001).p.tolist()) == {0}


def test_a_window_is_there_once_a_picture_was_before_its_end() -> None:
    stream = make()
    assert (stream.await_window(0, 1000), stream.t_next_us) == (False, 0)
    stream.push(picture(50), 1000)
    assert [stream.await_window(0, t) for t in (1000, 1001)] == [False, True]
    assert stream.t_next_us == 1000


def test_events_are_taken_up_to_a_time_and_passed_over_up_to_one() -> None:
    stream = make()
    for k, value in enumerate((50, 200, 50)):
        stream.push(picture(value), 10_000 * k)
    skipped = stream.skip_until(10_001)
    rest = stream.read_batch(10_000, 1 << 60)
    assert skipped > 80
    assert len(rest) > 80
    assert int(rest.t_us.min()) >= 10_001


def test_pictures_out_of_order_are_passed_over() -> None:
    stream = make()
    stream.push(picture(50), 1000)
    stream.push(picture(200), 1000)
    stream.push(picture(200), 500)
    assert len(stream.read_batch(100, 1 << 60)) == 0


def test_large_pictures_are_made_smaller_first() -> None:
    stream = make((60, 80), longest_px=20)
    assert (stream.width, stream.height) == (20, 15)
    stream.push(picture(50, (60, 80)), 0)
    stream.push(picture(200, (60, 80)), 1000)
    batch = stream.read_batch(1 << 20, 1 << 60)
    assert (int(batch.x.max()), int(batch.y.max())) == (19, 14)


def test_what_nobody_takes_is_dropped_and_counted(monkeypatch: Any) -> None:
    monkeypatch.setattr(emulated, "KEPT", 2)
    stream = make()
    for k in range(5):
        stream.push(picture(50 if k % 2 else 200), 10_000 * k)
    left = len(stream.read_batch(1 << 20, 1 << 60)) + len(stream.read_batch(1 << 20, 1 << 60))
    assert stream.dropped > 100
    assert left > 100
    assert len(stream.read_batch(1 << 20, 1 << 60)) == 0


def test_frames_that_find_their_place_are_seen_by_the_sensor() -> None:
    stream = make()
    sync = TimestampSync(7000, "as they are")
    for t_us, value in ((0, 50), (10_000, 200)):
        stream.see(sync.place(RGBFrame(picture(value), t_us, 0)))
    assert stream.t_next_us == 7000
    assert len(stream.read_batch(1 << 20, 1 << 60)) > 80


def test_a_video_alone_is_recognised_with_events_of_its_own(tmp_path: Path) -> None:
    """Frame k is of the grey 10 k: from the fourth on, each step is some thresholds of light at most."""
    model = write_tiny_bundle(tmp_path / "m.velora").path
    write_video(tmp_path / "v.mp4", [33_333 * k for k in range(12)])
    args = [
        model,
        "--events",
        "emulate",
        "--rgb",
        tmp_path / "v.mp4",
        "--pace",
        "max",
        "--out",
        tmp_path / "p",
    ]
    assert run(command, [*map(str, args), "--quiet"], name="velora-live") == 0
    lines = [json.loads(line) for line in (tmp_path / "p").read_text().splitlines()]
    assert len(lines) == 10
    assert {tuple(line["missing"]) for line in lines} == {()}
    assert sum(line["events"] > 0 for line in lines) >= 8
