from __future__ import annotations

import importlib.util
import struct

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velora_edge import open_events
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError, RecordingError
from velora_edge.events.writers import WRITERS, format_of, open_writer
from velora_edge.events.writers.base import first_fault
from velora_edge.events.writers.raw import encode_evt2, encode_evt3, encode_evt21
from velora_edge.events.writers.text import encode_lines

ENDINGS = {"EVT3": "raw", "EVT2": "raw", "EVT2.1": "raw", "HDF5": "h5", "AEDAT4": "aedat4", "CSV": "csv"}
RAW = ("EVT3", "EVT2", "EVT2.1")
HAS_DV = importlib.util.find_spec("dv_processing") is not None
NEEDS_DV = pytest.mark.skipif(not HAS_DV, reason="needs dv-processing (the extra inivation)")
WRITTEN = sorted(kind for kind in WRITERS if kind != "AEDAT4" or HAS_DV)
KINDS = [pytest.param(kind, marks=[NEEDS_DV] if kind == "AEDAT4" else []) for kind in WRITERS]


def batch_of(*events: tuple[int, int, int, int]) -> EventBatch:
    """Events given as (t, x, y, p)."""
    t, x, y, p = zip(*events, strict=True) if events else ((), (), (), ())
    return EventBatch(
        np.array(t, np.int64), np.array(x, np.uint16), np.array(y, np.uint16), np.array(p, np.uint8)
    )


def triggers_of(*edges: tuple[int, int, int]) -> TriggerBatch:
    """Edges given as (t, id, p)."""
    t, number, p = zip(*edges, strict=True) if edges else ((), (), ())
    return TriggerBatch(np.array(t, np.int64), np.array(number, np.uint8), np.array(p, np.uint8))


def rows_of(triggers: TriggerBatch) -> list[tuple[int, int, int]]:
    return list(zip(triggers.t_us.tolist(), triggers.id.tolist(), triggers.p.tolist(), strict=True))


def write(path, kind, batches, triggers=(), width=64, height=8):
    with open_writer(path, kind, width=width, height=height) as writer:
        for edges in triggers:
            writer.write_triggers(edges)
        for batch in batches:
            writer.write(batch)
    return writer


def payload(path) -> bytes:
    return path.read_bytes().partition(b"% end\n")[2]


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__slots__)


EVT3_WORDS = [
    ("one event", [(5, 3, 2, 1)], [], [0x8000, 0x6005, 0x0002, 0x2803]),
    (
        "time and row are told when they change",
        [(5, 3, 2, 1), (5, 4, 2, 0), (6, 4, 2, 0), (6, 4, 3, 0)],
        [],
        [0x8000, 0x6005, 0x0002, 0x2803, 0x2004, 0x6006, 0x2004, 0x0003, 0x2004],
    ),
    (
        "four neighbours are cheaper as single events",
        [(0, 3, 0, 0), (0, 4, 0, 0), (0, 5, 0, 0), (0, 6, 0, 0)],
        [],
        [0x8000, 0x6000, 0x0000, 0x2003, 0x2004, 0x2005, 0x2006],
    ),
    (
        "five within 32 columns are a vector, whose three words are all there",
        [(0, 3, 0, 1), (0, 5, 0, 1), (0, 10, 0, 1), (0, 20, 0, 1), (0, 34, 0, 1)],
        [],
        [0x8000, 0x6000, 0x0000, 0x3803, 0x4085, 0x4020, 0x5080],
    ),
    (
        "a vector lies on the sensor with all its pixels",
        [(0, x, 0, 0) for x in range(59, 64)],
        [],
        [0x8000, 0x6000, 0x0000, 0x3020, 0x4000, 0x4000, 0x50F8],
    ),
    (
        "a long run needs one base, and the second vector pays from four events on",
        [(0, x, 0, 0) for x in (*range(32), 32, 40, 50, 63)],
        [],
        [0x8000, 0x6000, 0x0000, 0x3000, 0x4FFF, 0x4FFF, 0x50FF, 0x4101, 0x4040, 0x5080],
    ),
    (
        "columns that go back begin anew",
        [(0, 3, 0, 1), (0, 4, 0, 1), (0, 5, 0, 1), (0, 6, 0, 1), (0, 7, 0, 1), (0, 7, 0, 1)],
        [],
        [0x8000, 0x6000, 0x0000, 0x3803, 0x401F, 0x4000, 0x5000, 0x2807],
    ),
    (
        "every TIME_HIGH of a gap",
        [(0, 0, 0, 0), (3 * 4096 + 1, 0, 0, 0)],
        [],
        [0x8000, 0x6000, 0x0000, 0x2000, 0x8001, 0x8002, 0x8003, 0x6001, 0x2000],
    ),
    (
        "edges stand where their time is",
        [(5, 3, 2, 1), (7, 3, 2, 1)],
        [(5, 1, 1), (6, 1, 0), (9, 0, 1)],
        [0x8000, 0x6005, 0xA101, 0x0002, 0x2803, 0x6006, 0xA100, 0x6007, 0x2803, 0x6009, 0xA001],
    ),
    (
        "a first time past the wrap leads the decoder there",
        [((4096 + 3) * 4096, 0, 0, 0)],
        [],
        [0x8000, 0x8400, *range(0x8401, 0x9000), 0x8000, 0x8001, 0x8002, 0x8003, 0x6000, 0x0000, 0x2000],
    ),
]


