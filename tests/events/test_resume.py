"""Recordings resumed at a time give what they give when they are read from their beginning."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.events import aedat4_writer, test_hostile_files
from tests.events.words import edge_rows, rows
from velora_edge import open_events
from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events import seek_index as index_file
from velora_edge.events.seek_index import find_row
from velora_edge.events.writers import open_writer

REAL = [
    "ecpy_test1_evt3_triggers.raw",
    "expelliarmus_evt2_sample.raw",
    "expelliarmus_evt3_sample.raw",
    "derived_faery_evt21.raw",
    "derived_faery_dsec.h5",
    "derived_expelliarmus_evt3_sample.hdf5",
    "tonic_sample.aedat4",
    "tonic_sample_ncars.dat",
    "tonic_sample_nmnist.bin",
]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch, tmp_path):
    """Indices of short files, with places close to each other, and a cache of the test's own."""
    monkeypatch.setattr("velora_edge.events.seek_index.INDEX_FROM_BYTES", 1)
    monkeypatch.setattr("velora_edge.events.formats.raw.raw_index.SPACING_BYTES", 1 << 9)
    for name in (
        "arrays.PAIRS",
        "csv_text.LINES",
        "hdf5.hdf5.ROWS",
        "hdf5.hdf5_prophesee.ROWS",
        "numpy_files.ROWS",
    ):
        monkeypatch.setattr(f"velora_edge.events.formats.{name}", 16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def batch_of(t_us) -> EventBatch:
    t = np.array(t_us, np.int64)
    i = np.arange(len(t))
    return EventBatch(t, (i % 30).astype(np.uint16), (i % 20).astype(np.uint16), (i % 2).astype(np.uint8))


def rest_of(stream):
    """Every event and trigger edge that a stream still has."""
    with stream:
        parts = []
        while len(part := stream.read_batch(1 << 17, 2**62)):
            parts.append(part)
        rest = EventBatch.concatenate(parts)
        columns = (rest.t_us, rest.x, rest.y, rest.p)
        return [column.tobytes() for column in columns], edge_rows(stream.take_triggers())


def check_times(reader, times) -> None:
    for t_us in times:
        t_us = int(t_us)
        expected = reader.stream()
        expected.skip_until(t_us)
        expected.take_triggers()
        assert rest_of(reader.stream_from(t_us)) == rest_of(expected)


def write_raw(path, kind, t_us, edges=()):
    with open_writer(path, kind, width=64, height=48) as writer:
        if len(edges):
            writer.write_triggers(
                TriggerBatch(
                    np.array(edges, np.int64), np.zeros(len(edges), np.uint8), np.ones(len(edges), np.uint8)
                )
            )
        writer.write(batch_of(t_us))


@pytest.mark.parametrize("name", REAL)
def test_real_recordings(shared_events, tmp_path, name):
    path = tmp_path / name
    path.write_bytes((shared_events / name).read_bytes())
    for reader in (open_events(path), open_events(path)):  # the second one finds the first one's index
        t = reader.read().t_us
        check_times(reader, [t[0] - 5, t[0], t[0] + 1, *np.quantile(t, [0.3, 0.5, 0.99]), t[-1], t[-1] + 1])
        reader.close()


@pytest.mark.parametrize("make", test_hostile_files.FORMATS)
def test_every_format(tmp_path, make):
    path = tmp_path / "recording.bin"
    path.write_bytes(make())
    reader = open_events(path)
    check_times(reader, [-(2**40), 0, *range(395, 405), 7, 100, 201, 2**40])
    reader.close()


@pytest.mark.parametrize("kind", ["EVT3", "EVT2", "EVT2.1"])
def test_raw_over_the_turn_of_the_clock(tmp_path, kind):
    t = np.arange(2000) * 20_000 + (1 << 24) - 5_000_000
    write_raw(tmp_path / "a.raw", kind, t, edges=t[::100] + 3)
    check_times(open_events(tmp_path / "a.raw"), [0, t[0], *t[100::333], *(t[5::400] + 7), t[-1], t[-1] + 1])


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(["csv", "npy", "dat", "hdf5"]),
    t=st.lists(st.integers(0, 300), min_size=1, max_size=150),
    is_sorted=st.booleans(),
    t_us=st.lists(st.integers(-5, 305), min_size=1, max_size=4),
)
def test_times_in_any_order(tmp_path_factory, kind, t, is_sorted, t_us):
    path = tmp_path_factory.mktemp("resume") / "recording.bin"
    # Rows are found by halving, which is for times in order; the other files are looked through.
    batch = batch_of(sorted(t) if is_sorted or kind in ("npy", "hdf5") else t)
    if kind == "csv":
        lines = [b"%d,%d,%d,%d\n" % row for row in rows(batch)]
        path.write_bytes(b"t,x,y,p\n" + b"".join(lines))
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.stack([batch.t_us, batch.x, batch.y, batch.p], axis=1))
    elif kind == "dat":
        words = np.stack(
            [batch.t_us, batch.x | batch.y.astype(np.int64) << 14 | batch.p.astype(np.int64) << 28], 1
        )
        path.write_bytes(
            b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words.astype("<u4").tobytes()
        )
    else:
        with h5py.File(path, "w") as file:
            for name, column in zip("txyp", (batch.t_us, batch.x, batch.y, batch.p), strict=True):
                file.create_dataset(f"events/{name}", data=column, chunks=(16,), maxshape=(None,))
    with open_events(path, sensor=(64, 48)) as reader:
        check_times(reader, t_us)


