from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from recordings import write_events
from videos import write_video

import velora_edge
from velora_edge.errors import InputError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

FRAMES_US = [40_000 * k for k in range(1, 6)]


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    write_events(tmp_path / "day.raw", start_us=0, duration_us=300_000)
    write_video(tmp_path / "day.mp4", FRAMES_US)
    return tmp_path / "day.raw", tmp_path / "day.mp4"


def test_each_picture_has_the_events_before_it(both: tuple[Path, Path]) -> None:
    found = list(velora_edge.pairs(*both, (20, 30), window_us=40_000))
    assert [pair.t_us for pair in found] == FRAMES_US
    assert [pair.rgb is not None for pair in found] == [True] * 5
    for before, pair in itertools.pairwise(found):
        assert pair.event is not None
        assert before.event is not None
        assert pair.event.t0_us == before.event.t1_us
        assert pair.event.image.shape == (20, 30, 3)
        assert pair.rgb is not None
        assert pair.rgb.image.shape == (20, 30, 3)


def test_images_are_kept_as_they_were_given(both: tuple[Path, Path]) -> None:
    kept = list(velora_edge.pairs(*both))
    for pair, again in zip(velora_edge.pairs(*both), kept, strict=True):
        assert (pair.event is None) == (again.event is None)
        if pair.event is not None and again.event is not None:
            assert np.array_equal(pair.event.image, again.event.image)
        assert pair.rgb is not None
        assert again.rgb is not None
        assert np.array_equal(pair.rgb.image, again.rgb.image)


def test_without_a_size_each_image_has_its_cameras(both: tuple[Path, Path]) -> None:
    with velora_edge.open_events(both[0]) as reader:
        sensor_hw = (reader.height, reader.width)
    last = list(velora_edge.pairs(*both))[-1]
    assert last.event is not None
    assert last.event.image.shape == (*sensor_hw, 3)
    assert last.rgb is not None
    assert last.rgb.image.shape == (32, 48, 3)


def test_events_alone_are_the_frames_of_their_windows(both: tuple[Path, Path]) -> None:
    found = [pair.event for pair in velora_edge.pairs(both[0], window_us=50_000)]
    frames = list(velora_edge.frames(both[0], 50_000))
    assert len(found) == len(frames) > 3
    for event, frame in zip(found, frames, strict=True):
        assert event is not None
        assert (event.t0_us, event.t1_us, event.events) == (frame.t0_us, frame.t1_us, frame.events)
        assert np.array_equal(event.image, frame.image)


def test_an_offset_moves_the_pictures(both: tuple[Path, Path]) -> None:
    found = list(velora_edge.pairs(*both, sync="offset=1000"))
    assert [pair.t_us for pair in found] == [1000 + t_us for t_us in FRAMES_US]


def test_what_cannot_be_is_refused_at_once(both: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="window_us: expected a length in microseconds above 0, got 0"):
        velora_edge.pairs(*both, window_us=0)
    with pytest.raises(InputError, match="host is for live cameras"):
        velora_edge.pairs(*both, sync="host")
    with pytest.raises(SourceError, match="no such file"):
        next(velora_edge.pairs(both[0], "nowhere.mp4"))
