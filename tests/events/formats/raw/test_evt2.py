from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.events import words as w
from velora_edge.events.accumulate.images import CountState
from velora_edge.events.formats.raw import _evt2_kernels as kernels
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import NEVER, RawDecoder, new_arrays
from velora_edge.events.kernels._frame_kernels import FullMap
from velora_edge.events.kernels._sink_kernels import ArraySink, CountSink, FrameSink

WIDTH, HEIGHT = 40, 8


def decode(*words, encoding="EVT2", legacy=True):
    decoder = RawDecoder(encoding, (WIDTH, HEIGHT), legacy)
    data = w.evt2(*words) if encoding == "EVT2" else w.evt21(*words, legacy=legacy)
    return w.rows(decoder.feed(data)), decoder


def test_an_event_adds_its_six_bits_to_the_high_time():
    events, decoder = decode(w.time_2(3), w.event_2(63, 39, 7, 1), w.time_2(4), w.event_2(0, 0, 0, 0))
    assert events == [(3 * 64 + 63, 39, 7, 1), (4 * 64, 0, 0, 0)]
    assert decoder.warnings() == []


def test_every_event_of_a_long_run_is_the_words_own():
    run = [(k % 64, k % WIDTH, k % HEIGHT, k % 2) for k in range(1000)]
    events, _ = decode(w.time_2(1), *(w.event_2(*event) for event in run))
    assert events == [(64 + t, x, y, p) for t, x, y, p in run]


def test_events_beyond_the_sensors_edge_are_dropped_and_counted():
    run = [w.event_2(0, x, 0) for x in range(20, 100)]
    events, decoder = decode(w.time_2(0), *run, w.event_2(0, 0, 8))
    assert events == [(0, x, 0, 1) for x in range(20, 40)]
    assert decoder.warnings() == ["61 events lie outside the sensor of 40x8 and were dropped"]


def test_words_before_the_first_time_are_dropped_and_counted():
    events, decoder = decode(*[w.event_2(0, 1, 1)] * 70, w.edge_2(0, 1, 1), w.time_2(1), w.event_2(0, 1, 1))
    assert events == [(64, 1, 1, 1)]
    assert decoder.warnings() == [
        "70 events come before the first time word; they have no time and were dropped",
        "1 trigger edge comes before the first time word and was dropped",
    ]


def test_28_bit_time_goes_on_after_its_turn():
    events, _ = decode(w.time_2((1 << 28) - 1), w.event_2(63, 0, 0), w.time_2(0), w.event_2(0, 0, 0))
    assert [event[0] for event in events] == [2**34 - 1, 2**34]


def test_time_high_going_back_a_little_is_no_turn():
    events, decoder = decode(w.time_2(9), w.event_2(0, 0, 0), w.time_2(8), w.event_2(0, 0, 0))
    assert [event[0] for event in events] == [9 * 64, 8 * 64]
    assert decoder.warnings() == ["the time steps back once; the events keep the camera's times"]


def test_trigger_edges_keep_time_channel_and_direction():
    _, decoder = decode(w.time_2(2), w.edge_2(5, 17, 1), w.edge_2(6, 0, 0), w.event_2(9, 0, 0))
    assert w.edge_rows(decoder.take_triggers()) == [(133, 17, 1), (134, 0, 0)]


def test_others_are_passed_over_and_unknown_words_counted():
    events, decoder = decode(w.time_2(0), 0xE0000001, 0xF0000001, 0x30000000, w.event_2(1, 2, 3))
    assert events == [(1, 2, 3, 1)]
    assert decoder.warnings() == ["1 word is of no type that EVT2 has and was passed over"]


@pytest.mark.parametrize("legacy", [True, False])
def test_evt21_gives_an_event_for_each_bit_of_its_mask(legacy):
    events, decoder = decode(
        (w.time_2(1), 0), (w.event_2(3, 0, 2, 0), 0x80000001), (w.event_2(4, 32, 2, 1), 0x1FF),
        (w.event_2(4, 32, 9, 1), 3), (w.edge_2(5, 1, 1), 0),
        encoding="EVT2.1", legacy=legacy,
    )  # fmt: skip
    assert events == [(67, 0, 2, 0), (67, 31, 2, 0), *((68, x, 2, 1) for x in range(32, 40))]
    assert decoder.warnings() == ["3 events lie outside the sensor of 40x8 and were dropped"]
    assert w.edge_rows(decoder.take_triggers()) == [(69, 1, 1)]


