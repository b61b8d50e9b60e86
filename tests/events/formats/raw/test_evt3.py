from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events import words as w
from velora_edge.events.accumulate.images import PolarityState
from velora_edge.events.formats.raw import _evt3_kernels as kernels
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import NEVER, RawDecoder, new_arrays
from velora_edge.events.kernels._frame_kernels import SeparableMap
from velora_edge.events.kernels._sink_kernels import ArraySink, CountSink, FrameSink

WIDTH, HEIGHT = 40, 8


def decode(*words, sensor=(WIDTH, HEIGHT)):
    decoder = RawDecoder("EVT3", sensor)
    batch = decoder.feed(w.evt3(*words))
    return w.rows(batch), decoder


START = (w.time_high(2), w.time_low(5), w.addr_y(3))
T0 = 2 * 4096 + 5


def test_single_events_carry_the_last_time_and_row():
    events, decoder = decode(
        *START, w.addr_x(7, 1), w.addr_x(9, 0), w.addr_y(4), w.time_low(6), w.addr_x(7, 1)
    )
    assert events == [(T0, 7, 3, 1), (T0, 9, 3, 0), (T0 + 1, 7, 4, 1)]
    assert decoder.warnings() == []


def test_vectors_go_on_where_the_one_before_ended():
    events, _ = decode(
        *START, w.base_x(1, 0), w.vect_12(0b100000000001), w.vect_12(0b10), w.vect_8(0b10000001), w.vect_8(1)
    )
    assert events == [(T0, x, 3, 0) for x in (1, 12, 14, 25, 32, 33)]


def test_a_full_vector_of_32_pixels_holds_32_events():
    events, _ = decode(*START, w.base_x(4), w.vect_12(0xFFF), w.vect_12(0xFFF), w.vect_8(0xFF))
    assert events == [(T0, x, 3, 1) for x in range(4, 36)]


def test_the_upper_bits_of_a_vect_8_say_nothing():
    events, _ = decode(*START, w.base_x(0), w.vect_8(0xF01))
    assert events == [(T0, 0, 3, 1)]


def test_events_beyond_the_sensors_edge_are_dropped_and_counted():
    events, decoder = decode(
        *START, w.addr_x(39), w.addr_x(40), w.base_x(38), w.vect_12(0b111),
        w.base_x(30), w.vect_12(1 << 11), w.vect_12(1), w.vect_8(1),
        w.addr_y(8), w.addr_x(1), w.base_x(1), w.vect_12(1), w.addr_y(7), w.addr_x(1),
    )  # fmt: skip
    assert events == [(T0, 39, 3, 1), (T0, 38, 3, 1), (T0, 39, 3, 1), (T0, 1, 7, 1)]
    assert decoder.warnings() == ["7 events lie outside the sensor of 40x8 and were dropped"]


def test_words_before_the_first_time_are_dropped_and_counted_but_give_row_and_base():
    events, decoder = decode(
        w.addr_y(2), w.addr_x(1), w.time_low(9), w.edge(0, 1), w.base_x(5), w.vect_12(0b11),
        w.time_high(1), w.addr_x(1), w.vect_8(1),
    )  # fmt: skip
    assert events == [(4096, 1, 2, 1), (4096, 17, 2, 1)]
    assert decoder.warnings() == [
        "3 events come before the first time word; they have no time and were dropped",
        "1 trigger edge comes before the first time word and was dropped",
    ]


def test_events_without_a_row_or_a_base_are_dropped_and_counted():
    events, decoder = decode(w.time_high(1), w.addr_x(1), w.vect_8(3), w.addr_y(0), w.vect_12(7))
    assert events == []
    assert decoder.warnings() == [
        "6 events come before the first address that they refer to and were dropped"
    ]


def test_time_high_inside_others_is_not_swallowed():
    events, decoder = decode(
        *START, w.OTHERS, w.CONTINUED_12, w.time_high(3), w.CONTINUED_12, w.CONTINUED_4, w.addr_x(0)
    )
    assert events == [(3 * 4096, 0, 3, 1)]
    assert decoder.warnings() == []


def test_a_repeated_time_high_keeps_the_low_time():
    events, _ = decode(*START, w.time_high(2), w.addr_x(0))
    assert events == [(T0, 0, 3, 1)]