@pytest.mark.parametrize(
    ("events", "edges", "words"), [c[1:] for c in EVT3_WORDS], ids=[c[0] for c in EVT3_WORDS]
)
def test_evt3_words(tmp_path, events, edges, words):
    path = tmp_path / "a.raw"
    write(path, "EVT3", [batch_of(*events)], [triggers_of(*edges)])
    assert list(struct.unpack(f"<{len(payload(path)) // 2}H", payload(path))) == words


def test_evt2_words(tmp_path):
    path = tmp_path / "a.raw"
    write(path, "EVT2", [batch_of((70, 3, 2, 1), (71, 63, 7, 0))], [triggers_of((71, 2, 1), (200, 2, 0))])
    assert struct.unpack("<6I", payload(path)) == (
        0x80000001, 0x10000000 | 6 << 22 | 3 << 11 | 2, 0xA0000000 | 7 << 22 | 2 << 8 | 1,
        7 << 22 | 63 << 11 | 7, 0x80000003, 0xA0000000 | 8 << 22 | 2 << 8,
    )  # fmt: skip


def test_evt21_words(tmp_path):
    path = tmp_path / "a.raw"
    events = [(70, 31, 2, 1), (70, 32, 2, 1), (70, 35, 2, 1), (70, 35, 2, 1)]
    write(path, "EVT2.1", [batch_of(*events)], [triggers_of((70, 2, 1))])
    assert struct.unpack("<5Q", payload(path)) == (
        0x8 << 60 | 1 << 32, 0xA << 60 | 6 << 54 | 2 << 40 | 1 << 32,
        0x1 << 60 | 6 << 54 | 0 << 43 | 2 << 32 | 1 << 31,
        0x1 << 60 | 6 << 54 | 32 << 43 | 2 << 32 | 0b1001,
        0x1 << 60 | 6 << 54 | 32 << 43 | 2 << 32 | 0b1000,
    )  # fmt: skip


def test_csv_bytes(tmp_path):
    path = tmp_path / "a.csv"
    events = [(-9223372036854775807, 0, 7, 1), (0, 63, 0, 0), (1605537493718345, 10, 1, 1), (-10, 9, 1, 0)]
    write(path, "CSV", [batch_of(*events)])
    lines = "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in events)
    assert path.read_text() == "t,x,y,p\n" + lines


def test_hdf5_has_the_layout_of_dsec(tmp_path):
    path = tmp_path / "a.h5"
    first = 5_000_300
    events = [(first + t, t % 64, 3, t % 2) for t in (0, 999, 1000, 1001, 4000)]
    write(path, "HDF5", [batch_of(*events[:2]), batch_of(*events[2:])])
    with h5py.File(path) as file:
        kinds = {name: str(file["events"][name].dtype) for name in "xypt"}
        assert kinds == {"x": "uint16", "y": "uint16", "p": "uint8", "t": "uint32"}
        assert file["events/t"][:].tolist() == [0, 999, 1000, 1001, 4000]
        assert file["t_offset"][()] == first
        assert file["ms_to_idx"][:].tolist() == [0, 2, 4, 4, 4]
        assert (file["events/width"][()], file["events/height"][()]) == (64, 8)
        assert all(file["events"][name].chunks for name in "xypt")