head = st.one_of(
    st.builds(
        w.event_2, st.integers(0, 63), st.integers(0, WIDTH), st.integers(0, HEIGHT), st.integers(0, 1)
    ),
    st.builds(w.time_2, st.sampled_from((0, 1, 2, 2**27, 2**28 - 2, 2**28 - 1))),
    st.builds(w.edge_2, st.integers(0, 63), st.integers(0, 31), st.integers(0, 1)),
    st.integers(0, 0xFFFFFFFF),
)


def _in_pieces(decoder, data, piece):
    events, edges = [], []
    for at in range(0, len(data), piece):
        events += w.rows(decoder.feed(data[at : at + piece]))
        edges += w.edge_rows(decoder.take_triggers())
    return events, edges


@given(st.lists(head, max_size=60), st.integers(1, 11))
def test_any_evt2_words_in_any_pieces_decode_as_the_plain_decoder_says(words, piece):
    decoded = _in_pieces(RawDecoder("EVT2", (WIDTH, HEIGHT)), w.evt2(*words), piece)
    assert decoded == w.decode_evt2(words, WIDTH, HEIGHT)


@given(st.lists(st.tuples(head, st.integers(0, 0xFFFFFFFF)), max_size=40), st.integers(1, 19), st.booleans())
def test_any_evt21_words_in_any_pieces_decode_as_the_plain_decoder_says(pairs, piece, legacy):
    data = w.evt21(*pairs, legacy=legacy)
    decoded = _in_pieces(RawDecoder("EVT2.1", (WIDTH, HEIGHT), legacy), data, piece)
    assert decoded == w.decode_evt21(pairs, WIDTH, HEIGHT)


def _sinks():
    table = FullMap(np.maximum(np.arange(WIDTH * HEIGHT, dtype=np.int32)[::-1] - 5, 0), WIDTH)
    return (
        new_arrays(100),
        FrameSink(table, CountState(np.full(WIDTH * HEIGHT * 2, 254, np.uint8))),
        CountSink(),
    )


def _content(sink, n):
    if isinstance(sink, ArraySink):
        return [column[:n].tolist() for column in sink]
    return sink.state.counts.tolist() if isinstance(sink, FrameSink) else n


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("encoding", ["EVT2", "EVT2.1"])
def test_compiled_and_plain_python_agree_in_sink_state_and_position(which, encoding):
    rng = np.random.default_rng(5)
    n = 300
    heads = rng.integers(0, 2, n) << 28 | rng.integers(0, 64, n) << 22 | rng.integers(0, 40, n) << 11
    heads[rng.integers(150, n, 20)] = [w.time_2(k) for k in range(20)]
    heads[rng.integers(150, n, 20)] |= 60 << 11
    heads[rng.integers(150, n, 10)] = 10 << 28
    heads[0] = w.time_2(0)
    words = heads.astype(np.uint32)
    extra = ()
    walk_both = kernels.walk_evt2
    if encoding == "EVT2.1":
        words = np.stack([words, rng.choice([0, 1, 0xFFFFFFFF], n).astype(np.uint32)], 1).ravel()
        extra, walk_both = (0,), kernels.walk_evt21
    results = []
    for walk in (walk_both, walk_both.py_func):
        sink, state, scratch = _sinks()[which], s.new_state(WIDTH, HEIGHT), s.new_scratch()
        edges = s.EdgeBuffer(np.zeros(9, np.int64), np.zeros(9, np.uint8), np.zeros(9, np.uint8))
        position, path = 0, []
        for t1_us in (0, 60, 64, NEVER, NEVER):
            position = int(walk(words, position, t1_us, state, edges, scratch, sink, *extra))
            path.append((position, state.tolist(), _content(sink, int(state[s.PLACED]))))
        results.append((path, [column.tolist() for column in edges]))
    assert results[0] == results[1]
