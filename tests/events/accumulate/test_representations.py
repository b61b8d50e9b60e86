from __future__ import annotations

import numpy as np
import pytest

from velora_edge.bundle import EventInput, Palette
from velora_edge.datatypes import EventBatch
from velora_edge.errors import ConfigError
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.formats.arrays import ArrayStream
from velora_edge.events.kernels import _frame_kernels as kernels


def batch(*events):
    t, x, y, p = zip(*events, strict=True) if events else ((), (), (), ())
    return EventBatch(
        np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8)
    )


def picture(representation, events, window=(0, 100), sensor=(1, 2), **options):
    """Frame of shape sensor (height, width), from events (t, x, y, p)."""
    frame = make_accumulator(
        EventInput(representation=representation, **options), RegistrationMap.from_fit(sensor, sensor)
    )
    frame.begin(0, 1)
    frame.begin(*window)
    stream = ArrayStream(iter([batch(*events)]), sensor[1], sensor[0])
    stream.accumulate_until(window[1], frame)
    image = np.full((*sensor, 3), 77, np.uint8)
    frame.render_into(image)
    return image.tolist()


def test_polarity_image_shows_the_last_event_in_the_palettes_colours():
    palette = Palette(background=(1, 2, 3), off=(4, 5, 6), on=(7, 8, 9))
    events = [(0, 0, 0, 1), (1, 0, 0, 0), (1, 1, 0, 1)]
    assert picture("polarity", events, palette=palette) == [[[4, 5, 6], [7, 8, 9]]]
    assert picture("polarity", [], palette=palette) == [[[1, 2, 3], [1, 2, 3]]]


def test_counts_have_a_channel_for_each_polarity():
    events = [(0, 0, 0, 1), (1, 0, 0, 0), (1, 0, 0, 1)]
    assert picture("counts", events) == [[[1, 2, 0], [0, 0, 0]]]


def test_counts_stay_at_255_and_do_not_wrap():
    events = [(0, 0, 0, 1)] * 300 + [(0, 1, 0, 0)] * 255
    assert picture("counts", events) == [[[0, 255, 0], [255, 0, 0]]]


def test_time_surface_rises_from_1_to_255_over_the_window():
    events = [(100, 0, 0, 0), (1123, 0, 0, 1), (611, 1, 0, 1), (612, 1, 0, 1)]
    assert picture("time_surface", events, window=(100, 1124)) == [[[1, 255, 0], [0, 128, 0]]]


def test_time_surface_of_an_event_from_before_the_window_is_1():
    assert picture("time_surface", [(5, 0, 0, 1)], window=(100, 200)) == [[[0, 1, 0], [0, 0, 0]]]


def test_voxel_grid_shares_an_event_between_the_bins_beside_it():
    # Bins stand at 0, 50 and 100 us; an event at 25 us is half in the first, half in the second.
    events = [(0, 0, 0, 1), (25, 1, 0, 1), (50, 0, 0, 0)]
    assert picture("voxel_grid", events) == [[[144, 112, 128], [136, 136, 128]]]


def test_voxel_grid_saturates_at_both_ends():
    events = [(0, 0, 0, 1)] * 1000 + [(0, 1, 0, 0)] * 1000
    assert picture("voxel_grid", events) == [[[255, 128, 128], [0, 128, 128]]]


def test_voxel_grid_holds_at_the_ends_however_many_events_come():
    frame = make_accumulator(
        EventInput(representation="voxel_grid"), RegistrationMap.from_fit((1, 1), (1, 1))
    )
    frame.begin(0, 100)
    n = 10_000_000
    many = EventBatch(
        np.zeros(n, np.int64), np.zeros(n, np.uint16), np.zeros(n, np.uint16), np.ones(n, np.uint8)
    )
    ArrayStream(iter([many]), 1, 1).accumulate_until(100, frame)
    assert frame.events == n
    assert frame.state.grid.tolist() == [0, 0, 0, 2048, 0, 0]


def test_events_at_every_corner_of_the_sensor_reach_their_corner_of_the_frame():
    corners = [(0, 0, 0, 1), (0, 3, 0, 1), (0, 0, 2, 1), (0, 3, 2, 1)]
    image = np.array(picture("counts", corners, sensor=(3, 4)))
    assert image[:, :, 1].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize("representation", ["polarity", "counts", "time_surface", "voxel_grid"])
@pytest.mark.parametrize("full", [False, True])
def test_compiled_and_plain_python_agree(representation, full):
    rng = np.random.default_rng(7)
    events = batch(
        *zip(
            rng.integers(-5, 120, 400).tolist(),
            rng.integers(0, 6, 400).tolist(),
            rng.integers(0, 4, 400).tolist(),
            rng.integers(0, 2, 400).tolist(),
            strict=True,
        )
    )
    registration = RegistrationMap.from_fit((4, 6), (3, 3), "crop")
    if full:
        registration = RegistrationMap.from_table(registration.as_table(), (3, 3))
    states = []
    for accumulate in (kernels.accumulate_arrays, kernels.accumulate_arrays.py_func):
        frame = make_accumulator(EventInput(representation=representation), registration)
        frame.begin(0, 100)
        counts, position = np.zeros(1, np.int64), 0
        for t1_us in (50, 100, 1000):
            position = accumulate(
                events.t_us, events.x, events.y, events.p, position, t1_us, frame.table, frame.state, counts
            )
        image = np.empty((3, 3, 3), np.uint8)
        frame.render_into(image)
        states.append((position, counts.tolist(), image.tolist(), [part.tolist() for part in frame.state]))
    assert states[0] == states[1]
    assert states[0][0] == 400


def test_rendering_into_an_array_of_another_shape_is_refused():
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((2, 2), (2, 2)))
    with pytest.raises(
        ValueError, match=r"expected a contiguous uint8 array \(2, 2, 3\), got uint8 \(2, 3, 3\)"
    ):
        frame.render_into(np.empty((2, 3, 3), np.uint8))


def test_an_unknown_representation_is_refused_with_its_key():
    with pytest.raises(
        ConfigError, match=r"event\.representation: expected one of polarity, counts, time_surface"
    ):
        make_accumulator(EventInput(representation="rainbow"), RegistrationMap.from_fit((2, 2), (2, 2)))