@pytest.mark.parametrize("seed", range(5))
def test_rows_out_of_order_nearby_are_found(seed):
    rng = np.random.default_rng(seed)
    t = np.arange(5000) + rng.integers(0, 60, 5000)

    def read_times(start, stop):
        return t[start:stop]

    for t_us in rng.integers(-5, 5100, 50):
        first = int(np.argmax(t >= t_us)) if (t >= t_us).any() else len(t)
        found = find_row(read_times, len(t), t_us, probe=8, margin=64)
        assert found <= first
        assert found >= first - 200 or found == 0


def test_rows_that_cannot_be_read_are_begun_at_the_first():
    assert find_row(lambda start, stop: np.empty(0, np.int64), 100, 5, margin=4) == 0
    assert find_row(lambda start, stop: np.arange(start, stop), 0, 5, margin=4) == 0


def test_a_row_is_found_without_reading_them_all():
    read = []

    def read_times(start, stop):
        read.append(stop - start)
        return np.arange(start, stop) * 10

    assert find_row(read_times, 1_000_000, 7_000_005, margin=100) == 700_000
    assert sum(read) < 200


def first_batch(reader, t_us):
    return next(reader.batches_from(t_us))


def test_what_comes_before_is_not_read(tmp_path):
    batch = batch_of(range(0, 40_000, 4))
    lines = [b"%d,%d,%d,%d\n" % row for row in rows(batch)]
    (tmp_path / "a.csv").write_bytes(b"t,x,y,p\n" + b"".join(lines))
    np.save(tmp_path / "a.npy", np.stack([batch.t_us, batch.x, batch.y, batch.p], axis=1))
    words = np.stack([batch.t_us, batch.x | batch.y.astype(np.int64) << 14], 1).astype("<u4")
    (tmp_path / "a.dat").write_bytes(
        b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words.tobytes()
    )
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in zip("txyp", (batch.t_us, batch.x, batch.y, batch.p), strict=True):
            file.create_dataset(f"events/{name}", data=column, chunks=(16,), maxshape=(None,))
    for name in ("a.csv", "a.npy", "a.dat", "a.h5"):
        with open_events(tmp_path / name) as reader:
            assert 30_000 - 4 * 16 * 3 <= first_batch(reader, 30_001).t_us[0] <= 30_000


def test_an_aedat4_files_table_of_contents_is_used_and_not_believed_blindly(tmp_path):
    packets = [
        (0, aedat4_writer.events([(t, 1, 2, 1) for t in range(start, start + 10)])) for start in (0, 10, 20)
    ]
    streams = [aedat4_writer.stream(0, "EVTS", size=(30, 20))]
    for wrong in (0, 9):
        path = tmp_path / f"{wrong}.aedat4"
        contents = [(0, 9 - wrong), (10, 19 - wrong), (20, 29)]
        path.write_bytes(aedat4_writer.with_contents(streams, packets, contents))
        reader = open_events(path)
        assert reader.read().t_us.tolist() == list(range(30))
        expected = [20, 0, 10] if wrong == 0 else [20, 0, 0]
        assert [first_batch(reader, t_us).t_us[0] for t_us in (21, 9, 11 if wrong == 0 else 15)] == expected
        check_times(reader, range(-1, 32))


def index_of(path):
    return path.with_name(path.name + ".vidx")


def test_the_index_lies_beside_the_recording_and_is_read_the_next_time(tmp_path, monkeypatch):
    path = tmp_path / "a.raw"
    write_raw(path, "EVT3", np.arange(3000) * 5000)
    with open_events(path).stream_from(10_000_000) as stream:
        assert stream.t_next_us == 10_000_000
    assert index_of(path).read_bytes().startswith(b"VELORA INDEX 1\n{")

    def refuse(*args):
        raise AssertionError("the recording was looked through again")

    monkeypatch.setattr("velora_edge.events.formats.raw.raw_index.RawIndex._scan", refuse)
    with open_events(path).stream_from(9_000_000) as stream:
        assert stream.t_next_us == 9_000_000


@pytest.mark.parametrize("kind", ["raw", "csv"])
def test_an_index_grows_as_far_as_it_is_asked_for(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("velora_edge.events.formats.raw.raw_walker.CHUNK_BYTES", 1 << 10)
    path, t = tmp_path / f"a.{kind}", np.arange(3000) * 5000
    if kind == "raw":
        write_raw(path, "EVT3", t)
    else:
        path.write_bytes(b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % row for row in rows(batch_of(t))))
    sizes = []
    for t_us in (1_000_000, 500_000, 8_000_000, 2**40, 2**40):
        check_times(open_events(path, sensor=(64, 48)), [t_us])
        sizes.append(index_of(path).stat().st_size)
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3] == sizes[4]