def test_24_bit_time_goes_on_after_its_turn():
    events, decoder = decode(
        w.time_high(4095), w.time_low(4095), w.addr_y(0), w.addr_x(0), w.time_high(0), w.addr_x(1),
        w.time_high(2500), w.time_high(1), w.addr_x(2),
    )  # fmt: skip
    assert [event[0] for event in events] == [2**24 - 1, 2**24, 2 * 2**24 + 4096]
    assert decoder.warnings() == []


def test_time_high_going_back_a_little_is_no_turn():
    events, decoder = decode(w.time_high(9), w.addr_y(0), w.addr_x(0), w.time_high(8), w.addr_x(1))
    assert [event[0] for event in events] == [9 * 4096, 8 * 4096]
    assert decoder.warnings() == ["the time steps back once; the events keep the camera's times"]


def test_a_late_time_high_just_after_the_turn_belongs_before_it():
    events, _ = decode(
        w.time_high(4095), w.addr_y(0), w.addr_x(0), w.time_high(0), w.addr_x(1),
        w.time_high(4095), w.addr_x(2), w.time_high(0), w.addr_x(3),
    )  # fmt: skip
    assert [event[0] for event in events] == [4095 * 4096, 2**24, 4095 * 4096, 2**24]


def test_a_time_ahead_of_the_stream_that_no_event_has_is_no_step_back():
    events, decoder = decode(*START, w.addr_x(0), w.time_high(2), w.time_low(11), w.time_low(8), w.addr_x(1))
    assert [event[0] for event in events] == [T0, T0 + 3]
    assert decoder.warnings() == []


def test_padding_and_unknown_words_are_passed_over_and_counted():
    events, decoder = decode(*START, w.PADDING, w.PADDING, 0x1000, 0xB123, 0x9998, w.addr_x(0))
    assert events == [(T0, 0, 3, 1)]
    assert decoder.warnings() == [
        "3 words are of no type that EVT3 has and were passed over",
        "2 padding words (0x9999) were passed over",
    ]


def test_trigger_edges_keep_time_channel_and_direction():
    _, decoder = decode(*START, w.edge(0, 1), w.time_low(9), w.edge(7, 0))
    assert w.edge_rows(decoder.take_triggers()) == [(T0, 0, 1), (T0 + 4, 7, 0)]
    assert len(decoder.take_triggers()) == 0


def test_more_trigger_edges_than_the_buffer_holds_are_all_kept():
    words = [*START]
    for low in range(4000):
        words += [w.time_low(low), w.edge(low & 1, low & 1), w.addr_x(low % WIDTH)]
    events, decoder = decode(*words)
    assert w.edge_rows(decoder.take_triggers()) == [(2 * 4096 + i, i & 1, i & 1) for i in range(4000)]
    assert events == [(2 * 4096 + i, i % WIDTH, 3, 1) for i in range(4000)]


def test_nothing_comes_of_nothing():
    events, decoder = decode()
    assert events == []
    assert decoder.warnings() == []


word = st.one_of(
    st.builds(w.addr_y, st.integers(0, HEIGHT)),
    st.builds(w.addr_x, st.integers(0, WIDTH), st.integers(0, 1)),
    st.builds(w.base_x, st.integers(0, WIDTH), st.integers(0, 1)),
    st.builds(w.vect_12, st.integers(0, 0xFFF)),
    st.just(w.vect_12(0xFFF)),
    st.builds(w.vect_8, st.integers(0, 0xFFF)),
    st.builds(w.time_low, st.sampled_from((0, 1, 2, 4095))),
    st.builds(w.time_high, st.sampled_from((0, 1, 2, 2047, 4094, 4095))),
    st.builds(w.edge, st.integers(0, 15), st.integers(0, 1)),
    st.sampled_from((w.OTHERS, w.CONTINUED_4, w.CONTINUED_12, w.PADDING)),
    st.integers(0, 0xFFFF),
)