def test_hdf5_times_widen_after_71_minutes(tmp_path):
    path = tmp_path / "a.h5"
    before, after = batch_of((7, 1, 1, 1), (8, 2, 2, 0)), batch_of((7 + 2**32, 3, 3, 1))
    write(path, "HDF5", [before, after])
    with h5py.File(path) as file:
        assert file["events/t"].dtype == np.int64
        assert len(file["ms_to_idx"]) == 2**32 // 1000 + 1
        assert "t_wide" not in file["events"]
    assert open_events(path).read().t_us.tolist() == [7, 8, 7 + 2**32]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_recording_is_a_whole_file(tmp_path, kind):
    path = tmp_path / f"a.{ENDINGS[kind]}"
    assert write(path, kind, [batch_of()]).events_written == 0
    if kind == "CSV":
        assert path.read_text() == "t,x,y,p\n"
    else:
        assert len(open_events(path).read()) == 0


event_lists = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 5000), st.integers(0, 40_000_000)),
        st.integers(0, 63), st.integers(0, 7), st.integers(0, 1), st.integers(1, 40),
    ),
    max_size=40,
)  # fmt: skip
edge_lists = st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 15), st.integers(0, 1)))


def _runs(drawn) -> EventBatch:
    """Runs of neighbouring columns, each a while after the one before it."""
    rows, now = [], 0
    for gap, x, y, p, length in drawn:
        now += gap
        rows += [(now, column, y, p) for column in range(x, min(x + length, 64))]
    return batch_of(*rows)