@pytest.mark.parametrize("kind", ["raw", "dat"])
def test_a_stale_index_is_made_anew(tmp_path, kind):
    path = tmp_path / f"a.{kind}"

    def write(t):
        if kind == "raw":
            write_raw(path, "EVT3", t)
        else:
            words = np.stack([t, np.arange(len(t)) % 30], 1).astype("<u4")
            path.write_bytes(b"% Data file containing CD events.\n% Version 2\n\x0c\x08" + words.tobytes())

    t = np.arange(3000) * 5000
    write(t)
    check_times(open_events(path, sensor=(64, 48)), [7_000_000])
    before = index_of(path).read_bytes()
    write(t + 6_000_000)
    check_times(open_events(path, sensor=(64, 48)), [7_000_000])
    assert index_of(path).read_bytes() != before


def test_an_index_of_the_same_size_and_another_time_is_stale(tmp_path):
    path = tmp_path / "a.raw"
    write_raw(path, "EVT2", np.arange(3000) * 5000)
    kept = index_file.IndexFile(path, "kind", 2)
    kept.save(np.array([[1, 2]]), is_complete=True)
    assert kept.load()[0].tolist() == [[1, 2]]
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert kept.load()[0].tolist() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-9],
        lambda data: data.replace(b"INDEX 1", b"INDEX 9"),
        lambda data: data.replace(b'"rows": ', b'"rows": 99'),
        lambda data: data.replace(b'{"kind"', b'["kind"'),
        lambda data: b"VELORA INDEX 1\n" + b"[" * 100_000,
        lambda data: data.partition(b"}\n")[0] + b"}\n" + bytes(len(data.partition(b"}\n")[2])),
        lambda data: data.partition(b"}\n")[0] + b"}\n" + b"\xff" * len(data.partition(b"}\n")[2]),
    ],
)
@pytest.mark.parametrize("kind", ["raw", "csv"])
def test_a_damaged_index_does_no_harm(tmp_path, spoil, kind):
    path, t = tmp_path / f"a.{kind}", np.arange(3000) * 5000
    if kind == "raw":
        write_raw(path, "EVT3", t)
    else:
        path.write_bytes(b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % row for row in rows(batch_of(t))))
    check_times(open_events(path, sensor=(64, 48)), [7_000_000])
    index_of(path).write_bytes(spoil(index_of(path).read_bytes()))
    check_times(open_events(path, sensor=(64, 48)), [7_000_000, 14_000_001])


def test_beside_a_read_only_folder_the_index_lies_in_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "a.raw"
    write_raw(path, "EVT3", np.arange(3000) * 5000)
    write_bytes = type(path).write_bytes

    def refuse(self, data):  # tests may run as root, whom no mode keeps from writing
        if self.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return write_bytes(self, data)

    monkeypatch.setattr(type(path), "write_bytes", refuse)
    check_times(open_events(path), [7_000_000])
    assert not index_of(path).exists()
    assert [file.suffix for file in (tmp_path / "cache" / "velora-edge").iterdir()] == [".vidx"]
    monkeypatch.setattr("velora_edge.events.formats.raw.raw_index.RawIndex._scan", None)
    with open_events(path).stream_from(6_000_000) as stream:
        assert stream.t_next_us == 6_000_000


def test_where_nothing_can_be_written_there_is_no_index(tmp_path, monkeypatch):
    path = tmp_path / "a.raw"
    write_raw(path, "EVT3", np.arange(3000) * 5000)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    def refuse(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", refuse)
    check_times(open_events(path), [7_000_000])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.raw", "file"]


def test_a_short_recording_has_no_index(tmp_path, monkeypatch):
    monkeypatch.setattr("velora_edge.events.seek_index.INDEX_FROM_BYTES", 1 << 24)
    path = tmp_path / "a.raw"
    write_raw(path, "EVT3", np.arange(3000) * 5000)
    check_times(open_events(path), [7_000_000])
    assert [file.name for file in tmp_path.iterdir()] == ["a.raw"]


def test_events_between_two_times(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"t,x,y,p\n" + b"".join(b"%d,1,1,1\n" % t for t in (0, 5, 10, 7, 11, 20, 13, 30, 40, 60))
    )
    reader = open_events(path, sensor=(4, 4))

    def times(*span):
        return [t for batch in reader.between(*span) for t in batch.t_us.tolist()]

    assert times(7) == [10, 7, 11, 20, 13, 30, 40, 60]
    assert times(8, 20) == [10, 11, 13]
    assert times(61) == times(8, 8) == []
    assert reader.first_us() == 0


def test_a_recording_without_events_begins_nowhere(tmp_path):
    write_raw(tmp_path / "a.raw", "EVT2", [])
    reader = open_events(tmp_path / "a.raw")
    assert reader.first_us() is None
    assert list(reader.between(5)) == []