@given(st.lists(word, max_size=60), st.integers(1, 11))
def test_any_words_in_any_pieces_decode_as_the_plain_decoder_says(words, piece):
    decoder = RawDecoder("EVT3", (WIDTH, HEIGHT))
    data = w.evt3(*words)
    events, edges = [], []
    for at in range(0, len(data), piece):
        events += w.rows(decoder.feed(data[at : at + piece]))
        edges += w.edge_rows(decoder.take_triggers())
    assert (events, edges) == w.decode_evt3(words, WIDTH, HEIGHT)


def _sinks():
    frame = SeparableMap(
        np.where(np.arange(WIDTH) < 5, -(1 << 30), np.arange(WIDTH) // 2).astype(np.int32),
        np.arange(HEIGHT, dtype=np.int32) * WIDTH + 1,
    )
    return (
        new_arrays(30),
        FrameSink(frame, PolarityState(np.zeros(1 + WIDTH * HEIGHT, np.uint8))),
        CountSink(),
    )


def _content(sink, n):
    if isinstance(sink, ArraySink):
        return [column[:n].tolist() for column in sink]
    return sink.state.last.tolist() if isinstance(sink, FrameSink) else n


@pytest.mark.parametrize("which", [0, 1, 2])
def test_compiled_and_plain_python_agree_in_sink_state_and_position(which):
    rng = np.random.default_rng(3)
    kinds = rng.choice([0, 2, 2, 3, 4, 4, 5, 6, 8, 10, 14], 400)
    payload = np.where(kinds == 4, rng.choice([0, 1, 0xFFF], 400), rng.integers(0, 60, 400))
    words = np.concatenate(
        [
            np.array([w.time_high(0), w.addr_y(1), w.base_x(0), w.vect_12(5), w.vect_12(6), w.vect_8(7)]),
            kinds << 12 | payload,
        ]
    ).astype(np.uint16)
    results = []
    for walk in (kernels.walk_evt3, kernels.walk_evt3.py_func):
        sink, state, scratch = _sinks()[which], s.new_state(WIDTH, HEIGHT), s.new_scratch()
        edges = s.EdgeBuffer(np.zeros(99, np.int64), np.zeros(99, np.uint8), np.zeros(99, np.uint8))
        position, path = 0, []
        for t1_us in (0, 5, 20, NEVER):
            position = int(walk(words, position, t1_us, state, edges, scratch, sink))
            path.append((position, state.tolist(), _content(sink, int(state[s.PLACED]))))
        results.append((path, [column.tolist() for column in edges]))
    assert results[0] == results[1]


_UNCOMPILED = """
import numpy as np
from tests.events import words as w
from velora_edge.events.formats.raw.raw_walker import RawDecoder
rng = np.random.default_rng(9)
kinds = rng.choice([0, 2, 2, 3, 4, 4, 5, 6, 8, 10, 14], 500)
low = np.where(kinds == 4, rng.integers(0, 4096, 500), rng.integers(0, 60, 500))
words = (kinds << 12 | np.where(kinds == 0, low & 7, low)).tolist()
words[:2] = [w.time_high(1), w.addr_y(2)]
words[200:204] = [w.base_x(0), w.vect_12(0xFFF), w.vect_12(3), w.vect_8(255)]
decoder = RawDecoder("EVT3", (40, 8))
found = w.rows(decoder.feed(w.evt3(*words))), w.edge_rows(decoder.take_triggers())
assert found == w.decode_evt3(words, 40, 8), found
print(len(found[0]), len(found[1]))
"""


def test_every_kernel_also_runs_uncompiled():
    run = subprocess.run(
        [sys.executable, "-c", _UNCOMPILED],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    events, edges = map(int, run.stdout.split())
    assert events > 100
    assert edges > 10


def test_a_full_sink_stops_the_walk_and_the_next_goes_on():
    words = np.array([*START, *(w.addr_x(x) for x in range(40)), w.base_x(0), w.vect_12(0xFFF)], np.uint16)
    state = s.new_state(WIDTH, HEIGHT)
    edges = s.EdgeBuffer(np.zeros(1, np.int64), np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    position, events = 0, []
    for _ in range(60):
        sink = new_arrays(3)
        state[s.PLACED] = 0
        position = kernels.walk_evt3(words, position, NEVER, state, edges, s.new_scratch(), sink)
        events += sink.x[: state[s.PLACED]].tolist()
    assert position == len(words)
    assert events == [*range(40), *range(12)]
