from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.events.words import edge_rows, rows
from velora_edge.bundle import EventInput
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.accumulate.representations import RegistrationMap, make_accumulator
from velora_edge.events.formats.arrays import ArrayReader
from velora_edge.events.kernels import _frame_kernels as kernels


def batch(*events):
    t, x, y, p = zip(*events, strict=True) if events else ((), (), (), ())
    return EventBatch(
        np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8)
    )


class Arrays(ArrayReader):
    """A reader whose file is a list of batches, on a sensor of 4x2."""

    def __init__(self, *batches, edges=()):
        super().__init__(Path("here"), "arrays", (4, 2))
        self._batches, self._edges = batches, edges

    def batches(self):
        yield from self._batches

    def triggers(self):
        t, channel, p = zip(*self._edges, strict=True) if self._edges else ((), (), ())
        return TriggerBatch(np.array(t, np.int64), np.array(channel, np.uint8), np.array(p, np.uint8))


def new_frame():
    frame = make_accumulator(EventInput(representation="counts"), RegistrationMap.from_fit((2, 4), (2, 2)))
    frame.begin(0, 100)
    return frame


FIRST = batch((1, 0, 0, 1), (2, 3, 1, 0))
SECOND = batch((2, 1, 0, 1), (5, 2, 0, 1), (9, 1, 1, 0))


def test_batches_come_as_they_are_but_for_empty_ones():
    reader = Arrays(FIRST, batch(), SECOND)
    assert [rows(part) for part in reader] == [rows(FIRST), rows(SECOND)]
    assert reader.warnings == []


def test_events_outside_the_sensor_are_dropped_and_counted_once_however_often_read():
    reader = Arrays(batch((0, 4, 0, 1), (1, 3, 1, 1), (2, 0, 2, 1)), batch((3, 9, 9, 1)))
    assert rows(reader.read()) == rows(reader.read()) == [(1, 3, 1, 1)]
    assert reader.warnings == ["3 events lie outside the sensor of 4x2 and were dropped"]


def test_events_out_of_order_are_kept_in_order_of_the_file_and_counted():
    reader = Arrays(batch((5, 0, 0, 1), (3, 0, 0, 1)), batch((4, 0, 0, 1), (5, 0, 0, 1)))
    assert [event[0] for event in rows(reader.read())] == [5, 3, 4, 5]
    assert reader.warnings == ["2 events are earlier than one before them, by up to 2 us"]


@pytest.mark.parametrize("t_us", [2**62, 2**63 - 1, -(2**62), -(2**63)])
def test_events_with_times_that_no_clock_shows_are_dropped_and_counted(t_us):
    reader = Arrays(batch((t_us, 0, 0, 1), (5, 1, 0, 1)), batch((t_us, 9, 9, 1), (6, 2, 0, 1)))
    assert [event[:2] for event in rows(reader.read())] == [(5, 1), (6, 2)]
    assert reader.warnings == [
        "1 events lie outside the sensor of 4x2 and were dropped",
        "2 events have a time that no clock shows and were dropped",
    ]


@pytest.mark.parametrize("t_us", [2**62 - 1, -(2**62) + 1])
def test_times_of_any_clock_are_kept(t_us):
    reader = Arrays(batch((t_us, 0, 0, 1), (t_us, 1, 0, 1)))
    assert [event[0] for event in rows(reader.read())] == [t_us, t_us]
    assert reader.warnings == []


def test_windows_end_before_their_end_and_go_on_across_batches():
    stream, frame = Arrays(FIRST, SECOND).stream(), new_frame()
    assert (stream.t_next_us, stream.accumulate_until(2, frame), stream.t_next_us) == (1, 1, 2)
    assert (stream.accumulate_until(5, frame), stream.t_next_us) == (2, 5)
    assert frame.events == 1  # only columns 1 and 2 of the sensor's four are on the frame
    assert (stream.accumulate_until(100, frame), stream.t_next_us) == (2, None)
    assert frame.events == 3
    assert frame.state.counts.tolist()[2:] == [0, 1, 0, 1, 1, 0, 0, 0]


def test_a_late_event_falls_in_the_window_that_is_being_filled():
    stream, frame = (
        Arrays(batch((1, 1, 0, 1), (60, 1, 0, 1), (2, 1, 0, 1), (99, 1, 0, 1))).stream(),
        new_frame(),
    )
    assert [stream.accumulate_until(t1_us, frame) for t1_us in (50, 70, 100)] == [1, 2, 1]


def test_skipping_counts_the_events_and_leaves_the_next():
    stream = Arrays(FIRST, SECOND).stream()
    assert (stream.skip_until(5), stream.t_next_us, stream.skip_until(0)) == (3, 5, 0)
    assert (stream.skip_until(100), stream.t_next_us) == (2, None)


def test_trigger_edges_come_when_the_stream_has_reached_them():
    stream = Arrays(FIRST, SECOND, edges=[(1, 0, 1), (5, 0, 0), (50, 1, 1)]).stream()
    assert edge_rows(stream.take_triggers()) == []
    stream.skip_until(5)
    assert edge_rows(stream.take_triggers()) == [(1, 0, 1)]
    stream.skip_until(10)
    assert edge_rows(stream.take_triggers()) == [(5, 0, 0), (50, 1, 1)]
    assert edge_rows(stream.take_triggers()) == []


def test_a_closed_stream_is_at_its_end():
    stream = Arrays(FIRST).stream()
    stream.close()
    assert stream.t_next_us is None


def test_a_frame_for_another_sensor_is_refused():
    frame = make_accumulator(EventInput(), RegistrationMap.from_fit((4, 4), (2, 2)))
    with pytest.raises(
        ValueError, match="expected a registration map for the sensor of 4x2, got one for 4x4"
    ):
        Arrays(FIRST).stream().accumulate_until(5, frame)


def test_an_empty_recording_has_no_events_and_no_windows():
    reader = Arrays()
    frame = new_frame()
    assert len(reader.read()) == 0
    assert reader.stream().accumulate_until(100, frame) == 0
    assert reader.stream().t_next_us is None


@pytest.mark.parametrize("name", ["inspect_events", "find_end"])
def test_compiled_and_plain_python_agree(name):
    rng = np.random.default_rng(1)
    t = rng.choice([*range(50), 2**62, -(2**62)], 200)
    x, y = rng.integers(0, 9, 200), rng.integers(0, 9, 200)
    compiled = getattr(kernels, name)
    results = []
    for function in (compiled, compiled.py_func):
        seen = np.array([20, 1, 2, 3, 4])
        if name == "find_end":
            results.append([int(function(t, 3, t1_us)) for t1_us in (0, 10, 49, 50)])
        else:
            results.append(
                (int(function(t, x.astype(np.uint16), y.astype(np.uint16), 8, 7, seen)), seen.tolist())
            )
    assert results[0] == results[1]