@settings(max_examples=60, deadline=None)
@given(drawn=event_lists, edges=edge_lists, cut=st.integers(0, 200), kind=st.sampled_from(WRITTEN))
def test_decoding_gives_back_what_was_encoded(tmp_path_factory, drawn, edges, cut, kind):
    path = tmp_path_factory.mktemp("w") / f"a.{ENDINGS[kind]}"
    batch, triggers = _runs(drawn), triggers_of(*sorted(edges, key=lambda edge: edge[0]))
    writer = write(path, kind, [batch[:cut], batch[cut:]], [triggers])
    if kind == "CSV" and not len(batch):
        return  # no line from which a reader could tell the columns
    reader = open_events(path, sensor=(64, 8))
    assert same(reader.read(), batch)
    assert (reader.width, reader.height, reader.warnings) == (64, 8, [])
    if kind in RAW or kind == "AEDAT4":
        told = triggers_of(*[edge for edge in rows_of(triggers) if kind in RAW or edge[1] < 2])
        assert same(reader.triggers(), told)
        lost = len(triggers) - len(told)
        assert (writer.triggers_written, writer.triggers_dropped) == (len(told), lost)
    else:
        assert (writer.triggers_written, writer.triggers_dropped) == (0, len(triggers))


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("start", [0, 2**24 - 1, 2**24 * 5 + 77, 2**34 - 1, 2**40 + 5])
def test_times_are_kept_over_wraps_and_long_gaps(tmp_path, kind, start):
    path = tmp_path / "a.raw"
    gaps = np.array([0, 1, 63, 64, 4096, 2**24 - 1, 2**24, 2**24 + 1, 2**26, 2**30, 7])
    t = start + np.cumsum(gaps)
    batch = batch_of(*[(int(now), 1, 1, 1) for now in t])
    write(path, kind, [batch])
    assert same(open_events(path).read(), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_real_recording_survives_the_way_through_each_format(tmp_path, shared_events, kind):
    source = open_events(shared_events / "ecpy_test1_evt3_triggers.raw")
    path = tmp_path / f"a.{ENDINGS[kind]}"
    write(path, kind, source, [source.triggers()], source.width, source.height)
    copy = open_events(path, sensor=(640, 480))
    assert same(copy.read(), source.read())
    if kind in RAW:
        assert same(copy.triggers(), source.triggers())


def test_vectors_make_dense_evt3_smaller_than_single_events(tmp_path, shared_events):
    source = open_events(shared_events / "expelliarmus_evt3_sample.raw")
    path = tmp_path / "a.raw"
    write(path, "EVT3", source, [], 1280, 720)
    assert path.stat().st_size <= (shared_events / "expelliarmus_evt3_sample.raw").stat().st_size


def test_more_words_than_the_buffer_holds(tmp_path):
    n = 300_000
    batch = EventBatch(
        np.arange(n) * 3, (np.arange(n) * 7 % 64).astype(np.uint16), (np.arange(n) % 8).astype(np.uint16),
        (np.arange(n) % 2).astype(np.uint8),
    )  # fmt: skip
    for kind in RAW:
        path = tmp_path / f"{kind}.raw"
        write(path, kind, [batch])
        assert same(open_events(path).read(), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_file_that_failed(tmp_path, kind):
    path = tmp_path / f"a.{ENDINGS[kind]}"
    path.write_text("older")
    writer = open_writer(path, kind, width=64, height=8)
    writer.write(batch_of((1, 2, 3, 1)))
    with pytest.raises(ZeroDivisionError), writer:
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "older"
    writer.close()  # does nothing any more
    assert path.read_text() == "older"


def test_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.raw"
    writer = open_writer(path, width=64, height=8)
    writer.write(batch_of((1, 2, 3, 1)))
    assert not path.exists()
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.raw"]


@pytest.mark.parametrize(
    ("kind", "events", "words"),
    [
        ("EVT3", [(1, 64, 0, 0)], ["event 1", "x=64 y=0", "64x8", "--sensor"]),
        ("CSV", [(1, 0, 8, 0)], ["event 1", "x=0 y=8", "64x8"]),
        ("HDF5", [(1, 0, 0, 2)], ["event 1", "polarity of 0 or 1, got 2"]),
        ("EVT2", [(0, 0, 0, 0)], ["event 1", "t=0 us is earlier", "(1 us)", "CSV"]),
        ("HDF5", [(5, 0, 0, 0), (4, 0, 0, 0)], ["event 2", "t=4 us is earlier", "(5 us)"]),
        ("EVT3", [(2**44, 0, 0, 0)], ["17592186044416", "--rebase"]),
    ],
)  # fmt: skip
def test_event_that_cannot_be_told_is_named(tmp_path, kind, events, words):
    path = tmp_path / "a"
    with pytest.raises(InputError) as caught:
        write(path, kind, [batch_of((1, 1, 1, 1)), batch_of(*events)])
    assert all(word in str(caught.value) for word in [str(path), *words])
    assert list(tmp_path.iterdir()) == []


def test_times_before_zero_are_refused_where_they_cannot_be_told(tmp_path):
    with (
        pytest.raises(InputError, match="got -5"),
        open_writer(tmp_path / "a.raw", width=4, height=4) as writer,
    ):
        writer.write(batch_of((-5, 0, 0, 0), (1, 0, 0, 0)))


def test_csv_keeps_any_order_of_times(tmp_path):
    path = tmp_path / "a.csv"
    batch = batch_of((9, 1, 1, 1), (3, 2, 2, 0), (5, 3, 3, 1))
    write(path, "CSV", [batch])
    assert same(open_events(path, sensor=(64, 8)).read(), batch)


@pytest.mark.parametrize("edges", [[(4, 0, 1)], [(9, 0, 1), (8, 0, 0)]])
def test_trigger_edges_that_come_late_are_refused(tmp_path, edges):
    writer = open_writer(tmp_path / "a.raw", width=64, height=8)
    writer.write(batch_of((5, 1, 1, 1)))
    with pytest.raises(InputError, match="earlier than what was written before"):
        writer.write_triggers(triggers_of(*edges))
    writer.abort()


def test_trigger_edges_of_two_calls_are_in_order(tmp_path):
    writer = open_writer(tmp_path / "a.raw", width=64, height=8)
    writer.write_triggers(triggers_of((9, 0, 1)))
    with pytest.raises(InputError, match=r"earlier than what was written before it \(9 us\)"):
        writer.write_triggers(triggers_of((7, 0, 0)))
    writer.abort()


def test_trigger_input_that_has_no_number_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"inputs 0 to 15 .* got input 16"):
        write(tmp_path / "a.raw", "EVT3", [], [triggers_of((5, 16, 1))])


@pytest.mark.parametrize(("kind", "side"), [("EVT3", 2049), ("EVT2", 0), ("CSV", 65537)])
def test_sensor_without_room_is_refused(tmp_path, kind, side):
    with pytest.raises(InputError, match=f"got {side}x4"):
        open_writer(tmp_path / "a", kind, width=side, height=4)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_does_not_exist_is_named(tmp_path):
    for kind in WRITTEN:
        with pytest.raises(RecordingError, match=r"nowhere.*cannot be written"):
            open_writer(tmp_path / "nowhere" / "a", kind, width=4, height=4)


def test_format_goes_by_the_ending_or_by_its_name(tmp_path):
    assert [format_of(f"a.{ending}") for ending in ("raw", "h5", "HDF5", "csv")] == [
        "EVT3",
        "HDF5",
        "HDF5",
        "CSV",
    ]
    with pytest.raises(InputError, match=r"ends in .raw, .h5, .hdf5, .aedat4, .csv, got '.dat'"):
        format_of("a.dat")
    with pytest.raises(InputError, match="'EVT9'; there are EVT3"):
        open_writer(tmp_path / "a", "EVT9", width=4, height=4)


@pytest.mark.parametrize(
    ("encode", "kind"), [(encode_evt3, np.uint16), (encode_evt2, np.uint32), (encode_evt21, np.uint64)]
)
@pytest.mark.parametrize("room", [8, 13, 4096])
def test_encoder_stopped_anywhere_goes_on_as_if_it_had_not(encode, kind, room):
    batch = _runs([(0, 3, 1, 1, 30), (5, 0, 2, 0, 2), (70_000, 9, 2, 0, 3), (0, 8, 3, 1, 12)])
    events = (batch.t_us, batch.x, batch.y, batch.p)
    triggers = triggers_of((1, 3, 1), (70_004, 3, 0), (10**6, 1, 1))
    edges = (triggers.t_us, triggers.id, triggers.p)

    def run(function, size):
        words, at, state = np.zeros(size, kind), np.zeros(2, np.int64), np.array([-1, -1, -1, 64])
        out = []
        while at[0] < len(batch) or at[1] < len(triggers):
            out += words[: function(events, edges, state, at, words)].tolist()
        return out

    whole, plain = run(encode, 10_000), run(encode.py_func, 10_000)
    assert whole == plain
    parts = run(encode, room)
    if encode is encode_evt3:  # a vector word may need its base once more
        assert len(parts) >= len(whole)
        whole, parts = (decoded(words) for words in (whole, parts))
    assert parts == whole


def decoded(words: list[int]) -> list[tuple[int, ...]]:
    """A plain EVT3 decoder for streams without wraps."""
    events, high, low, y, x, p = [], 0, 0, 0, 0, 0
    for word in words:
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            y = value
        elif kind == 2:
            events.append((high << 12 | low, value & 0x7FF, y, value >> 11))
        elif kind == 3:
            x, p = value & 0x7FF, value >> 11
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            events += [(high << 12 | low, x + i, y, p) for i in range(width) if value >> i & 1]
            x += width
        elif kind == 6:
            low = value
        elif kind == 8:
            high = value
        elif kind == 0xA:
            events.append((high << 12 | low, value >> 8, value & 1))
    return events


def test_text_kernel_compiled_and_not_compiled_agree():
    batch = batch_of((-120, 0, 10, 1), (0, 65535, 9, 0), (10**15, 100, 1000, 1))
    columns = (batch.t_us, batch.x, batch.y, batch.p)
    texts = []
    for function in (encode_lines, encode_lines.py_func):
        text = np.zeros(200, np.uint8)
        with np.errstate(over="ignore"):
            texts.append(bytes(text[: function(*columns, text)]))
    assert texts[0] == texts[1] == b"-120,0,10,1\n0,65535,9,0\n1000000000000000,100,1000,1\n"


def test_fault_finder_compiled_and_not_compiled_agree():
    batch = batch_of((1, 1, 1, 1), (0, 1, 1, 1), (0, 9, 1, 1))
    arguments = (batch.t_us, batch.x, batch.y, batch.p, 4, 4, 0)
    for function in (first_fault, first_fault.py_func):
        assert [tuple(function(*arguments, ordered)) for ordered in (True, False)] == [(1, 2), (2, 1)]
