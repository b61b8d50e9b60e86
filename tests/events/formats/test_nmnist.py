from __future__ import annotations

import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError
from velora_edge.events.formats import binary as nmnist


def event(t: int, x: int, y: int, p: int) -> bytes:
    return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])


OVERFLOW = event(0, 0, 240, 0)


@pytest.fixture
def write(tmp_path):
    def write(data: bytes, name: str = "00001.bin"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_events_by_hand(write):
    reader = open_events(write(event(1, 33, 0, 1) + event(0x7FFFFF, 0, 33, 0)))
    batch = reader.read()
    assert batch.t_us.tolist() == [1, 0x7FFFFF]
    assert (batch.x.tolist(), batch.y.tolist(), batch.p.tolist()) == ([33, 0], [0, 33], [1, 0])
    assert (reader.format, reader.width, reader.height, reader.warnings) == ("N-MNIST", 34, 34, [])


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_an_entry_at_row_240_adds_8192_us_and_is_no_event(write, monkeypatch, rows):
    monkeypatch.setattr(nmnist, "_EVENTS", rows)
    data = event(5, 1, 1, 0) + OVERFLOW + event(5, 2, 2, 0) + OVERFLOW + OVERFLOW + event(6, 3, 3, 1)
    assert open_events(write(data)).read().t_us.tolist() == [5, 8192 + 5, 3 * 8192 + 6]


def test_events_beyond_34x34_are_n_caltech101(write):
    reader = open_events(write(event(1, 200, 0, 1) + event(2, 0, 150, 0)))
    assert (reader.format, reader.width, reader.height) == ("N-Caltech101", 201, 151)


def test_content_decides_where_there_is_enough_of_it(write):
    data = b"".join(event(10 * i, i % 34, 3, 1) for i in range(64))
    assert open_events(write(data, "recording")).format == "N-MNIST"
    assert open_events(write(event(1, 1, 1, 1))).format == "N-MNIST"
    with pytest.raises(RecordingError, match="not a recording of any known format"):
        open_events(write(event(1, 1, 1, 1), "recording"))


def test_falling_times_are_no_nmnist(write):
    with pytest.raises(RecordingError, match="not a recording of any known format"):
        open_events(write(event(9, 1, 1, 1) + event(2, 1, 1, 1)))


@pytest.mark.parametrize("lost", range(1, 5))
def test_a_file_cut_off_inside_an_event_gives_the_events_before(write, lost):
    reader = open_events(write((event(1, 1, 1, 1) + event(2, 1, 1, 1))[:-lost]))
    assert reader.read().t_us.tolist() == [1]
    assert reader.warnings == [f"the file is cut off: the last {5 - lost} bytes are part of an event"]


def test_less_than_one_event_is_refused(write):
    with pytest.raises(RecordingError, match="expected events of 5 bytes, got 3 bytes in all"):
        open_events(write(b"abc"), format="N-MNIST")


def test_the_real_sample(shared_events):
    batch = open_events(shared_events / "tonic_sample_nmnist.bin").read()
    assert (len(batch), int(batch.p.sum()), int(batch.t_us[0]), int(batch.t_us[-1])) == (
        4325,
        2145,
        654,
        311175,
    )
