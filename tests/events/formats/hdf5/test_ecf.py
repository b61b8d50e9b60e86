from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events.ecf_encoder import PACKED_XP, PACKED_YXP, RUNS, encode_ecf
from velora_edge.errors import RecordingError
from velora_edge.events.formats.hdf5 import ecf as kernels
from velora_edge.events.formats.hdf5.ecf import decode_ecf

# Five events by hand: a long step of 0x123 us, a run of y, a mask of x, a change of p.
T, X, Y, P = [1000, 1000, 1291, 1291, 1292], [7, 8, 9, 12, 3], [2, 2, 2, 2, 5], [1, 1, 0, 0, 1]
TIMES = bytes([0x02, 0xF3, 0xF2, 0xF1, 0x02, 0x11])


def header(n: int, layout: int, t0: int = 1000) -> bytes:
    return struct.pack("<I", n << 2 | layout) + struct.pack("<Q", t0)


def as_lists(chunk: bytes) -> tuple[list[int], list[int], list[int], list[int]]:
    batch = decode_ecf(chunk)
    return batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()


def test_runs_by_hand():
    rows = struct.pack("<HH", 2 << 5 | 4, 5 << 5 | 1)
    columns = struct.pack("<HH", 7 << 5 | 0b11001, 3 << 5)
    polarities = bytes([1 << 7 | 2, 2, 1 << 7 | 1])
    assert as_lists(header(5, 0) + TIMES + rows + columns + polarities) == (T, X, Y, P)


def test_packed_x_and_p_by_hand():
    rows = struct.pack("<HH", 2 << 5 | 4, 5 << 5 | 1)
    v = [x << 1 | p for x, p in zip(X, P, strict=True)]
    first = struct.pack("<3H", v[0] << 4 | v[1] & 15, (v[1] >> 4) << 8 | v[2], v[3])
    last = struct.pack("<3H", v[4] << 4, 0, 0)
    assert as_lists(header(5, 1) + TIMES + rows + first + last) == (T, X, Y, P)


def test_packed_y_x_and_p_by_hand():
    v = [y << 12 | x << 1 | p for x, y, p in zip(X, Y, P, strict=True)]
    first = struct.pack("<3I", v[0] << 8 | v[1] & 255, (v[1] >> 8) << 16 | v[2] & 65535, v[3])
    last = struct.pack("<3I", v[4] << 8, 0, 0)
    assert as_lists(header(5, 2) + TIMES + first + last) == (T, X, Y, P)


def test_no_events():
    assert as_lists(header(0, 0)) == ([], [], [], [])


def test_mask_bits_past_the_last_event_are_nobody_s():
    chunk = header(2, 0) + bytes([0x02]) + struct.pack("<HH", 2 << 5 | 2, 7 << 5 | 0b11111) + bytes([2])
    assert as_lists(chunk) == ([1000, 1000], [7, 8], [2, 2], [0, 0])


@pytest.mark.parametrize("layout", [RUNS, PACKED_XP, PACKED_YXP])
@pytest.mark.parametrize("n", [1, 14, 15, 16, 30, 31, 32, 126, 127, 128, 300, 65535])
def test_long_runs(layout, n):
    t, x, y, p = [5] * n, [i % 7 for i in range(n)], [1279] * n, [1] * n
    assert as_lists(encode_ecf(t, x, y, p, layout)) == (t, x, y, p)


events = st.lists(
    st.tuples(st.integers(0, 1 << 34), st.integers(0, 2047), st.integers(0, 2047), st.integers(0, 1)),
    min_size=1,
)


@given(events=events, layout=st.sampled_from([RUNS, PACKED_XP, PACKED_YXP]))
@settings(deadline=None)
def test_what_is_encoded_is_decoded(events, layout):
    t, x, y, p = map(list, zip(*sorted(events), strict=True))
    assert as_lists(encode_ecf(t, x, y, p, layout)) == (t, x, y, p)


@given(data=st.binary(max_size=200), n=st.integers(0, 300), layout=st.integers(0, 3))
@settings(deadline=None)
def test_random_bytes_are_refused_or_give_what_they_announce(data, n, layout):
    try:
        batch = decode_ecf(struct.pack("<I", n << 2 | layout) + data)
    except RecordingError:
        return
    assert len(batch) == n


@pytest.mark.parametrize("layout", [RUNS, PACKED_XP, PACKED_YXP])
def test_a_chunk_cut_off_anywhere_is_refused(layout):
    chunk = encode_ecf(T, X, Y, P, layout)
    for end in range(len(chunk)):
        with pytest.raises(RecordingError):
            decode_ecf(chunk[:end])


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (b"", "shorter than its header"),
        (header(65536, 0), "announces 65536 events"),
        (header(1, 0) + bytes([0xF1] * 17 + [0x01]), "cut off or damaged"),
        (header(1, 0) + bytes([0x02]), "cut off or damaged"),
        (header(1, 0) + bytes([0x01]) + struct.pack("<HH", 31, 2), "cut off or damaged"),
        (header(1, 0) + bytes([0x01]) + struct.pack("<HH", 1, 0) + bytes([127, 2, 0]), "cut off or damaged"),
    ],
)
def test_chunks_that_contradict_themselves_are_refused(chunk, message):
    with pytest.raises(RecordingError, match=message):
        decode_ecf(chunk)


@pytest.mark.parametrize("layout", [RUNS, PACKED_XP, PACKED_YXP])
def test_compiled_and_not_the_kernel_does_the_same(layout, monkeypatch):
    chunk = np.frombuffer(encode_ecf(T, X, Y, P, layout), np.uint8)
    for name in vars(kernels):
        if hasattr(getattr(kernels, name), "py_func"):
            monkeypatch.setattr(kernels, name, getattr(kernels, name).py_func)
    columns = np.zeros(5, np.int64), np.zeros(5, np.uint16), np.zeros(5, np.uint16), np.zeros(5, np.uint8)
    assert kernels.decode_chunk(chunk, layout, *columns) == len(chunk)
    assert [column.tolist() for column in columns] == [T, X, Y, P]
