"""Offsets that are known are found again; where nothing tells the offset, that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.videos import write_video
from velora_edge.bundle import find_model
from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.registry import open_events
from velora_edge.events.writers import open_writer
from velora_edge.preprocessing.offset import Part, measure_offset
from velora_edge.preprocessing.offset_estimate import (
    CELLS,
    EventMotion,
    PictureMotion,
    estimate_offset,
    read_picture_motion,
)
from velora_edge.preprocessing.video_file import VideoFile

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.preprocessing.offset import Measured

PERIOD_US = 33_333
SECOND = 1_000_000


@pytest.fixture(scope="module")
def demo() -> Measured:
    """The packaged recording; its video's times are those of its events, to 12 us."""
    assets = find_model("demo").parent
    return measure_offset(str(assets / "demo.raw"), str(assets / "demo.mp4"), Part())


@pytest.mark.parametrize("shift_us", [0, -180_000, 40_000, 700_000, 12_345])
def test_a_known_offset_of_the_demo_is_found_within_5_ms(demo: Measured, shift_us: int) -> None:
    late = replace(demo.events, begin_us=demo.events.begin_us + shift_us)
    found = estimate_offset(demo.pictures, late, 10 * SECOND)
    assert abs(found.offset_us - shift_us) < 5_000
    assert found.error_us < 1_000
    assert found.confidence > 0.8
    assert found.doubt == ""


@pytest.mark.parametrize("shift_us", [-180_000, 40_000, 700_000])
def test_so_it_is_from_files_and_the_printed_sync_pairs_frames_with_their_triggers(
    tmp_path: Path, shift_us: int
) -> None:
    assets = find_model("demo").parent
    with open_events(assets / "demo.raw") as reader:
        batch, edges = reader.read(), reader.triggers()
    kept = batch[batch.t_us + shift_us >= 0]
    with open_writer(tmp_path / "e.raw", width=96, height=96) as writer:
        writer.write(EventBatch(kept.t_us + shift_us, kept.x, kept.y, kept.p))
    measured = measure_offset(str(tmp_path / "e.raw"), str(assets / "demo.mp4"), Part())
    assert measured.sync == f"offset={measured.estimate.offset_us}"
    assert abs(measured.estimate.offset_us - shift_us) < 5_000
    rising_us = edges.t_us[edges.p == 1] + shift_us
    placed_us = VideoFile(str(assets / "demo.mp4")).times_us() + measured.estimate.offset_us
    assert np.abs(placed_us - rising_us).max() < 5_000


@pytest.mark.parametrize("change", ["mirrored", "turned", "cropped"])
def test_views_need_not_be_the_same(demo: Measured, change: str) -> None:
    change_image = {
        "mirrored": lambda image: image[:, ::-1],
        "turned": lambda image: np.rot90(image),
        "cropped": lambda image: image[10:70, 20:90],
    }[change]
    frames = list(VideoFile(str(find_model("demo").parent / "demo.mp4")))
    seen = [replace(f, image=np.ascontiguousarray(change_image(f.image))) for f in frames]
    found = estimate_offset(read_picture_motion("v", seen), demo.events, 10 * SECOND)
    assert abs(found.offset_us) < 5_000
    assert found.doubt == ""


def motions(activity: np.ndarray, offset_us: int) -> tuple[PictureMotion, EventMotion]:
    """Both motions of an activity[bins of 500 us, CELLS]; the events are late by the offset."""
    bins_a_picture = PERIOD_US / 500
    middles = np.arange(1, int(len(activity) / bins_a_picture)) * PERIOD_US
    until = np.concatenate([np.zeros((1, CELLS)), np.cumsum(activity, axis=0)])
    edges = [np.rint((middles + side * PERIOD_US / 2) / 500).astype(int) for side in (-1, 1)]
    energy = (until[edges[1].clip(0, len(activity))] - until[edges[0].clip(0)]).astype(np.float32)
    return PictureMotion("v", middles, energy), EventMotion("e", offset_us, np.rint(until).astype(np.int64))


def walk(seconds: float, seed: int = 1) -> np.ndarray:
    """Motion that comes and goes in each cell on its own, within a few tenths of a second."""
    rng = np.random.default_rng(seed)
    knots = rng.uniform(0, 6, (int(seconds * 5) + 2, CELLS))
    t = np.arange(int(seconds * 2000)) / 2000 * 5
    return np.stack([np.interp(t, np.arange(len(knots)), knots[:, c]) for c in range(CELLS)], axis=1)


