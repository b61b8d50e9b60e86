"""Motion of pictures and of events over a coarse grid, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes import MemoryEvents
from velora_edge.datatypes import RGBFrame
from velora_edge.errors import RecordingError
from velora_edge.preprocessing.offset_estimate import BIN_US, CELLS, read_event_motion, read_picture_motion


def frames(*bright: int | None) -> list[RGBFrame]:
    """Pictures of 8x8, a cell (2x2 pixels) of which is bright, 10 ms apart."""
    found = []
    for k, cell in enumerate(bright):
        image = np.full((8, 8, 3), 50, np.uint8)
        if cell is not None:
            y, x = divmod(cell, 4)
            image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = 150
        found.append(RGBFrame(image, 10_000 * k, k))
    return found


def test_what_moves_belongs_to_the_picture_that_differs_from_both_beside_it() -> None:
    motion = read_picture_motion("v", frames(None, 5, None, None, 9))
    assert motion.t_us.tolist() == [10_000, 20_000, 30_000]
    expected = np.zeros((3, CELLS), np.float32)
    expected[0, 5] = 100 - 3
    assert motion.energy.tolist() == expected.tolist()
    assert motion.period_us == 10_000


def test_what_stays_and_what_is_noise_is_no_motion() -> None:
    still = frames(3, 3, 3, 3)
    for k, frame in enumerate(still):
        frame.image[0, 0] += 3 * (k % 2)
    assert not read_picture_motion("v", still).energy.any()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_pictures_show_no_motion(n: int) -> None:
    motion = read_picture_motion("v", frames(*[None] * n))
    assert (motion.t_us.shape, motion.energy.shape) == ((0,), (0, CELLS))


def test_a_large_picture_is_averaged_over_the_same_cells() -> None:
    large = [RGBFrame(f.image.repeat(60, 0).repeat(80, 1), f.t_us, f.seq) for f in frames(None, 5, None)]
    energy = read_picture_motion("v", large).energy[0]
    assert energy.argmax() == 5
    assert abs(float(energy[5]) - 97) < 3
    assert float(np.delete(energy, 5).max()) < 3


def test_events_are_counted_by_cell_and_time() -> None:
    events = MemoryEvents([(1000, 0, 0, 1), (1499, 0, 0, 0), (1500, 2, 0, 1), (3999, 7, 7, 1)])
    motion = read_event_motion(events, 0, 10_000)
    assert (motion.begin_us, motion.end_us) == (1000, 4000)  # nothing is known beyond its events
    counts = motion.count(np.array([1000, 1500, 1000]), np.array([1500, 2000, 4000]))
    expected = np.zeros((3, CELLS), np.float32)
    expected[0, 0], expected[1, 1] = 2, 1
    expected[2, [0, 1, 15]] = 2, 1, 1
    assert counts.tolist() == expected.tolist()


def test_events_outside_the_time_that_was_asked_for_are_not_counted() -> None:
    events = MemoryEvents([(t, 0, 0, 1) for t in range(0, 10_000, 100)])
    motion = read_event_motion(events, 2000, 3000)
    assert motion.until[:, 0].tolist() == [0, 5, 10]
    assert motion.end_us - motion.begin_us == 2 * BIN_US


def test_no_events_in_that_time_is_an_error() -> None:
    events = MemoryEvents([(5, 0, 0, 1)])
    with pytest.raises(RecordingError, match=r"memory\.raw: holds no events from 1\.0 s to 2\.0 s; choose"):
        read_event_motion(events, 1_000_000, 2_000_000)
