from __future__ import annotations

import struct

import pytest

from velora_edge import open_events
from velora_edge.errors import RecordingError

HEADER = b"% Data file containing CD events.\n% Version 2\n% Height 2\n% Width 4\n"
EVENTS = [(10, 0, 1, 0), (20, 3, 0, 1), (20, 1, 1, 1), (35, 2, 1, 0)]


def payload(events=EVENTS, *, kind=0x0C, x_bits=14, y_bits=14) -> bytes:
    words = [(t, x | y << x_bits | p << (x_bits + y_bits)) for t, x, y, p in events]
    return bytes([kind, 8]) + b"".join(struct.pack("<II", *word) for word in words)


@pytest.fixture
def write(tmp_path):
    def write(data: bytes):
        path = tmp_path / "recording.dat"
        path.write_bytes(data)
        return path

    return write


def rows(reader):
    b = reader.read()
    return list(zip(b.t_us.tolist(), b.x.tolist(), b.y.tolist(), b.p.tolist(), strict=True))


@pytest.mark.parametrize("kind", [0x00, 0x0C])
def test_version_2_by_hand(write, kind):
    reader = open_events(write(HEADER + payload(kind=kind)))
    assert rows(reader) == EVENTS
    assert (reader.format, reader.width, reader.height, reader.warnings) == ("DAT v2", 4, 2, [])


def test_version_1_has_narrower_fields(write):
    header = HEADER.replace(b"Version 2", b"Version 1")
    reader = open_events(
        write(header + payload([(1, 303, 239, 1), (2, 511, 255, 0)], x_bits=9, y_bits=8)), sensor=(512, 256)
    )
    assert rows(reader) == [(1, 303, 239, 1), (2, 511, 255, 0)]
    assert reader.format == "DAT v1"


def test_a_header_without_its_usual_first_line_is_told_from_raw_by_what_follows(write):
    reader = open_events(write(b"% Version 2\n% Width 4\n% Height 2\n" + payload()))
    assert reader.format == "DAT v2"


def test_any_polarity_but_0_is_on(write):
    assert rows(open_events(write(HEADER + payload([(1, 0, 0, 3)])))) == [(1, 0, 0, 1)]


def test_without_a_size_the_sensor_is_what_events_reach_or_what_is_passed(write):
    path = write(b"% Data file containing events.\n% Version 2\n" + payload())
    measured, told = open_events(path), open_events(path, sensor=(640, 480))
    assert (measured.width, measured.height) == (4, 2)
    assert measured.warnings == ["the sensor's size is not in the file; its events reach 4x2, which is taken"]
    assert (told.width, told.height, told.warnings) == (640, 480, [])


def test_times_wrap_after_71_minutes_and_late_events_around_the_wrap_keep_their_place(write):
    times = [(1 << 32) - 16, 5, (1 << 32) - 8, 7, 7, 3]
    reader = open_events(write(HEADER + payload([(t, 0, 0, 0) for t in times])))
    wrap = 1 << 32
    assert reader.read().t_us.tolist() == [wrap - 16, wrap + 5, wrap - 8, wrap + 7, wrap + 7, wrap + 3]


def test_wraps_are_counted_across_batches(write, monkeypatch):
    from velora_edge.events.formats import arrays

    monkeypatch.setattr(arrays, "PAIRS", 2)
    times = [0, 2_000_000_000, 4_000_000_000, 100, 2_000_000_000, 4_000_000_000, 50]
    reader = open_events(write(HEADER + payload([(t, 0, 0, 0) for t in times])))
    wrap = 1 << 32
    assert [batch.t_us.tolist() for batch in reader] == [
        [0, 2_000_000_000],
        [4_000_000_000, wrap + 100],
        [wrap + 2_000_000_000, wrap + 4_000_000_000],
        [2 * wrap + 50],
    ]


def test_a_file_of_triggers_gives_triggers(write):
    words = [(10, 1 | 6 << 26), (25, 0 | 6 << 26)]
    data = bytes([0x0E, 8]) + b"".join(struct.pack("<II", *word) for word in words)
    reader = open_events(write(HEADER + data))
    edges = reader.triggers()
    assert (edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist()) == ([10, 25], [6, 6], [1, 0])
    assert len(reader.read()) == 0
    assert reader.warnings == ["the file holds external triggers and no events"]


@pytest.mark.parametrize("lost", range(1, 8))
def test_a_file_cut_off_inside_an_event_gives_the_events_before(write, lost):
    reader = open_events(write((HEADER + payload())[:-lost]))
    assert rows(reader) == EVENTS[:3]
    assert reader.warnings == [f"the file is cut off: the last {8 - lost} bytes are half an event"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER, "ends with its header"),
        (HEADER + b"\x0c", "ends with its header"),
        (HEADER + b"\x28\x24" + bytes(36), "got type 40 with 36"),
        (HEADER.replace(b"Version 2", b"Version 9") + payload(), "expected DAT version 1 or 2, got 9"),
        (b"% Data file containing\n\x00\x08", "nor holds an event"),
    ],
)
def test_unusable_files_are_refused_in_one_line(write, data, message):
    with pytest.raises(RecordingError, match=message):
        open_events(write(data))


def test_the_real_sample_without_a_size(shared_events):
    reader = open_events(shared_events / "tonic_sample_ncars.dat")
    batch = reader.read()
    assert (len(batch), int(batch.t_us[0]), int(batch.t_us[-1])) == (2009, 0, 99952)
    assert (reader.format, reader.width, reader.height) == ("DAT v2", 78, 42)
