from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from tests.events.digests import digests
from velora_edge import open_events
from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from velora_edge.events.base import EventReader

T, X, Y, P = [10, 20, 20, 35], [0, 3, 1, 2], [1, 0, 1, 1], [0, 1, 1, 0]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes an HDF5 file: datasets by path, attributes by "path@name"."""

    def write(contents: dict[str, Any], **options: Any) -> Path:
        path = tmp_path / "recording.h5"
        with h5py.File(path, "w") as file:
            for name, value in contents.items():
                where, _, attribute = name.partition("@")
                if attribute:
                    (file[where] if where else file).attrs[attribute] = value
                else:
                    file.create_dataset(name, data=value, **options)
        return path

    return write


def columns(group: str = "events", t: Any = T, **attributes: Any) -> dict[str, Any]:
    named = {f"{group}/{name}": np.asarray(v) for name, v in (("x", X), ("y", Y), ("p", P))}
    return {**named, f"{group}/t": np.asarray(t), **{f"@{k}": v for k, v in attributes.items()}}


def lists(reader: EventReader) -> tuple[list[int], list[int], list[int], list[int]]:
    batch = reader.read()
    return batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist()


def test_plain_columns_with_the_sensor_in_attributes(make):
    with open_events(make(columns(width=4, height=2))) as reader:
        assert lists(reader) == (T, X, Y, P)
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("HDF5", 4, 2, [])
        assert len(reader.triggers()) == 0


def test_columns_have_the_types_of_a_batch(make):
    batch = open_events(make(columns(width=4, height=2))).read()
    assert [c.dtype for c in (batch.t_us, batch.x, batch.y, batch.p)] == [
        np.int64,
        np.uint16,
        np.uint16,
        np.uint8,
    ]


def test_dsec_adds_t_offset_and_knows_its_sensor(make):
    contents = {
        **columns(t=np.asarray(T, np.uint32)),
        "ms_to_idx": np.zeros(1, np.uint64),
        "t_offset": 5 << 33,
    }
    with open_events(make(contents)) as reader:
        assert reader.read().t_us.tolist() == [(5 << 33) + t for t in T]
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("HDF5 (DSEC)", 640, 480, [])


def test_a_file_in_the_layout_of_dsec_may_come_from_a_larger_sensor(make):
    contents = {**columns(), "ms_to_idx": np.zeros(1, np.uint64), "t_offset": 0}
    contents["events/x"] = np.array([0, 3, 1279, 2])
    reader = open_events(make(contents))
    assert (reader.width, reader.height) == (1280, 2)
    assert reader.warnings == [
        "the sensor's size is not in the file; its events reach 1280x2, which is taken"
    ]


def test_tum_vie_knows_its_sensor(make):
    with open_events(make({**columns(), "ms_to_idx": np.zeros(1, np.uint64)})) as reader:
        assert (reader.format, reader.width, reader.height) == ("HDF5 (TUM-VIE)", 1280, 720)


def test_rvt_keeps_the_file_s_order_and_takes_minus_one_as_off(make):
    contents = {**columns(t=[10, 30, 20, 35]), "events/height": 240, "events/width": 304}
    contents["events/p"] = np.array([-1, 1, 1, -1], np.int16)
    reader = open_events(make(contents))
    assert lists(reader) == ([10, 30, 20, 35], X, Y, P)
    assert (reader.width, reader.height) == (304, 240)
    assert reader.warnings == ["1 events are earlier than one before them, by up to 10 us"]


def test_m3ed_takes_the_left_sensor_unless_told_otherwise(make):
    contents = {**columns("prophesee/left"), **columns("prophesee/right", t=[11, 21, 21, 36])}
    path = make(contents)
    left, right = open_events(path), open_events(path, part="right")
    assert left.read().t_us.tolist() == T
    assert right.read().t_us.tolist() == [11, 21, 21, 36]
    assert (right.format, right.width, right.height) == ("HDF5 (M3ED)", 1280, 720)
    assert open_events(f"{path}#right").read().t_us.tolist() == [11, 21, 21, 36]


def test_mvsec_has_tables_in_seconds(make):
    table = np.array([[3, 1, 1506.25, -1], [0, 2, 1506.250021, 1]], np.float64)
    reader = open_events(make({"davis/right/events": table}))
    assert lists(reader) == ([1506250000, 1506250021], [3, 0], [1, 2], [0, 1])
    assert (reader.format, reader.width, reader.height) == ("HDF5 (MVSEC)", 346, 260)


def test_event_utils_has_seconds_and_the_sensor_as_height_and_width(make):
    contents = {
        "events/xs": np.asarray(X, np.int16),
        "events/ys": np.asarray(Y, np.int16),
        "events/ts": np.array([0.5, 0.500001, 0.500002, 1.5]),
        "events/ps": np.asarray(P, np.bool_),
        "@sensor_resolution": np.array([180, 240]),
    }
    reader = open_events(make(contents))
    assert lists(reader) == ([500000, 500001, 500002, 1500000], X, Y, P)
    assert (reader.width, reader.height) == (240, 180)
    assert reader.warnings == ["the file does not tell the unit of time; taken as seconds by its values"]


def test_tables_of_integers_are_t_x_y_p(make):
    reader = open_events(make({"events": np.array([[10, 3, 1, 1], [20, 0, 0, 0]], np.uint32)}), sensor=(4, 2))
    assert lists(reader) == ([10, 20], [3, 0], [1, 0], [1, 0])


def test_records_go_by_the_names_of_their_fields(make):
    records = np.array([(1, 3, 1, 10)], [("p", "i1"), ("x", "u2"), ("y", "u2"), ("timestamp", "i8")])
    assert lists(open_events(make({"dvs/events": records}), sensor=(4, 2))) == ([10], [3], [1], [1])


def test_times_in_nanoseconds_are_recognised(make):
    t = [1_700_000_000_000_001_999 + 1000 * i for i in range(4)]
    reader = open_events(make(columns(t=t, width=4, height=2)))
    assert reader.read().t_us.tolist() == [1_700_000_000_000_001 + i for i in range(4)]
    assert reader.warnings == ["the file does not tell the unit of time; taken as nanoseconds by its values"]


def test_a_unit_that_the_file_tells_is_believed(make):
    reader = open_events(make({**columns(width=4, height=2), "events/t@unit": "ms"}))
    assert reader.read().t_us.tolist() == [1000 * t for t in T]


def test_a_file_of_many_recordings_warns_and_gives_each_by_its_number(make):
    path = make({**columns(t=[10, 20, 5, 35], sensor=[4, 4]), "offsets": np.array([0, 2, 4])})
    together, second = open_events(path), open_events(f"{path}#1")
    assert together.read().t_us.tolist() == [10, 20, 5, 35]
    assert together.warnings[0] == (
        "holds 2 recordings one after another, and time restarts at each; recording.h5#0 is the first of them"
    )
    with pytest.raises(RecordingError, match=r"choose one, from recording\.h5#0 to recording\.h5#1"):
        together.stream()
    assert second.read().t_us.tolist() == [5, 35]
    assert second.warnings == []
    assert second.stream().t_next_us == 5
    with pytest.raises(RecordingError, match="there is no recording 2; the file holds 2; count from 0"):
        open_events(path, part=2)


@pytest.mark.parametrize("filter_name", ["Zstd", "Blosc", "LZ4"])
def test_filters_of_hdf5plugin_are_decoded(make, filter_name):
    import hdf5plugin

    path = make(columns(sensor=[4, 2]), **getattr(hdf5plugin, filter_name)())
    assert lists(open_events(path)) == (T, X, Y, P)


def test_batches_follow_the_chunks_and_are_bounded(make):
    n = 300_000
    contents = {f"events/{name}": np.zeros(n, np.uint8) for name in "xyp"}
    path = make({**contents, "events/t": np.arange(n), "@sensor": [2, 2]}, chunks=(50_000,))
    sizes = [len(batch) for batch in open_events(path)]
    assert sizes == [100_000, 100_000, 100_000]


def test_reading_twice_gives_the_same_events_and_warnings(make):
    reader = open_events(make({**columns(t=[10, 5, 20, 35]), "events/p": np.array([0, 1, 7, 0])}))
    first, second = reader.read(), reader.read()
    assert digests(first) == digests(second)
    assert len(reader.warnings) == len(set(reader.warnings)) == 3


def test_columns_of_different_lengths_are_read_as_far_as_the_shortest(make):
    reader = open_events(make({**columns(width=4, height=2), "events/p": np.array([0, 1, 1])}))
    assert lists(reader) == (T[:3], X[:3], Y[:3], P[:3])
    assert reader.warnings == [
        "the columns differ in length (t 4, x 4, y 4, p 3); read as far as the shortest goes"
    ]


def test_events_that_no_sensor_could_have_are_left_out_and_counted(make):
    contents = columns(t=[0.1, np.nan, 0.2, 0.3], width=4, height=2)
    contents["events/x"] = np.array([0, 1, -5, 70000])
    reader = open_events(make(contents))
    assert lists(reader) == ([100000], [0], [1], [0])
    assert "3 events were left out: no sensor could have their time or coordinates" in reader.warnings


def test_a_damaged_chunk_loses_its_events_only(make):
    path = make({**columns(width=4, height=2), "events/t": np.arange(500_000)}, fletcher32=True)
    with h5py.File(path, "a") as file:
        for name in "xyp":
            del file[f"events/{name}"]
            file[f"events/{name}"] = np.zeros(500_000, np.uint8)
        where = file["events/t"].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[where.byte_offset + 100] ^= 255
    path.write_bytes(data)
    reader = open_events(path)
    n = len(reader.read())
    assert 0 < n < 500_000
    assert reader.warnings[0].startswith(
        f"{500_000 - n:,} events cannot be read and were left out (first at 0: "
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "expected datasets for t, x, y and p, or CD/events; the file has nothing in it"),
        ({"images": np.zeros((2, 2))}, "the file has images"),
        (
            {**columns(), "events/t": np.array([b"a", b"b", b"c", b"d"])},
            "expected one-dimensional numbers for t",
        ),
        ({f"events/{name}": np.zeros(0) for name in "xypt"}, "nor holds an event"),
        (columns("a/b"), "there is no 'c' in the file; choose from a/b"),
    ],
)
def test_unusable_files_are_refused_in_one_line(make, contents, message):
    part = "c" if "a/b/x" in contents else None
    with pytest.raises(RecordingError) as caught:
        open_events(make(contents), part=part)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"chunks": (2,), "maxshape": (None,)}, {}])
def test_rows_that_were_never_written_are_no_events(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in (("x", X), ("y", Y), ("p", P), ("t", T)):
            dataset = file.create_dataset(f"events/{name}", (1 << 48 if options else 4,), "i8", **options)
            if options:
                dataset[:4] = column
    reader = open_events(tmp_path / "a.h5", sensor=(4, 2))
    there = 4 if options else 0
    assert reader.read().t_us.tolist() == T[:there]
    announced = 1 << 48 if options else 4
    assert reader.warnings == [
        f"the file is incomplete: {announced:,} events are announced, {there} are there"
    ]


def test_a_file_cut_off_anywhere_is_refused_in_one_line(make, tmp_path):
    data = make(columns(width=4, height=2)).read_bytes()
    for n in (9, 100, len(data) // 2, len(data) - 1):
        cut = tmp_path / "cut.h5"
        cut.write_bytes(data[:n])
        with pytest.raises(RecordingError, match="HDF5 file is damaged"):
            open_events(cut)


def test_the_dsec_sample_of_a_real_recording(shared_events):
    with open_events(shared_events / "derived_faery_dsec.h5") as reader:
        batch = reader.read()
        assert (len(batch), int(batch.t_us[0]), int(batch.t_us[-1])) == (521252, 913716224, 913812095)
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("HDF5 (DSEC)", 640, 480, [])


def test_evt21_and_dsec_of_one_recording_give_the_same_events(shared_events):
    raw = open_events(shared_events / "derived_faery_evt21.raw").read()
    dsec = open_events(shared_events / "derived_faery_dsec.h5").read()
    assert digests(raw) == digests(dsec)


def test_nmnist_recordings_are_chosen_by_number(shared_nmnist):
    with h5py.File(shared_nmnist / "train_1000.h5") as file:
        start, stop = file["offsets"][3:5]
        expected = file["events/t"][start:stop].tolist()
    with open_events(shared_nmnist / "train_1000.h5", part=3) as reader:
        assert reader.read().t_us.tolist() == expected
        assert (reader.width, reader.height) == (34, 34)
