from __future__ import annotations

import zipfile

import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats import numpy_files

T, X, Y, P = [10, 20, 20, 35], [3, 0, 1, 2], [1, 0, 1, 1], [0, 1, 1, 0]
RECORDS = np.array(
    list(zip(X, Y, P, T, strict=True)), [("x", "<i2"), ("y", "<i2"), ("polarity", "?"), ("timestamp", "<i8")]
)
TABLE = np.ascontiguousarray(np.array([T, X, Y, P]).T)


@pytest.fixture
def save(tmp_path):
    def save(array=None, *, compressed=False, **arrays):
        if array is not None:
            path = tmp_path / "recording.npy"
            np.save(path, array)
        else:
            path = tmp_path / "recording.npz"
            (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return save


def columns(reader):
    b = reader.read()
    return [c.tolist() for c in (b.t_us, b.x, b.y, b.p)]


def test_records_go_by_the_names_of_their_fields(save):
    reader = open_events(save(RECORDS), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert (reader.format, reader.warnings) == ("NumPy", [])


def test_four_columns_are_t_x_y_p(save):
    assert columns(open_events(save(TABLE), sensor=(4, 2))) == [T, X, Y, P]


def test_four_columns_stored_column_by_column_are_the_same(save):
    assert columns(open_events(save(np.asfortranarray(TABLE)), sensor=(4, 2))) == [T, X, Y, P]


@pytest.mark.parametrize("order", ["xypt", "xytp"])
def test_other_orders_are_told_by_their_values(save, order):
    table = np.stack([TABLE[:, "txyp".index(role)] for role in order], axis=1)
    reader = open_events(save(table), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert reader.warnings == [f"the columns have no names; taken as {', '.join(order)} by their values"]


@pytest.mark.parametrize("compressed", [False, True])
def test_archives_hold_an_array_for_each_column_and_the_sensor(save, compressed):
    path = save(
        compressed=compressed,
        t=np.array(T),
        x=np.array(X),
        y=np.array(Y),
        p=np.array(P),
        width=640,
        height=480,
    )
    reader = open_events(path)
    assert columns(reader) == [T, X, Y, P]
    assert (reader.width, reader.height, reader.warnings) == (640, 480, [])


def test_archives_hold_one_array_of_records(save):
    assert columns(open_events(save(events=RECORDS, sensor=np.array([4, 2])))) == [T, X, Y, P]


def test_a_unit_in_the_name_of_the_times_is_believed(save):
    path = save(t_ms=np.array(T), x=np.array(X), y=np.array(Y), p=np.array(P))
    assert open_events(path).read().t_us.tolist() == [1000 * t for t in T]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("make", [lambda: TABLE, lambda: np.asfortranarray(TABLE), lambda: RECORDS])
def test_pieces_of_any_size_give_the_same(save, monkeypatch, rows, make):
    monkeypatch.setattr(numpy_files, "ROWS", rows)
    reader = open_events(save(make()), sensor=(4, 2))
    assert columns(reader) == [T, X, Y, P]
    assert max(len(batch) for batch in reader) <= rows


def test_an_array_that_is_cut_off_gives_the_rows_before(save):
    path = save(TABLE)
    path.write_bytes(path.read_bytes()[:-40])
    reader = open_events(path, sensor=(4, 2))
    assert columns(reader) == [T[:2], X[:2], Y[:2], P[:2]]
    assert reader.warnings == ["the file is cut off: 2 of 4 events are there"]


def test_an_archive_with_a_damaged_member_gives_the_rows_before(save):
    n = 300_000
    path = save(t=np.arange(n), x=np.zeros(n, int), y=np.zeros(n, int), p=np.zeros(n, int))
    data = bytearray(path.read_bytes())
    data[8 * n - 100] ^= 255
    path.write_bytes(bytes(data))
    reader = open_events(path, sensor=(4, 2))
    found = len(reader.read())
    assert n // 2 < found < n
    assert reader.warnings == [f"the file is cut off: {found:,} of 300,000 events are there"]


def test_columns_of_different_lengths_are_read_as_far_as_the_shortest(save):
    reader = open_events(save(t=np.array(T), x=np.array(X), y=np.array(Y), p=np.array(P[:3])), sensor=(4, 2))
    assert columns(reader) == [T[:3], X[:3], Y[:3], P[:3]]
    assert reader.warnings == [
        "the columns differ in length (t 4, x 4, y 4, p 3); read as far as the shortest goes"
    ]


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.save(tmp_path / "a.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(RecordingError, match="an array of Python objects, which can run any code"):
        open_events(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5)), "expected arrays t, x, y and p"),
        (np.zeros(3, [("a", "i4"), ("b", "i4")]), "expected fields t, x, y and p, got a, b"),
        (np.array([["a", "b", "c", "d"]]), "expected one-dimensional numbers for 0"),
        (np.array([[1, 2, 3, 4]]), "expected columns t, x, y, p"),
        (np.zeros((0, 4)), "nor holds an event"),
    ],
)
def test_arrays_without_events_are_refused(save, array, message):
    with pytest.raises(RecordingError, match=message):
        open_events(save(array))


def test_archives_without_events_are_refused(tmp_path, save):
    with pytest.raises(RecordingError, match=r"got a\.npy int64 \(3,\)"):
        open_events(save(a=np.zeros(3, np.int64)))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(RecordingError, match="a zip archive without arrays"):
        open_events(tmp_path / "b.zip")


def test_archives_cut_off_anywhere_are_refused(save, tmp_path):
    data = save(t=np.array(T), x=np.array(X), y=np.array(Y), p=np.array(P)).read_bytes()
    for n in (4, 50, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.npz").write_bytes(data[:n])
        with pytest.raises(RecordingError, match=r"the \.npz file is damaged or cut off"):
            open_events(tmp_path / "cut.npz")


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (-4,), }",
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807, 4), }",
        b"{'descr': '<i8', 'fortran_order': False}",
        b"{'descr': 'nonsense', 'fortran_order': False, 'shape': (4,), }",
        b"__import__('os')",
    ],
)
def test_hostile_headers_are_refused(tmp_path, header):
    padded = header.ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded)
    with pytest.raises(RecordingError, match="not an array of NumPy's"):
        open_events(tmp_path / "a.npy")


def test_a_shape_that_is_larger_than_the_file_costs_no_memory(tmp_path):
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (281474976710656, 4), }".ljust(117) + b"\n"
    data = np.array([[10, 1, 1, 1]], "<i8").tobytes()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    assert open_events(tmp_path / "a.npy", sensor=(4, 2)).read().t_us.tolist() == [10]
