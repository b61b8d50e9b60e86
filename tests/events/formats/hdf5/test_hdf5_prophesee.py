from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from tests.events.digests import digests
from tests.events.ecf_encoder import PACKED_XP, PACKED_YXP, RUNS, encode_ecf
from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats.hdf5.ecf import FILTER_ID

if TYPE_CHECKING:
    from pathlib import Path

EVENT = np.dtype({"names": list("xypt"), "formats": ["<u2", "<u2", "<i2", "<i8"], "offsets": [0, 2, 4, 8]})
TRIGGER = np.dtype(
    {"names": ["p", "t", "id"], "formats": ["<i2", "<i8", "<i2"], "offsets": [0, 8, 16], "itemsize": 24}
)
CHUNK = 4

T, X, Y, P = (
    [10, 10, 20, 30, 1000, 1000, 1001, 1015, 2000],
    [0, 1, 2, 3, 0, 1, 2, 3, 3],
    [0, 0, 1, 1, 1, 1, 0, 0, 1],
    [1, 0, 1, 0, 1, 1, 1, 0, 1],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "recording.hdf5", encoded_chunks())


def encoded_chunks() -> list[bytes]:
    layouts = (RUNS, PACKED_XP, PACKED_YXP)
    return [
        encode_ecf(*(c[4 * i : 4 * i + 4] for c in (T, X, Y, P)), layout) for i, layout in enumerate(layouts)
    ]


def write(path: Path, chunks: list[bytes], *, n: int = len(T), geometry: str | None = "4x2") -> Path:
    with h5py.File(path, "w") as file:
        if geometry is not None:
            file.attrs["geometry"] = geometry
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((CHUNK,))
        properties.set_filter(FILTER_ID, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((n,), (h5py.h5s.UNLIMITED,))
        group = file.create_group("CD")
        dataset = h5py.h5d.create(
            group.id, b"events", h5py.h5t.py_create(EVENT, logical=True), space, properties
        )
        for i, chunk in enumerate(chunks):
            dataset.write_direct_chunk((CHUNK * i,), chunk)
        file["EXT_TRIGGER/events"] = np.array([(1, 15, 6), (0, 25, 6)], TRIGGER)
    return path


def test_every_layout_of_a_chunk_is_decoded(path):
    with open_events(path) as reader:
        batch = reader.read()
        assert [c.tolist() for c in (batch.t_us, batch.x, batch.y, batch.p)] == [T, X, Y, P]
        assert (reader.format, reader.width, reader.height, reader.warnings) == ("HDF5 (Prophesee)", 4, 2, [])


def test_external_triggers_are_kept(path):
    edges = open_events(path).triggers()
    assert (edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist()) == ([15, 25], [6, 6], [1, 0])


def test_a_chunk_that_was_stored_without_the_filter_is_taken_as_it_is(tmp_path):
    path = write(tmp_path / "a.hdf5", encoded_chunks())
    rows = np.zeros(4, EVENT)
    for name, column in zip("txyp", (T, X, Y, P), strict=True):
        rows[name] = column[:4]
    with h5py.File(path, "a") as file:
        file["CD/events"].id.write_direct_chunk((0,), rows.tobytes(), filter_mask=1)
    assert open_events(path).read().t_us.tolist() == T


def test_a_file_written_again_with_another_filter_is_read(tmp_path):
    rows = np.zeros(len(T), EVENT)
    for name, column in zip("txyp", (T, X, Y, P), strict=True):
        rows[name] = column
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("CD/events", data=rows, compression="gzip")
    reader = open_events(tmp_path / "a.hdf5")
    assert reader.read().t_us.tolist() == T
    assert reader.warnings == ["the sensor's size is not in the file; its events reach 4x2, which is taken"]


def test_without_geometry_the_sensor_is_what_events_reach_or_what_is_passed(tmp_path):
    path = write(tmp_path / "a.hdf5", encoded_chunks(), geometry=None)
    measured, told = open_events(path), open_events(path, sensor=(640, 480))
    assert (measured.width, measured.height) == (4, 2)
    assert (told.width, told.height, told.warnings) == (640, 480, [])


def test_a_damaged_chunk_loses_its_events_only(tmp_path):
    chunks = encoded_chunks()
    reader = open_events(write(tmp_path / "a.hdf5", [chunks[0], b"\xff" * 40, chunks[2]]))
    assert reader.read().t_us.tolist() == [*T[:4], *T[8:]]
    assert reader.warnings == [
        "4 events are damaged and were left out "
        "(first at 4: an ECF chunk that announces 1073741823 events; 65535 is the most)"
    ]


def test_a_chunk_that_was_never_written_is_told(tmp_path):
    reader = open_events(write(tmp_path / "a.hdf5", encoded_chunks()[:2]))
    assert reader.read().t_us.tolist() == T[:8]
    assert reader.warnings == ["the file is incomplete: 9 events are announced, 1 of them are not there"]


def test_a_chunk_of_fewer_events_than_announced_is_told(tmp_path):
    reader = open_events(write(tmp_path / "a.hdf5", encoded_chunks(), n=12))
    assert len(reader.read()) == 9
    assert reader.warnings == ["the file is incomplete: 12 events are announced, 3 of them are not there"]


def test_an_index_beyond_the_last_event_tells_of_missing_ones(path):
    with h5py.File(path, "a") as file:
        file["CD/indexes"] = np.array([(0, 0), (400, 2000)], [("id", "u8"), ("ts", "i8")])
    reader = open_events(path)
    reader.read()
    assert reader.warnings == ["the recording is incomplete: its index goes to event 400, and 9 are there"]


def test_records_without_the_four_fields_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["CD/events"] = np.zeros(3, [("x", "u2"), ("y", "u2")])
    with pytest.raises(RecordingError, match="expected records with the fields t, x, y, p"):
        open_events(tmp_path / "a.hdf5")


def test_the_real_ecf_file_gives_the_evt3_sample_s_events_later_by_a_constant(shared_events):
    with open_events(shared_events / "derived_expelliarmus_evt3_sample.hdf5") as reader:
        batch = reader.read()
        assert (reader.width, reader.height, reader.warnings) == (1280, 720, [])
    batch.t_us[:] += 11718656 - 4096
    assert digests(batch) == {
        "t": "41a62d1aeed53a5b",
        "x": "1014ebcc18dcc912",
        "y": "81f935a5e5fb7398",
        "p": "a8c5419384b9b052",
    }


def test_the_real_incomplete_file_says_so(shared_events):
    with open_events(shared_events / "derived_ecpy_test1_evt3_triggers.hdf5") as reader:
        batch, edges = reader.read(), reader.triggers()
        assert (len(batch), int(batch.p.sum()), len(edges)) == (14030, 4299, 384)
        assert (int(batch.t_us[0]), int(batch.t_us[-1])) == (4613, 192552)
        assert digests(batch)["x"] == "859c35db70a6c74d"
        assert reader.warnings == [
            "the recording seems incomplete: 14,030 events are there, and they end 3,556 us before the "
            "external triggers do; if there is a .raw file of it, use that"
        ]


def test_the_real_incomplete_file_gives_the_first_events_of_its_raw_file(shared_events):
    part = open_events(shared_events / "derived_ecpy_test1_evt3_triggers.hdf5").read()
    whole = open_events(shared_events / "ecpy_test1_evt3_triggers.raw").read()[: len(part)]
    part.t_us[:] += 7135232
    assert digests(part) == digests(whole)
