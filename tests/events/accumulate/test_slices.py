"""Frames of sliding windows, put together from slices, are those of the windows by themselves."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.fakes import MemoryEvents
from velora_edge.bundle import EventInput, Palette
from velora_edge.errors import ConfigError
from velora_edge.events.accumulate import images
from velora_edge.events.accumulate.representations import Accumulator, RegistrationMap, make_accumulator
from velora_edge.events.accumulate.slices import SlicedAccumulator, Steps

HW = (4, 6)
W, R, B = [255, 255, 255], [255, 0, 0], [0, 0, 255]


def make_frame(representation: str = "polarity", hw: tuple[int, int] = HW) -> Accumulator:
    return make_accumulator(
        EventInput(representation=representation, palette=Palette()), RegistrationMap.from_fit(hw, hw)
    )


def image_of(frame: Accumulator | SlicedAccumulator, hw: tuple[int, int] = HW) -> list[list[list[int]]]:
    image = np.empty((*hw, 3), np.uint8)
    frame.render_into(image)
    return image.tolist()


def draw_events(seed: int, n: int) -> list[tuple[int, int, int, int]]:
    draw = np.random.default_rng(seed)
    t_us = np.sort(draw.integers(0, 500, n)).tolist()
    return [(t, int(draw.integers(6)), int(draw.integers(4)), int(draw.integers(2))) for t in t_us]


def test_steps_are_rounded_down_each_on_its_own_and_end_with_the_longest_window() -> None:
    steps = Steps(Fraction(120), 30_000)
    assert list(steps.between(100, 100_100)) == [8433, 16_766, 25_100]
    assert list(steps.between(100, 16_766)) == [8433]


def test_a_window_across_two_shows_the_newest_event_of_each_pixel() -> None:
    events = [(0, 0, 0, 1), (1, 1, 0, 1), (6, 1, 0, 0), (11, 1, 0, 1), (16, 2, 0, 0)]
    stream = MemoryEvents(events, (3, 1)).stream()
    sliced = SlicedAccumulator(lambda: make_frame(hw=(1, 3)), Steps(Fraction(200_000), 100))
    sliced.begin(0, 10)
    assert sliced.accumulate(stream, 10) == 3
    sliced.finish(10)
    assert (image_of(sliced, (1, 3)), sliced.events) == ([[R, B, W]], 3)
    sliced.begin(10, 20)
    assert sliced.accumulate(stream, 15) == 1
    assert (sliced.slide(15), image_of(sliced, (1, 3)), sliced.events) == ((5, 2), [[W, R, W]], 2)
    assert sliced.accumulate(stream, 20) == 1
    sliced.finish(20)
    assert image_of(sliced, (1, 3)) == [[W, R, B]]


@pytest.mark.parametrize("representation", ["polarity", "counts"])
@pytest.mark.parametrize("step_us", [1, 7, 25, 99])
def test_sliced_frames_are_those_of_the_windows_by_themselves(representation: str, step_us: int) -> None:
    events = draw_events(step_us, 3000)
    stream, alone = MemoryEvents(events, (6, 4)).stream(), make_frame(representation)
    sliced = SlicedAccumulator(lambda: make_frame(representation), Steps(Fraction(1_000_000, step_us), 200))
    ends_us = [0, 100, 195, 300, 420]
    for t0_us, t1_us in zip(ends_us, ends_us[1:], strict=False):
        sliced.begin(t0_us, t1_us)
        last = sliced.window_us
        length_us = 0 if last is None else last[1] - last[0]
        for t_us in sliced.steps.between(t0_us, min(t1_us, t0_us + length_us)):
            sliced.accumulate(stream, t_us)
            expected = [e for e in events if t_us - length_us <= e[0] < t_us]
            assert sliced.slide(t_us) == (t_us - length_us, len(expected))
            alone.begin(0, 1)
            MemoryEvents(expected, (6, 4)).stream().accumulate_until(1000, alone)
            assert (image_of(sliced), sliced.events) == (image_of(alone), alone.events)
        sliced.accumulate(stream, t1_us)
        sliced.finish(t1_us)
        alone.begin(0, 1)
        inside = [e for e in events if t0_us <= e[0] < t1_us]
        MemoryEvents(inside, (6, 4)).stream().accumulate_until(1000, alone)
        assert (image_of(sliced), sliced.events) == (image_of(alone), alone.events)


def test_counts_of_slices_stay_at_255_and_do_not_wrap() -> None:
    counts, later = np.array([200, 255, 0, 3], np.uint8), np.array([100, 255, 7, 4], np.uint8)
    images.extend_counts(counts, later)
    assert counts.tolist() == [255, 255, 7, 7]


@pytest.mark.parametrize("extend", [images.extend_polarity, images.extend_counts])
def test_compiled_and_plain_python_agree(extend) -> None:  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(3)
    high = 3 if extend is images.extend_polarity else 256
    earlier, later = draw.integers(0, high, (2, 999)).astype(np.uint8)
    compiled, plain = earlier.copy(), earlier.copy()
    extend(compiled, later)
    extend.py_func(plain, later)
    assert compiled.tolist() == plain.tolist()


@pytest.mark.parametrize("representation", ["time_surface", "voxel_grid"])
def test_frames_that_depend_on_the_windows_times_are_refused(representation: str) -> None:
    with pytest.raises(ConfigError, match="leave out --provisional"):
        SlicedAccumulator(lambda: make_frame(representation), Steps(Fraction(120), 50_000))