def test_motion_that_comes_and_goes_tells_the_offset_to_a_millisecond() -> None:
    pictures, events = motions(walk(12), 1_234_000)
    found = estimate_offset(pictures, events, 3 * SECOND)
    assert abs(found.offset_us - 1_234_000) < 1_000
    assert found.match > 0.95
    assert found.confidence > 0.5


def test_motion_that_repeats_is_doubted_and_both_offsets_are_named() -> None:
    pictures, events = motions(np.tile(walk(1), (12, 1)), 0)
    found = estimate_offset(pictures, events, 3 * SECOND)
    assert found.confidence < 0.1
    assert found.next_us is not None
    apart_us = abs(found.offset_us - found.next_us) % SECOND
    assert min(apart_us, SECOND - apart_us) < PERIOD_US
    assert f"{found.offset_us / 1000:+.0f} ms fits hardly better" in found.doubt
    assert "the motion repeats" in found.doubt


@pytest.mark.parametrize("seed", range(4))
def test_two_recordings_that_have_nothing_in_common_are_doubted(seed: int) -> None:
    (pictures, _), (_, events) = motions(walk(12, seed), 0), motions(walk(12, 100 + seed), 0)
    assert estimate_offset(pictures, events, 3 * SECOND).doubt != ""


def test_the_demos_pictures_in_another_order_are_doubted(demo: Measured) -> None:
    backwards = replace(demo.pictures, energy=demo.pictures.energy[::-1].copy())
    doubt = estimate_offset(backwards, demo.events, 10 * SECOND).doubt
    assert doubt.startswith("the two do not move alike at any offset")


def test_slow_motion_in_noise_is_doubted() -> None:
    rng = np.random.default_rng(5)
    pictures, events = motions(np.repeat(walk(2), 10, axis=0), 0)  # ten times slower
    noise = rng.normal(0, 100, pictures.energy.shape).astype(np.float32)
    noisy = replace(pictures, energy=(pictures.energy + noise).clip(0))
    assert estimate_offset(noisy, events, 3 * SECOND).doubt != ""


def test_an_offset_that_moves_by_more_than_half_a_period_is_not_sharp() -> None:
    pictures, events = motions(walk(6), 0)
    found = estimate_offset(pictures, events, SECOND)
    assert replace(found, error_us=16_000).doubt == ""
    vague = replace(found, offset_us=-7_000, error_us=17_000)
    assert vague.doubt == "the offset is not sharp: -7 ms, +- 17 ms"


def test_too_few_pictures_no_motion_and_no_overlap_are_errors(demo: Measured) -> None:
    pictures, events = demo.pictures, demo.events
    few = PictureMotion("v.mp4", pictures.t_us[:44], pictures.energy[:44])
    with pytest.raises(
        RecordingError, match=r"^v\.mp4: expected 45 pictures at least, got 44; give a longer video"
    ):
        estimate_offset(few, events, SECOND)
    still = PictureMotion("v.mp4", pictures.t_us, np.zeros_like(pictures.energy))
    with pytest.raises(RecordingError, match=r"^v\.mp4: nothing moves in the pictures; choose"):
        estimate_offset(still, events, SECOND)
    apart = PictureMotion("v.mp4", pictures.t_us + 60 * SECOND, pictures.energy)
    with pytest.raises(RecordingError, match=r"it hardly overlaps .*demo\.raw within 1 s; look further"):
        estimate_offset(apart, events, SECOND)


def test_a_part_of_the_video_is_enough(demo: Measured) -> None:
    assets = find_model("demo").parent
    part = Part(start_us=2 * SECOND, duration_us=3 * SECOND)
    measured = measure_offset(str(assets / "demo.raw"), str(assets / "demo.mp4"), part)
    assert (int(measured.pictures.t_us[0]), len(measured.pictures.t_us)) == (2_066_646, 88)
    assert abs(measured.estimate.offset_us) < 5_000


def test_a_part_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    assets = find_model("demo").parent
    write_video(tmp_path / "v.mp4", [40_000 * k for k in range(10)])
    with pytest.raises(RecordingError, match=r"v\.mp4: expected 45 pictures at least, got 0"):
        measure_offset(str(assets / "demo.raw"), str(tmp_path / "v.mp4"), Part(start_us=60 * SECOND))
